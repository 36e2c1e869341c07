//! Decides whether a message may begin another turn. Turns cost money and a box, and in a room anybody may ask for
//! them. A message over the limit is kept as context: the agent reads it when the next turn of the chat begins.
//!
//! Owners are not limited: they pay, and `/stop` is theirs.

use std::time::Duration;

use crate::domain::group_settings::{Reached, TurnRate};

/// The time in which turns are counted.
pub const WINDOW: Duration = Duration::from_secs(3600);

/// Which limit is reached, if the last hour had this many turns. Owners' turns count for the chat.
pub fn reached(rate: TurnRate, of_sender: u32, of_chat: u32) -> Option<Reached> {
    let is_reached = |limit: u32, had: u32| limit > 0 && had >= limit;
    if is_reached(rate.of_chat, of_chat) {
        return Some(Reached::Chat(rate.of_chat));
    }
    is_reached(rate.of_sender, of_sender).then_some(Reached::Sender(rate.of_sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_by_its_last_turn_and_zero_is_none() {
        let rate = TurnRate { of_sender: 20, of_chat: 60 };
        assert_eq!(reached(rate, 19, 59), None);
        assert_eq!(reached(rate, 20, 20), Some(Reached::Sender(20)));
        assert_eq!(reached(rate, 0, 60), Some(Reached::Chat(60)));
        assert_eq!(reached(TurnRate::default(), u32::MAX, u32::MAX), None);
    }
}
