//! One turn: model, tools, model, until there is nothing left to do or a limit says stop.
//!
//! [`decide::next`] decides from the transcript, this module performs, and everything performed is in the transcript
//! before the next decision. Whatever ends a run early therefore costs at most the thing in hand.

mod compact;
pub mod decide;
mod interruptible;
mod resume;
#[cfg(test)]
mod tests;
mod tool_use;

use std::path::PathBuf;
use std::time::Duration;

use ipc_schema::TurnId;
use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{Activity, Outcome, Trouble, TurnDone};
use ipc_schema::letters::to_agent::Begin;
use tokio::time::sleep;

use decide::{Ending, Step};
use interruptible::{Attended, Doing, attend};

use crate::compaction_plan::Aim;
use crate::error::Fatal;
use crate::local_time::Clock;
use crate::mailbox::Mailbox;
use crate::mailbox::outbox::fit;
use crate::model::{Answer, CallError, Draft, Failure, Model, request};
use crate::prompt::{self, System};
use crate::tools::{self, Toolbox};
use crate::transcript::{Body, End, Note, Transcript};

/// The longest that a model call takes, the gateway's retries included.
const MODEL_LIMIT: Duration = Duration::from_secs(600);
/// A host that is away is tried this often, this far apart. Tries are counted, not time: a frozen box loses none.
const AWAY_TRIES: u32 = 180;
const AWAY_PAUSE: Duration = Duration::from_secs(10);
/// The first tries come as soon as the host can be reached; one that then answers nothing must not use up all.
const AWAY_QUICK: u32 = 20;
/// An answer that breaks off is asked for again this often.
const CUT_TRIES: u32 = 3;

/// Asks for the rest of an answer.
const GO_ON: &str = "Continue.";

/// A runner at work: all that outlives a turn.
#[derive(Debug)]
pub struct Agent<M> {
    /// Who it is and what it may do.
    pub begin: Begin,
    pub mailbox: Mailbox,
    pub transcript: Transcript,
    model: M,
    socket: PathBuf,
    tools: Toolbox,
    offered: serde_json::Value,
    clock: Clock,
    personality: Personality,
}

/// The group's `CLAUDE.md` as this runner knows it.
#[derive(Debug, Default)]
struct Personality {
    text: Option<String>,
    sha256: Option<String>,
}

/// How a turn left this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parted {
    /// It is over, and `turn_done` says so.
    Done,
    /// The run closes; another one resumes the turn.
    Closing,
}

/// A turn in this run.
#[derive(Debug)]
struct Course {
    turn: TurnId,
    system: Option<System>,
    model_calls: u32,
    tool_calls: u32,
    /// The conversation was shortened because the model found it too long: once is enough.
    shortened: bool,
    /// The newest entry when the conversation's size was last acted on.
    weighed: u64,
}

impl Course {
    fn new(turn: TurnId) -> Self {
        Self { turn, system: None, model_calls: 0, tool_calls: 0, shortened: false, weighed: 0 }
    }
}

/// What a call of the model came to.
enum Called {
    Answer(Answer),
    Failed(Failure),
    Interrupted,
    Closing,
}

impl<M: Model> Agent<M> {
    /// An agent that has read `begin` and its transcript.
    pub fn new(
        begin: Begin,
        mailbox: Mailbox,
        transcript: Transcript,
        tools: Toolbox,
        model: M,
        socket: PathBuf,
    ) -> Self {
        let personality = begin.claude_md_group.clone().map_or_else(Personality::default, |text| {
            Personality { text: Some(text.text), sha256: Some(text.sha256) }
        });
        let clock = Clock::new(&begin.zone);
        let offered = tools::definitions(begin.files);
        Self { begin, mailbox, transcript, model, socket, tools, offered, clock, personality }
    }

    /// The shell that commands run in, as `ready` names it.
    pub fn shell(&self) -> Option<String> {
        self.tools.shell().map(tools::Shell::name)
    }

    /// Works on `turn` until it ends or the run closes.
    ///
    /// # Errors
    /// What ends the run.
    pub async fn work(&mut self, turn: TurnId) -> Result<Parted, Fatal> {
        let mut course = Course::new(turn);
        tracing::info!(%turn, "works");
        loop {
            let parted = match decide::next(&self.transcript, turn) {
                Step::Call => self.ask_model(&mut course).await?,
                Step::Tool(call) => self.use_tool(&mut course, call).await?,
                Step::GoOn => {
                    self.transcript.append(turn, Body::Note(Note { text: GO_ON.into() }))?;
                    None
                }
                Step::Refused { text } => {
                    let reason = format!("the model declined to answer. {text}").trim().to_owned();
                    self.fail(turn, Trouble { code: "model.refused".into(), reason })?;
                    None
                }
                Step::Done(ending) => {
                    self.finish(&course, ending).await?;
                    Some(Parted::Done)
                }
            };
            if let Some(parted) = parted {
                tracing::info!(%turn, ?parted, "rests");
                return Ok(parted);
            }
        }
    }

    /// Says the end. A follow-up that came too late is not acknowledged by it.
    async fn finish(&mut self, course: &Course, ending: Ending) -> Result<(), Fatal> {
        let turn = course.turn;
        let transcript = &self.transcript;
        self.mailbox.settle_held(turn, |input| transcript.holds(input));
        self.mailbox.ending(turn);
        let Ending { id, outcome, text, error } = ending;
        let (model_calls, tool_calls) = (course.model_calls, course.tool_calls);
        let error = error.map(|trouble| Trouble { reason: fit(&trouble.reason), ..trouble });
        let done = TurnDone { outcome, text: fit(&text), error, model_calls, tool_calls };
        failpoint!("runner.turn_done.before");
        self.mailbox.outbox.say(turn, id, FromAgent::TurnDone(done)).await?;
        failpoint!("runner.turn_done.after");
        self.mailbox.ended(turn);
        Ok(())
    }

    fn end(&mut self, turn: TurnId, outcome: Outcome, text: String) -> Result<(), Fatal> {
        self.transcript.append(turn, Body::End(End { outcome, text, error: None })).map(|_| ())
    }

    fn fail(&mut self, turn: TurnId, trouble: Trouble) -> Result<(), Fatal> {
        tracing::warn!(%turn, code = trouble.code, reason = trouble.reason, "the turn fails");
        let end = End { outcome: Outcome::Failed, text: String::new(), error: Some(trouble) };
        self.transcript.append(turn, Body::End(end)).map(|_| ())
    }

    /// Takes in what people wrote meanwhile, then asks the model, unless something speaks against it.
    async fn ask_model(&mut self, course: &mut Course) -> Result<Option<Parted>, Fatal> {
        let turn = course.turn;
        self.mailbox.receive_all().await?;
        self.take_inputs(turn)?;
        if self.mailbox.interrupted(turn).is_some() {
            self.end(turn, Outcome::Interrupted, String::new())?;
            return Ok(None);
        }
        if self.transcript.of_turn(turn).next().is_none() {
            self.end(turn, Outcome::Finished, String::new())?;
            return Ok(None);
        }
        if self.mailbox.closing() {
            return Ok(Some(Parted::Closing));
        }
        let calls = decide::model_calls(&self.transcript, turn);
        if calls >= self.begin.limits.model_calls {
            let text = limit_text(calls, decide::last_words(&self.transcript, turn));
            self.end(turn, Outcome::Limit, text)?;
            return Ok(None);
        }
        if self.is_full(course) {
            self.shorten(course, Aim::Room).await?;
            return Ok(None);
        }
        self.call_and_keep(course).await
    }

    async fn call_and_keep(&mut self, course: &mut Course) -> Result<Option<Parted>, Fatal> {
        let turn = course.turn;
        let body = self.request(course);
        failpoint!("runner.model.before");
        let called = match body {
            Ok(body) => self.call(turn, Activity::Thinking, body).await?,
            Err(error) => Called::Failed(Failure {
                trouble: Trouble { code: "model.invalid_request".into(), reason: error.to_string() },
                too_long: false,
            }),
        };
        match called {
            Called::Answer(answer) => {
                failpoint!("runner.model.after");
                course.model_calls += 1;
                self.transcript.append(turn, Body::Assistant(answer))?;
            }
            Called::Failed(failure) if failure.too_long && !course.shortened => {
                course.shortened = true;
                tracing::warn!(reason = failure.trouble.reason, "the conversation is too long for the model");
                self.shorten(course, Aim::Least).await?;
            }
            Called::Failed(failure) => self.fail(turn, failure.trouble)?,
            Called::Interrupted => self.end(turn, Outcome::Interrupted, String::new())?,
            Called::Closing => return Ok(Some(Parted::Closing)),
        }
        Ok(None)
    }

    /// The request for the next answer. The system prompt is made once per turn, see [`prompt::facts`].
    fn request(&self, course: &mut Course) -> serde_json::Result<String> {
        let system = course.system.get_or_insert_with(|| {
            let entries = self.transcript.of_turn(course.turn).rev();
            let chat = entries.into_iter().find_map(|entry| match &entry.body {
                Body::Input(input) => Some(&input.chat),
                _ => None,
            });
            System {
                stable: prompt::stable(&self.begin, self.personality.text.as_deref()),
                facts: prompt::facts(&self.begin, chat, &self.clock.now(), self.shell().as_deref()),
            }
        });
        request::request(&self.begin.model, system, &self.offered, self.transcript.entries())
    }

    /// Appends the turn's waiting inputs. They are settled by that: the transcript holds them.
    fn take_inputs(&mut self, turn: TurnId) -> Result<(), Fatal> {
        for letter in self.mailbox.take_inputs(turn) {
            let ids: Vec<_> = letter.input.messages.iter().map(|message| message.id).collect();
            let new = self.transcript.append_input(turn, letter.input)?;
            failpoint!("runner.input.taken");
            if !new && self.transcript.of_turn(turn).next().is_none() {
                self.recall_unanswered(turn, &ids)?;
            }
            self.mailbox.outbox.settle(letter.n);
        }
        Ok(())
    }

    /// A turn that brings nothing new: its messages were taken in by an earlier turn, whose run ended before the
    /// host could know. If that turn came to no answer, this one owes it.
    fn recall_unanswered(&mut self, turn: TurnId, ids: &[ipc_schema::MessageSeq]) -> Result<(), Fatal> {
        let owed: Vec<_> = ids
            .iter()
            .filter(|id| {
                self.transcript.turn_of(**id).is_some_and(|earlier| {
                    earlier != turn
                        && !matches!(
                            decide::next(&self.transcript, earlier),
                            Step::Done(Ending { outcome: Outcome::Finished | Outcome::Limit, .. })
                        )
                })
            })
            .map(ToString::to_string)
            .collect();
        if owed.is_empty() {
            return Ok(());
        }
        let text = format!("[Still waiting for an answer: {}, from above.]", owed.join(", "));
        self.transcript.append(turn, Body::Note(Note { text })).map(|_| ())
    }

    /// Calls the model until it answers, refuses, or the host stays away for good.
    async fn call(&mut self, turn: TurnId, state: Activity, body: String) -> Result<Called, Fatal> {
        let (mut away, mut cuts) = (0, 0);
        loop {
            let draft = Draft::default();
            let shown = (state == Activity::Thinking).then_some(&draft);
            let doing = Doing {
                turn,
                state,
                tool: None,
                detail: None,
                limit: MODEL_LIMIT,
                draft: shown,
                ends_on_close: true,
            };
            let call = self.model.call(body.clone(), &draft);
            let mut quick = false;
            let pause = match attend(&mut self.mailbox, doing, call).await? {
                Attended::Interrupted(_) => return Ok(Called::Interrupted),
                Attended::Closing => return Ok(Called::Closing),
                Attended::Done(Ok(answer)) => return Ok(Called::Answer(answer)),
                Attended::Done(Err(CallError::Failed(failure))) => return Ok(Called::Failed(failure)),
                Attended::Done(Err(CallError::HostAway { reason })) => {
                    away += 1;
                    // What was cut before, was cut because the host went away.
                    cuts = 0;
                    if away >= AWAY_TRIES {
                        return Err(Fatal::HostUnreachable {
                            tries: away,
                            socket: self.socket.clone(),
                            reason,
                        });
                    }
                    tracing::warn!(away, reason, "the host is away");
                    quick = away <= AWAY_QUICK;
                    AWAY_PAUSE
                }
                Attended::Done(Err(CallError::Cut { reason })) => {
                    away = 0;
                    cuts += 1;
                    if cuts > CUT_TRIES {
                        let reason = format!("the answer broke off {cuts} times: {reason}");
                        let trouble = Trouble { code: "model.cut".into(), reason };
                        return Ok(Called::Failed(Failure { trouble, too_long: false }));
                    }
                    tracing::warn!(cuts, reason, "the answer broke off");
                    Duration::from_secs(cuts.into())
                }
            };
            let paused = async {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.model.back(), if quick => {}
                }
            };
            match attend(&mut self.mailbox, Doing { draft: None, ..doing }, paused).await? {
                Attended::Done(()) => {}
                Attended::Interrupted(_) => return Ok(Called::Interrupted),
                Attended::Closing => return Ok(Called::Closing),
            }
        }
    }
}

fn limit_text(calls: u32, last_words: Option<String>) -> String {
    let text =
        format!("I stopped after {calls} model calls in this turn. Say \"go on\" and I will continue.");
    match last_words {
        Some(words) => format!("{text}\n\nWhere I was: {}", words.trim()),
        None => text,
    }
}
