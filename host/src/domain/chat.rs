//! Channels, chats and senders, and the parsing of their ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The name of a channel that this build has. Only a channel's own folder makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(&'static str);

impl ChannelName {
    /// The name as it stands before the colon of a chat's id: lower-case letters.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The text is no id of a chat or a sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: write CHANNEL:ID")]
pub struct BadAddress {
    what: &'static str,
    text: String,
}

/// Checks the form of an address. Whether this build has the channel is the registry's knowledge.
fn check(what: &'static str, text: &str) -> Result<(), BadAddress> {
    let fits = text.split_once(':').is_some_and(|(channel, id)| {
        (1..=20).contains(&channel.len())
            && channel.chars().all(|c| c.is_ascii_lowercase())
            && (1..=120).contains(&id.len())
            && id.chars().all(|c| !c.is_control() && !c.is_whitespace())
    });
    if fits { Ok(()) } else { Err(BadAddress { what, text: text.chars().take(80).collect() }) }
}

/// Defines an id `CHANNEL:ID` that only its parser can make.
macro_rules! address {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name of the channel.
            pub fn channel(&self) -> &str {
                self.0.split_once(':').map_or("", |(channel, _)| channel)
            }
        }

        impl FromStr for $type {
            type Err = BadAddress;
            fn from_str(text: &str) -> Result<Self, BadAddress> {
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
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
    /// The platform's own id: the part after the colon.
    pub fn local(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, local)| local)
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
        assert_eq!((topic.channel(), topic.local()), ("telegram", "-100123/42"));
        for bad in ["telegram", "telegram:", "IRC:#a", "telegram:a b", "telegram:\u{1b}x", ":1"] {
            assert!(bad.parse::<ChatId>().is_err(), "{bad:?}");
        }
    }
}
