//! Channels, chats and senders, and the parsing of their ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChannelName {
    /// `lazaret chat`.
    Terminal,
    /// The Telegram Bot API.
    Telegram,
}

impl ChannelName {
    /// Every channel of this build.
    pub const ALL: [ChannelName; 2] = [Self::Terminal, Self::Telegram];

    /// The part of a chat's id before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Telegram => "telegram",
        }
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no id of a chat or a sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: write CHANNEL:ID, with one of the channels terminal, telegram")]
pub struct BadAddress {
    what: &'static str,
    text: String,
}

fn channel_of(what: &'static str, text: &str) -> Result<ChannelName, BadAddress> {
    let bad = || BadAddress { what, text: text.chars().take(80).collect() };
    let (channel, id) = text.split_once(':').ok_or_else(bad)?;
    let channel = ChannelName::ALL.into_iter().find(|c| c.as_str() == channel).ok_or_else(bad)?;
    let fits = (1..=120).contains(&id.len()) && id.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if fits { Ok(channel) } else { Err(bad()) }
}

/// Defines an id `CHANNEL:ID` that only its parser can make.
macro_rules! address {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type {
            text: String,
            channel: ChannelName,
        }

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.text
            }
        }

        impl FromStr for $type {
            type Err = BadAddress;
            fn from_str(text: &str) -> Result<Self, BadAddress> {
                let channel = channel_of($what, text)?;
                Ok(Self { text: text.to_owned(), channel })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.text)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

address!(
    /// A chat, or one topic of it: `telegram:-100123/42`, `terminal:local`.
    ChatId, "chat"
);
address!(
    /// A person or bot on a platform: `telegram:12345`.
    SenderId, "sender"
);

impl ChatId {
    pub fn channel(&self) -> ChannelName {
        self.channel
    }

    /// The platform's own id: the part after the colon.
    pub fn local(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, local)| local)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    Direct,
    Room,
}

impl ChatKind {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Room => "room",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_channel() {
        let topic: ChatId = "telegram:-100123/42".parse().unwrap();
        assert_eq!((topic.channel(), topic.local()), (ChannelName::Telegram, "-100123/42"));
        for bad in ["telegram", "telegram:", "irc:#a", "telegram:a b", "telegram:\u{1b}x", ":1"] {
            assert!(bad.parse::<ChatId>().is_err(), "{bad:?}");
        }
    }
}
