//! Decides which state a turn ends in and which notice its chat gets.

use ipc_schema::RefusalCode;
use ipc_schema::letters::from_agent::{self, Outcome};
use ipc_schema::letters::to_agent::InterruptWhy;

use crate::domain::ending::TurnEnd;
use crate::domain::task::FireOutcome;
use crate::text;

/// The reason of a turn that its task's gate script ended.
const GATED: &str = "gated";
/// The longest reason that the store keeps, in characters.
const WHY: usize = 80;

/// The end of a turn that a person or the time limit interrupted, and the notice for its chat.
pub fn interrupted(why: InterruptWhy) -> (TurnEnd, String) {
    let (why, notice) = match why {
        InterruptWhy::Stop => ("stop", text::stopped()),
        InterruptWhy::Time => ("time", text::time_is_up()),
    };
    (TurnEnd { state: "stopped", why: why.to_owned() }, notice)
}

/// The end of a turn whose `turn_done` is refused, and the notice for its chat. The reply is lost, and the box will not
/// send another one.
pub fn refused() -> (TurnEnd, String) {
    let code = RefusalCode::Replay.as_str();
    (TurnEnd { state: "failed", why: code.to_owned() }, text::end_refused(code))
}

/// The code and the reason of a turn that failed by its task's gate script.
fn gate_failure(done: &from_agent::TurnDone) -> Option<(&'static str, &str)> {
    const CODES: [&str; 6] =
        ["gate.denied", "gate.no_shell", "gate.start", "gate.exit", "gate.time", "gate.output"];
    let error = done.error.as_ref()?;
    let code = CODES.into_iter().find(|code| *code == error.code)?;
    Some((code, &error.reason))
}

/// What becomes of a fire whose turn ends so.
pub fn fire_outcome(end: &TurnEnd, late: bool) -> FireOutcome {
    match (end.state, end.why.as_str()) {
        ("done", GATED) => FireOutcome::Gated,
        ("done", _) if late => FireOutcome::CaughtUp,
        ("done", _) => FireOutcome::Ran,
        (_, why) => FireOutcome::Failed { why: why.to_owned() },
    }
}

/// The end of a turn that the box has reported as done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnDone {
    pub end: TurnEnd,
    /// The notice that follows the reply.
    pub notice: Option<String>,
}

/// Reads a `turn_done` letter. A box may report any outcome, so a turn counts as interrupted only if the host
/// interrupted it.
pub fn turn_done(done: &from_agent::TurnDone, told: Option<InterruptWhy>) -> TurnDone {
    let end = |state, why: &str| TurnEnd { state, why: why.chars().take(WHY).collect() };
    match (done.outcome, told) {
        (Outcome::Failed, _) if let Some((code, reason)) = gate_failure(done) => {
            TurnDone { end: end("failed", code), notice: Some(text::gate_failed(reason)) }
        }
        (Outcome::Failed, _) => {
            let (code, reason) =
                done.error.as_ref().map_or(("", ""), |e| (e.code.as_str(), e.reason.as_str()));
            let notice = Some(text::model_failed(code, reason));
            TurnDone { end: end("failed", text::model_code(code)), notice }
        }
        (Outcome::Interrupted, Some(why)) => {
            let (end, notice) = interrupted(why);
            TurnDone { end, notice: Some(notice) }
        }
        (Outcome::Finished, _) if done.gated => TurnDone { end: end("done", GATED), notice: None },
        (Outcome::Limit, _) => TurnDone { end: end("done", "limit"), notice: None },
        (Outcome::Finished | Outcome::Interrupted, _) => {
            TurnDone { end: end("done", "finished"), notice: None }
        }
    }
}
