//! One turn: model, tools, model, until the turn ends or reaches a limit. [`crate::run_loop`] calls it.
//!
//! [`decide::next`] decides from the transcript, this module performs. Everything performed is in the transcript
//! before the next decision, so a run that ends early loses at most the step in progress.

mod compact;
pub mod decide;
mod gate;
mod interruptible;
mod order;
mod refused_request;
mod remember;
mod repair;
#[cfg(test)]
mod tests;
mod tool_use;

use std::path::PathBuf;
use std::time::Duration;

use ipc_schema::TurnId;
use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{Activity, ErrorDetail, Outcome, TurnDone};
use ipc_schema::letters::to_agent::Begin;
use tokio::time::sleep;

use compact::Compacted;
use decide::{Ending, Step};
use interruptible::{Watched, Work, run_interruptible};
use refused_request::AfterRefusal;

use crate::compaction_plan::CompactionTarget;
use crate::estimate;
use crate::fatal::Fatal;
use crate::local_time::Clock;
use crate::mailbox::Mailbox;
use crate::mailbox::outbox::fit_to_letter;
use crate::model::{Answer, CallError, Draft, Failure, Model, request};
use crate::prompt::{self, MemorySection, SystemPrompt};
use crate::sight::{Sight, View};
use crate::tools::{self, Toolbox};
use crate::transcript::{Body, End, Entry, LeftOut, Note, Omissions, Transcript};

/// The time limit of a model call, the gateway's retries included.
const MODEL_LIMIT: Duration = Duration::from_secs(600);
/// Tries to reach a host that is away, this far apart. Tries are counted instead of time, so that a frozen container
/// does not lose them.
const AWAY_TRIES: u32 = 180;
const AWAY_PAUSE: Duration = Duration::from_secs(10);
/// The first tries follow as soon as the socket can be reached. A host that accepts and then answers nothing must not
/// use up all tries.
const AWAY_QUICK: u32 = 20;
/// How often an answer that broke off is requested again.
const CUT_TRIES: u32 = 3;
/// How often a turn is compacted because the model said that the conversation is too long.
const OVERFLOWS_MAX: u32 = 4;

/// The note that asks for the rest of an answer that reached its size limit.
const GO_ON: &str = "Continue.";

/// The state that outlives a turn.
#[derive(Debug)]
pub struct Agent<M> {
    /// The host's `begin` letter.
    pub begin: Begin,
    pub mailbox: Mailbox,
    pub transcript: Transcript,
    model: M,
    socket: PathBuf,
    tools: Toolbox,
    offered: serde_json::Value,
    clock: Clock,
    personality: Personality,
    asked: remember::Asked,
    /// How much the model reads, if a refusal said less than the settings.
    learned_window: Option<u32>,
    sight: Sight,
}

/// The group's `CLAUDE.md`, as of `begin` or of the last accepted `update_personality`.
#[derive(Debug, Default)]
struct Personality {
    text: Option<String>,
    sha256: Option<String>,
}

/// Why the work on a turn stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnExit {
    /// `turn_done` is written.
    Done,
    /// The run closes. The next run resumes the turn.
    Closing,
}

/// The state of a turn within this run.
#[derive(Debug)]
struct TurnProgress {
    turn: TurnId,
    system: Option<SystemPrompt>,
    memory: MemorySection,
    /// The pictures and documents of the next request.
    view: View,
    model_calls: u32,
    tool_calls: u32,
    /// How often the model said that the conversation is too long.
    overflows: u32,
    /// The newest entry at the last compaction attempt.
    size_acted_on: Option<u64>,
}

impl TurnProgress {
    fn new(turn: TurnId) -> Self {
        Self {
            turn,
            system: None,
            memory: MemorySection::default(),
            view: View::default(),
            model_calls: 0,
            tool_calls: 0,
            overflows: 0,
            size_acted_on: None,
        }
    }
}

enum CallOutcome {
    Answer(Answer),
    Failed(Failure),
    Interrupted,
    Closing,
}

impl<M: Model> Agent<M> {
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
        let offered = tools::offered(&begin);
        let sight = Sight::new(tools.paths().clone(), &begin.model);
        Self {
            begin,
            mailbox,
            transcript,
            model,
            socket,
            tools,
            offered,
            clock,
            personality,
            asked: remember::Asked::default(),
            learned_window: None,
            sight,
        }
    }

    pub fn shell(&self) -> Option<String> {
        self.tools.shell().map(tools::Shell::name)
    }

    /// Works on `turn` until it ends or the run closes.
    ///
    /// # Errors
    /// An error that ends the run.
    pub async fn work(&mut self, turn: TurnId) -> Result<TurnExit, Fatal> {
        let mut progress = TurnProgress::new(turn);
        tracing::info!(%turn, "working on the turn");
        loop {
            let exit = match decide::next(&self.transcript, turn) {
                Step::Call => self.ask_model(&mut progress).await?,
                Step::Tool(call) => self.use_tool(&mut progress, call).await?,
                Step::Order { message, order } => self.obey(&mut progress, message, order).await?,
                Step::GoOn => {
                    self.transcript.append(turn, Body::Note(Note { text: GO_ON.into() }))?;
                    None
                }
                Step::Refused { text } => {
                    let reason = format!("the model declined to answer. {text}").trim().to_owned();
                    self.fail(turn, ErrorDetail { code: "model.refused".into(), reason })?;
                    None
                }
                Step::Done(ending) => {
                    self.finish(&progress, ending).await?;
                    Some(TurnExit::Done)
                }
            };
            if let Some(exit) = exit {
                tracing::info!(%turn, done = exit == TurnExit::Done, "leaving the turn");
                return Ok(exit);
            }
        }
    }

    /// Writes `turn_done`. It does not acknowledge a follow-up that came too late.
    async fn finish(&mut self, progress: &TurnProgress, ending: Ending) -> Result<(), Fatal> {
        let turn = progress.turn;
        let transcript = &self.transcript;
        self.mailbox.acknowledge_repeats(turn, |input| transcript.holds(turn, input));
        self.mailbox.ending(turn);
        let Ending { id, outcome, text, error } = ending;
        let gated = transcript.is_gated(turn);
        let (model_calls, tool_calls) = (progress.model_calls, progress.tool_calls);
        let error = error.map(|trouble| ErrorDetail { reason: fit_to_letter(&trouble.reason), ..trouble });
        let done = TurnDone { outcome, text: fit_to_letter(&text), error, model_calls, tool_calls, gated };
        failpoint!("runner.turn_done.before");
        self.mailbox.outbox.say(turn, id, FromAgent::TurnDone(done)).await?;
        failpoint!("runner.turn_done.after");
        self.mailbox.ended(turn);
        Ok(())
    }

    fn end(&mut self, turn: TurnId, outcome: Outcome, text: String) -> Result<(), Fatal> {
        self.transcript.append(turn, Body::End(End { outcome, text, error: None })).map(|_| ())
    }

    fn fail(&mut self, turn: TurnId, trouble: ErrorDetail) -> Result<(), Fatal> {
        tracing::warn!(%turn, code = trouble.code, reason = trouble.reason, "the turn fails");
        let end = End { outcome: Outcome::Failed, text: String::new(), error: Some(trouble) };
        self.transcript.append(turn, Body::End(end)).map(|_| ())
    }

    /// Takes in follow-ups, then calls the model, unless a gate script comes first, or the turn is interrupted, at a
    /// limit or due for compaction.
    async fn ask_model(&mut self, progress: &mut TurnProgress) -> Result<Option<TurnExit>, Fatal> {
        let turn = progress.turn;
        self.mailbox.receive_all().await?;
        if let Some(fire) = self.gate_due(turn) {
            return self.run_gate(turn, fire).await;
        }
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
            return Ok(Some(TurnExit::Closing));
        }
        if decide::next(&self.transcript, turn) != Step::Call {
            // An order came with the input.
            return Ok(None);
        }
        let calls = decide::model_calls(&self.transcript, turn);
        let fire = self.transcript.fire_of(turn);
        let limit =
            fire.and_then(|fire| fire.model_calls).unwrap_or(u32::MAX).min(self.begin.limits.model_calls);
        if calls >= limit {
            let task = fire.map(|fire| fire.name.as_str());
            let text = limit_text(calls, task, decide::last_words(&self.transcript, turn));
            self.end(turn, Outcome::Limit, text)?;
            return Ok(None);
        }
        match self.gather(progress).await? {
            Watched::Done(()) => {}
            Watched::Interrupted(_) => {
                self.end(turn, Outcome::Interrupted, String::new())?;
                return Ok(None);
            }
            Watched::Closing => return Ok(Some(TurnExit::Closing)),
        }
        let size = self.size(progress);
        if let Some(trouble) = self.fixed_part(size) {
            self.fail(turn, trouble)?;
            return Ok(None);
        }
        if self.needs_compaction(progress, size) {
            self.compact(progress, CompactionTarget::QuarterWindow).await?;
            return Ok(None);
        }
        self.call_and_keep(progress).await
    }

    async fn call_and_keep(&mut self, progress: &mut TurnProgress) -> Result<Option<TurnExit>, Fatal> {
        let turn = progress.turn;
        let mut left_out = None;
        let mut refusals = 0;
        let mut estimated = 0;
        let called = loop {
            let mut omissions = Omissions::of(self.transcript.entries());
            if let Some(left) = &left_out {
                omissions = omissions.and(turn, left);
            }
            match self.look(progress, &omissions).await? {
                Watched::Done(()) => {}
                Watched::Interrupted(_) => break CallOutcome::Interrupted,
                Watched::Closing => break CallOutcome::Closing,
            }
            let body = self.request(progress, &omissions);
            estimated = body.as_ref().map_or(0, |body| estimate::of_request(body).total());
            failpoint!("runner.model.before");
            let called = match body {
                Ok(body) => self.call(turn, Activity::Thinking, body).await?,
                Err(error) => CallOutcome::Failed(Failure {
                    trouble: ErrorDetail { code: "model.invalid_request".into(), reason: error.to_string() },
                    too_long: false,
                    window: None,
                }),
            };
            let CallOutcome::Failed(failure) = &called else { break called };
            if failure.trouble.code != "model.invalid_request" || failure.too_long {
                break called;
            }
            refusals += 1;
            match refused_request::after(self.transcript.entries(), turn, refusals) {
                AfterRefusal::Repeat => {}
                AfterRefusal::Without(left) => left_out = Some(left),
                AfterRefusal::Fail => break called,
            }
            tracing::warn!(%turn, refusals, reason = failure.trouble.reason, "the provider refused the request");
        };
        match called {
            CallOutcome::Answer(mut answer) => {
                failpoint!("runner.model.after");
                progress.model_calls += 1;
                if let Some(left) = left_out {
                    self.leave_out(turn, left).await?;
                }
                answer.model = Some(self.begin.model.id());
                answer.usage.estimated = estimated;
                if let Err(error) = self.transcript.own_call_ids(turn, &mut answer) {
                    tracing::warn!(%turn, %error, "a call keeps its id");
                }
                self.transcript.append(turn, Body::Assistant(answer))?;
            }
            CallOutcome::Failed(failure) if failure.too_long && progress.overflows < OVERFLOWS_MAX => {
                progress.overflows += 1;
                tracing::warn!(reason = failure.trouble.reason, "the conversation is too long for the model");
                self.learn_window(failure.window, progress);
                if self.compact(progress, CompactionTarget::OpenTurnOnly).await? == Compacted::Nothing {
                    self.fail(turn, failure.trouble)?;
                }
            }
            CallOutcome::Failed(failure) => self.fail(turn, failure.trouble)?,
            CallOutcome::Interrupted => self.end(turn, Outcome::Interrupted, String::new())?,
            CallOutcome::Closing => return Ok(Some(TurnExit::Closing)),
        }
        Ok(None)
    }

    /// Records what the provider refused, and tells the chat.
    async fn leave_out(&mut self, turn: TurnId, left: LeftOut) -> Result<(), Fatal> {
        let message = tools::SendMessage { text: left.told.clone() };
        let entry = self.transcript.append(turn, Body::LeftOut(left))?;
        self.say_message(turn, entry, 0, &message).await
    }

    /// Builds the next request. The system prompt is built once per turn, see [`prompt::facts`].
    fn request(&self, progress: &mut TurnProgress, omissions: &Omissions) -> serde_json::Result<String> {
        let system = progress.system.get_or_insert_with(|| {
            let entries = self.transcript.of_turn(progress.turn).rev();
            let chat = entries.into_iter().find_map(|entry| match &entry.body {
                Body::Input(input) => Some(&input.chat),
                _ => None,
            });
            SystemPrompt {
                stable: prompt::stable(&self.begin, self.personality.text.as_deref())
                    + &progress.memory.pinned,
                facts: prompt::facts(&self.begin, chat, &self.clock.now(), self.shell().as_deref())
                    + &progress.memory.turn,
            }
        });
        let entries = self.transcript.entries();
        request::request(&self.begin.model, system, &self.offered, entries, omissions, &progress.view)
    }

    /// Reads what the next request needs beside the transcript: memory, pictures and documents.
    async fn gather(&mut self, progress: &mut TurnProgress) -> Result<Watched<()>, Fatal> {
        self.recall(progress).await;
        let omissions = Omissions::of(self.transcript.entries());
        self.look(progress, &omissions).await
    }

    /// Reads the pictures and documents of the next request, and those that are new to this run from the disk.
    async fn look(
        &mut self,
        progress: &mut TurnProgress,
        omissions: &Omissions,
    ) -> Result<Watched<()>, Fatal> {
        let entries = self.transcript.entries();
        if !self.sight.is_new(entries, omissions) {
            progress.view = self.sight.view(entries, omissions).await;
            return Ok(Watched::Done(()));
        }
        let work = Work {
            turn: progress.turn,
            state: Activity::Thinking,
            tool: None,
            detail: None,
            limit: MODEL_LIMIT,
            draft: None,
            ends_on_close: true,
        };
        let view = run_interruptible(&mut self.mailbox, work, self.sight.view(entries, omissions)).await?;
        Ok(match view {
            Watched::Done(view) => {
                progress.view = view;
                Watched::Done(())
            }
            Watched::Interrupted(why) => Watched::Interrupted(why),
            Watched::Closing => Watched::Closing,
        })
    }

    /// Appends the turn's waiting inputs to the transcript and acknowledges them.
    fn take_inputs(&mut self, turn: TurnId) -> Result<(), Fatal> {
        let taken = self.keep_inputs(turn, None)?;
        self.acknowledge(taken);
        Ok(())
    }

    /// Appends the turn's waiting inputs to the transcript, without the fire that its gate has settled. Returns the
    /// numbers of the letters.
    fn keep_inputs(&mut self, turn: TurnId, settled: Option<&str>) -> Result<Vec<u64>, Fatal> {
        let mut taken = Vec::new();
        for mut letter in self.mailbox.take_inputs(turn) {
            letter.input.fire = letter.input.fire.filter(|fire| settled != Some(fire.id.as_str()));
            let ids: Vec<_> = letter.input.messages.iter().map(|message| message.id).collect();
            let new = self.transcript.append_input(turn, letter.input)?;
            failpoint!("runner.input.taken");
            if !new && self.transcript.of_turn(turn).all(Entry::is_of_a_fire) {
                self.recall_unanswered(turn, &ids)?;
            }
            taken.push(letter.n);
        }
        Ok(taken)
    }

    fn acknowledge(&mut self, letters: Vec<u64>) {
        letters.into_iter().for_each(|n| self.mailbox.outbox.acknowledge(n));
    }

    /// For a turn without new messages: an earlier turn took them in, and its run ended before the host learnt of it.
    /// Messages that the earlier turn did not answer are named in a note, so that this turn answers them.
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

    /// Calls the model until it answers or refuses, or the tries are used up.
    async fn call(&mut self, turn: TurnId, state: Activity, body: String) -> Result<CallOutcome, Fatal> {
        let (mut away, mut cuts) = (0, 0);
        loop {
            let draft = Draft::default();
            let shown = (state == Activity::Thinking).then_some(&draft);
            let work = Work {
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
            let pause = match run_interruptible(&mut self.mailbox, work, call).await? {
                Watched::Interrupted(_) => return Ok(CallOutcome::Interrupted),
                Watched::Closing => return Ok(CallOutcome::Closing),
                Watched::Done(Ok(answer)) => return Ok(CallOutcome::Answer(answer)),
                Watched::Done(Err(CallError::Failed(failure))) => return Ok(CallOutcome::Failed(failure)),
                Watched::Done(Err(CallError::HostAway { reason })) => {
                    away += 1;
                    // The earlier cuts happened because the host went away.
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
                Watched::Done(Err(CallError::Cut { reason })) => {
                    away = 0;
                    cuts += 1;
                    if cuts > CUT_TRIES {
                        let reason = format!("the answer broke off {cuts} times: {reason}");
                        let trouble = ErrorDetail { code: "model.cut".into(), reason };
                        return Ok(CallOutcome::Failed(Failure { trouble, too_long: false, window: None }));
                    }
                    tracing::warn!(cuts, reason, "the answer broke off");
                    Duration::from_secs(cuts.into())
                }
            };
            let paused = async {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.model.wait_until_reachable(), if quick => {}
                }
            };
            match run_interruptible(&mut self.mailbox, Work { draft: None, ..work }, paused).await? {
                Watched::Done(()) => {}
                Watched::Interrupted(_) => return Ok(CallOutcome::Interrupted),
                Watched::Closing => return Ok(CallOutcome::Closing),
            }
        }
    }
}

/// `task` is the name of the task whose fire caused the turn: nobody is there to say "go on".
fn limit_text(calls: u32, task: Option<&str>, last_words: Option<String>) -> String {
    let text = match task {
        None => {
            format!("I stopped after {calls} model calls in this turn. Say \"go on\" and I will continue.")
        }
        Some(name) => {
            format!("I stopped the task \"{name}\" after {calls} model calls, its limit. It is not done.")
        }
    };
    match last_words {
        Some(words) => format!("{text}\n\nWhere I was: {}", words.trim()),
        None => text,
    }
}
