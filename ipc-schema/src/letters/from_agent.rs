//! Bodies of letters from the box to the host. Every byte may be forged, and nothing in them carries identity or
//! rights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::TurnId;
use crate::requests::Request;

/// The body of a letter from the box.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", content = "body", rename_all = "snake_case")]
pub enum FromAgent {
    /// The runner is up and has read `begin`.
    Ready(Ready),
    /// The reply so far. A newer draft replaces it.
    Draft(Draft),
    /// An interim reply in the turn's chat.
    Message(Message),
    /// A request to the host, which answers it with exactly one `response`.
    Request(Request),
    /// What the runner does now, at least every 10 s while it works.
    Status(Status),
    /// The turn's end, with its final text.
    TurnDone(TurnDone),
    /// The runner cannot go on and exits.
    Failed(Failed),
}

impl FromAgent {
    /// Every type, as in the envelope and the file name.
    pub const KINDS: [&'static str; 7] =
        ["ready", "draft", "message", "request", "status", "turn_done", "failed"];

    /// The type in the envelope and the file name.
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

/// The runner is ready for input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// The minor version that this runner speaks.
    pub minor: u32,
    /// The runner's own version.
    pub runner: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// The shell that `run_command` uses; absent if the image has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// The number of entries in the transcript.
    pub entries: u64,
    /// The turn that this run resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<TurnId>,
    /// What of the session's transcript cannot be used. The runner goes on without it. Since minor version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// A part of the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// The session begins anew.
    All,
    /// The newest entries.
    End,
}

/// The reply so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// The whole text, not the difference.
    pub text: String,
}

/// An interim reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The text in Markdown.
    pub text: String,
}

/// What the runner does now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The current activity.
    pub state: Activity,
    /// The tool that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// One line for a person: the command, the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The host must not treat silence as a failure for this many seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u32>,
}

/// What a runner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// It waits for the model.
    Thinking,
    /// It runs a tool.
    Tool,
    /// It waits for a verdict of the host.
    Waiting,
    /// It compacts the conversation.
    Compacting,
    /// It waits for input.
    Idle,
}

/// The end of a turn. One letter, so that the final text and the end are one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TurnDone {
    /// How the turn ended.
    pub outcome: Outcome,
    /// The final reply in Markdown; empty if there is nothing (more) to say.
    pub text: String,
    /// For [`Outcome::Failed`]: the error of the model call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
    /// Model calls of this run in this turn.
    pub model_calls: u32,
    /// Tool calls of this run in this turn.
    pub tool_calls: u32,
    /// Whether the gate script of the task's fire said that there is nothing to do, so that no model saw the fire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gated: bool,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The model finished its answer.
    Finished,
    /// A limit stopped the turn; the text says which.
    Limit,
    /// An `interrupt` stopped the turn.
    Interrupted,
    /// The model could not be reached or refused.
    Failed,
}

/// An error: a code and a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorDetail {
    /// `model.auth`, `model.not_found`, `model.overloaded`, …
    pub code: String,
    /// For a person: what happened.
    pub reason: String,
}

/// The runner's last letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// `session.unreadable`, `host.unreachable`, …
    pub code: String,
    /// For a person: what happened.
    pub reason: String,
}
