//! The reaction at a message that an agent has begun to work on, on channels whose platform has reactions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The setting `taken_reaction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TakenReaction {
    Off,
    /// In rooms, where nothing else shows which message the agent works on.
    #[default]
    Rooms,
    All,
}

impl TakenReaction {
    /// Returns the reaction; `None` for no such sign in this chat.
    pub fn mark(self, in_room: bool) -> Option<&'static str> {
        let shows = match self {
            Self::Off => false,
            Self::Rooms => in_room,
            Self::All => true,
        };
        shows.then_some("👀")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_get_the_mark_and_direct_chats_only_if_the_owner_wants_it() {
        for (setting, room, direct) in [
            (TakenReaction::Off, false, false),
            (TakenReaction::Rooms, true, false),
            (TakenReaction::All, true, true),
        ] {
            assert_eq!((setting.mark(true).is_some(), setting.mark(false).is_some()), (room, direct));
        }
    }
}
