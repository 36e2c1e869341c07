//! What the host sends to chats: texts before they are stored, and the stored parts of the outbox.
//!
//! The run and the store make them; delivery and the channels read them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// The setting `delivery`: what to do with a part when nobody knows whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Send it again: never lost, seldom duplicated, and every possible duplicate is counted.
    #[default]
    Resend,
    /// Send a placeholder first and fill it by an edit, which may be repeated: the text is never duplicated.
    Edit,
    /// Ask a person in the chat.
    Hold,
}

/// How a part is delivered: the owner's setting as far as the channel supports it. The part's first claim fixes it,
/// so that after a crash the next host knows what may already be on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStrategy {
    /// The platform accepts an idempotency key and drops a repeat.
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

/// A button below a text. A press counts as if the person wrote `command` in the chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub label: String,
    pub command: String,
}

/// The choices that a text offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    pub list: Vec<Choice>,
    /// What a channel without buttons adds to the text; empty if the text itself names the commands.
    pub in_words: String,
    /// Whether only an owner may choose.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_owners: bool,
}

/// What a button carries: which text offers the choice, and its number there. It comes back with a press. Anybody can
/// send any, so it only selects the stored choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceToken {
    /// [`Part::idempotency_key`]
    pub part: String,
    pub number: usize,
}

impl fmt::Display for ChoiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.part, self.number)
    }
}

impl FromStr for ChoiceToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = text.rsplit_once(':').and_then(|(part, number)| Some((part, number.parse().ok()?)));
        let (part, number) = found.ok_or_else(|| "no button of this host".to_owned())?;
        Ok(Self { part: part.to_owned(), number })
    }
}

/// A text for a chat before it is stored. It becomes one or more parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingText {
    pub chat: ChatId,
    pub voice: Voice,
    /// Unique within the turn: the letter's id, or `notice:<word>`.
    pub key: String,
    /// Split to what the channel takes.
    pub parts: Vec<PartText>,
    /// The message that it answers: the command, or the newest one that the turn's last reply answers.
    pub answers: Option<MessageSeq>,
    /// They stand below the last part.
    pub choices: Option<Choices>,
}

impl OutgoingText {
    /// A notice of one part. `word` is unique within the turn, so that a repeat says nothing twice.
    pub fn notice(chat: &ChatId, word: &str, text: String) -> Self {
        let key = format!("notice:{word}");
        Self {
            chat: chat.clone(),
            voice: Voice::Notice,
            key,
            parts: vec![text.into()],
            answers: None,
            choices: None,
        }
    }
}

/// A part before it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartText {
    /// What people read; of a file, its caption, which may be empty.
    pub text: String,
    /// See [`Part::markup`].
    pub markup: Option<String>,
    /// Set if the part is a file.
    pub file: Option<Box<SpooledFile>>,
}

impl From<String> for PartText {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

/// A file to send: the host's own copy in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledFile {
    /// The digest of its bytes in lower-case hex, which is its name in the spool.
    pub sha256: String,
    /// What it is called in the chat: a label, never a path.
    pub name: String,
    pub bytes: u64,
}

/// A part of the outbox that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub id: i64,
    /// The same at every repeat, and never reused, not even after a restore of the database.
    pub idempotency_key: String,
    pub chat: ChatId,
    pub voice: Voice,
    /// Absent in notices outside turns.
    pub turn: Option<TurnId>,
    /// The [`OutgoingText`]'s key, which the parts of one text share.
    pub key: String,
    pub answers: Option<MessageSeq>,
    /// The platform's id of the message that the part answers. Set for the first part of an answer in a room, where
    /// people must see which of many messages it answers.
    pub quotes: Option<String>,
    /// What people read; Markdown if there is no `markup`. Of a file, its caption, which may be empty.
    pub text: String,
    /// What is left to send of the text, in the platform's own form, if its channel has given one. After a send of the
    /// beginning it is the rest.
    pub markup: Option<String>,
    /// Set if the part is a file.
    pub file: Option<Box<SpooledFile>>,
    pub choices: Option<Box<Choices>>,
    pub strategy: DeliveryStrategy,
    /// The platform's id of the placeholder, once it was sent.
    pub placeholder: Option<String>,
    /// Earlier tries.
    pub attempts: u32,
    /// The start of its lifetime. A reply beyond its lifetime is never sent.
    pub lives_from: WallMs,
}

impl Part {
    #[cfg(test)]
    pub fn for_tests(chat: &str, id: i64) -> Self {
        let chat = match chat.parse() {
            Ok(chat) => chat,
            Err(e) => panic!("{chat}: {e}"),
        };
        Self {
            id,
            idempotency_key: id.to_string(),
            chat,
            voice: Voice::Reply,
            turn: None,
            key: "k".into(),
            answers: None,
            quotes: None,
            text: "hello".into(),
            markup: None,
            file: None,
            choices: None,
            strategy: DeliveryStrategy::Keyed,
            placeholder: None,
            attempts: 0,
            lives_from: WallMs(0),
        }
    }

    /// The part for a channel without buttons: words take the place of its choices.
    #[must_use]
    pub fn in_words(&self) -> Self {
        let words = self.choices.as_ref().map_or("", |choices| &choices.in_words);
        if words.is_empty() {
            return Self { choices: None, ..self.clone() };
        }
        let text = format!("{}\n\n{words}", self.text);
        Self { text, markup: None, choices: None, ..self.clone() }
    }

    /// What the button of a choice carries.
    pub fn token(&self, number: usize) -> ChoiceToken {
        ChoiceToken { part: self.idempotency_key.clone(), number }
    }

    /// The part as text for logs and notices: a file appears by its name.
    pub fn shown(&self) -> String {
        match &self.file {
            None => self.text.clone(),
            Some(file) => format!("{} [file {}]", self.text, file.name).trim_start().to_owned(),
        }
    }
}
