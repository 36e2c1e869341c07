//! Keeps the calls of a chat in order: a draft never follows a part that was sent after it.
//!
//! The chat's worker announces a part before it claims it. From then on no draft of the chat begins, and the worker
//! waits for the draft that is on its way. When the part is announced, its run has dropped the draft that waited.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::ChatId;

#[derive(Debug, Default)]
pub(super) struct Lines {
    state: Mutex<State>,
    /// Notified when a draft has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Chats whose worker sends a part, or is about to.
    sending: HashSet<ChatId>,
    /// Chats with a draft on its way.
    drafting: HashSet<ChatId>,
}

impl Lines {
    /// Announces a part, and waits for the draft that is on its way. That one has a short time limit.
    pub(super) async fn begin_part(&self, chat: &ChatId) {
        self.state().sending.insert(chat.clone());
        loop {
            let ended = self.ended.notified();
            if !self.state().drafting.contains(chat) {
                return;
            }
            ended.await;
        }
    }

    pub(super) fn end_part(&self, chat: &ChatId) {
        self.state().sending.remove(chat);
    }

    /// Begins a draft, unless a part goes first.
    pub(super) fn begin_draft(&self, chat: &ChatId) -> bool {
        let mut state = self.state();
        !state.sending.contains(chat) && state.drafting.insert(chat.clone())
    }

    pub(super) fn end_draft(&self, chat: &ChatId) {
        self.state().drafting.remove(chat);
        self.ended.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every use is a single call, so a panic leaves the sets consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_waits_for_the_draft_on_its_way_and_lets_no_other_begin() {
        let (lines, chat, other): (_, ChatId, ChatId) =
            (Lines::default(), "telegram:5".parse().unwrap(), "telegram:6".parse().unwrap());
        assert!(lines.begin_draft(&chat));
        let mut part = std::pin::pin!(lines.begin_part(&chat));
        assert!(futures_util::poll!(&mut part).is_pending(), "the part waits");
        lines.end_draft(&chat);
        part.await;
        assert!(!lines.begin_draft(&chat), "the part is on its way");
        assert!(lines.begin_draft(&other), "other chats do not wait");
        lines.end_part(&chat);
        assert!(lines.begin_draft(&chat));
    }
}
