//! The registry of channels: the chat platforms that this build has. Nothing outside a channel's folder knows its
//! platform, so a new channel is a folder here and its entry in [`channels!`].
//!
//! `config` takes the settings from here, and `daemon` builds the channels of an install.

mod channel;
pub mod telegram;
pub mod terminal;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use channel::{Activity, Batch, Channel, ChannelError, FetchError, SendError};

use crate::clock::Clock;
use crate::domain::outbound::Delivery;
use crate::domain::{ChannelName, ChatId, ChatKind, RunId, Secret, SecretSource};

/// Makes [`ChannelsFile`] of the channels' settings. A channel without settings of its own has `#[serde(skip)]`.
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
}

/// An address, for the example of a setting that takes some.
pub const EXAMPLE_SENDER: &str = "telegram:12345";

impl ChannelsFile {
    /// The channel of this name, on or off.
    pub fn named(&self, name: &str) -> Option<&dyn ChannelSettings> {
        self.all().find(|channel| channel.name().as_str() == name)
    }
}

/// A channel's settings, and what the host must know of a channel before it is on.
pub trait ChannelSettings {
    /// Its name: the key below `[channels]`, and what stands before the colon of its chats' ids.
    fn name(&self) -> ChannelName;

    /// The kind of a chat that a group's file names, before anybody writes there.
    fn kind_of(&self, _chat: &ChatId) -> ChatKind {
        ChatKind::Direct
    }

    /// Where its secret lies. `None` where it is off, or needs none.
    fn secret(&self) -> Option<SecretSource<'_>> {
        None
    }

    /// What is done about a part of which nobody knows whether it arrived, where a chat's group does not say.
    fn delivery(&self) -> Delivery {
        Delivery::default()
    }

    /// Builds the channel; `None` where it is off.
    ///
    /// # Errors
    /// What is missing on this machine.
    fn build(&self, host: &Surroundings<'_>) -> Result<Option<Arc<dyn Channel>>, BuildError>;
}

/// What the host gives a channel that it builds.
pub struct Surroundings<'a> {
    /// What [`ChannelSettings::secret`] leads to.
    pub secret: Option<&'a Secret>,
    pub clock: Clock,
    /// The folder of sockets that only the host's user can open.
    pub socket_dir: &'a Path,
    /// Names the folder of a run's letters, for people.
    pub letters: LettersFolder,
}

pub type LettersFolder = Arc<dyn Fn(&RunId) -> String + Send + Sync>;

/// Why a channel cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct BuildError {
    pub code: &'static str,
    /// What was tried.
    pub what: String,
    /// What the system said.
    pub why: String,
}

/// The channels of this host that are on.
#[derive(Clone, Default)]
pub struct Channels(BTreeMap<&'static str, Arc<dyn Channel>>);

impl Channels {
    pub fn add(&mut self, channel: Arc<dyn Channel>) {
        self.0.insert(channel.name().as_str(), channel);
    }

    /// The channel of a chat, if it is on.
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
