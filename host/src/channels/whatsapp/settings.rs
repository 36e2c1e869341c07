//! The settings `[channels.whatsapp]`, and how they build the channel.

#[cfg(feature = "whatsapp")]
use std::path::Path;
use std::sync::Arc;

use super::{NAME, ROOM};
#[cfg(feature = "whatsapp")]
use crate::channels::linking::Linking;
use crate::channels::{BuildError, Channel, ChannelSettings, Scheme, Surroundings, TakenReaction};
use crate::domain::settings_macro::{Span, settings};
use crate::domain::{ChannelName, ChatId, ChatKind};

settings! {
    /// WhatsApp. It is on when an account is linked (`lazaret link whatsapp`).
    WhatsAppSettings {
        /// `false` keeps it off even where an account is linked.
        enabled: bool = true;
        /// The server's address.
        base_url: String = "wss://web.whatsapp.com/ws/chat".into();
        /// People see that their messages were read, once the host has stored them.
        read_receipts: bool = false;
        /// The bot reacts with 👀 to a message that the agent has begun to work on, and takes it back with the answer:
        /// in rooms ("rooms"), everywhere ("all") or nowhere ("off").
        taken_reaction: TakenReaction = TakenReaction::default();
        /// How long the host rests after a message at most; each rest is random, at least half of it. Messages as
        /// regular as a machine's get a number banned.
        pause: Span = Span::seconds(3), in Span::seconds(0)..=Span::minutes(1);
        /// How many messages in one chat may follow each other at once; on average it is one in two seconds.
        chat_burst: u32 = 3, in 1..=1_000_000;
        /// How many messages a minute all chats get together. Many messages at once get a number banned.
        per_minute: u32 = 30, in 1..=1_000_000;
    }
}

impl ChannelSettings for WhatsAppSettings {
    fn name(&self) -> ChannelName {
        NAME
    }

    fn kind_of(&self, chat: &ChatId) -> ChatKind {
        if chat.local().ends_with(ROOM) { ChatKind::Room } else { ChatKind::Direct }
    }

    fn urls(&self) -> Vec<(&'static str, &str, Scheme)> {
        vec![("base_url", &self.base_url, Scheme::WebSocket)]
    }

    #[cfg(not(feature = "whatsapp"))]
    fn missing(&self) -> Option<&'static str> {
        Some("this build has no WhatsApp; build it with the cargo feature `whatsapp`, which is on by default")
    }

    #[cfg(feature = "whatsapp")]
    fn linking(&self, folder: &Path) -> Option<Box<dyn Linking>> {
        Some(Box::new(super::device::Link::new(self.clone(), folder)))
    }

    #[cfg(feature = "whatsapp")]
    fn build(&self, host: &Surroundings<'_>) -> Result<Option<Arc<dyn Channel>>, BuildError> {
        if !self.enabled {
            return Ok(None);
        }
        Ok(Some(Arc::new(super::device::WhatsApp::new(self.clone(), host)?)))
    }

    #[cfg(not(feature = "whatsapp"))]
    fn build(&self, _host: &Surroundings<'_>) -> Result<Option<Arc<dyn Channel>>, BuildError> {
        Ok(None)
    }
}
