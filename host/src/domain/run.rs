//! A run's end, and what a turn is worth after it.

use std::fmt;

use ipc_schema::letters::to_agent::InterruptWhy;

/// How a box's life ended. Decided once, when the run is collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It was told to close and did, or had nothing more to do.
    Finished,
    /// A turn took longer than its limit.
    TimedOut,
    /// It went on after `/stop` and was ended.
    Stopped,
    /// The host ended it for its own end: costs the turn nothing.
    Killed,
    /// It said nothing for longer than it had announced.
    Silent {
        /// For how many seconds.
        seconds: u64,
    },
    /// The process ended by itself after `ready`.
    Crashed {
        /// Its exit code; absent when the box vanished with its engine.
        code: Option<i64>,
        /// Whether the kernel ended it for its memory.
        oom: bool,
        /// What the runner's `failed` letter or the end of its log said.
        why: String,
    },
    /// It took more than it may: letters, disk. What it did so far is kept; doing it again would end the same way, so
    /// its turn ends with it.
    OverLimit {
        /// A machine's word: `ipc.flood`, `disk.workspace`, …
        code: &'static str,
        /// What it did and the limit, as it goes on after "it": "wrote 65 MiB of letters in one turn, and may write
        /// 64 MiB".
        what: String,
    },
    /// It never said `ready`: no engine, no image, wrong architecture, refused posture.
    NeverStarted {
        /// A machine's word for the reason, such as `image.missing`.
        code: String,
        /// The reason with what to do, for a person.
        why: String,
    },
}

/// How a turn closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnEnd {
    /// `done`, `failed` or `stopped`.
    pub state: &'static str,
    /// The word for the trace: finished, limit, stop, time, attempts, `model.auth`, …
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

    /// The word that is stored and shown.
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
