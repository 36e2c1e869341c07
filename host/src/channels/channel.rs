//! The interface of a chat platform: each channel's folder implements [`Channel`]. `intake` reads from it and
//! `delivery` writes to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::dispatch::Renewal;
use crate::domain::message::{ChatEvent, Inbound, Press, PressAnswer};
use crate::domain::outbound::{Part, PartText, SpooledFile};
use crate::domain::{ChannelName, ChatId, GroupName, MessageSeq, RunId, SenderId, TurnId};
use crate::policy::delivery::Abilities;
use crate::policy::platform_pace::Limits;

/// What a channel has read since the last batch.
#[derive(Debug, Default)]
pub struct Batch {
    /// The messages in the platform's order.
    pub inbound: Vec<Inbound>,
    /// What else the platform told of chats.
    pub events: Vec<ChatEvent>,
    /// The operator's orders to end the boxes of a group.
    pub renewals: Vec<RenewalOrder>,
    /// Whether the operator has changed a task.
    pub tasks_changed: bool,
    /// What the chats of `main` on other channels are told. The channel itself works.
    pub notes: Vec<String>,
    /// What the channel left out, counted by name.
    pub counts: BTreeMap<String, u64>,
    /// The channel's read position, in the channel's own format. It is valid once these messages are stored.
    pub position: Option<String>,
    /// The host sends on this after transaction 1: the trace id of each message of `inbound`, or `None` for one that it
    /// did not store.
    pub committed: Option<oneshot::Sender<Vec<Option<MessageSeq>>>>,
}

/// An order to end the boxes of a group, so that its next turn gets a new one, with another image. The host answers
/// what it does; an order that it cannot take has no answer.
#[derive(Debug)]
pub struct RenewalOrder {
    pub group: GroupName,
    pub answer: oneshot::Sender<Renewal>,
}

/// Why a channel returns no batch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChannelError {
    /// The host tries again after `wait`.
    #[error("{why}")]
    Later {
        why: String,
        code: &'static str,
        /// How long to wait. If the platform asked for a time, it is this time.
        wait: Duration,
    },
    /// A person must fix it, such as a refused token. The host asks again, ever more seldom.
    #[error("{why}")]
    Broken {
        /// What happened, and what to do.
        why: String,
        code: &'static str,
    },
    /// Only a person can end it, such as a link that the platform has ended: to ask again is of no use before. The
    /// channel says in [`Channel::recovered`] when that is done.
    #[error("{why}")]
    NeedsPerson {
        /// What happened, and what to do.
        why: String,
        code: &'static str,
    },
}

impl Batch {
    /// Counts what the channel left out.
    pub fn count(&mut self, what: &str, times: u64) {
        if times > 0 {
            *self.counts.entry(what.to_owned()).or_default() += times;
        }
    }
}

/// The account that a channel uses on its platform.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// The platform's id. Each account has a read position of its own.
    pub id: String,
    /// The name that people see.
    pub name: String,
}

/// Why a call failed, and above all whether it may have succeeded all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Certainly nothing arrived: there was no connection, or the platform refused the call for now.
    #[error("{why}")]
    NotArrived {
        why: String,
        /// How long the platform asks the host to wait.
        after: Option<Duration>,
    },
    /// The call was made but no usable answer came, so the part may have arrived.
    #[error("{why}")]
    Cut { why: String },
    /// Only the beginning arrived: the platform refuses the whole text.
    #[error("{why}")]
    Partly {
        why: String,
        /// The platform's id of what arrived.
        receipt: String,
        /// What is left to send, as the next [`Part::markup`].
        rest: String,
    },
    /// The placeholder cannot be filled any more.
    #[error("{why}")]
    Lost {
        why: String,
        /// Whether the placeholder still exists; otherwise somebody has deleted it.
        stands: bool,
    },
    /// The platform will never take this text.
    #[error("{why}")]
    Refused { why: String },
    /// The chat has another id from now on. Nothing arrived.
    #[error("{why}")]
    Moved { why: String, to: ChatId },
    /// The platform takes nothing for this chat, because the bot was removed or the chat is gone.
    #[error("{why}")]
    Gone { why: String },
}

impl SendError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotArrived { .. } | Self::Moved { .. } => "delivery.later",
            Self::Cut { .. } => "delivery.cut",
            Self::Partly { .. } => "delivery.partly",
            Self::Lost { .. } => "delivery.placeholder",
            Self::Refused { .. } => "delivery.refused",
            Self::Gone { .. } => "delivery.unreachable",
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The attachment is larger than the limit.
    #[error("it has {bytes} bytes")]
    TooBig {
        /// The attachment's size, as far as known.
        bytes: u64,
    },
    /// The platform could not give the attachment for now.
    #[error("{why}")]
    Away {
        why: String,
        /// How long the platform asks the host to wait.
        after: Option<Duration>,
    },
    /// The platform will not give the attachment.
    #[error("{0}")]
    Failed(String),
}

/// What a person can watch while an agent works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// What the agent does now.
    Doing(String),
    /// The reply so far.
    Draft(String),
    /// A turn is over, and this many parts were queued for it.
    TurnOver {
        turn: TurnId,
        messages: Vec<MessageSeq>,
        /// The run that ended the turn.
        run: Option<RunId>,
        /// Parts of the turn in the outbox.
        parts: u64,
    },
}

/// Why a draft was not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotShown {
    pub why: String,
    /// How long the chat gets no other one.
    pub again: Duration,
}

/// Why there is no reaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReactError {
    /// The platform may take it later.
    #[error("{why}")]
    Later { why: String, after: Option<Duration> },
    /// The platform has no such reaction, or not for the host's account in this chat.
    #[error("{0}")]
    Emoji(String),
    /// There is nothing to react to.
    #[error("{0}")]
    Message(String),
}

impl ReactError {
    pub fn passes(&self) -> bool {
        matches!(self, Self::Later { .. })
    }

    /// How long to wait before the next try.
    pub fn wait(&self) -> Duration {
        match self {
            Self::Later { after: Some(after), .. } => *after,
            _ => Duration::from_secs(30),
        }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Self::Later { .. } => "react.later",
            Self::Emoji(_) => "react.emoji",
            Self::Message(_) => "react.message",
        }
    }
}

#[async_trait]
pub trait Channel: Send + Sync {
    fn name(&self) -> ChannelName;

    /// Returns why nothing can be read yet, and what to do, while no account is linked; see [`super::linking`].
    fn not_linked(&self) -> Option<String> {
        None
    }

    /// Waits until an account is linked. The host waits for it only after [`Channel::not_linked`] has named a reason.
    async fn linked(&self) {}

    /// Waits until the channel may read again. After a failure the host waits for this or for the time that the error
    /// named, whichever comes first. By default it is the time.
    async fn recovered(&self) {
        std::future::pending().await
    }

    /// Closes the connection. The host calls it when it ends, after the last part is sent.
    async fn close(&self) {}

    /// Returns the account, where the platform has one for this channel.
    async fn account(&self) -> Result<Account, ChannelError> {
        Ok(Account::default())
    }

    /// Waits for messages after `position`, which the store kept from an earlier batch. It may wait for ever. The host
    /// drops the future when it stops, so a message must not be lost with it.
    async fn next(&self, position: Option<String>) -> Result<Batch, ChannelError>;

    /// Fetches an attachment by its handle, at most `most` bytes.
    async fn fetch(&self, handle: &str, most: u64) -> Result<Vec<u8>, FetchError>;

    /// Splits Markdown into parts that the platform takes. A text without visible content has no parts.
    fn split(&self, markdown: &str) -> Vec<PartText>;

    /// Returns whether the platform takes this Markdown below a file.
    fn takes_caption(&self, _caption: &str) -> bool {
        true
    }

    /// Returns after which time the host gives up a send and tries again; `None` where a send waits for a person.
    fn patience(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    /// Returns what the channel offers against duplicates: an id of the host's own, or edits.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Returns the rate limits of calls.
    fn pace(&self) -> Limits {
        Limits::default()
    }

    /// Returns the room of a chat, where the platform limits the rate per room.
    fn room(&self, _chat: &ChatId) -> Option<String> {
        None
    }

    /// Waits until the channel can send. The host begins no call before, so an outage costs no tries, and what waits
    /// goes out as soon as it is over. A channel that learns of an outage only from a call returns at once.
    async fn ready(&self) {}

    /// Sends one part and returns the platform's id of it. The text that people see comes from `text::render`, which
    /// marks the host's notices and takes such marks out of an agent's words. A channel that accepts an id of the
    /// host's sends [`Part::idempotency_key`].
    async fn send(&self, part: &Part) -> Result<String, SendError>;

    /// Returns whether the channel can send files.
    fn takes_files(&self) -> bool {
        false
    }

    /// Sends a part that is a file, which lies at `path` in the host's spool, and returns the platform's id of it. The
    /// host calls it only if [`Channel::takes_files`] is true.
    async fn send_file(&self, _part: &Part, _file: &SpooledFile, _path: &Path) -> Result<String, SendError> {
        Err(SendError::Refused { why: "this channel takes no files".into() })
    }

    /// Returns whether people can press [`Part::choices`] here. Elsewhere the host puts words in their place. Each
    /// button carries [`Part::token`], and a press comes back as an [`Inbound`] with [`Inbound::press`].
    fn has_buttons(&self) -> bool {
        false
    }

    /// Tells the person who pressed a button what became of it, and puts a decision in the place of the buttons. It may
    /// fail: the host does not repeat it.
    async fn answer_press(&self, _chat: &ChatId, _press: &Press, _answer: &PressAnswer) {}

    /// Sends a placeholder for a part and returns the platform's id of it. The host calls it only if
    /// [`Abilities::edits`] is set.
    async fn claim(&self, _part: &Part) -> Result<String, SendError> {
        Err(SendError::Refused { why: "this channel has no placeholders".into() })
    }

    /// Writes the part's text into its placeholder. Repeating the call is harmless.
    async fn fill(&self, _part: &Part, _placeholder: &str) -> Result<(), SendError> {
        Err(SendError::Refused { why: "this channel has no placeholders".into() })
    }

    /// Returns the person who is an owner because nobody else can write here. Only a channel that the host's own user
    /// alone can open has one.
    fn local_owner(&self) -> Option<SenderId> {
        None
    }

    /// Returns the chat that a group has on this channel without being admitted.
    fn chat_of_group(&self, _group: &GroupName) -> Option<ChatId> {
        None
    }

    /// Returns the chat whose admission holds for this one, too, such as the room of a topic.
    fn follows(&self, _chat: &ChatId) -> Option<ChatId> {
        None
    }

    /// Shows that the agent works. Most platforms show it for a few seconds, so the host repeats it.
    async fn typing(&self, chat: &ChatId);

    /// Shows what the agent does, where the platform has a place for it.
    fn show(&self, _chat: &ChatId, _activity: &Activity) {}

    /// Returns whether this chat can show drafts: the platform shows the beginning of a reply while the agent writes
    /// it. A draft is not a message, and the platform removes it by itself.
    fn takes_drafts(&self, _chat: &ChatId) -> bool {
        false
    }

    /// Shows the reply so far, in the place of the turn's earlier draft. The host keeps the pace and the order: it
    /// calls this only if [`Channel::takes_drafts`] is true, and never after a part of the turn's last reply.
    async fn draft(&self, _chat: &ChatId, _turn: TurnId, _text: &str) -> Result<(), NotShown> {
        Err(NotShown { why: "this channel shows no drafts".into(), again: Duration::MAX })
    }

    /// Returns whether the host's account can react to messages with an emoji.
    fn reacts(&self) -> bool {
        false
    }

    /// Puts a reaction in the place of the account's earlier one; `None` takes it back. `message` is the platform's id.
    /// Repeating the call is harmless.
    async fn react(&self, _chat: &ChatId, _message: &str, _emoji: Option<&str>) -> Result<(), ReactError> {
        Err(ReactError::Emoji("this chat has no reactions".into()))
    }

    /// Returns the reaction that shows a message that an agent has taken, until its answer comes; `None` for no such
    /// sign in this chat.
    fn taken_mark(&self, _chat: &ChatId) -> Option<&'static str> {
        None
    }
}
