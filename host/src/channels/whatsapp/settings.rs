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
        /// The longest pause after a message that the host sends. Each pause is random, between half of this and all of
        /// it, because WhatsApp bans numbers that write as regularly as a machine.
        pause: Span = Span::seconds(3), in Span::seconds(0)..=Span::minutes(1);
        /// How many messages the host may send into one chat without a wait between them. Over a longer time it sends
        /// one in two seconds there.
        chat_burst: u32 = 3, in 1..=1_000_000;
        /// How many messages a minute the host sends into all chats together. WhatsApp bans numbers that send many
        /// messages at once.
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

    fn is_off(&self) -> bool {
        !self.enabled
    }

    #[cfg(not(feature = "whatsapp"))]
    fn missing(&self) -> Option<&'static str> {
        Some(
            "this build has no WhatsApp, because it was built with `--no-default-features`; build it without that option",
        )
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
