//! A group's settings: those of its file, checked, and the install's where the file is silent.

use std::path::PathBuf;

use super::limits::{ContextLimits, RunLimits};
use super::outbound::Delivery;
use super::task::TaskContext;
use super::{ChatId, GroupName, SenderId, Zone};

/// When a message wakes the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trigger {
    /// Every message of a direct chat; in a room, those that address the agent.
    #[default]
    Addressed,
    Always,
    /// As `Addressed`, and in a room also those that contain one of these words.
    Words(Vec<String>),
}

/// Who may end what the agent does: `/stop` and `/new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MayStop {
    /// Everybody who may give commands.
    Anyone,
    /// Owners, people in direct chats, and in a room the person for whom the agent works at the moment.
    #[default]
    Served,
    Owners,
}

/// How many turns may begin in an hour; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TurnRate {
    /// Of one person in a chat.
    pub of_sender: u32,
    /// Of a chat.
    pub of_chat: u32,
}

/// A limit of [`TurnRate`] that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    Sender(u32),
    Chat(u32),
}

impl Reached {
    /// Whom the limit stops: this sender, or everybody.
    pub fn of<'a>(&self, sender: &'a str) -> &'a str {
        match self {
            Self::Sender(_) => sender,
            Self::Chat(_) => "chat",
        }
    }
}

/// What a group allows the sender of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderRules {
    pub rate: TurnRate,
    pub may_stop: MayStop,
}

/// Which group goes first when all slots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// A directory or file of the machine that a group's boxes see beside their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraMount {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the box, below `/mnt/`.
    pub target: String,
    pub writable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, and the name of its folder.
    pub name: GroupName,
    /// What people call the agent here.
    pub persona: String,
    pub trigger: Trigger,
    /// Where it is set, only these people and owners wake the agent or give commands. What others write is context.
    pub senders: Option<Vec<SenderId>>,
    pub may_stop: MayStop,
    pub priority: Priority,
    pub image: String,
    pub model: ModelChoice,
    pub zone: Zone,
    pub limits: RunLimits,
    pub context: ContextLimits,
    /// The tool policy, in the form that the runner gets.
    pub tools: ipc_schema::letters::to_agent::ToolPolicy,
    /// Mounts of its boxes. The install allows each of them.
    pub mounts: Vec<ExtraMount>,
    /// The engine's runtime of its boxes; `None` is the engine's default.
    pub runtime: Option<String>,
    /// The path of a program in its boxes that performs the runs; `None` is Lazaret's runner.
    pub runner: Option<String>,
    /// What the host does with a part that may or may not have arrived; `None` is the channel's setting.
    pub delivery: Option<Delivery>,
    /// Work that its agent does by itself, again and again.
    pub heartbeats: Vec<Heartbeat>,
}

/// A task that the group's file defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub name: String,
    /// In its canonical form.
    pub schedule: String,
    pub prompt: HeartbeatPrompt,
    pub context: TaskContext,
    pub chat: Option<ChatId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeartbeatPrompt {
    Text(String),
    /// The name of a file in the group's folder. It is read when the task is made, and when it has changed.
    File(String),
}

/// A model behind a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelChoice {
    /// The provider's name in `lazaret.toml`.
    pub provider: String,
    /// The model's name there.
    pub model: String,
    /// `max_tokens` of every call.
    pub max_tokens: u32,
    /// The context window in tokens.
    pub window: u32,
    /// Whether it sees pictures and documents.
    pub images: bool,
}

impl Group {
    pub fn sender_rules(&self) -> SenderRules {
        let (of_sender, of_chat) = (self.limits.sender_turns, self.limits.chat_turns);
        SenderRules { rate: TurnRate { of_sender, of_chat }, may_stop: self.may_stop }
    }
}

#[cfg(any(test, fuzzing))]
impl Group {
    /// A group with every default.
    #[allow(clippy::unwrap_used, reason = "a test, or a fuzz target, that gives no name fails")]
    pub fn for_tests(name: &str) -> Self {
        use ipc_schema::letters::to_agent::{ToolPolicy, ToolVerdict};
        Self {
            name: name.parse().unwrap(),
            persona: "Laz".into(),
            trigger: Trigger::default(),
            senders: None,
            may_stop: MayStop::default(),
            priority: Priority::default(),
            image: "lazaret-agent".into(),
            model: ModelChoice {
                provider: "p".into(),
                model: "m".into(),
                max_tokens: 8192,
                window: 200_000,
                images: true,
            },
            zone: Zone::utc(),
            limits: RunLimits::default(),
            context: ContextLimits::default(),
            tools: ToolPolicy { default: ToolVerdict::Record, rules: vec![] },
            mounts: vec![],
            runtime: None,
            runner: None,
            delivery: None,
            heartbeats: vec![],
        }
    }
}
