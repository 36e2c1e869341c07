//! What the host sends: rows of the outbox.

use std::str::FromStr;

use super::{ChatId, MessageSeq, TurnId, WallMs};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    Reply,
    /// The host itself. Shown with a prefix that agents cannot imitate.
    Notice,
}

impl Voice {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Notice => "notice",
        }
    }
}

/// What the owner wants done about a part of which nobody knows whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// It is sent again: never lost, seldom doubled, every possible double counted.
    #[default]
    Resend,
    /// A placeholder claims its place first, and the text is an edit that may be repeated: text is never doubled.
    Edit,
    /// A person is asked.
    Hold,
}

/// How a row is delivered: the owner's wish as far as the channel can follow it. Fixed by the row's first claim, so
/// that whoever finds it cut off knows what may stand on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStrategy {
    /// The platform takes our own id and drops a repeat.
    Keyed,
    /// As [`Delivery::Resend`].
    Resend,
    /// As [`Delivery::Edit`].
    Edit,
    /// As [`Delivery::Hold`].
    Hold,
}

impl DeliveryStrategy {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keyed => "keyed",
            Self::Resend => "resend",
            Self::Edit => "edit",
            Self::Hold => "hold",
        }
    }
}

impl FromStr for DeliveryStrategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Keyed, Self::Resend, Self::Edit, Self::Hold];
        known
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no delivery strategy"))
    }
}

/// Something to be said, before it has a row. One text makes one or more parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingText {
    pub chat: ChatId,
    pub voice: Voice,
    /// Unique within the turn: the letter's id, or `notice:<word>`.
    pub key: String,
    /// Markdown, split to what the channel takes.
    pub parts: Vec<String>,
    /// The message it answers, where it answers exactly one.
    pub answers: Option<MessageSeq>,
}

/// A file that is said: the host's own copy of what an agent named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledFile {
    /// The digest of its bytes in lower-case hex, which is its name in the spool.
    pub sha256: String,
    /// What it is called in the chat: a label, never a path.
    pub name: String,
    pub bytes: u64,
}

/// A part that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub id: i64,
    /// Our own id of it: the same at every repeat, and after a restored copy of the database no other part's.
    pub idempotency_key: String,
    pub chat: ChatId,
    pub voice: Voice,
    /// The turn it belongs to; notices outside turns have none.
    pub turn: Option<TurnId>,
    /// The [`OutgoingText`]'s key: parts of one text share it.
    pub key: String,
    /// The message it answers.
    pub answers: Option<MessageSeq>,
    /// Markdown; of a file, its caption, which may be empty.
    pub text: String,
    /// The file, where the part is one.
    pub file: Option<Box<SpooledFile>>,
    /// How it is delivered.
    pub strategy: DeliveryStrategy,
    /// The message of ours that an edit will fill, once it was sent.
    pub placeholder: Option<String>,
    /// How often it was tried before.
    pub attempts: u32,
    /// When its lifetime began. A reply older than that is never sent.
    pub lives_from: WallMs,
}

impl Part {
    /// What is said, on paper: a file stands there by its name.
    pub fn shown(&self) -> String {
        match &self.file {
            None => self.text.clone(),
            Some(file) => format!("{} [file {}]", self.text, file.name).trim_start().to_owned(),
        }
    }
}
