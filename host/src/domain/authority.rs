//! What a group may ask for.

use ipc_schema::GroupName;

/// A group's authority. It follows from the directory a letter was read from, never from a letter's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    Main,
    Member(GroupName),
}

impl Authority {
    /// The authority of a group.
    pub fn of(group: &GroupName) -> Self {
        if group.is_main() { Self::Main } else { Self::Member(group.clone()) }
    }
}
