//! What the host needs of a chat platform: [`Channel`], which each channel's folder implements. `intake` reads from it
//! and `delivery` writes to it.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::domain::message::Inbound;
use crate::domain::outbound::{Part, SpooledFile};
use crate::domain::{ChannelName, ChatId, GroupName, MessageSeq, RunId, SenderId, TurnId};
use crate::policy::delivery::Abilities;
use crate::policy::platform_pace::Limits;

/// What a channel has read since the last time.
#[derive(Debug)]
pub struct Batch {
    /// Messages, in the platform's order.
    pub inbound: Vec<Inbound>,
    /// How far the channel has read, once these messages are stored; in the channel's own words.
    pub position: Option<String>,
    /// Told after transaction 1, with the trace id of each message of `inbound` (none for what was not stored).
    pub committed: Option<oneshot::Sender<Vec<Option<MessageSeq>>>>,
}

/// Why a channel has nothing to give.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChannelError {
    /// Try again after this.
    #[error("{why}")]
    Later {
        why: String,
        code: &'static str,
        /// How long to wait; the platform's own wish where it had one.
        wait: Duration,
    },
    /// It will not get better by itself: a refused token.
    #[error("{why}")]
    Broken {
        /// What happened, and what to do.
        why: String,
        code: &'static str,
    },
}

/// Why a call did not do what it should; above all, whether it may have done it all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is certain that nothing arrived: no connection, or the platform said no for now.
    #[error("{why}")]
    NotArrived {
        why: String,
        /// How long the platform wants to be left alone.
        after: Option<Duration>,
    },
    /// The call was made and no answer came that says what it did: nobody knows.
    #[error("{why}")]
    Cut { why: String },
    /// The placeholder cannot be filled any more.
    #[error("{why}")]
    Lost {
        why: String,
        /// Whether it still stands there; else somebody has deleted it.
        stands: bool,
    },
    /// The platform will never take this text.
    #[error("{why}")]
    Refused { why: String },
    /// The platform will take nothing for this chat: the bot was removed, the chat is gone.
    #[error("{why}")]
    Gone { why: String },
}

impl SendError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotArrived { .. } => "delivery.later",
            Self::Cut { .. } => "delivery.cut",
            Self::Lost { .. } => "delivery.placeholder",
            Self::Refused { .. } => "delivery.refused",
            Self::Gone { .. } => "delivery.unreachable",
        }
    }
}

/// Why an attachment was not fetched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// Larger than is taken.
    #[error("it has {bytes} bytes")]
    TooBig {
        /// Its size, as far as known.
        bytes: u64,
    },
    /// The platform did not give it for now.
    #[error("{why}")]
    Away {
        why: String,
        /// How long the platform wants to be left alone.
        after: Option<Duration>,
    },
    /// The platform will not give it.
    #[error("{0}")]
    Failed(String),
}

/// What can be watched while an agent works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// The agent does this now.
    Doing(String),
    /// The reply so far.
    Draft(String),
    /// A turn is over, and this many parts were queued for it.
    TurnOver {
        turn: TurnId,
        messages: Vec<MessageSeq>,
        /// The run that ended it.
        run: Option<RunId>,
        /// Parts in the outbox.
        parts: u64,
    },
}

#[async_trait]
pub trait Channel: Send + Sync {
    fn name(&self) -> ChannelName;

    /// Waits for messages after `position` (as a batch gave it and the store kept it).
    async fn next(&self, position: Option<String>) -> Result<Batch, ChannelError>;

    /// Fetches an attachment by its handle, at most `most` bytes.
    async fn fetch(&self, handle: &str, most: u64) -> Result<Vec<u8>, FetchError>;

    /// Splits Markdown into parts that the platform takes. A text without anything to say has no parts.
    fn split(&self, markdown: &str) -> Vec<String>;

    /// How long a send may take before it is given up and tried again; `None` where it waits for a person.
    fn patience(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    /// What it can do about a call that may be repeated.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// How fast it may be called.
    fn pace(&self) -> Limits {
        Limits::default()
    }

    /// The room that a chat belongs to, where the platform limits rooms.
    fn room(&self, _chat: &ChatId) -> Option<String> {
        None
    }

    /// Sends one part; returns the platform's id of it. A channel that takes our own id gives it [`Part::ours`].
    async fn send(&self, part: &Part) -> Result<String, SendError>;

    /// Whether it can send files.
    fn takes_files(&self) -> bool {
        false
    }

    /// Sends a part that is a file, which lies at `path` in the host's spool; returns the platform's id of it. Called
    /// only where [`Channel::takes_files`] says so.
    async fn send_file(&self, _part: &Part, _file: &SpooledFile, _path: &Path) -> Result<String, SendError> {
        Err(SendError::Refused { why: "this channel takes no files".into() })
    }

    /// Sends a placeholder for a part; returns the platform's id of it. Called only where [`Abilities::edits`] is set.
    async fn claim(&self, _part: &Part) -> Result<String, SendError> {
        Err(SendError::Refused { why: "this channel has no placeholders".into() })
    }

    /// Gives a placeholder the text of its part, however often it is told to.
    async fn fill(&self, _part: &Part, _placeholder: &str) -> Result<(), SendError> {
        Err(SendError::Refused { why: "this channel has no placeholders".into() })
    }

    /// The person who is an owner because nobody else can write here: on a channel that only the host's own user can
    /// open.
    fn local_owner(&self) -> Option<SenderId> {
        None
    }

    /// The chat that a group has here by itself, without being admitted.
    fn chat_of_group(&self, _group: &GroupName) -> Option<ChatId> {
        None
    }

    /// Shows that the agent works; lasts a few seconds on most platforms and is repeated while it does.
    async fn typing(&self, chat: &ChatId);

    /// Shows what the agent does, where the platform has a place for it.
    fn show(&self, _chat: &ChatId, _activity: &Activity) {}
}
