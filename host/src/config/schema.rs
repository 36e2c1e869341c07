//! The settings files as `settings!` tables. A new setting is one entry here, or in `domain::limits`, and its use.
//! `host/src/README.md` has the steps.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use ipc_schema::letters::to_agent::{ToolPolicy, ToolRule, ToolVerdict};

use crate::channels::{ChannelsFile, EXAMPLE_SENDER};
use crate::domain::group_settings::{MayStop, Priority, Trigger};
use crate::domain::image::DEFAULT_IMAGE;
use crate::domain::limits::{ContextFile, ContextLimits, LimitsFile, RunLimits};
use crate::domain::outbound::Delivery;
use crate::domain::settings_macro::{Span, settings};
use crate::domain::task::TaskContext;
use crate::domain::{ChatId, ProviderKind, SenderId, Zone};

settings! {
    /// `lazaret.toml`
    InstallFile {
        /// What people call the agent.
        persona: String = "Laz".into();
        /// The time zone of groups that name none, such as "Europe/Berlin".
        zone: Zone = Zone::utc();
        /// Who may do everything, by id. The first person admitted to `main` by code from a direct chat becomes an
        /// owner too.
        #[schemars(with = "Vec<String>", example = [EXAMPLE_SENDER])]
        owners: Vec<SenderId> = Vec::new();
        /// The image of groups that name none.
        image: String = DEFAULT_IMAGE.into();
        /// Models that an owner can choose with `/model` in a chat, besides those that the other settings name.
        #[schemars(example = [ChoosableFile::example()])]
        models: Vec<ChoosableFile> = Vec::new();
        /// The model of groups that name none.
        model: ModelSettings = ModelSettings::default();
        /// Model providers by name. Without any, the environment decides: `ANTHROPIC_API_KEY`, else `OPENAI_API_KEY` or
        /// `OPENAI_BASE_URL`, else the demo model, which needs no key.
        providers: BTreeMap<String, ProviderFile> = BTreeMap::new();
        /// Text for voice messages.
        transcription: TranscriptionFile = TranscriptionFile::default();
        /// Chat platforms.
        channels: ChannelsFile = ChannelsFile::default();
        /// How much may happen at once, and how long the host waits.
        host: HostFile = HostFile::default();
        /// How long the host keeps what nothing needs any more.
        keep: KeepFile = KeepFile::default();
        /// The container engine.
        engine: EngineFile = EngineFile::default();
        /// What groups may mount beside their own files. A mount is read-only unless it says `writable = true` here and
        /// in the group's file. The host refuses the usual places of secrets in any case. The agent can read the path:
        /// put no names into it.
        mounts: MountsFile = MountsFile::default();
        /// Limits of every run. A group's file may set other values. For what the machine has (memory, processors,
        /// processes, disk), a group's value may only be lower.
        limits: RunLimits = RunLimits::default();
        /// Earlier messages that go along when a message wakes the agent.
        context: ContextLimits = ContextLimits::default();
        /// Which tools the model may use: a guard rail for the model, not a boundary.
        tools: ToolsFile = ToolsFile::default();
    }
}

settings! {
    /// `groups/NAME/group.toml`
    GroupFile {
        /// Chats of this group, beside those that were admitted by code. A chat that is taken out stays admitted.
        #[schemars(with = "Vec<String>")]
        chats: Vec<ChatId> = Vec::new();
        /// What people call the agent here.
        persona: Option<String> = None;
        /// Which messages wake the agent: `"addressed"` (default), `"always"`, or a list of words.
        trigger: TriggerFile = TriggerFile::default();
        /// Only these people and the owners wake the agent; it reads the others as context.
        #[schemars(with = "Option<Vec<String>>")]
        senders: Option<Vec<SenderId>> = None;
        /// Who may give `/stop` and `/new`: `"served"` (default), `"anyone"` or `"owners"`.
        may_stop: MayStopFile = MayStopFile::default();
        /// Which group goes first when `host.working_runs` boxes are at work.
        priority: PriorityFile = PriorityFile::default();
        /// The image of this group's boxes.
        image: Option<String> = None;
        /// The engine's runtime of this group's boxes, such as `"runsc"` (gVisor); one of `engine.runtimes` in
        /// lazaret.toml.
        runtime: Option<String> = None;
        /// A program in this group's boxes that takes the place of Lazaret's runner: its path in the image, or below
        /// one of `mounts`. It must speak the protocol in ipc-schema/README.md.
        runner: Option<String> = None;
        /// The model of this group.
        model: Option<ModelFile> = None;
        /// The group's time zone.
        zone: Option<Zone> = None;
        /// Limits of this group's runs.
        limits: LimitsFile = LimitsFile::default();
        /// Earlier messages that go along when a message wakes the agent.
        context: ContextFile = ContextFile::default();
        /// Which tools the model may use here, instead of the install's rules.
        tools: Option<ToolsFile> = None;
        /// Directories and files of the machine that the agent sees, as far as `[mounts]` in lazaret.toml allows them.
        mounts: Vec<MountFile> = Vec::new();
        /// What the host does here with a part that may or may not have arrived, instead of the channel's setting.
        delivery: Option<Delivery> = None;
        /// Work that the agent does by itself, again and again: it looks at what is due and may say nothing.
        heartbeat: Vec<HeartbeatFile> = Vec::new();
    }
}

settings! {
    /// A model.
    ModelSettings / ModelFile {
        /// A name under `[providers]`, or `anthropic`, `openai` or `demo`, which need no table there.
        #[schemars(example = &"anthropic")]
        provider: Option<String> = None;
        /// The model's name there.
        #[schemars(example = &"claude-sonnet-5-5")]
        name: Option<String> = None;
        /// The longest answer, in tokens.
        max_tokens: u32 = 8_192, in 1..=10_000_000;
        /// The context window, in tokens.
        window: u32 = 200_000, in 2..=100_000_000;
        /// Whether the model sees pictures and PDF documents. If not, the agent is told where they lie.
        images: bool = true;
    }
}

settings! {
    /// Text for voice messages.
    TranscriptionFile {
        /// The address of an endpoint with OpenAI's API for speech, which Whisper servers speak too. The host sends
        /// voice messages there. If this is not set, the agent gets them without text.
        #[schemars(example = &"https://api.openai.com/v1")]
        base_url: Option<String> = None;
        /// The model's name there.
        model: String = "gpt-4o-mini-transcribe".into();
        /// A file of mode 0600 that holds the key; a relative path begins at the root of the install.
        #[schemars(example = &"secrets/speech")]
        key_file: Option<String> = None;
        /// An environment variable that holds the key. At OpenAI's own address it is OPENAI_API_KEY if neither is set.
        #[schemars(example = &"SPEECH_API_KEY")]
        key_env: Option<String> = None;
        /// The language that people speak, such as "de". If this is not set, the model finds out.
        #[schemars(example = &"de")]
        language: Option<String> = None;
        /// The largest recording that the host sends, in MiB.
        max_mib: u64 = 20, in 1..=1_048_576;
        /// How long a message that wakes the agent waits for the texts of its recordings.
        timeout: Span = Span::minutes(1), in Span::seconds(1)..=Span::minutes(5);
    }
}

settings! {
    /// How much may happen at once, and how long the host waits.
    HostFile {
        /// How many runs may start or work at one time.
        working_runs: usize = 4, in 1..=10_000;
        /// How many boxes may live at one time, including those that wait for the next message.
        live_boxes: usize = 12, in 1..=10_000;
        /// The largest file that people send an agent, or an agent sends them, in MiB.
        attachment_mib: u64 = 20, in 0..=1_048_576;
        /// How long the host repeats a model call that the provider cannot answer now. Then the turn fails.
        model_retry: Span = Span::minutes(2);
        /// How long the host repeats a reply while the platform cannot be reached.
        delivery_retry: Span = Span::hours(24), in Span::seconds(1)..;
        /// The host does not send a reply that is older than this. It tells the chat.
        reply_lifetime: Span = Span::hours(24), in Span::seconds(1)..;
        /// How much disk the host keeps back, in MiB. It gives this up when the disk is full, so that it can still act.
        ballast_mib: u64 = 64, in 0..=1_048_576;
        /// With less free disk than this, in MiB, the host reads no messages. They wait at the platform; runs go on.
        free_floor_mib: u64 = 256, in 0..=1_073_741_824;
        /// The hour, in the zone `zone`, in whose first half the host copies the database and removes old things.
        night_hour: u8 = 3, in 0..=23;
        /// How long turns may go on when the host is told to stop. The next host takes over boxes that still work.
        drain: Span = Span::seconds(30);
        /// How long a box waits for a person's answer. Then the box is closed, and the answer starts another one.
        question_wait: Span = Span::minutes(1);
        /// How long a person can answer a question.
        question_expiry: Span = Span::hours(24), in Span::seconds(1)..;
    }
}

impl HostFile {
    /// Bytes that one file may have, from people and to them.
    pub fn attachment_bytes(&self) -> u64 {
        self.attachment_mib.saturating_mul(1 << 20)
    }
}

settings! {
    /// How long the host keeps what nothing needs any more.
    KeepFile {
        /// Copies of letters, and the rows that belong to them.
        letters: Span = Span::days(14), in Span::minutes(1)..;
        /// The size of all copies of letters, in MiB. The host removes the oldest first.
        letters_mib: u64 = 1024, in 1..=1_073_741_824;
        /// Attachments.
        media: Span = Span::days(30), in Span::minutes(1)..;
        /// Transcripts that were ended or shortened, and what model calls cost.
        transcripts: Span = Span::days(90), in Span::minutes(1)..;
        /// What became of the fires of tasks.
        fires: Span = Span::days(90), in Span::days(1)..;
        /// How many nightly copies of the database there are.
        copies: usize = 7, in 1..=10_000;
    }
}

settings! {
    /// The container engine.
    EngineFile {
        /// The engine's socket. If this is not set, `DOCKER_HOST` is used. The host refuses an engine on another
        /// machine.
        socket: String = "unix:///var/run/docker.sock".into();
        /// Runtimes that a group may name.
        runtimes: Vec<String> = vec!["runc".into(), "runsc".into()];
        /// Protections that you accept to lose, by name. `lazaret box check` shows the names. If it shows LOST for a
        /// protection, the host starts no box without an entry here.
        #[schemars(example = ["memory-limit"])]
        accept: Vec<String> = Vec::new();
    }
}

settings! {
    /// What groups may mount.
    MountsFile {
        /// Directories; a group may mount them, and what lies in them.
        #[schemars(example = [AllowedMountFile { path: "/srv/photos".into(), writable: false }])]
        allow: Vec<AllowedMountFile> = Vec::new();
    }
}

/// Work that the agent does by itself, again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatFile {
    /// The name of its task, unique in the group.
    pub name: String,
    /// When it comes, such as `"every 30m"` or `"weekdays 08:00"`; it must repeat.
    pub schedule: String,
    /// What the agent looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A file beside this one that holds the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_file: Option<String>,
    /// Whether each time has a session of its own, or is a turn of the conversation.
    #[serde(default)]
    pub context: TaskContext,
    /// The chat that hears the answers, if the group has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub chat: Option<ChatId>,
}

/// A directory that groups may mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowedMountFile {
    /// Its absolute path, without links.
    pub path: PathBuf,
    /// Whether groups may ask to write there.
    #[serde(default)]
    pub writable: bool,
}

/// A mount of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

settings! {
    /// Which tools the model may use.
    ToolsFile {
        /// What happens with tools that no rule names: allow, record, ask or deny.
        default: ToolVerdict = ToolVerdict::Record;
        /// The first rule that fits decides.
        #[schemars(example = [ToolRuleFile::example()])]
        rules: Vec<ToolRuleFile> = Vec::new();
    }
}

/// One rule of the tool policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolRuleFile {
    /// The tool's name.
    pub tool: String,
    /// For `run_command`: a glob over each command of the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What happens: allow, record (allow, and name the call in a `status` letter), ask (an owner decides in the chat),
    /// deny.
    pub verdict: ToolVerdict,
}

impl ToolRuleFile {
    fn example() -> Self {
        let command = Some("git push*".into());
        Self { tool: "run_command".into(), command, verdict: ToolVerdict::Deny }
    }
}

impl From<ToolsFile> for ToolPolicy {
    fn from(file: ToolsFile) -> Self {
        let rule = |r: ToolRuleFile| ToolRule { tool: r.tool, command: r.command, verdict: r.verdict };
        Self { default: file.default, rules: file.rules.into_iter().map(rule).collect() }
    }
}

/// A model that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoosableFile {
    /// The model's name at its provider.
    pub name: String,
    /// The provider; that of `[model]` where this is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The longest answer, in tokens, if it is another one than that of `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The context window, in tokens, if it is another one than that of `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Whether it sees pictures and PDF documents, if it differs from `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<bool>,
}

impl ChoosableFile {
    fn example() -> Self {
        Self { name: "claude-haiku-5-5".into(), provider: None, max_tokens: None, window: None, images: None }
    }
}

/// A model provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderFile {
    /// The wire it speaks.
    pub kind: ProviderKind,
    /// Its address; the kind's own where this is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// A file of mode 0600 that holds the key; a relative path begins at the root of the install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// An environment variable that holds the key; the kind's own where neither is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
}

/// A trigger in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Who may give `/stop` and `/new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MayStopFile {
    /// Everybody who may give commands.
    Anyone,
    /// Owners, people in direct chats, and in a room the person whose message began the turn at work.
    #[default]
    Served,
    /// Only owners.
    Owners,
}

impl From<MayStopFile> for MayStop {
    fn from(file: MayStopFile) -> Self {
        match file {
            MayStopFile::Anyone => Self::Anyone,
            MayStopFile::Served => Self::Served,
            MayStopFile::Owners => Self::Owners,
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
