//! How long messages of a chat stay where its people let them disappear. What the host sends disappears with them.
//!
//! Each message tells it anew, so a host that has just started learns it with the message that it answers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use whatsapp_rust::proto_helpers::MessageExt;
use whatsapp_rust::types::events::InboundMessage;
use whatsapp_rust::waproto::whatsapp as wa;

use super::people;
use crate::domain::ChatId;

/// Above this number of chats the host forgets them all, and learns them again.
const KEPT: usize = 1024;

/// Seconds by chat; a chat whose messages stay has none.
#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<HashMap<ChatId, u32>>);

impl Timers {
    fn chats(&self) -> MutexGuard<'_, HashMap<ChatId, u32>> {
        // Every use leaves the map consistent, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a received message tells of its chat.
    pub fn learn(&self, received: &InboundMessage) {
        let Some(seconds) = timer(&received.message) else { return };
        let source = &received.info.source;
        // The host knows a person by the phone number, whichever address the message names.
        let other = source.sender_alt.as_ref().filter(|_| !source.is_group && !source.is_from_me);
        for chat in [Some(&source.chat), other].into_iter().flatten().filter_map(people::chat_of) {
            self.set(chat, seconds);
        }
    }

    fn set(&self, chat: ChatId, seconds: u32) {
        let mut chats = self.chats();
        if seconds == 0 {
            chats.remove(&chat);
            return;
        }
        if chats.len() >= KEPT {
            chats.clear();
        }
        chats.insert(chat, seconds);
    }

    pub fn of(&self, chat: &ChatId) -> Option<u32> {
        self.chats().get(chat).copied()
    }
}

/// Returns the timer that a message tells, zero for none; `None` if it does not concern the timer, as a reaction.
fn timer(message: &wa::Message) -> Option<u32> {
    let message = message.get_base_message();
    let setting = message.protocol_message.as_option().and_then(|protocol| protocol.ephemeral_expiration);
    let is_text = message.conversation.is_some() || message.extended_text_message.is_set();
    setting.or_else(|| message.get_ephemeral_expiration()).or_else(|| is_text.then_some(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use whatsapp_rust::buffa::MessageField;
    use whatsapp_rust::waproto::whatsapp::message::{ExtendedTextMessage, ProtocolMessage, ReactionMessage};

    fn text(expiration: Option<u32>) -> wa::Message {
        let context_info = MessageField::some(wa::ContextInfo { expiration, ..wa::ContextInfo::default() });
        let text = ExtendedTextMessage { context_info, ..ExtendedTextMessage::default() };
        wa::Message { extended_text_message: MessageField::some(text), ..wa::Message::default() }
    }

    #[test]
    fn texts_and_settings_tell_the_timer_and_reactions_do_not() {
        let plain = wa::Message { conversation: Some("hi".into()), ..wa::Message::default() };
        let off = ProtocolMessage { ephemeral_expiration: Some(0), ..ProtocolMessage::default() };
        let off = wa::Message { protocol_message: MessageField::some(off), ..wa::Message::default() };
        let reaction = wa::Message {
            reaction_message: MessageField::some(ReactionMessage::default()),
            ..wa::Message::default()
        };
        for (message, expected) in [
            (text(Some(86_400)), Some(86_400)),
            (text(None), Some(0)),
            (plain, Some(0)),
            (off, Some(0)),
            (reaction, None),
        ] {
            assert_eq!(timer(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn a_chat_whose_messages_stay_again_has_no_timer() {
        let (timers, chat) = (Timers::default(), "whatsapp:49151".parse::<ChatId>().unwrap());
        timers.set(chat.clone(), 86_400);
        assert_eq!(timers.of(&chat), Some(86_400));
        timers.set(chat.clone(), 0);
        assert_eq!(timers.of(&chat), None);
    }

    #[test]
    fn many_chats_cost_no_more_memory() {
        let timers = Timers::default();
        for n in 0..3 * KEPT {
            timers.set(format!("whatsapp:{n}").parse().unwrap(), 60);
        }
        assert!(timers.chats().len() <= KEPT);
    }
}
