//! The drafts that wait to be shown: of each chat only the newest. A run puts them here, and `delivery` shows them.
//! They live in memory only, because a draft that nobody has seen is worth nothing after a restart.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::{ChannelName, ChatId, TurnId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub turn: TurnId,
    /// The reply so far, as the agent writes it.
    pub text: String,
}

#[derive(Debug)]
pub struct Drafts {
    waiting: Mutex<BTreeMap<ChatId, Draft>>,
    /// Changes with every draft.
    changes: watch::Sender<()>,
}

impl Default for Drafts {
    fn default() -> Self {
        Self { waiting: Mutex::default(), changes: watch::Sender::new(()) }
    }
}

impl Drafts {
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Puts the draft in the place of an older one.
    pub fn put(&self, chat: ChatId, draft: Draft) {
        self.waiting().insert(chat, draft);
        self.changes.send_replace(());
    }

    /// Drops the draft of a turn. The run calls it before it stores what the turn says: whoever sends that finds no
    /// draft that could follow it.
    pub fn drop_of(&self, chat: &ChatId, turn: TurnId) {
        let mut waiting = self.waiting();
        if waiting.get(chat).is_some_and(|draft| draft.turn == turn) {
            waiting.remove(chat);
        }
    }

    /// Takes the draft of a chat.
    pub fn take(&self, chat: &ChatId) -> Option<Draft> {
        self.waiting().remove(chat)
    }

    pub fn waits(&self, chat: &ChatId) -> bool {
        self.waiting().contains_key(chat)
    }

    /// The chats of a channel that have a draft.
    pub fn chats(&self, channel: ChannelName) -> Vec<ChatId> {
        self.waiting().keys().filter(|chat| chat.channel() == channel.as_str()).cloned().collect()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<ChatId, Draft>> {
        // Every use is a single call, so a panic leaves the map consistent.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_has_one_draft_which_goes_with_its_own_turn() {
        let (drafts, chat): (_, ChatId) = (Drafts::default(), "telegram:5".parse().unwrap());
        let draft = |turn, text: &str| Draft { turn: TurnId(turn), text: text.into() };
        drafts.put(chat.clone(), draft(1, "It"));
        drafts.put(chat.clone(), draft(1, "It rains"));
        drafts.put("telegram:6".parse().unwrap(), draft(2, "No"));
        assert_eq!(drafts.chats(ChannelName::new("telegram")).len(), 2);
        assert!(drafts.chats(ChannelName::new("terminal")).is_empty());
        drafts.drop_of(&chat, TurnId(2));
        assert_eq!(drafts.take(&chat), Some(draft(1, "It rains")));
        assert_eq!(drafts.take(&chat), None);
        drafts.put(chat.clone(), draft(1, "late"));
        drafts.drop_of(&chat, TurnId(1));
        assert!(!drafts.waits(&chat));
    }
}
