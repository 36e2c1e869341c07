//! What the host sends: rows of the outbox.

use super::{ChatId, MessageSeq, TurnId, WallMs};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// The agent.
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

/// Something to be said, before it has a row. One text makes one or more parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saying {
    /// Where.
    pub chat: ChatId,
    /// Who speaks.
    pub voice: Voice,
    /// Unique within the turn: the letter's id, or `notice:<word>`.
    pub key: String,
    /// Markdown, split to what the channel takes.
    pub parts: Vec<String>,
    /// The message it answers, where it answers exactly one.
    pub answers: Option<MessageSeq>,
}

/// A part that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The row.
    pub id: i64,
    /// Where.
    pub chat: ChatId,
    /// Who speaks.
    pub voice: Voice,
    /// The turn it belongs to; notices outside turns have none.
    pub turn: Option<TurnId>,
    /// The message it answers.
    pub answers: Option<MessageSeq>,
    /// Markdown.
    pub text: String,
    /// How often it was tried before.
    pub attempts: u32,
    /// When it was written. A reply older than its lifetime is never sent.
    pub created: WallMs,
}
