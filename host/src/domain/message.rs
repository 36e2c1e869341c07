//! What people write, before and after it is stored.

use serde::{Deserialize, Serialize};

use super::{ChatId, ChatKind, GroupName, MessageSeq, SenderId, WallMs};

/// A message as a channel hands it over. Nothing of it is trusted but what the platform vouches for: ids and times.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// Where it was written.
    pub chat: ChatId,
    /// What sort of chat that is.
    pub kind: ChatKind,
    /// The room's title or the person's name.
    pub title: String,
    /// The platform's id of the message, unique in its chat.
    pub message_id: String,
    /// 0 for the original; a platform's edit counter or edit time for a later version.
    pub version: i64,
    pub sender: Sender,
    /// The text or caption.
    pub text: String,
    pub reply_to: Option<ReplyTo>,
    /// Files that came with it, not yet fetched.
    pub attachments: Vec<OfferedFile>,
    /// Whether the platform says that this message speaks to us (mention by entity, reply to us, command for us).
    pub addresses_us: bool,
    pub at: WallMs,
}

/// A sender, as the platform vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The only thing rules look at.
    pub id: SenderId,
    /// What the person calls themself.
    pub name: String,
    /// Whether the platform marks it as a bot.
    pub is_bot: bool,
}

/// The message that another one answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    pub from: String,
    pub text: String,
}

/// A file on the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedFile {
    /// What the channel needs to fetch it.
    pub handle: String,
    pub name: String,
    /// The media type the platform named.
    pub mime: String,
    /// Size in bytes, where the platform said so before the download.
    pub bytes: Option<u64>,
}

/// A file of a message: not yet fetched, stored by the host, or neither for a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What the channel needs to fetch it; absent once that was tried, or when it will not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// File name below the group's inbox; absent when it is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub name: String,
    /// The media type the platform named.
    pub mime: String,
    /// Size in bytes; before it is stored what the platform said, 0 where it said nothing.
    pub bytes: u64,
    /// Why it was not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Attachment {
    /// It, as it lies in the inbox.
    #[must_use]
    pub fn stored(self, file: String, bytes: u64) -> Self {
        Self { handle: None, file: Some(file), bytes, ..self }
    }

    #[must_use]
    pub fn given_up(self, problem: String) -> Self {
        Self { handle: None, problem: Some(problem), ..self }
    }
}

/// What an admitted message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It wakes the agent.
    Wake,
    /// It is kept, and given with the next wake.
    Context,
    /// It is for the host: `/stop`, `/new`, `/status`, `/help`, `/resend`, `/drop`.
    Command(Command),
}

/// What a person may order the host to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Stop,
    /// Begin a new session.
    New,
    /// Say what is going on.
    Status,
    /// Say what can be ordered.
    Help,
    /// Answer a question of the agent.
    Answer,
    /// Send a part again of which nobody knows whether it arrived.
    Resend,
    /// Leave such a part as it is.
    Drop,
}

impl Command {
    pub const ALL: [Command; 7] =
        [Self::Stop, Self::New, Self::Status, Self::Help, Self::Answer, Self::Resend, Self::Drop];

    /// The command that a text orders: `/stop`, `/stop@laz_bot`, `/answer 7F yes`.
    pub fn of(text: &str) -> Option<Self> {
        let word = text
            .trim()
            .strip_prefix('/')?
            .split(|c: char| c.is_whitespace() || c == '@')
            .next()?
            .to_lowercase();
        Self::ALL.into_iter().find(|command| command.word() == word)
    }

    /// Its word, without the slash.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::New => "new",
            Self::Status => "status",
            Self::Help => "help",
            Self::Answer => "answer",
            Self::Resend => "resend",
            Self::Drop => "drop",
        }
    }
}

impl Role {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Context => "context",
            Self::Command(_) => "command",
        }
    }
}

/// A message that passed admission, ready for the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// Whose message it now is.
    pub group: GroupName,
    pub role: Role,
    /// Whether its sender is an owner.
    pub owner: bool,
    pub inbound: Inbound,
    /// Its files, of which none was fetched.
    pub attachments: Vec<Attachment>,
}

/// A message as the store gives it back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    /// Its place in the store's order: the trace id.
    pub seq: MessageSeq,
    /// Where it was written.
    pub chat: ChatId,
    /// Whether it woke the agent.
    pub wakes: bool,
    pub sender_id: String,
    pub sender_name: String,
    /// Whether the sender is an owner.
    pub owner: bool,
    pub text: String,
    /// 0 for the original.
    pub version: i64,
    pub reply_to: Option<ReplyTo>,
    pub attachments: Vec<Attachment>,
    pub at: WallMs,
}
