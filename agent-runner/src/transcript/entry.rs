//! One entry of the transcript, and its form as a JSON line.

use std::collections::BTreeMap;

use ipc_schema::letters::Request;
use ipc_schema::letters::from_agent::{ErrorDetail, Outcome};
use ipc_schema::letters::to_agent::Input;
use ipc_schema::{MessageSeq, TurnId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::content_block::Block;

/// On disk: `{"entry":7,"turn":"t-41","at":"…","kind":"assistant","body":{…}}`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Grows through the whole transcript and is never reused, because letter ids are derived from it.
    pub entry: u64,
    pub turn: TurnId,
    /// RFC 3339, for people.
    pub at: String,
    pub body: Body,
}

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// The fire and the messages of one input letter, without those that an earlier entry holds.
    Input(Input),
    /// What the gate script of a fire said. It stands before the input with the fire.
    Gate(Gate),
    Assistant(Assistant),
    Results(Results),
    /// A request to the host, recorded before it is written, so that a repeat asks for the same.
    Request(RecordedRequest),
    /// A text of the runner for the model.
    Note(Note),
    /// The turn's end, if no final answer of the model marks it.
    End(End),
    /// Replaces the entries before it.
    Summary(Summary),
    /// What requests leave out from here on.
    LeftOut(LeftOut),
    /// What requests show less of from here on.
    Shortened(Shortened),
    /// An order that was carried out.
    Order(OrderDone),
}

/// The outcome of a gate script. If it does not wake the model, no input of the turn holds the fire: a conversation
/// does not fill up with what was never done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// The id of the fire.
    pub fire: String,
    pub wake: bool,
    /// Set if the script failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
    /// The frame that the model sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assistant {
    pub blocks: Vec<Block>,
    #[serde(default)]
    pub stop_reason: Option<String>,
    #[serde(default)]
    pub usage: Usage,
    /// Who answered, as [`Model::id`](ipc_schema::letters::to_agent::Model::id) names it. Thoughts go back to it only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Parse errors of tool calls whose arguments are no JSON object, by block index. Those blocks hold `{}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bad_inputs: BTreeMap<u32, String>,
}

/// Tokens of one call, as the provider counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens that did not come from the cache.
    #[serde(default)]
    pub input_tokens: u64,
    #[serde(default)]
    pub output_tokens: u64,
    /// Input tokens that were written to the cache.
    #[serde(default)]
    pub cache_creation_input_tokens: u64,
    /// Input tokens that came from the cache.
    #[serde(default)]
    pub cache_read_input_tokens: u64,
    /// What [`crate::estimate`] said of the same request.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub estimated: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Usage {
    /// All input tokens: the size of the conversation.
    pub fn read(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_creation_input_tokens)
            .saturating_add(self.cache_read_input_tokens)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// In the order of the calls.
    pub blocks: Vec<ToolResult>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    pub tool_use_id: String,
    pub content: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
    /// A file that the model sees with the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<ShownFile>,
}

/// A picture or document that requests show. The transcript holds no content: the file may be gone or changed later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownFile {
    pub kind: FileKind,
    /// As the model knows it.
    pub path: String,
    /// The digest of the content that is meant.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    Picture,
    Document,
}

/// A request that was or will be written to the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedRequest {
    pub tool_use_id: String,
    pub request: Request,
    /// For `ask_permission`: an owner has allowed the call. It is recorded before the call begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub granted: bool,
}

/// A text of the runner for the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub outcome: Outcome,
    #[serde(default)]
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
}

/// Replaces older entries. Its entry number is that of the last entry that it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub text: String,
    /// Path in the box of the Markdown file with the replaced entries.
    pub archive: String,
    /// The newest entry when this was written. Token counts up to it say nothing about the present size.
    pub made_at: u64,
    /// The newest messages of the replaced entries, so that they are not appended again.
    #[serde(default)]
    pub held: Vec<MessageSeq>,
    /// How often this session was compacted, this time included.
    #[serde(default)]
    pub compactions: u32,
}

/// A part of the conversation that a provider refused. Requests leave it out; the transcript keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The newest entry that it concerns.
    pub through: u64,
    /// From this entry on everything is left out; the inputs of the turn in which this was recorded stay. `None`: only
    /// pictures and documents, and the thoughts, are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Only pictures and documents are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_files: bool,
    /// What the chat was told.
    #[serde(default)]
    pub told: String,
}

/// The open turn alone outgrew the context window: requests show less of its older steps. The transcript keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortened {
    /// The newest entry that it concerns.
    pub through: u64,
    /// The most characters of a tool's result up to there.
    pub results: usize,
    /// The text in place of the turn's answers and results up to there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Path in the box of the Markdown file with what is not shown.
    pub archive: String,
}

/// A person's order to the runner, and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDone {
    pub message: MessageSeq,
    pub text: String,
    /// Whether the answer was sent by itself, because the turn has other work. Otherwise it ends the turn.
    #[serde(default)]
    pub interim: bool,
}

#[derive(Serialize)]
struct LineOut<'a> {
    entry: u64,
    turn: TurnId,
    at: &'a str,
    kind: &'static str,
    body: &'a Body,
}

#[derive(Deserialize)]
struct LineIn<'a> {
    entry: u64,
    turn: TurnId,
    at: String,
    kind: &'a str,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Body {
    fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Gate(_) => "gate",
            Self::Assistant(_) => "assistant",
            Self::Results(_) => "results",
            Self::Request(_) => "request",
            Self::Note(_) => "note",
            Self::End(_) => "end",
            Self::Summary(_) => "summary",
            Self::LeftOut(_) => "left_out",
            Self::Shortened(_) => "shortened",
            Self::Order(_) => "order",
        }
    }
}

impl Entry {
    /// The JSON line, newline included.
    ///
    /// # Errors
    /// Never in practice: every type here can be serialized.
    pub fn to_line(&self) -> serde_json::Result<Vec<u8>> {
        let Self { entry, turn, at, body } = self;
        let mut line =
            serde_json::to_vec(&LineOut { entry: *entry, turn: *turn, at, kind: body.kind(), body })?;
        line.push(b'\n');
        Ok(line)
    }

    /// A line with a greater number is damaged. Numbers grow by one, and the next one must exist.
    pub const NUMBER_MAX: u64 = 1 << 53;

    /// Reads a line. Unknown fields are ignored; an unknown kind is an error.
    ///
    /// # Errors
    /// When the line is not an entry that this version knows.
    pub fn parse(line: &[u8]) -> serde_json::Result<Self> {
        let LineIn { entry, turn, at, kind, body } = serde_json::from_slice(line)?;
        if entry > Self::NUMBER_MAX {
            return Err(serde::de::Error::custom(format!("no transcript has {entry} entries")));
        }
        let body = body.get();
        let body = match kind {
            "input" => Body::Input(serde_json::from_str(body)?),
            "gate" => Body::Gate(serde_json::from_str(body)?),
            "assistant" => Body::Assistant(serde_json::from_str(body)?),
            "results" => Body::Results(serde_json::from_str(body)?),
            "request" => Body::Request(serde_json::from_str(body)?),
            "note" => Body::Note(serde_json::from_str(body)?),
            "end" => Body::End(serde_json::from_str(body)?),
            "summary" => Body::Summary(serde_json::from_str(body)?),
            "left_out" => Body::LeftOut(serde_json::from_str(body)?),
            "shortened" => Body::Shortened(serde_json::from_str(body)?),
            "order" => Body::Order(serde_json::from_str(body)?),
            other => {
                let reason = format!("entries of kind {other:?} are not known here");
                return Err(serde::de::Error::custom(reason));
            }
        };
        Ok(Self { entry, turn, at, body })
    }

    /// Whether it belongs to a task's fire alone: no person waits for an answer to it.
    pub fn is_of_a_fire(&self) -> bool {
        match &self.body {
            Body::Input(input) => input.messages.is_empty(),
            Body::Gate(_) => true,
            _ => false,
        }
    }

    /// The ids of the messages in this entry.
    pub fn held(&self) -> impl Iterator<Item = MessageSeq> + '_ {
        let (messages, summed) = match &self.body {
            Body::Input(input) => (input.messages.as_slice(), [].as_slice()),
            Body::Summary(summary) => ([].as_slice(), summary.held.as_slice()),
            _ => ([].as_slice(), [].as_slice()),
        };
        messages.iter().map(|m| m.id).chain(summed.iter().copied())
    }
}
