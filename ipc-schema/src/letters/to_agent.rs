//! What the host says to the box.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{GroupName, LetterId, MessageSeq, TurnId};

/// A letter's body from the host.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", content = "body", rename_all = "snake_case")]
pub enum ToAgent {
    /// Always number 1: who the agent is and what it may do.
    Begin(Box<Begin>),
    /// A turn's messages, or a follow-up to the open turn.
    Input(Input),
    /// The verdict on a request.
    Response(Response),
    /// Stop this turn now: cancel the model, kill the tool, keep the box.
    Interrupt(Interrupt),
    /// Lies in the file `_close`; its number is the highest the host has written. End after the tool in hand.
    Close(Close),
}

impl ToAgent {
    /// The type as it stands in the envelope and the file name.
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

/// Everything a runner must know before its first input. It has no other settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Begin {
    /// The newest minor version the host would write.
    pub minor: u32,
    /// The group.
    pub group: GroupName,
    /// The lane, for people and logs: `conversation`, `task:…`, `child:…`.
    pub lane: String,
    /// Whether this is the owner's group.
    pub main: bool,
    /// The transcript to continue: the file `/session/<session>.jsonl`. `[a-z0-9-]{1,64}`.
    pub session: String,
    /// The agent's name, as people call it.
    pub persona: String,
    /// The model behind the gateway.
    pub model: Model,
    /// How much one turn may do.
    pub limits: Limits,
    /// A guard rail for the model, not a wall.
    pub tools: ToolPolicy,
    /// Whether files can be sent to the chat that woke the agent.
    #[serde(default)]
    pub files: bool,
    /// What the network is for this group, in one sentence that also says how to ask for more.
    pub network: String,
    /// The group's IANA time zone, such as `Europe/Berlin`.
    pub zone: String,
    /// `groups/global/CLAUDE.md`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude_md_global: Option<Text>,
    /// The group's own `CLAUDE.md`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude_md_group: Option<Text>,
    /// The turn that an earlier run left open, and which of its letters the host has consumed. The runner repeats
    /// the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenTurn>,
    /// The newest turns of this session that are closed: nothing of them is repeated.
    #[serde(default)]
    pub closed: Vec<TurnId>,
}

/// A text with the digest that `update_personality` must name as its base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// The text.
    pub text: String,
    /// SHA-256 of the whole file in lower-case hex.
    pub sha256: String,
}

/// The model, as far as the runner must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// The name to send in requests.
    pub name: String,
    /// `max_tokens` of every call.
    pub max_tokens: u32,
    /// The context window in tokens.
    pub window: u32,
}

/// Limits of one turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Model calls in one turn.
    pub model_calls: u32,
    /// A turn's time in seconds, for the agent to know; the host enforces it.
    pub turn_s: u32,
    /// A command's time in seconds when the model names none.
    pub command_s: u32,
    /// The longest time a model may ask for.
    pub command_max_s: u32,
    /// Bytes of a command's output that reach the model, half from its head and half from its tail.
    pub output_bytes: u32,
    /// Requests to the host in one turn.
    pub requests: u32,
    /// Compaction begins at this percentage of the window.
    pub compaction_percent: u8,
}

/// Tool policy: the first rule that matches decides, else the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolPolicy {
    /// For a tool that no rule names.
    pub default: ToolVerdict,
    /// Rules in order.
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
    /// For `run_command`: a glob that every parsed segment of the command is matched against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What happens.
    pub verdict: ToolVerdict,
}

/// What happens with a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolVerdict {
    /// Run it.
    Allow,
    /// Run it, and tell the host in a `status` letter.
    Record,
    /// Ask the person first.
    Ask,
    /// Refuse it.
    Deny,
}

impl ToolVerdict {
    /// Why the agent may not do `what`, and what it can do instead; `None` where it may.
    pub fn refusal(self, what: &str) -> Option<String> {
        match self {
            Self::Allow | Self::Record => None,
            Self::Ask => Some(format!(
                "the owner must allow `{what}`; there is no way to ask yet. Do without it, or say in your answer what \
                 you need."
            )),
            Self::Deny => Some(format!(
                "the owner's rules for this group deny `{what}`. Do without it; do not try to get around the rule."
            )),
        }
    }
}

/// A turn that is open while this run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenTurn {
    /// The turn.
    pub turn: TurnId,
    /// Ids of its letters that the host has consumed.
    #[serde(default)]
    pub consumed: Vec<LetterId>,
}

/// Messages for the agent. The first input of a turn holds all that is stored; a later one of the same turn is
/// a follow-up and joins the next model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// Where the turn belongs.
    pub chat: Chat,
    /// The messages, in the store's order. One that the transcript already holds is skipped.
    pub messages: Vec<Message>,
    /// How many messages of context were left out for size; they were older than the first one here.
    #[serde(default)]
    pub context_omitted: u64,
}

/// The chat of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chat {
    /// `telegram:-100123/42`
    pub id: String,
    /// One person, or a room of many.
    pub kind: ChatKind,
    /// The room's title or the person's name.
    pub title: String,
}

/// What sort of chat it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    /// Between the agent and one person.
    Direct,
    /// Several people, or one topic of such a room.
    Room,
}

/// What one person wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Its place in the store.
    pub id: MessageSeq,
    /// Whether it woke the agent; else it is context.
    pub wakes: bool,
    /// Who wrote it.
    pub from: Person,
    /// Local time in the group's zone, RFC 3339 with offset.
    pub at: String,
    /// The text; empty for a bare attachment.
    pub text: String,
    /// Whether this is a later version of an earlier message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edited: bool,
    /// What it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Quote>,
    /// Files the host has stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// A sender. Trust the id, not the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Person {
    /// `telegram:12345`
    pub id: String,
    /// The name shown in the chat; anyone can choose any.
    pub name: String,
    /// Whether this person is an owner of the install.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owner: bool,
}

/// The message that another one answers, cut to its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quote {
    /// Who wrote it.
    pub from: String,
    /// Its beginning.
    pub text: String,
}

/// A file that came with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// Where the box finds it (below `/inbox`); absent when the host did not store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What the sender called it: a label, never a path.
    pub name: String,
    /// The media type that the platform named; not verified.
    pub mime: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Why it was not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The verdict on one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// The request's letter id.
    pub request: LetterId,
    /// The verdict.
    pub verdict: Verdict,
}

/// Done, or refused with a code and a reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Verdict {
    /// Done.
    Ok {
        /// What the request's type says it answers; `null` where it answers nothing.
        result: serde_json::Value,
    },
    /// Not done.
    Refused {
        /// For machines: `ipc.forbidden`, `unsupported`, …
        code: String,
        /// For the agent: what happened, and what to do instead.
        reason: String,
    },
}

/// Why a turn is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interrupt {
    /// `stop` (a person asked) or `time` (the turn's limit).
    pub why: InterruptWhy,
}

/// Who stopped a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptWhy {
    /// A person wrote `/stop`.
    Stop,
    /// The turn's time is up.
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
    /// Nothing to do for the idle window.
    Idle,
    /// Another lane needs the room.
    Yield,
    /// The host stops.
    Drain,
    /// A question waits for a person, for longer than a box does; the turn goes on with the answer.
    Question,
    /// A new session, other settings, or the run's own time limit.
    Renew,
}
