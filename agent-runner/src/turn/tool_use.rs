//! Answering one tool call. Exactly one result each, whatever happens.

use std::time::Duration;

use ipc_schema::letters::from_agent::{Activity, Message, Outcome};
use ipc_schema::letters::request::Answer;
use ipc_schema::letters::to_agent::{InterruptWhy, ToolVerdict, Verdict};
use ipc_schema::letters::{FromAgent, Request};
use ipc_schema::{LetterId, TurnId};

use super::decide::{self, ToolUse};
use super::interruptible::{Attended, Doing, attend, await_verdict};
use super::{Agent, Course, Parted};
use crate::error::Fatal;
use crate::mailbox::outbox::fit;
use crate::model::Model;
use crate::tool_policy;
use crate::tools::{self, Call, Local, NewPersonality, Output, SendMessage, Wanted};
use crate::transcript::{Asked, Body, ToolResult};

/// A verdict on a request may take its time; the host hears every ten seconds that it is waited for.
const VERDICT_LIMIT: Duration = Duration::from_secs(600);

/// The result of a question that somebody wrote past.
pub(super) const PENDING: &str = "No answer yet: somebody wrote something else, which comes next; it may well be the \
     answer. An answer to this very question may still come, as a message of its own.";

/// What came of a call.
enum Answered {
    With(Output),
    /// Its result, made of the host's letter of this number: settled once the result is in the transcript.
    ByLetter(Output, u64),
    /// The turn was interrupted meanwhile.
    Interrupted(InterruptWhy),
    /// The run closes; the next one asks again.
    Closing,
}

impl<M: Model> Agent<M> {
    pub(super) async fn use_tool(
        &mut self,
        course: &mut Course,
        call: ToolUse,
    ) -> Result<Option<Parted>, Fatal> {
        let turn = course.turn;
        if let Some(why) = self.mailbox.interrupted(turn) {
            self.break_off(turn, why, false)?;
            return Ok(None);
        }
        if self.mailbox.closing() {
            self.leave_calls(turn)?;
            return Ok(Some(Parted::Closing));
        }
        course.tool_calls += 1;
        failpoint!("runner.tool.before");
        match self.answer(course, &call).await? {
            Answered::With(output) => {
                failpoint!("runner.tool.after");
                self.keep(turn, call.id, output)?;
            }
            Answered::ByLetter(output, n) => {
                self.keep(turn, call.id, output)?;
                self.mailbox.outbox.settle(n);
            }
            Answered::Interrupted(why) => self.break_off(turn, why, true)?,
            Answered::Closing => {
                self.leave_calls(turn)?;
                return Ok(Some(Parted::Closing));
            }
        }
        Ok(None)
    }

    fn keep(&mut self, turn: TurnId, tool_use_id: String, output: Output) -> Result<(), Fatal> {
        let Output { text: content, is_error } = output;
        self.transcript.append_results(turn, vec![ToolResult { tool_use_id, content, is_error }])
    }

    /// Ends an interrupted turn: the call in hand, if it had begun, and those behind it get their results.
    fn break_off(&mut self, turn: TurnId, why: InterruptWhy, begun: bool) -> Result<(), Fatal> {
        let by = match why {
            InterruptWhy::Stop => "interrupted by the person",
            InterruptWhy::Time => "interrupted: the turn's time is up",
        };
        let calls = decide::unanswered_in(&self.transcript, turn).into_iter().enumerate();
        let results = calls.map(|(index, call)| {
            let content = if begun && index == 0 { by.to_owned() } else { format!("not run: {by}") };
            ToolResult { tool_use_id: call.id, content, is_error: true }
        });
        self.transcript.append_results(turn, results.collect())?;
        self.end(turn, Outcome::Interrupted, String::new())
    }

    /// Before the run closes: local calls that have not begun are said not to have run, which the next run could
    /// not know. Calls by letter stay open, it makes them.
    fn leave_calls(&mut self, turn: TurnId) -> Result<(), Fatal> {
        let results: Vec<_> = decide::unanswered_in(&self.transcript, turn)
            .into_iter()
            .filter(|call| !tools::is_by_letter(&call.name))
            .map(|call| ToolResult {
                tool_use_id: call.id,
                content: "not run: the container was closed before; call it again if it is still needed"
                    .into(),
                is_error: true,
            })
            .collect();
        if results.is_empty() { Ok(()) } else { self.transcript.append_results(turn, results) }
    }

    async fn answer(&mut self, course: &Course, call: &ToolUse) -> Result<Answered, Fatal> {
        let parsed = match &call.problem {
            Some(problem) => Err(problem.clone()),
            None => Call::parse(&call.name, &call.input),
        };
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => return Ok(Answered::With(Output::error(problem))),
        };
        let judged = tool_policy::judge(&self.begin.tools, &call.name, parsed.command());
        if let Some(refusal) = refusal(&call.name, &judged) {
            return Ok(Answered::With(refusal));
        }
        let detail = (judged.verdict == ToolVerdict::Record).then(|| parsed.detail());
        match parsed {
            Call::Local(local) => self.run_local(course.turn, &call.name, detail, local).await,
            Call::SendMessage(message) => self.send_message(course.turn, call, message).await,
            Call::Ask(wanted) => self.ask(course.turn, call, wanted).await,
        }
    }

    async fn run_local(
        &mut self,
        turn: TurnId,
        name: &str,
        detail: Option<String>,
        local: Local,
    ) -> Result<Answered, Fatal> {
        let limit = self.tools.patience(&local) + tools::MARGIN;
        let detail = detail.as_deref();
        let tool = Some(name);
        let state = Activity::Tool;
        let doing = Doing { turn, state, tool, detail, limit, draft: None, ends_on_close: false };
        Ok(match attend(&mut self.mailbox, doing, self.tools.run(local)).await? {
            Attended::Done(output) => Answered::With(output),
            Attended::Interrupted(why) => Answered::Interrupted(why),
            Attended::Closing => Answered::Closing,
        })
    }

    async fn send_message(
        &mut self,
        turn: TurnId,
        call: &ToolUse,
        message: SendMessage,
    ) -> Result<Answered, Fatal> {
        if message.text.trim().is_empty() {
            return Ok(Answered::With(Output::error("not sent: the text is empty")));
        }
        self.say_message(turn, call.entry, call.block, &message).await?;
        Ok(Answered::With(Output::ok("sent")))
    }

    pub(super) async fn say_message(
        &mut self,
        turn: TurnId,
        entry: u64,
        block: u32,
        message: &SendMessage,
    ) -> Result<(), Fatal> {
        let id = LetterId::of_block(turn, entry, block);
        let letter = FromAgent::Message(Message { text: fit(&message.text) });
        self.mailbox.outbox.say(turn, id, letter).await
    }

    async fn ask(&mut self, turn: TurnId, call: &ToolUse, wanted: Wanted) -> Result<Answered, Fatal> {
        let Ok(id) = LetterId::of_request(turn, &call.id) else {
            let problem = "not asked: the id of this call does not fit into a letter; call it again";
            return Ok(Answered::With(Output::error(problem)));
        };
        let request = match self.transcript.asked_by(turn, &call.id) {
            Some(asked) => asked.request.clone(),
            None => match self.new_request(turn, wanted.clone()) {
                Ok(request) => {
                    let asked = Asked { tool_use_id: call.id.clone(), request: request.clone() };
                    self.transcript.append(turn, Body::Request(asked))?;
                    request
                }
                Err(problem) => return Ok(Answered::With(Output::error(format!("not asked: {problem}")))),
            },
        };
        failpoint!("runner.request.before");
        self.mailbox.outbox.ask(turn, id.clone(), FromAgent::Request(request)).await?;
        let doing = Doing {
            turn,
            state: Activity::Waiting,
            tool: Some(&call.name),
            detail: None,
            limit: VERDICT_LIMIT,
            draft: None,
            ends_on_close: true,
        };
        Ok(match await_verdict(&mut self.mailbox, doing, &id).await? {
            Attended::Done((n, verdict)) => Answered::ByLetter(self.told(wanted, verdict), n),
            Attended::Interrupted(why) => Answered::Interrupted(why),
            Attended::Closing => Answered::Closing,
        })
    }

    fn new_request(&self, turn: TurnId, wanted: Wanted) -> Result<Request, String> {
        let limit = self.begin.limits.requests;
        let made = self.transcript.of_turn(turn).filter(|e| matches!(e.body, Body::Request(_))).count();
        if made >= limit as usize {
            return Err(format!("this turn has made its {limit} requests; end it and go on in the next"));
        }
        wanted.request(self.personality.sha256.clone())
    }

    /// The verdict, for the model.
    fn told(&mut self, wanted: Wanted, verdict: Verdict) -> Output {
        match (wanted, verdict) {
            (_, Verdict::Refused { code, reason }) => Output::error(format!("refused ({code}): {reason}")),
            (Wanted::Personality(text), Verdict::Ok { result }) => self.take_over(text, &result),
            (Wanted::Person(_), Verdict::Ok { result }) => answer(result),
            (Wanted::File(_), Verdict::Ok { result }) => Output::ok(tools::file_sent(&result)),
        }
    }

    fn take_over(&mut self, wanted: NewPersonality, result: &serde_json::Value) -> Output {
        let sha256 = result.get("sha256").and_then(|sha256| sha256.as_str()).map(str::to_owned);
        self.personality.text = Some(wanted.text);
        self.personality.sha256 = sha256.or(self.personality.sha256.take());
        Output::ok("done; it holds from the next turn on")
    }
}

/// What became of a question.
fn answer(result: serde_json::Value) -> Output {
    match serde_json::from_value(result) {
        Ok(Answer::Answered { text, from, name }) => Output::ok(format!("{name} ({from}) answers:\n{text}")),
        Ok(Answer::Pending) => Output::ok(PENDING),
        Ok(Answer::Expired) => Output::ok(
            "Nobody answered in time. Decide without it where that is safe, or end with what you need to know.",
        ),
        Err(_) => Output::error("the host answered in a way that this agent does not know; go on without it"),
    }
}

fn refusal(tool: &str, judged: &tool_policy::Judgement) -> Option<Output> {
    let what = judged.segment.as_deref().unwrap_or(tool);
    match judged.verdict {
        ToolVerdict::Allow | ToolVerdict::Record => None,
        ToolVerdict::Ask => Some(Output::error(format!(
            "not run: the owner must allow `{what}`; there is no way to ask yet. Do without it, or say in your answer \
             what you need."
        ))),
        ToolVerdict::Deny => Some(Output::error(format!(
            "not run: the owner's rules for this group deny `{what}`. Do without it; do not try to get around the rule."
        ))),
    }
}
