//! One line of a transcript.

use std::collections::BTreeMap;

use ipc_schema::letters::Request;
use ipc_schema::letters::from_agent::{Outcome, Trouble};
use ipc_schema::letters::to_agent::Input;
use ipc_schema::{MessageSeq, TurnId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::content_block::Block;

/// An entry: `{"entry":7,"turn":"t-41","at":"…","kind":"assistant","body":{…}}`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number: it grows through the whole transcript and is never given again, because letters' ids are made
    /// of it.
    pub entry: u64,
    /// The turn it belongs to.
    pub turn: TurnId,
    /// When it was written, for people.
    pub at: String,
    pub body: Body,
}

/// What an entry holds.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// Messages, as the host's letter gave them, without those that an earlier entry holds.
    Input(Input),
    /// One answer of the model.
    Assistant(Assistant),
    /// Results of its tools.
    Results(Results),
    /// A request as it goes to the host, so that a repeat asks for the very same thing.
    Request(Asked),
    /// The runner's own words to the model.
    Note(Note),
    /// The turn's end, where no final answer of the model says it.
    End(End),
    /// What stands for the entries before it.
    Summary(Summary),
}

/// One answer of the model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assistant {
    /// Its content blocks, verbatim.
    pub blocks: Vec<Block>,
    #[serde(default)]
    pub stop_reason: Option<String>,
    #[serde(default)]
    pub usage: Usage,
    /// Tool calls whose arguments are no JSON, by block, with what the parser said. Their block holds `{}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bad_inputs: BTreeMap<u32, String>,
}

/// Tokens of one call, as the model's side counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Read, not from the cache.
    #[serde(default)]
    pub input_tokens: u64,
    #[serde(default)]
    pub output_tokens: u64,
    /// Read and put into the cache.
    #[serde(default)]
    pub cache_creation_input_tokens: u64,
    /// Read from the cache.
    #[serde(default)]
    pub cache_read_input_tokens: u64,
}

impl Usage {
    /// All that was read: the size of the conversation.
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

/// The result of one tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    pub tool_use_id: String,
    /// What the tool says.
    pub content: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
}

/// A request on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// The tool call that asks.
    pub tool_use_id: String,
    pub request: Request,
}

/// The runner's own words to the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub text: String,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub outcome: Outcome,
    /// The text of its `turn_done`.
    #[serde(default)]
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Trouble>,
}

/// What stands for older entries. It carries the number of the last one that it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub text: String,
    /// The replaced entries, whole, as Markdown: a path in the box.
    pub archive: String,
    /// The newest entry when this was written. What a call up to there cost says nothing about the size now.
    pub made_at: u64,
    /// Messages that the replaced entries held, the newest ones.
    #[serde(default)]
    pub held: Vec<MessageSeq>,
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
            Self::Assistant(_) => "assistant",
            Self::Results(_) => "results",
            Self::Request(_) => "request",
            Self::Note(_) => "note",
            Self::End(_) => "end",
            Self::Summary(_) => "summary",
        }
    }
}

impl Entry {
    /// The line, newline included.
    ///
    /// # Errors
    /// What serde_json says; no type here gives it a reason.
    pub fn to_line(&self) -> serde_json::Result<Vec<u8>> {
        let Self { entry, turn, at, body } = self;
        let mut line =
            serde_json::to_vec(&LineOut { entry: *entry, turn: *turn, at, kind: body.kind(), body })?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads a line. Unknown fields are ignored; an unknown kind is an error.
    ///
    /// # Errors
    /// What serde_json says.
    pub fn parse(line: &[u8]) -> serde_json::Result<Self> {
        let LineIn { entry, turn, at, kind, body } = serde_json::from_slice(line)?;
        let body = body.get();
        let body = match kind {
            "input" => Body::Input(serde_json::from_str(body)?),
            "assistant" => Body::Assistant(serde_json::from_str(body)?),
            "results" => Body::Results(serde_json::from_str(body)?),
            "request" => Body::Request(serde_json::from_str(body)?),
            "note" => Body::Note(serde_json::from_str(body)?),
            "end" => Body::End(serde_json::from_str(body)?),
            "summary" => Body::Summary(serde_json::from_str(body)?),
            other => {
                let reason = format!("entries of kind {other:?} are not known here");
                return Err(serde::de::Error::custom(reason));
            }
        };
        Ok(Self { entry, turn, at, body })
    }

    /// Messages that this entry holds.
    pub fn held(&self) -> impl Iterator<Item = MessageSeq> + '_ {
        let (messages, summed) = match &self.body {
            Body::Input(input) => (input.messages.as_slice(), [].as_slice()),
            Body::Summary(summary) => ([].as_slice(), summary.held.as_slice()),
            _ => ([].as_slice(), [].as_slice()),
        };
        messages.iter().map(|m| m.id).chain(summed.iter().copied())
    }
}
