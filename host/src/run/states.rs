//! The states of a run: how far the box's life has come, what its newest turn does, and whether its next letter waits
//! for files. They are data; `run` changes them.

use std::collections::BTreeSet;

use ipc_schema::TurnId;
use ipc_schema::letters::to_agent::InterruptWhy;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::{ChatId, Ending};
use crate::store::FileWait;
use crate::workers::Panicked;

/// How far the box's life has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// The box runs and has not said `ready`.
    Starting {
        /// When the host stops waiting for `ready`.
        ready_by: Instant,
    },
    /// The box takes turns.
    Ready,
    /// The host has written `_close`.
    Closing {
        /// Whether the box had said `ready`.
        ready: bool,
    },
    /// The host ends the box by signal.
    Ending {
        /// The reason that is stored for the end. The first reason stays.
        ending: Ending,
        /// When the host sends SIGKILL, the first time or again: a first signal is lost if the engine is away or hangs.
        kill_at: Instant,
    },
}

impl Life {
    /// Returns whether the box has said `ready` and the host does not end it.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready | Self::Closing { ready: true })
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Self::Ending { .. })
    }

    pub(super) fn kill_at(&self) -> Option<Instant> {
        match self {
            Self::Ending { kill_at, .. } => Some(*kill_at),
            _ => None,
        }
    }

    pub(super) fn make_ready(&mut self) {
        match self {
            Self::Starting { .. } => *self = Self::Ready,
            Self::Closing { ready } => *ready = true,
            Self::Ready | Self::Ending { .. } => {}
        }
    }

    /// Notes that the host told the box to close.
    pub(super) fn close(&mut self) {
        match self {
            Self::Starting { .. } => *self = Self::Closing { ready: false },
            Self::Ready => *self = Self::Closing { ready: true },
            Self::Closing { .. } | Self::Ending { .. } => {}
        }
    }

    /// Notes that the host ends the box by signal, and sends SIGKILL at `kill_at`.
    pub(super) fn end(&mut self, called: Ending, kill_at: Instant) {
        match self {
            Self::Ending { kill_at: at, .. } => *at = kill_at,
            _ => *self = Self::Ending { ending: called, kill_at },
        }
    }
}

/// The newest turn that the box was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) id: TurnId,
    pub(super) chat: ChatId,
    /// Set when the host told the box to stop the turn.
    pub(super) interrupted: Option<InterruptWhy>,
    /// The codes of letters of it that were refused.
    pub(super) refused: BTreeSet<&'static str>,
    /// Whether the chat sees drafts of the reply, once that was asked.
    pub(super) drafts: Option<bool>,
    pub(super) stage: TurnStage,
}

/// Where the newest turn stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TurnStage {
    Open {
        /// Whether the box was given an input of it; `begin` alone only names the turn.
        read: bool,
        /// When silence means that the runner is dead.
        silent_at: Instant,
        /// When a question has waited for a person as long as a box may wait.
        suspend_at: Option<Instant>,
    },
    /// The turn has ended, or the box gave it up.
    Over,
}

impl Turn {
    /// Makes a turn that the box works on.
    pub(super) fn open(id: TurnId, chat: ChatId, read: bool, silent_at: Instant) -> Self {
        let stage = TurnStage::Open { read, silent_at, suspend_at: None };
        Self { id, chat, interrupted: None, refused: BTreeSet::new(), drafts: None, stage }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage != TurnStage::Over
    }

    /// Returns whether the box was given an input of the turn.
    pub(super) fn is_read(&self) -> bool {
        !matches!(self.stage, TurnStage::Open { read: false, .. })
    }
}

/// The fetch of one letter's files. It ends with the run. The next run fetches what was not stored by then, under the
/// same names.
pub(super) struct Fetching {
    /// The turn of the letter.
    pub(super) turn: TurnId,
    pub(super) task: AbortOnDropHandle<Result<crate::store::Result<()>, Panicked>>,
}

/// Whether the next input letter waits for files.
pub(super) enum Files {
    None,
    /// The files that it names are being fetched.
    Fetching(Fetching),
    /// Each file is stored or given up, and the letter waits for no others.
    Fetched,
}

impl Files {
    pub(super) fn patience(&self) -> FileWait {
        match self {
            Self::Fetched => FileWait::Spent,
            Self::None | Self::Fetching(_) => FileWait::Whole,
        }
    }

    /// Returns the turn of the letter that waits.
    pub(super) fn fetching_for(&self) -> Option<TurnId> {
        match self {
            Self::Fetching(fetching) => Some(fetching.turn),
            Self::None | Self::Fetched => None,
        }
    }

    /// Stops the fetch. The next run fetches the files again.
    pub(super) fn cancel(&mut self) {
        if matches!(self, Self::Fetching(_)) {
            *self = Self::None;
        }
    }
}

/// Work that the store or the disk did not take. The next scan does it again.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    pub(super) letters: bool,
    pub(super) feed: bool,
    pub(super) verdicts: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_of_an_end_stays_and_nothing_comes_after_it() {
        let (now, later) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(5));
        let mut life = Life::Starting { ready_by: now };
        life.close();
        assert_eq!(life, Life::Closing { ready: false });
        life.make_ready();
        assert!(life.is_ready());
        life.end(Ending::Stopped, now);
        life.end(Ending::Killed, later);
        life.close();
        life.make_ready();
        assert_eq!(life, Life::Ending { ending: Ending::Stopped, kill_at: later });
        assert!(!life.is_ready() && life.is_ending());
    }
}
