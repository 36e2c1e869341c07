//! The settings files as types. Their field docs are the text of the JSON Schemas.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use ipc_schema::letters::to_agent::{ToolPolicy, ToolRule, ToolVerdict};

pub use super::typed_values::Span;
use crate::domain::group::{Priority, Trigger};
use crate::domain::image::DEFAULT_IMAGE;
use crate::domain::limits::{Budget, ContextLimits, RunLimits};
use crate::domain::outbound::Delivery;
use crate::domain::{ChatId, ProviderKind, SenderId, Zone};
use crate::policy::rate_limit::{Limit, Limits};

/// `lazaret.toml`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InstallFile {
    /// What people call the agent.
    pub persona: String,
    /// The time zone of groups that name none.
    pub zone: Zone,
    /// Who may do everything, by id: `["telegram:12345"]`. Whoever is paired first comes on top.
    #[schemars(with = "Vec<String>")]
    pub owners: Vec<SenderId>,
    /// The image of groups that name none.
    pub image: String,
    /// The model of groups that name none.
    pub model: ModelFile,
    /// How much may happen at once.
    pub host: HostFile,
    /// How long things are kept.
    pub keep: KeepFile,
    /// The container engine.
    pub engine: EngineFile,
    /// Limits of every run. Groups may name others, but no more of the machine (memory, processors, processes, disk)
    /// than these.
    pub limits: LimitsFile,
    /// Talk that goes with a wake.
    pub context: ContextFile,
    /// Tool policy: a guard rail for the model, not a wall.
    pub tools: ToolsFile,
    /// What groups may mount.
    pub mounts: MountsFile,
    /// Chat platforms.
    pub channels: ChannelsFile,
    /// Model providers by name. Without any, the environment decides: `ANTHROPIC_API_KEY`, `OPENAI_BASE_URL`, else
    /// the tour.
    pub providers: BTreeMap<String, ProviderFile>,
}

impl Default for InstallFile {
    fn default() -> Self {
        Self {
            persona: "Laz".into(),
            zone: Zone::utc(),
            owners: Vec::new(),
            image: DEFAULT_IMAGE.into(),
            model: ModelFile::default(),
            host: HostFile::default(),
            keep: KeepFile::default(),
            engine: EngineFile::default(),
            limits: LimitsFile::default(),
            context: ContextFile::default(),
            tools: ToolsFile::default(),
            mounts: MountsFile::default(),
            channels: ChannelsFile::default(),
            providers: BTreeMap::new(),
        }
    }
}

impl InstallFile {
    /// The same with defaults for the settings that `[limits]` and `[context]` leave out.
    pub fn filled(mut self) -> Self {
        self.limits = LimitsFile::from(self.limits.over(RunLimits::default()));
        let default = ContextLimits::default();
        self.context.messages.get_or_insert(default.messages);
        self.context.tokens.get_or_insert(default.tokens);
        self.model.max_tokens.get_or_insert(8_192);
        self.model.window.get_or_insert(200_000);
        self
    }
}

/// `groups/NAME/group.toml`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupFile {
    /// Chats of this group, beside those that were admitted by code. One that is taken out stays admitted.
    #[schemars(with = "Vec<String>")]
    pub chats: Vec<ChatId>,
    /// What people call the agent here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// When a message wakes the agent: `"addressed"` (default), `"always"`, or a list of words.
    pub trigger: TriggerFile,
    /// Only these people (and owners) wake the agent; what others write is context.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    pub senders: Option<Vec<SenderId>>,
    /// Who waits for whom when slots are scarce.
    pub priority: PriorityFile,
    /// The image of this group's boxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The engine's runtime of this group's boxes, such as `"runsc"` (gVisor); one of the install's `engine.runtimes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The model of this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelFile>,
    /// The group's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// Limits of this group's runs; not more memory, processors, processes or disk than the install's.
    pub limits: LimitsFile,
    /// Talk that goes with a wake.
    pub context: ContextFile,
    /// Tool policy of this group, instead of the install's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolsFile>,
    /// Directories and files of the machine that the agent sees, as far as the install allows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountFile>,
    /// What is done here about a part of which nobody knows whether it arrived, instead of the channel's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryFile>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelFile {
    /// A name under `[providers]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model's name there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The longest answer, in tokens (8192).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The context window, in tokens (200000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
}

/// How much may happen at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HostFile {
    /// Runs that start or work.
    pub working_runs: usize,
    /// Boxes that live, listening ones included.
    pub live_boxes: usize,
    /// The largest file that is stored for an agent or sent for one, in MiB.
    pub attachment_mib: u64,
    /// How long a model that is busy or away is asked again before the turn is told.
    pub model_retry: Span,
    /// How long a reply is tried while the platform is away.
    pub delivery_retry: Span,
    /// A reply older than this is not sent any more; its chat is told.
    pub reply_lifetime: Span,
    /// Room that is kept to be given back when the disk is full, in MiB.
    pub ballast_mib: u64,
    /// With less than this free, in MiB, no messages are read; what runs may finish.
    pub free_floor_mib: u64,
    /// The hour of the night, in the install's zone, at which a copy of the database is made and old things go.
    pub night_hour: u8,
    /// How long turns may go on when the host is told to stop; what is not finished then is left to its box.
    pub drain: Span,
    /// How long a box waits for a person's answer before its turn is suspended.
    pub question_wait: Span,
    /// How long a question can be answered.
    pub question_expiry: Span,
}

impl HostFile {
    /// Bytes that one file may have, from people and to them.
    pub fn attachment_bytes(&self) -> u64 {
        self.attachment_mib << 20
    }
}

impl Default for HostFile {
    fn default() -> Self {
        Self {
            working_runs: 4,
            live_boxes: 12,
            attachment_mib: 20,
            model_retry: Span(Duration::from_secs(120)),
            delivery_retry: Span(Duration::from_secs(24 * 3600)),
            reply_lifetime: Span(Duration::from_secs(24 * 3600)),
            ballast_mib: 64,
            free_floor_mib: 256,
            night_hour: 3,
            drain: Span(Duration::from_secs(30)),
            question_wait: Span(Duration::from_secs(60)),
            question_expiry: Span(Duration::from_secs(24 * 3600)),
        }
    }
}

/// How long things are kept that nothing needs any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeepFile {
    /// Copies of letters, and the rows that belong to them.
    pub letters: Span,
    /// All copies of letters together, in MiB; the oldest go first.
    pub letters_mib: u64,
    /// Attachments.
    pub media: Span,
    /// Transcripts that were ended or shortened, and what model calls cost.
    pub transcripts: Span,
    /// Nightly copies of the database.
    pub copies: usize,
}

impl Default for KeepFile {
    fn default() -> Self {
        let days = |n: u64| Span(Duration::from_secs(n * 24 * 3600));
        Self { letters: days(14), letters_mib: 1024, media: days(30), transcripts: days(90), copies: 7 }
    }
}

/// The container engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineFile {
    /// The engine's socket. `DOCKER_HOST` is used where this is not set.
    pub socket: String,
    /// Runtimes that a group may name: `["runc", "runsc"]`.
    pub runtimes: Vec<String>,
    /// Losses of the posture that you accept, by name: `["memory-limit"]`. Without this a box that is not what it was
    /// asked to be is refused; `lazaret box check` names the lines.
    pub accept: Vec<String>,
}

impl Default for EngineFile {
    fn default() -> Self {
        Self {
            socket: "unix:///var/run/docker.sock".into(),
            runtimes: vec!["runc".into(), "runsc".into()],
            accept: Vec::new(),
        }
    }
}

/// What groups may mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MountsFile {
    /// Directories; a group may mount them, and what lies in them.
    pub allow: Vec<AllowedMountFile>,
}

/// A directory that groups may mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowedMountFile {
    /// Its absolute path, without links.
    pub path: PathBuf,
    /// Whether groups may ask to write there.
    #[serde(default)]
    pub writable: bool,
}

/// A mount of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountFile {
    /// The absolute path on this machine, without links.
    pub source: PathBuf,
    /// Where the agent sees it: below `/mnt/`.
    pub target: String,
    /// Whether the agent may write there.
    #[serde(default)]
    pub writable: bool,
}

/// Limits. In a group's file: only what differs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// A listening box closes after this much quiet; 0 gives one container per turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_window: Option<Span>,
    /// A turn's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<Span>,
    /// A run's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Span>,
    /// Model calls per turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_calls: Option<u32>,
    /// Requests to the host per turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Interim replies per turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u32>,
    /// A command's time when the model names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Span>,
    /// The longest time the model may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_max: Option<Span>,
    /// Bytes of a command's output that reach the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u32>,
    /// Memory of a box in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Processors of a box in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milli_cpus: Option<u64>,
    /// Processes and threads of a box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Letters that lie in the box's letter directory at one time, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub letters_mib: Option<u64>,
    /// Names that lie there at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub letters_names: Option<u64>,
    /// Letters of a turn all together, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_mib: Option<u64>,
    /// Letters of a turn, by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_letters: Option<u64>,
    /// The group's workspace, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_mib: Option<u64>,
    /// The group's transcripts, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_mib: Option<u64>,
    /// Files that people have sent to the group, all together, in MiB; the oldest go first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbox_mib: Option<u64>,
    /// Whether workspace and transcripts each get a file system of their own, in an image of their limit's size: a box
    /// that fills one is told by the kernel, and is not ended. Needs root, loop devices and `mkfs.ext4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_images: Option<bool>,
}

impl LimitsFile {
    /// These values over `base`.
    pub fn over(&self, base: RunLimits) -> RunLimits {
        let span = |own: Option<Span>, base| own.map_or(base, |s| s.0);
        let mib = |own: Option<u64>, base| own.map_or(base, |m| m.saturating_mul(1 << 20));
        RunLimits {
            idle_window: span(self.idle_window, base.idle_window),
            turn: span(self.turn, base.turn),
            run: span(self.run, base.run),
            model_calls: self.model_calls.unwrap_or(base.model_calls),
            requests: self.requests.unwrap_or(base.requests),
            messages: self.messages.unwrap_or(base.messages),
            command: span(self.command, base.command),
            command_max: span(self.command_max, base.command_max),
            output_bytes: self.output_bytes.unwrap_or(base.output_bytes),
            memory: mib(self.memory_mib, base.memory),
            milli_cpus: self.milli_cpus.unwrap_or(base.milli_cpus),
            pids: self.pids.unwrap_or(base.pids),
            letters: Budget {
                bytes: mib(self.letters_mib, base.letters.bytes),
                names: self.letters_names.unwrap_or(base.letters.names),
            },
            turn_bytes: mib(self.turn_mib, base.turn_bytes),
            turn_letters: self.turn_letters.unwrap_or(base.turn_letters),
            workspace: mib(self.workspace_mib, base.workspace),
            session: mib(self.session_mib, base.session),
            inbox: mib(self.inbox_mib, base.inbox),
            disk_images: self.disk_images.unwrap_or(base.disk_images),
        }
    }
}

impl From<RunLimits> for LimitsFile {
    fn from(l: RunLimits) -> Self {
        Self {
            idle_window: Some(Span(l.idle_window)),
            turn: Some(Span(l.turn)),
            run: Some(Span(l.run)),
            model_calls: Some(l.model_calls),
            requests: Some(l.requests),
            messages: Some(l.messages),
            command: Some(Span(l.command)),
            command_max: Some(Span(l.command_max)),
            output_bytes: Some(l.output_bytes),
            memory_mib: Some(l.memory >> 20),
            milli_cpus: Some(l.milli_cpus),
            pids: Some(l.pids),
            letters_mib: Some(l.letters.bytes >> 20),
            letters_names: Some(l.letters.names),
            turn_mib: Some(l.turn_bytes >> 20),
            turn_letters: Some(l.turn_letters),
            workspace_mib: Some(l.workspace >> 20),
            session_mib: Some(l.session >> 20),
            inbox_mib: Some(l.inbox >> 20),
            disk_images: Some(l.disk_images),
        }
    }
}

/// Talk that goes with a wake.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContextFile {
    /// At most this many messages, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<usize>,
    /// At most this many tokens, estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
}

/// Tool policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ToolsFile {
    /// For tools that no rule names. `ask` refuses until there is a way to ask.
    pub default: ToolVerdict,
    /// The first rule that matches decides.
    pub rules: Vec<ToolRuleFile>,
}

/// One rule of the tool policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolRuleFile {
    /// The tool's name.
    pub tool: String,
    /// For `run_command`: a glob over every segment of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What happens: allow, record, ask, deny.
    pub verdict: ToolVerdict,
}

impl Default for ToolsFile {
    fn default() -> Self {
        Self { default: ToolVerdict::Record, rules: Vec::new() }
    }
}

impl From<ToolsFile> for ToolPolicy {
    fn from(file: ToolsFile) -> Self {
        let rule = |r: ToolRuleFile| ToolRule { tool: r.tool, command: r.command, verdict: r.verdict };
        Self { default: file.default, rules: file.rules.into_iter().map(rule).collect() }
    }
}

/// Chat platforms.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelsFile {
    /// Telegram. It is on when a token is found.
    pub telegram: TelegramFile,
}

/// Telegram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelegramFile {
    /// Off keeps it off even where a token is found.
    pub enabled: bool,
    /// A file of mode 0600 that holds the token; `TELEGRAM_BOT_TOKEN` is used where this is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// The Bot API's address.
    pub base_url: String,
    /// What is done about a part of which nobody knows whether it arrived: `"resend"` (never lost, seldom doubled),
    /// `"edit"` (a placeholder comes first; text is never doubled) or `"hold"` (the chat is asked).
    pub delivery: DeliveryFile,
    /// Calls in one chat that may follow each other at once; on average it is one a second.
    pub chat_burst: u32,
    /// Calls a minute in one room, all of its topics together.
    pub room_per_minute: u32,
    /// Calls a second in all chats together.
    pub bot_per_second: u32,
}

impl Default for TelegramFile {
    fn default() -> Self {
        Self {
            enabled: true,
            token_file: None,
            base_url: "https://api.telegram.org".into(),
            delivery: DeliveryFile::default(),
            // https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
            chat_burst: 3,
            room_per_minute: 20,
            bot_per_second: 30,
        }
    }
}

impl TelegramFile {
    /// How fast Telegram is called.
    pub fn pace(&self) -> Limits {
        let limit =
            |calls: u32, seconds| Some(Limit { calls: calls.max(1), within: Duration::from_secs(seconds) });
        Limits {
            chat: limit(self.chat_burst, self.chat_burst.max(1).into()),
            room: limit(self.room_per_minute, 60),
            all: limit(self.bot_per_second, 1),
        }
    }
}

/// A delivery policy in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryFile {
    /// It is sent again.
    #[default]
    Resend,
    /// A placeholder comes first, and the text is an edit of it.
    Edit,
    /// The chat is asked.
    Hold,
}

impl From<DeliveryFile> for Delivery {
    fn from(file: DeliveryFile) -> Self {
        match file {
            DeliveryFile::Resend => Self::Resend,
            DeliveryFile::Edit => Self::Edit,
            DeliveryFile::Hold => Self::Hold,
        }
    }
}

/// A model provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderFile {
    /// The wire it speaks.
    pub kind: ProviderKind,
    /// Its address; the kind's own where this is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// A file of mode 0600 that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// An environment variable that holds the key; the kind's own where neither is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
}

/// A trigger in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "trigger is \"addressed\", \"always\" or a list of words")]
pub enum TriggerFile {
    /// A word of ours.
    Named(NamedTrigger),
    /// Words that wake the agent in a room.
    Words(Vec<String>),
}

/// The triggers that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NamedTrigger {
    /// A direct chat always, a room when spoken to.
    Addressed,
    /// Every message.
    Always,
}

impl Default for TriggerFile {
    fn default() -> Self {
        Self::Named(NamedTrigger::Addressed)
    }
}

impl From<TriggerFile> for Trigger {
    fn from(file: TriggerFile) -> Self {
        match file {
            TriggerFile::Named(NamedTrigger::Addressed) => Self::Addressed,
            TriggerFile::Named(NamedTrigger::Always) => Self::Always,
            TriggerFile::Words(words) => Self::Words(words),
        }
    }
}

/// A priority in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PriorityFile {
    /// After all others.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl From<PriorityFile> for Priority {
    fn from(file: PriorityFile) -> Self {
        match file {
            PriorityFile::Low => Self::Low,
            PriorityFile::Normal => Self::Normal,
            PriorityFile::High => Self::High,
        }
    }
}
