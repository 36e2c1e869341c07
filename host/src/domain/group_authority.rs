//! What a group has the right to ask for.

use ipc_schema::GroupName;

/// A group's authority. It follows from the directory in which a letter lies, never from the letter's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    Main,
    Member(GroupName),
}

impl Authority {
    pub fn of(group: &GroupName) -> Self {
        if group.is_main() { Self::Main } else { Self::Member(group.clone()) }
    }
}
