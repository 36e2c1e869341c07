//! Bodies of letters from the host to the box.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{GroupName, LetterId, MessageSeq, TurnId};

/// The body of a letter from the host.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", content = "body", rename_all = "snake_case")]
pub enum ToAgent {
    /// Always letter 1: the run's configuration.
    Begin(Box<Begin>),
    /// The messages of a turn, or a follow-up to the open turn.
    Input(Input),
    /// The verdict on a request.
    Response(Response),
    /// Stops a turn at once: the runner cancels the model call, kills the tool and stays.
    Interrupt(Interrupt),
    /// The file `_close`; its number is the highest that the host wrote. The runner finishes the running tool and
    /// exits.
    Close(Close),
}

impl ToAgent {
    /// The type in the envelope and the file name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Begin(_) => "begin",
            Self::Input(_) => "input",
            Self::Response(_) => "response",
            Self::Interrupt(_) => "interrupt",
            Self::Close(_) => "close",
        }
    }
}

/// The run's configuration. The runner has no other settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Begin {
    /// The newest minor version that the host writes.
    pub minor: u32,
    /// The group whose agent runs.
    pub group: GroupName,
    /// The lane, for people and logs: `conversation`, `task:…`, `child:…`.
    pub lane: String,
    /// Whether this is the owner's group.
    pub main: bool,
    /// The transcript to continue: the file `/session/<session>.jsonl`. `[a-z0-9-]{1,64}`.
    pub session: String,
    /// The agent's name in the chat.
    pub persona: String,
    /// The model to use.
    pub model: Model,
    /// The limits of one turn.
    pub limits: Limits,
    /// Rules for tool calls: a guard rail for the model and no security boundary.
    pub tools: ToolPolicy,
    /// What owners have allowed for ever where the rules say `ask`. Since minor version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<AlwaysAllowed>,
    /// Whether the chat of this run accepts files.
    #[serde(default)]
    pub files: bool,
    /// Whether the agent can react to messages in the chat of this run. Since minor version 2.
    #[serde(default)]
    pub reactions: bool,
    /// For the prompt: one sentence on the network that this group has, and how to ask for more.
    pub network: String,
    /// The group's IANA time zone, such as `Europe/Berlin`.
    pub zone: String,
    /// `groups/global/CLAUDE.md`, if it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude_md_global: Option<Text>,
    /// The group's own `CLAUDE.md`, if it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude_md_group: Option<Text>,
    /// The turn that an earlier run left open, and the letters of it that the host consumed. The runner repeats the
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenTurn>,
    /// The newest closed turns of this session. The runner repeats nothing of them.
    #[serde(default)]
    pub closed: Vec<TurnId>,
}

/// A file's text with its digest, which `update_personality` names as its base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// The text of the file.
    pub text: String,
    /// SHA-256 of the whole file in lower-case hex.
    pub sha256: String,
}

/// What the runner must know about the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// The name to send in requests.
    pub name: String,
    /// The provider's name in the host's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// `max_tokens` of every call.
    pub max_tokens: u32,
    /// The context window in tokens.
    pub window: u32,
    /// Whether it takes no pictures and no documents. Since minor version 2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_images: bool,
}

impl Model {
    /// Names the model of one provider: `anthropic/claude-sonnet-5-5`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.provider.as_deref().unwrap_or_default(), self.name)
    }
}

/// Limits of one turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// The most model calls in one turn, over all its runs.
    pub model_calls: u32,
    /// The time limit of a turn in seconds. The host enforces it.
    pub turn_s: u32,
    /// The default time limit of a command in seconds.
    pub command_s: u32,
    /// The longest time limit in seconds that the model may set for a command.
    pub command_max_s: u32,
    /// Bytes of a command's output that reach the model, half from its head and half from its tail.
    pub output_bytes: u32,
    /// The most requests to the host in one turn.
    pub requests: u32,
    /// The runner compacts the conversation beyond this percentage of the context window.
    pub compaction_percent: u8,
}

/// The tool policy: the first rule that matches decides, otherwise the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolPolicy {
    /// Applies when no rule matches.
    pub default: ToolVerdict,
    /// The rules, in the order in which they are tried.
    #[serde(default)]
    pub rules: Vec<ToolRule>,
}

impl ToolPolicy {
    /// The verdict on a tool as a whole. A rule with a command says nothing about it.
    pub fn verdict_on(&self, tool: &str) -> ToolVerdict {
        let rule = self.rules.iter().find(|rule| rule.tool == tool && rule.command.is_none());
        rule.map_or(self.default, |rule| rule.verdict)
    }
}

/// One rule of the tool policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolRule {
    /// The tool's name.
    pub tool: String,
    /// For `run_command`: a glob that is matched against every command of the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What happens to a call that matches.
    pub verdict: ToolVerdict,
}

/// A call that an owner has allowed for ever. It changes an `ask` into an `allow`, and no other verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlwaysAllowed {
    /// The tool's name.
    pub tool: String,
    /// For `run_command`: exactly this command, and no pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// What happens to a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolVerdict {
    /// Run it.
    Allow,
    /// Run it, and report it in a `status` letter.
    Record,
    /// Ask an owner first.
    Ask,
    /// Refuse it.
    Deny,
}

impl ToolVerdict {
    /// For the model: why it may not do `what`, and what to do instead; `None` if it may.
    pub fn refusal(self, what: &str) -> Option<String> {
        match self {
            Self::Allow | Self::Record => None,
            Self::Ask => Some(format!(
                "the owner must allow `{what}`, and nobody can be asked here. Do without it, or say in your answer what \
                 you need."
            )),
            Self::Deny => Some(format!(
                "the owner's rules for this group deny `{what}`. Do without it; do not try to get around the rule."
            )),
        }
    }
}

/// A turn that is open when this run starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenTurn {
    /// The open turn.
    pub turn: TurnId,
    /// The ids of its letters that the host consumed.
    #[serde(default)]
    pub consumed: Vec<LetterId>,
}

/// Work for the agent: messages, a task's fire, or both. The first input of a turn holds all its stored messages; a
/// later one is a follow-up and joins the next model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// The chat to which the turn belongs.
    pub chat: Chat,
    /// The messages in the store's order. The runner skips those that the transcript holds.
    pub messages: Vec<Message>,
    /// How many older context messages the host left out because of their size.
    #[serde(default)]
    pub context_omitted: u64,
    /// The fire of a scheduled task that caused the turn. The first input of the turn carries it, in each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fire: Option<Fire>,
}

/// One fire of a scheduled task. Since minor version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fire {
    /// The id of the fire, such as `f-12`.
    pub id: String,
    /// The id of its task, such as `task-3`.
    pub task: String,
    /// The task's name. A person or an agent chose it.
    pub name: String,
    /// What to do.
    pub prompt: String,
    /// When it was planned: local time in the task's zone, RFC 3339 with offset.
    pub planned: String,
    /// Whether it runs late, because the host was away at that time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// Whether the final answer is only kept in the task's history.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// A script that decides whether the model is called at all. The runner runs it first, in the image's shell. The
    /// last line of its output is a JSON object `{"wake": bool, "data": …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// The most model calls of this turn, if fewer than `begin` allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_calls: Option<u32>,
}

/// The chat of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chat {
    /// The id, such as `telegram:-100123/42`.
    pub id: String,
    /// Direct chat or room.
    pub kind: ChatKind,
    /// The room's title or the person's name.
    pub title: String,
}

/// The kind of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    /// Between the agent and one person.
    Direct,
    /// Several people, or one topic of such a room.
    Room,
}

/// One message of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// The message's id, in the store's order.
    pub id: MessageSeq,
    /// Whether it woke the agent. Otherwise it is context.
    pub wakes: bool,
    /// The sender.
    pub from: Person,
    /// Local time in the group's zone, RFC 3339 with offset.
    pub at: String,
    /// The text; empty if there are only attachments.
    pub text: String,
    /// Whose words the text is, if the sender only passes it on: a forwarded message, or one that a bot made. It has
    /// not the sender's standing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded_from: Option<String>,
    /// Whether this is a later version of an earlier message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edited: bool,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Quote>,
    /// The files that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Set if the text is an order to the runner. The runner carries it out and answers it; the model does not see it.
    /// Since minor version 2: an older runner shows the text to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// What a person orders the runner to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// `/compact`: replace the older part of the conversation by a summary.
    Compact,
    /// `/context`: say what fills the context window.
    Context,
}

/// A person. Only the id identifies a person; anyone can choose any name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Person {
    /// The id, such as `telegram:12345`.
    pub id: String,
    /// The name shown in the chat.
    pub name: String,
    /// Whether this person is an owner of the install.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owner: bool,
}

/// The beginning of the message that another one answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quote {
    /// Who wrote it.
    pub from: String,
    /// The beginning of its text.
    pub text: String,
}

/// A file that came with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// The path below `/inbox`; absent if the host did not store the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The sender's name for it: a label and never a path.
    pub name: String,
    /// The media type according to the platform, not verified.
    pub mime: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Why the host did not store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What is said in it, as a speech model heard it. Since minor version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// Why there is no `transcript` of a voice message. Since minor version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_transcript: Option<String>,
}

/// The verdict on one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// The letter id of the request.
    pub request: LetterId,
    /// The host's verdict.
    pub verdict: Verdict,
}

/// The host's answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Verdict {
    /// The host performed the request.
    Ok {
        /// The result that the request's type documents; `null` if it has none.
        result: serde_json::Value,
    },
    /// The host refused the request.
    Refused {
        /// For machines: `ipc.forbidden`, `unsupported`, …
        code: String,
        /// For the agent: what happened, and what to do instead.
        reason: String,
    },
}

/// Stops a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interrupt {
    /// The reason.
    pub why: InterruptWhy,
}

/// Why a turn is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptWhy {
    /// A person wrote `/stop`.
    Stop,
    /// The turn reached its time limit.
    Time,
}

/// Why a run ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Close {
    /// For machines.
    pub why: CloseWhy,
    /// For people who read the file.
    pub reason: String,
}

/// Why a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseWhy {
    /// The run was idle for the idle window.
    Idle,
    /// Another lane needs the slot.
    Yield,
    /// The host stops.
    Drain,
    /// A question waits longer for a person than a container waits. The turn resumes with the answer.
    Question,
    /// A new session, changed settings, or the run's own time limit.
    Renew,
}
