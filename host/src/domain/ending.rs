//! How runs and turns end.

use std::fmt;

use ipc_schema::letters::to_agent::InterruptWhy;

/// How a run ended. Decided once, when the run is collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The runner closed when it was told to, or had nothing more to do.
    Finished,
    /// A turn took longer than its limit.
    TimedOut,
    /// It went on after `/stop`, so the host ended it.
    Stopped,
    /// The host ended it for reasons of its own, so the turn loses no attempt.
    Killed,
    /// It was silent beyond its announced deadline.
    Silent { seconds: u64 },
    /// The runner's process ended by itself after `ready`.
    Crashed {
        /// The exit code; absent if the container vanished with its engine.
        code: Option<i64>,
        /// Whether the kernel killed it for lack of memory.
        oom: bool,
        /// The reason in the runner's `failed` letter, or the end of its log.
        why: String,
    },
    /// It exceeded a limit (letters, disk). What it did so far is kept. Its turn ends with it, because a retry would
    /// end the same way.
    OverLimit {
        /// The error code: `ipc.flood`, `disk.workspace`, …
        code: &'static str,
        /// Continues a sentence after "it": "wrote 65 MiB of letters in one turn, and may write 64 MiB".
        what: String,
    },
    /// It never wrote `ready`: no engine, no image, wrong architecture, refused posture.
    NeverStarted {
        /// The error code, such as `image.missing`.
        code: String,
        /// For a person: the reason and what to do.
        why: String,
    },
}

/// How a turn ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnEnd {
    /// `done`, `failed` or `stopped`.
    pub state: &'static str,
    /// The reason in the trace: finished, limit, stop, time, attempts, `model.auth`, …
    pub why: String,
}

impl Ending {
    /// The end of a box that dies over the turn that was interrupted.
    pub fn interrupted(why: InterruptWhy) -> Self {
        match why {
            InterruptWhy::Stop => Self::Stopped,
            InterruptWhy::Time => Self::TimedOut,
        }
    }

    /// The name in the database and in `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::TimedOut => "timed_out",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Silent { .. } => "silent",
            Self::Crashed { oom: true, .. } => "out_of_memory",
            Self::Crashed { .. } => "crashed",
            Self::OverLimit { .. } => "over_limit",
            Self::NeverStarted { .. } => "never_started",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { seconds } => write!(f, "silent for {seconds} s"),
            Self::Crashed { oom: true, why, .. } => f.write_str(why),
            Self::OverLimit { code, what } => write!(f, "was ended ({code}): it {what}"),
            Self::Crashed { code: Some(code), why, .. } => write!(f, "ended with exit code {code}: {why}"),
            Self::Crashed { code: None, why, .. } => write!(f, "vanished: {why}"),
            Self::NeverStarted { code, why } => write!(f, "did not start ({code}): {why}"),
            other => f.write_str(other.word()),
        }
    }
}
