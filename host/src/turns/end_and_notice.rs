//! Decides which state a turn ends in and which notice its chat gets.

use ipc_schema::letters::from_agent::{self, Outcome};
use ipc_schema::letters::to_agent::InterruptWhy;

use crate::domain::ending::TurnEnd;
use crate::text;

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
        (Outcome::Limit, _) => TurnDone { end: end("done", "limit"), notice: None },
        (Outcome::Finished | Outcome::Interrupted, _) => {
            TurnDone { end: end("done", "finished"), notice: None }
        }
    }
}
