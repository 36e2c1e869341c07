//! What the box says to the host. Every byte of it may be forged; nothing in it carries identity or rights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::TurnId;
use crate::requests::Request;

/// A letter's body from the box.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", content = "body", rename_all = "snake_case")]
pub enum FromAgent {
    /// The runner is up and has read `begin`.
    Ready(Ready),
    /// The reply so far; a newer one replaces it.
    Draft(Draft),
    /// An interim reply in the turn's chat.
    Message(Message),
    /// Asks something of the host; answered by exactly one `response`.
    Request(Request),
    /// What the runner does now; at least every 10 s while working.
    Status(Status),
    /// The turn's end, with its final text.
    TurnDone(TurnDone),
    /// The runner cannot go on and exits.
    Failed(Failed),
}

impl FromAgent {
    /// Every type, as it stands in the envelope and the file name.
    pub const KINDS: [&'static str; 7] =
        ["ready", "draft", "message", "request", "status", "turn_done", "failed"];

    /// The type of this one.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready",
            Self::Draft(_) => "draft",
            Self::Message(_) => "message",
            Self::Request(_) => "request",
            Self::Status(_) => "status",
            Self::TurnDone(_) => "turn_done",
            Self::Failed(_) => "failed",
        }
    }
}

/// What the runner found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// The minor version this runner speaks.
    pub minor: u32,
    /// The runner's own version.
    pub runner: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// The shell that `run_command` will use, where the image has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Entries in the transcript.
    pub entries: u64,
    /// The turn that the transcript resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<TurnId>,
}

/// The reply so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// All of it, not the difference.
    pub text: String,
}

/// An interim reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Markdown.
    pub text: String,
}

/// What the runner does now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The activity.
    pub state: Activity,
    /// The tool in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// One line for a person: the command, the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Silence until this many seconds from now is no sign of death.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u32>,
}

/// A runner's activities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Waits for the model.
    Thinking,
    /// Runs a tool.
    Tool,
    /// Waits for a verdict of the host.
    Waiting,
    /// Shortens the transcript.
    Compacting,
    /// Waits for input.
    Idle,
}

/// The end of a turn. One letter, so that the final text and the end are one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TurnDone {
    /// How it ended.
    pub outcome: Outcome,
    /// The final reply in Markdown; empty when there is nothing (more) to say.
    pub text: String,
    /// For [`Outcome::Failed`]: what the model's side answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Trouble>,
    /// Model calls made in this turn by this run.
    pub model_calls: u32,
    /// Tools run in this turn by this run.
    pub tool_calls: u32,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The model said all it wanted.
    Finished,
    /// A limit of the turn stopped it; the text says which.
    Limit,
    /// An `interrupt` stopped it.
    Interrupted,
    /// The model could not be reached, or refused.
    Failed,
}

/// What went wrong, in a code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    /// `model.auth`, `model.not_found`, `model.overloaded`, …
    pub code: String,
    /// For a person.
    pub reason: String,
}

/// The runner's last letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// `session.unreadable`, `host.unreachable`, …
    pub code: String,
    /// For a person.
    pub reason: String,
}
