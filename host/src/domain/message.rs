//! Messages that people write: as a channel delivers them, as admission passes them on, and as the store returns
//! them.

use ipc_schema::letters::to_agent::Order;
use serde::{Deserialize, Serialize};

use super::group_settings::SenderRules;
use super::{ChatId, ChatKind, GroupName, MessageSeq, SenderId, WallMs};

/// A message as a channel delivers it. Only ids and times are trusted, because the platform vouches for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// Where it was written.
    pub chat: ChatId,
    pub kind: ChatKind,
    /// The room's title or the person's name.
    pub title: String,
    /// The platform's id of the message, unique in its chat.
    pub message_id: String,
    /// 0 for the original; a platform's edit counter or edit time for a later version.
    pub version: i64,
    pub sender: Sender,
    /// The text or caption, and words for content that is no text.
    pub text: String,
    /// Whose words the text is, if the sender only passes it on: a forwarded message, or one made by a bot.
    pub origin: Option<String>,
    /// Whether it tells of the chat, such as a new member. It wakes nobody.
    pub service: bool,
    pub reply_to: Option<ReplyTo>,
    /// Files that came with it, not yet fetched.
    pub attachments: Vec<OfferedFile>,
    pub addressee: Addressee,
    pub at: WallMs,
    /// Set if the person pressed a button instead of writing. The text is then empty, until the host puts the command
    /// of the pressed choice there.
    pub press: Option<Press>,
}

impl Inbound {
    /// Adds another part of an album: its files and its words.
    pub fn join(&mut self, part: &Inbound) {
        self.attachments.extend(part.attachments.iter().cloned());
        if !part.text.is_empty() {
            let before = if self.text.is_empty() { "" } else { "\n" };
            self.text = format!("{}{before}{}", self.text, part.text);
        }
        self.reply_to = self.reply_to.take().or_else(|| part.reply_to.clone());
        self.origin = self.origin.take().or_else(|| part.origin.clone());
        self.service &= part.service;
        if part.addressee == Addressee::Us {
            self.addressee = Addressee::Us;
        }
    }
}

/// A press on a button below a message of the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Press {
    /// The platform's id of the press.
    pub id: String,
    /// The platform's id of the message with the button; `None` if the platform did not tell.
    pub message: Option<String>,
    /// What the button carried: a `ChoiceToken`, unless it is somebody else's button.
    pub token: String,
}

/// What a person who pressed a button is told at once. It may get lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PressAnswer {
    /// It is decided, by this press or an earlier one. The outcome takes the place of the buttons.
    Decided { outcome: String, told: String },
    /// Nothing was done, for this reason.
    Refused(String),
}

/// What a platform tells of a chat, other than a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatEvent {
    /// The chat has another id from now on.
    Moved { from: ChatId, to: ChatId },
    /// The bot can neither read nor write there any more.
    Lost { chat: ChatId, why: String },
    /// The bot is there again.
    Back { chat: ChatId },
    /// A command has admitted a chat to this group. What the chat wrote before may have opened a turn.
    Admitted { group: GroupName },
}

/// Whom a message addresses, as far as the platform says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee {
    /// Nobody in particular.
    Anyone,
    /// The bot: by a mention, by a reply to it, or by a command with its name.
    Us,
    /// Another bot, by a command with that bot's name.
    AnotherBot,
}

impl Addressee {
    /// Reads the name in a command such as `/new@laz_bot`. Returns `None` for a command without a name and for every
    /// other text.
    pub fn named(text: &str, is_us: impl Fn(&str) -> bool) -> Option<Self> {
        let (word, name) = text.trim_start().strip_prefix('/')?.split_whitespace().next()?.split_once('@')?;
        let is_name = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name(word) || !is_name(name) {
            return None;
        }
        Some(if is_us(name) { Self::Us } else { Self::AnotherBot })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Rules depend on the id only.
    pub id: SenderId,
    /// Chosen by the person.
    pub name: String,
    /// Whether the platform marks it as a bot.
    pub is_bot: bool,
}

/// The message that another one answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    pub from: String,
    pub text: String,
    /// The platform's id of the answered message, if it is in the same chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A file that is still on the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedFile {
    /// The channel's reference for the download.
    pub handle: String,
    pub name: String,
    /// The media type the platform named.
    pub mime: String,
    /// Size in bytes, if the platform states it before the download.
    pub bytes: Option<u64>,
    /// Whether it is a recording of what the sender says: a voice or video message, and not an audio file.
    pub spoken: bool,
}

/// A file of a message: not fetched yet, stored by the host, or neither with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The channel's reference for the download; absent once the download was tried or ruled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// File name below the group's inbox; absent if it is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub name: String,
    /// The media type the platform named.
    pub mime: String,
    /// Size in bytes. Before the download the platform's number, or 0 if it states none.
    pub bytes: u64,
    /// Why it was not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether it is a recording of what the sender says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spoken: bool,
    /// What is said in it, as the transcription endpoint heard it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// Why there is no transcript of a voice message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_transcript: Option<String>,
}

impl Attachment {
    /// The attachment after the host stored it.
    #[must_use]
    pub fn stored(self, file: String, bytes: u64) -> Self {
        Self { handle: None, file: Some(file), bytes, ..self }
    }

    #[must_use]
    pub fn heard(self, text: String) -> Self {
        Self { transcript: Some(text), ..self }
    }

    #[must_use]
    pub fn not_heard(self, why: String) -> Self {
        Self { no_transcript: Some(why), ..self }
    }

    #[must_use]
    pub fn given_up(self, problem: String) -> Self {
        Self { handle: None, problem: Some(problem), ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It wakes the agent.
    Wake,
    /// It wakes the agent in a session that has just begun, so it never joins the turn of the session before.
    First,
    /// It is kept and given to the agent with the next wake.
    Context,
    /// It is a command for the host.
    Command(Command),
}

/// The commands of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Stop,
    /// Begin a new session.
    New,
    Status,
    Help,
    Answer,
    /// List the group's tasks, or change one.
    Tasks,
    /// The runner replaces the older part of the conversation by a summary.
    Compact,
    /// The runner says what fills the context window.
    Context,
    /// Admit a chat that waits for it.
    Admit,
    /// Refuse a chat that waits for admission.
    Refuse,
    /// Send a held part again.
    Resend,
    /// Leave a held part as it is.
    Drop,
    /// Show the models, or choose one.
    Model,
    /// Show what model calls have used.
    Usage,
}

impl Command {
    pub const ALL: [Command; 14] = [
        Self::Stop,
        Self::New,
        Self::Status,
        Self::Help,
        Self::Answer,
        Self::Tasks,
        Self::Compact,
        Self::Context,
        Self::Admit,
        Self::Refuse,
        Self::Resend,
        Self::Drop,
        Self::Model,
        Self::Usage,
    ];

    /// The command in a text such as `/stop`, `/stop@laz_bot` or `/answer 7F yes`.
    pub fn of(text: &str) -> Option<Self> {
        let word = text
            .trim()
            .strip_prefix('/')?
            .split(|c: char| c.is_whitespace() || c == '@')
            .next()?
            .to_lowercase();
        Self::ALL.into_iter().find(|command| command.word() == word)
    }

    /// Whether only owners may give it, in a chat of `main`.
    pub fn is_owners(self) -> bool {
        matches!(self, Self::Admit | Self::Refuse)
    }

    /// The order to the runner, if it is one: it wakes the agent like a message, and the runner carries it out.
    pub fn order(self) -> Option<Order> {
        match self {
            Self::Compact => Some(Order::Compact),
            Self::Context => Some(Order::Context),
            _ => None,
        }
    }

    /// The words after a command.
    pub fn words_after(text: &str) -> &str {
        text.trim().split_once(char::is_whitespace).map_or("", |(_, words)| words.trim())
    }

    /// The command's name without the slash.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::New => "new",
            Self::Status => "status",
            Self::Help => "help",
            Self::Answer => "answer",
            Self::Tasks => "tasks",
            Self::Compact => "compact",
            Self::Context => "context",
            Self::Admit => "admit",
            Self::Refuse => "refuse",
            Self::Resend => "resend",
            Self::Drop => "drop",
            Self::Model => "model",
            Self::Usage => "usage",
        }
    }
}

impl Role {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wake | Self::First => "wake",
            Self::Context => "context",
            Self::Command(_) => "command",
        }
    }
}

/// A message that passed admission.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// The group of its chat.
    pub group: GroupName,
    pub role: Role,
    pub owner: bool,
    pub rules: SenderRules,
    pub inbound: Inbound,
    /// None is fetched yet.
    pub attachments: Vec<Attachment>,
}

/// Whose name a name is, as far as the host knows. Names are compared by how they look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameOf {
    /// The person's own, or the agent's own in a quote of the agent.
    #[default]
    Own,
    /// Another person of the group had it before, or an owner has it.
    Another,
    /// The host does not have the message that is quoted.
    Unknown,
}

/// A message as the store returns it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    pub seq: MessageSeq,
    /// Where it was written.
    pub chat: ChatId,
    /// Whether it woke the agent.
    pub wakes: bool,
    pub sender_id: String,
    pub sender_name: String,
    /// Whether the sender is an owner.
    pub owner: bool,
    /// Whose name the sender's is.
    pub name: NameOf,
    pub text: String,
    /// Whose words the text is, if the sender only passed it on.
    pub origin: Option<String>,
    /// 0 for the original; larger for edits.
    pub version: i64,
    pub reply_to: Option<ReplyTo>,
    /// Whose name that of the answered message is.
    pub quoted_name: NameOf,
    pub attachments: Vec<Attachment>,
    pub at: WallMs,
}
