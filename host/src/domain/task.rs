//! Scheduled tasks and their fires.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use ipc_schema::requests::tasks::{Overlap, TaskContext};

use super::{ChatId, GroupName, Lane, WallMs};

/// Makes a number that is written with a prefix.
macro_rules! numbered {
    ($($(#[$about:meta])* $name:ident = $prefix:literal,)*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix).unwrap_or(text).parse().map(Self)
            }
        }
    )*};
}

numbered! {
    /// The id of a task, unique in the install: `task-3`.
    TaskId = "task-",
    /// The id of a fire: `f-12`.
    FireId = "f-",
}

/// A task as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub group: GroupName,
    /// Unique among the group's active and paused tasks.
    pub name: String,
    /// The chat that gets the replies.
    pub chat: ChatId,
    pub work: Work,
    /// What the agent does, or what a reminder says.
    pub prompt: String,
    /// The canonical form, from `schedule::Schedule::canonical`.
    pub schedule: String,
    /// The IANA name.
    pub zone: String,
    /// How late a fire may still run. Zero: not at all.
    pub catch_up: Duration,
    pub overlap: Overlap,
    pub ends_at: Option<WallMs>,
    /// How many fires may still run.
    pub left: Option<u32>,
    pub origin: TaskOrigin,
    pub state: TaskState,
    /// Every planned time up to this one has a fire.
    pub after: WallMs,
    /// The next planned time. `None` if there is none, and while the task does not fire.
    pub next_at: Option<WallMs>,
}

impl Task {
    /// The lane of its turns.
    pub fn lane(&self) -> Lane {
        match &self.work {
            Work::Agent(AgentWork { context: TaskContext::Isolated, .. }) => {
                Lane::task(self.group.clone(), self.id)
            }
            Work::Agent(_) | Work::Remind => Lane::conversation(self.group.clone()),
        }
    }
}

/// What a fire does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// It opens a turn with the prompt.
    Agent(AgentWork),
    /// The host posts the prompt itself.
    Remind,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentWork {
    pub context: TaskContext,
    /// The script that decides whether the model is called.
    pub gate: Option<String>,
    /// The final answer is only kept in the history.
    pub silent: bool,
    /// Another model than the group's.
    pub model: Option<String>,
    /// Fewer model calls than a turn may make.
    pub model_calls: Option<u32>,
}

/// Who made a task, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOrigin {
    /// The message (`m-12`), fire (`f-3`), person (`terminal`) or file (`group.toml`) that made it.
    pub by: String,
    /// 0: a person's work made it. 1: the turn of such a task made it.
    pub depth: u32,
}

/// The origin of a task that a group's file defines.
pub const FROM_FILE: &str = "group.toml";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Active,
    Paused,
    /// Its schedule, its end or its number of fires is used up.
    Done,
    Cancelled,
}

impl TaskState {
    /// The name in the database and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of a fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FireOutcome {
    Ran,
    /// It ran late, because the host was away at its time.
    CaughtUp,
    /// The gate script said that there is nothing to do.
    Gated,
    Failed {
        /// The error code.
        why: String,
    },
    /// An earlier fire of the task was not over, or the task was paused or cancelled while the fire waited.
    Skipped,
    /// The host was away, and a later fire took its place or it was too late.
    Missed,
}

impl FireOutcome {
    /// The name in the database and for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::CaughtUp => "caught_up",
            Self::Gated => "gated",
            Self::Failed { .. } => "failed",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }

    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Failed { why } => Some(why),
            Self::Skipped => Some("overlap"),
            _ => None,
        }
    }
}

macro_rules! from_words {
    ($name:ident, $what:literal, [$($value:expr),*]) => {
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                [$($value),*].into_iter().find(|v| v.word() == text).ok_or_else(|| format!("{text:?} is no {}", $what))
            }
        }
    };
}

from_words!(TaskState, "state of a task", [Self::Active, Self::Paused, Self::Done, Self::Cancelled]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_with_and_without_their_prefix() {
        assert_eq!("task-12".parse(), Ok(TaskId(12)));
        assert_eq!("12".parse(), Ok(TaskId(12)));
        assert_eq!(FireId(3).to_string(), "f-3");
        assert!("news".parse::<TaskId>().is_err() && "task--1".parse::<TaskId>().is_err());
    }
}
