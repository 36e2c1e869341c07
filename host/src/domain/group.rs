//! A group as the rooms above see it: its file, checked, with the install's values where it is silent.

use std::path::PathBuf;

use super::limits::{ContextLimits, RunLimits};
use super::outbound::Delivery;
use super::{GroupName, SenderId, Zone};

/// When a message wakes the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trigger {
    /// A direct chat always; a room when the agent is spoken to.
    #[default]
    Addressed,
    /// Every message.
    Always,
    /// A direct chat always; a room when spoken to, or when the text holds one of these words.
    Words(Vec<String>),
}

/// Who waits for whom when slots are scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// After all others.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// A directory or file of the machine that a group's boxes see beside their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraMount {
    /// On the host.
    pub source: PathBuf,
    /// In the box, below `/mnt/`.
    pub target: String,
    /// Whether the box may write.
    pub writable: bool,
}

/// A group's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name and folder.
    pub name: GroupName,
    /// What people call the agent here.
    pub persona: String,
    /// When it wakes.
    pub trigger: Trigger,
    /// If present, only these people (and owners) wake the agent or give orders; others are context.
    pub senders: Option<Vec<SenderId>>,
    /// Who waits for whom.
    pub priority: Priority,
    /// The image; the install's default where the group names none.
    pub image: String,
    /// Provider and model.
    pub model: ModelChoice,
    /// Its time zone.
    pub zone: Zone,
    /// Numbers.
    pub limits: RunLimits,
    /// Context given at a wake.
    pub context: ContextLimits,
    /// Tool policy, as the runner gets it.
    pub tools: ipc_schema::letters::to_agent::ToolPolicy,
    /// What its boxes see beside their own; each is allowed by the install.
    pub mounts: Vec<ExtraMount>,
    /// The engine's runtime of its boxes; the engine's default where there is none.
    pub runtime: Option<String>,
    /// What is done about a part of which nobody knows whether it arrived; the channel's setting where it is silent.
    pub delivery: Option<Delivery>,
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
            priority: Priority::default(),
            image: "lazaret-agent".into(),
            model: ModelChoice { provider: "p".into(), model: "m".into(), max_tokens: 8192, window: 200_000 },
            zone: Zone::utc(),
            limits: RunLimits::default(),
            context: ContextLimits::default(),
            tools: ToolPolicy { default: ToolVerdict::Record, rules: vec![] },
            mounts: vec![],
            runtime: None,
            delivery: None,
        }
    }
}
