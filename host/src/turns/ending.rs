//! What a turn's end is called, and what its chat hears of it.

use ipc_schema::letters::from_agent::{self, Outcome};
use ipc_schema::letters::to_agent::InterruptWhy;

use crate::domain::ending::TurnEnd;
use crate::text;

/// The longest word for a turn's end that is stored.
const WHY: usize = 80;

/// How a turn ends that a person or the clock interrupted, and what its chat hears.
pub fn interrupted(why: InterruptWhy) -> (TurnEnd, String) {
    let (why, notice) = match why {
        InterruptWhy::Stop => ("stop", text::stopped()),
        InterruptWhy::Time => ("time", text::time_is_up()),
    };
    (TurnEnd { state: "stopped", why: why.to_owned() }, notice)
}

/// How a turn ends that a box says is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnDone {
    pub end: TurnEnd,
    /// What the host explains to the chat, after the reply.
    pub notice: Option<String>,
}

/// Reads a `turn_done` letter. A box may claim what it likes: only a turn that the host has interrupted is called so.
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
