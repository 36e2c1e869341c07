//! The registry of channels: the chat platforms of this build. Nothing outside a channel's folder knows its platform. A
//! new channel is a folder here and its entry in [`channels!`].
//!
//! `config` takes the settings from here, and `daemon` builds the channels of an install.

#![cfg_attr(
    not(feature = "whatsapp"),
    allow(
        dead_code,
        reason = "without WhatsApp no channel links an account, and the means for that have no user"
    )
)]

mod channel;
#[cfg(test)]
mod dialect_tests;
pub mod linking;
mod markdown;
mod taken_reaction;
pub mod telegram;
pub mod terminal;
pub mod whatsapp;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use channel::{
    Account, Activity, Batch, Channel, ChannelError, FetchError, NotShown, ReactError, RenewalOrder,
    SendError,
};
pub use taken_reaction::TakenReaction;

use crate::clock::Clock;
use crate::domain::outbound::Delivery;
use crate::domain::{ChannelName, ChatId, ChatKind, RunId, Secret, SecretSource};
use crate::workers::Workers;

/// Makes [`ChannelsFile`] from the channels' settings. A channel without settings of its own has `#[serde(skip)]`.
macro_rules! channels {
    ($($(#[$about:meta])* $name:ident: $settings:ty,)*) => {
        /// Chat platforms.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        #[schemars(extend("order" = [$(stringify!($name)),*]))]
        pub struct ChannelsFile {
            $($(#[$about])* pub $name: $settings,)*
        }

        impl ChannelsFile {
            /// Every channel of this build, on or off.
            pub fn all(&self) -> impl Iterator<Item = &dyn ChannelSettings> {
                let all: [&dyn ChannelSettings; _] = [$(&self.$name),*];
                all.into_iter()
            }
        }
    };
}

channels! {
    /// `lazaret chat`. It is always on.
    #[serde(skip)]
    terminal: terminal::TerminalSettings,
    /// Telegram. It is on when a token is found.
    telegram: telegram::TelegramSettings,
    /// WhatsApp. It is on when an account is linked (`lazaret link whatsapp`).
    whatsapp: whatsapp::WhatsAppSettings,
}

/// An example of an address, for the settings that take addresses.
pub const EXAMPLE_SENDER: &str = "telegram:12345";

impl ChannelsFile {
    /// Returns the channel of this name, on or off.
    pub fn named(&self, name: &str) -> Option<&dyn ChannelSettings> {
        self.all().find(|channel| channel.name().as_str() == name)
    }
}

/// A channel's settings, and what the host must know of the channel before it is on.
pub trait ChannelSettings {
    /// Returns the channel's name: the key below `[channels]`, and the part before the colon in its chats' ids.
    fn name(&self) -> ChannelName;

    /// Returns the kind of a chat that a group's file names, before anybody writes there.
    fn kind_of(&self, _chat: &ChatId) -> ChatKind {
        ChatKind::Direct
    }

    /// Returns where the channel's secret lies; `None` if the channel is off or needs no secret.
    fn secret(&self) -> Option<SecretSource<'_>> {
        None
    }

    /// Returns what the host does with a part that may or may not have arrived, if the chat's group does not set it.
    fn delivery(&self) -> Delivery {
        Delivery::default()
    }

    /// Returns the settings that are addresses, by key, for the check of the settings.
    fn urls(&self) -> Vec<(&'static str, &str, Scheme)> {
        Vec::new()
    }

    /// Returns the means to link an account of the platform to this host; `None` if the channel needs no linking.
    /// `folder` is [`Surroundings::folder`].
    fn linking(&self, _folder: &Path) -> Option<Box<dyn linking::Linking>> {
        None
    }

    /// Whether the settings keep the channel off although it could work.
    fn is_off(&self) -> bool {
        false
    }

    /// Returns why this build cannot have the channel, and what to do; `None` if it can.
    fn missing(&self) -> Option<&'static str> {
        None
    }

    /// Builds the channel; returns `None` if it is off.
    ///
    /// # Errors
    /// Something is missing on this machine.
    fn build(&self, host: &Surroundings<'_>) -> Result<Option<Arc<dyn Channel>>, BuildError>;
}

/// How an address of the settings begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `https://`, or `http://`.
    Http,
    /// `wss://`, or `ws://`.
    WebSocket,
}

/// What the host gives a channel that it builds.
pub struct Surroundings<'a> {
    /// The secret that [`ChannelSettings::secret`] names.
    pub secret: Option<&'a Secret>,
    pub clock: Clock,
    /// Starts a channel's own workers.
    pub workers: &'a Workers,
    /// The folder of the channel's own files, `state/channels/NAME`. Only the host's user can open it; no box sees it.
    /// It may not exist yet.
    pub folder: &'a Path,
    /// The folder of sockets that only the host's user can open.
    pub socket_dir: &'a Path,
    /// Names the folder of a run's letters, for people.
    pub letters: LettersFolder,
}

pub type LettersFolder = Arc<dyn Fn(&RunId) -> String + Send + Sync>;

#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct BuildError {
    pub code: &'static str,
    /// The operation or path that failed.
    pub what: String,
    /// The system's error.
    pub why: String,
}

/// The channels of this host that are on.
#[derive(Clone, Default)]
pub struct Channels(BTreeMap<&'static str, Arc<dyn Channel>>);

impl Channels {
    pub fn add(&mut self, channel: Arc<dyn Channel>) {
        self.0.insert(channel.name().as_str(), channel);
    }

    /// Returns the channel of a chat, if it is on.
    pub fn of(&self, chat: &ChatId) -> Option<Arc<dyn Channel>> {
        self.0.get(chat.channel()).cloned()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Channel>> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_the_name_of_its_settings() {
        let file = ChannelsFile::default();
        let written = serde_json::to_value(&file).unwrap();
        for name in written.as_object().unwrap().keys() {
            assert_eq!(file.named(name).map(|channel| channel.name().as_str()), Some(name.as_str()));
        }
        for channel in file.all() {
            let chat = format!("{}:1", channel.name()).parse::<ChatId>();
            assert_eq!(chat.unwrap().channel(), channel.name().as_str());
        }
    }
}
