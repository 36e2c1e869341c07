//! Lanes: a group's units of work that run one at a time.

use std::fmt;
use std::str::FromStr;

use ipc_schema::GroupName;

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
}

impl Lane {
    pub fn conversation(group: GroupName) -> Self {
        Self { group, kind: LaneKind::Conversation }
    }
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conversation => f.write_str("conversation"),
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
#[error("{0:?} is no lane: write GROUP/conversation")]
pub struct BadLane(String);

impl FromStr for Lane {
    type Err = BadLane;
    fn from_str(text: &str) -> Result<Self, BadLane> {
        let bad = || BadLane(text.chars().take(80).collect());
        let (group, kind) = text.split_once('/').ok_or_else(bad)?;
        let group = group.parse().map_err(|_| bad())?;
        match kind {
            "conversation" => Ok(Self::conversation(group)),
            _ => Err(bad()),
        }
    }
}
