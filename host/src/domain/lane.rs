//! Lanes: a group's units of work that run one at a time.

use std::fmt;
use std::str::FromStr;

use ipc_schema::GroupName;

use super::task::TaskId;

/// A lane has at most one open turn and at most one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    pub group: GroupName,
    /// Which line of it.
    pub kind: LaneKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneKind {
    Conversation,
    /// An isolated task, whose fires run beside the conversation.
    Task(TaskId),
}

impl Lane {
    pub fn conversation(group: GroupName) -> Self {
        Self { group, kind: LaneKind::Conversation }
    }

    pub fn task(group: GroupName, task: TaskId) -> Self {
        Self { group, kind: LaneKind::Task(task) }
    }

    /// The isolated task whose lane this is.
    pub fn task_id(&self) -> Option<TaskId> {
        match self.kind {
            LaneKind::Conversation => None,
            LaneKind::Task(task) => Some(task),
        }
    }
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conversation => f.write_str("conversation"),
            Self::Task(task) => task.fmt(f),
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.kind)
    }
}

/// The text is not a lane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no lane: write GROUP/conversation or GROUP/task-NUMBER")]
pub struct BadLane(String);

impl FromStr for Lane {
    type Err = BadLane;
    fn from_str(text: &str) -> Result<Self, BadLane> {
        let bad = || BadLane(text.chars().take(80).collect());
        let (group, kind) = text.split_once('/').ok_or_else(bad)?;
        let group = group.parse().map_err(|_| bad())?;
        match kind {
            "conversation" => Ok(Self::conversation(group)),
            _ if kind.starts_with("task-") => Ok(Self::task(group, kind.parse().map_err(|_| bad())?)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_read_back_as_it_is_written() {
        for text in ["main/conversation", "family/task-12"] {
            assert_eq!(text.parse::<Lane>().unwrap().to_string(), text);
        }
        for text in ["main", "main/", "main/task-", "main/task-x", "main/12", "../conversation"] {
            assert!(text.parse::<Lane>().is_err(), "{text}");
        }
    }
}
