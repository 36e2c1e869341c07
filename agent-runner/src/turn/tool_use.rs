//! Answers one tool call: local tools, interim replies and requests to the host. Every call gets exactly one result.

use std::time::Duration;

use ipc_schema::letters::from_agent::{Activity, Message, Outcome};
use ipc_schema::letters::to_agent::{AlwaysAllowed, InterruptWhy, ToolVerdict, Verdict};
use ipc_schema::letters::{FromAgent, Request};
use ipc_schema::requests::{AskPermission, Permission};
use ipc_schema::{LetterId, RefusalCode, TurnId};
use serde::Deserialize;

use super::decide::{self, ToolUse};
use super::interruptible::{Watched, Work, await_verdict, run_interruptible};
use super::{Agent, TurnExit, TurnProgress};
use crate::fatal::Fatal;
use crate::mailbox::outbox::fit_to_letter;
use crate::model::Model;
use crate::tool_policy::{self, Judgement};
use crate::tools::{self, Call, LocalCall, Output, SendMessage};
use crate::transcript::{Body, RecordedRequest, ToolResult};

/// The deadline that status letters state while a request waits for its verdict.
const VERDICT_LIMIT: Duration = Duration::from_secs(600);

enum Answered {
    With(Output),
    /// The result, made of the host's letter of this number. The letter is acknowledged once the transcript holds the
    /// result.
    ByLetter(Output, u64),
    Interrupted(InterruptWhy),
    /// The run closes. The next run asks again.
    Closing,
}

enum Asked {
    /// The request as it went to the host, and the verdict with its letter's number.
    Answered(Box<Request>, u64, Verdict),
    Not(Answered),
}

impl<M: Model> Agent<M> {
    pub(super) async fn use_tool(
        &mut self,
        progress: &mut TurnProgress,
        call: ToolUse,
    ) -> Result<Option<TurnExit>, Fatal> {
        let turn = progress.turn;
        if let Some(why) = self.mailbox.interrupted(turn) {
            self.break_off(turn, why, false)?;
            return Ok(None);
        }
        if self.mailbox.closing() {
            self.leave_calls(turn)?;
            return Ok(Some(TurnExit::Closing));
        }
        progress.tool_calls += 1;
        failpoint!("runner.tool.before");
        match self.answer(progress, &call).await? {
            Answered::With(output) => {
                failpoint!("runner.tool.after");
                self.keep(turn, call.id, output)?;
            }
            Answered::ByLetter(output, n) => {
                self.keep(turn, call.id, output)?;
                self.mailbox.outbox.acknowledge(n);
            }
            Answered::Interrupted(why) => self.break_off(turn, why, true)?,
            Answered::Closing => {
                self.leave_calls(turn)?;
                return Ok(Some(TurnExit::Closing));
            }
        }
        Ok(None)
    }

    fn keep(&mut self, turn: TurnId, tool_use_id: String, output: Output) -> Result<(), Fatal> {
        let Output { text: content, is_error, shown } = output;
        self.transcript.append_results(turn, vec![ToolResult { tool_use_id, content, is_error, shown }])
    }

    /// Ends an interrupted turn: every open call gets a result. `begun` says whether the first one had started.
    fn break_off(&mut self, turn: TurnId, why: InterruptWhy, begun: bool) -> Result<(), Fatal> {
        let by = match why {
            InterruptWhy::Stop => "interrupted by the person",
            InterruptWhy::Time => "interrupted: the turn's time is up",
        };
        let calls = decide::unanswered_in(&self.transcript, turn).into_iter().enumerate();
        let results = calls.map(|(index, call)| {
            let content = if begun && index == 0 { by.to_owned() } else { format!("not run: {by}") };
            ToolResult { tool_use_id: call.id, content, is_error: true, shown: None }
        });
        self.transcript.append_results(turn, results.collect())?;
        self.end(turn, Outcome::Interrupted, String::new())
    }

    /// Before the run closes: local calls that have not started get a "not run" result, because the next run could
    /// not know it. Calls by letter stay open, and the next run makes them.
    fn leave_calls(&mut self, turn: TurnId) -> Result<(), Fatal> {
        let results: Vec<_> = decide::unanswered_in(&self.transcript, turn)
            .into_iter()
            .filter(|call| {
                !tools::is_by_letter(&call.name) && !self.transcript.waits_for_permission(turn, &call.id)
            })
            .map(|call| ToolResult {
                tool_use_id: call.id,
                content: "not run: the container was closed before; call it again if it is still needed"
                    .into(),
                is_error: true,
                shown: None,
            })
            .collect();
        if results.is_empty() { Ok(()) } else { self.transcript.append_results(turn, results) }
    }

    async fn answer(&mut self, progress: &TurnProgress, call: &ToolUse) -> Result<Answered, Fatal> {
        let parsed = match &call.problem {
            Some(problem) => Err(problem.clone()),
            None => Call::parse(&call.name, &call.input),
        };
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => return Ok(Answered::With(Output::error(problem))),
        };
        let judged = tool_policy::judge(&self.begin.tools, &self.begin.allowed, &call.name, parsed.command());
        match judged.verdict {
            ToolVerdict::Allow | ToolVerdict::Record => {}
            // The host asks about its own requests.
            ToolVerdict::Ask if matches!(parsed, Call::Ask(_)) => {}
            ToolVerdict::Ask => {
                if let Some(instead) = self.permission(progress.turn, call, &parsed, &judged).await? {
                    return Ok(instead);
                }
            }
            ToolVerdict::Deny => return Ok(Answered::With(refused(&call.name, &judged))),
        }
        match parsed {
            Call::Local(local) => {
                let detail = (judged.verdict != ToolVerdict::Allow).then(|| local.detail());
                self.run_local(progress.turn, &call.name, detail, local).await
            }
            Call::SendMessage(message) => self.send_message(progress.turn, call, message).await,
            Call::Ask(request) => self.make_request(progress.turn, call, *request).await,
        }
    }

    /// Asks an owner whether the call may run. `None`: it may.
    async fn permission(
        &mut self,
        turn: TurnId,
        call: &ToolUse,
        parsed: &Call,
        judged: &Judgement,
    ) -> Result<Option<Answered>, Fatal> {
        let ask = match parsed.command() {
            Some(line) => AskPermission {
                tool: call.name.clone(),
                detail: line.trim().to_owned(),
                commands: judged.commands.clone(),
            },
            None => AskPermission::of_arguments(&call.name, &call.input),
        };
        let ask = Request::from(ask);
        if let Some(asked) = self.transcript.request_of(turn, &call.id) {
            if asked.request != ask {
                let problem = "not run: an owner was asked about another call with this id; call it again";
                return Ok(Some(Answered::With(Output::error(problem))));
            }
            if asked.granted {
                return Ok(None);
            }
        }
        let (request, n, verdict) = match self.ask(turn, call, ask).await? {
            Asked::Answered(request, n, verdict) => (*request, n, verdict),
            Asked::Not(instead) => return Ok(Some(instead)),
        };
        let subject = judged.subject(&call.name);
        let refusal = match verdict {
            Verdict::Ok { result } => match Permission::deserialize(&result) {
                Ok(Permission::Allowed { always }) => {
                    if let Request::AskPermission(ask) = &request
                        && always
                    {
                        self.begin.allowed.extend(always_allowed(ask));
                    }
                    let asked = RecordedRequest { tool_use_id: call.id.clone(), request, granted: true };
                    self.transcript.append(turn, Body::Request(asked))?;
                    self.mailbox.outbox.acknowledge(n);
                    failpoint!("runner.permission.granted");
                    return Ok(None);
                }
                Ok(decided) => decided.refusal(&subject),
                Err(_) => ToolVerdict::Ask.refusal(&subject),
            },
            // A host that does not know the request.
            Verdict::Refused { code, .. } if code == RefusalCode::Unsupported.as_str() => {
                ToolVerdict::Ask.refusal(&subject)
            }
            Verdict::Refused { reason, .. } => Some(reason),
        };
        let output = Output::error(format!("not run: {}", refusal.unwrap_or_default()));
        Ok(Some(Answered::ByLetter(output, n)))
    }

    async fn run_local(
        &mut self,
        turn: TurnId,
        name: &str,
        detail: Option<String>,
        local: Box<dyn LocalCall>,
    ) -> Result<Answered, Fatal> {
        self.note_origin(turn);
        let limit = local.time_limit(self.tools.limits()) + tools::TIME_LIMIT_MARGIN;
        let detail = detail.as_deref();
        let tool = Some(name);
        let state = Activity::Tool;
        let work = Work { turn, state, tool, detail, limit, draft: None, ends_on_close: false };
        Ok(match run_interruptible(&mut self.mailbox, work, local.run(&self.tools)).await? {
            Watched::Done(output) => Answered::With(output),
            Watched::Interrupted(why) => Answered::Interrupted(why),
            Watched::Closing => Answered::Closing,
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
        let letter = FromAgent::Message(Message { text: fit_to_letter(&message.text) });
        self.mailbox.outbox.say(turn, id, letter).await
    }

    async fn make_request(
        &mut self,
        turn: TurnId,
        call: &ToolUse,
        request: Request,
    ) -> Result<Answered, Fatal> {
        Ok(match self.ask(turn, call, request).await? {
            Asked::Answered(request, n, verdict) => {
                Answered::ByLetter(self.tool_output(&request, verdict), n)
            }
            Asked::Not(instead) => instead,
        })
    }

    /// Asks the host and waits for its verdict.
    async fn ask(&mut self, turn: TurnId, call: &ToolUse, request: Request) -> Result<Asked, Fatal> {
        let not =
            |problem: String| Ok(Asked::Not(Answered::With(Output::error(format!("not asked: {problem}")))));
        let Ok(id) = LetterId::of_request(turn, &call.id) else {
            return not("the id of this call does not fit into a letter; call it again".to_owned());
        };
        let request = match self.transcript.request_of(turn, &call.id) {
            Some(asked) => asked.request.clone(),
            None => match self.new_request(turn, request) {
                Ok(request) => {
                    let (tool_use_id, request) = (call.id.clone(), request);
                    let asked = RecordedRequest { tool_use_id, request: request.clone(), granted: false };
                    self.transcript.append(turn, Body::Request(asked))?;
                    request
                }
                Err(problem) => return not(problem),
            },
        };
        failpoint!("runner.request.before");
        self.mailbox.outbox.ask(turn, id.clone(), FromAgent::Request(request.clone())).await?;
        let work = Work {
            turn,
            state: Activity::Waiting,
            tool: Some(&call.name),
            detail: None,
            limit: VERDICT_LIMIT,
            draft: None,
            ends_on_close: true,
        };
        Ok(match await_verdict(&mut self.mailbox, work, &id).await? {
            Watched::Done((n, verdict)) => Asked::Answered(Box::new(request), n, verdict),
            Watched::Interrupted(why) => Asked::Not(Answered::Interrupted(why)),
            Watched::Closing => Asked::Not(Answered::Closing),
        })
    }

    fn new_request(&self, turn: TurnId, mut request: Request) -> Result<Request, String> {
        let limit = self.begin.limits.requests;
        let made = self
            .transcript
            .of_turn(turn)
            .filter(|e| matches!(&e.body, Body::Request(asked) if !asked.granted))
            .count();
        if made >= limit as usize {
            return Err(format!("this turn has made its {limit} requests; end it and go on in the next"));
        }
        if let Request::UpdatePersonality(change) = &mut request {
            change.base_sha256 = self.personality.sha256.clone();
        }
        tools::checked(request)
    }

    fn tool_output(&mut self, request: &Request, verdict: Verdict) -> Output {
        match verdict {
            Verdict::Refused { code, reason } => Output::error(format!("refused ({code}): {reason}")),
            Verdict::Ok { result } => {
                if let Request::UpdatePersonality(change) = request {
                    let sha256 = result.get("sha256").and_then(|sha256| sha256.as_str()).map(str::to_owned);
                    self.personality.text = Some(change.text.clone());
                    self.personality.sha256 = sha256.or(self.personality.sha256.take());
                }
                tools::told(request, &result)
            }
        }
    }
}

fn refused(tool: &str, judged: &Judgement) -> Output {
    let why = judged.verdict.refusal(&judged.subject(tool)).unwrap_or_default();
    Output::error(format!("not run: {why}"))
}

/// What "always" allows from now on.
fn always_allowed(ask: &AskPermission) -> Vec<AlwaysAllowed> {
    let rule = |command| AlwaysAllowed { tool: ask.tool.clone(), command };
    match ask.commands.as_slice() {
        [] => vec![rule(None)],
        commands => commands.iter().cloned().map(Some).map(rule).collect(),
    }
}
