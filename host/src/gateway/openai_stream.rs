//! A stream of chat completion chunks, told as the events of the Messages wire.
//!
//! Blocks of the Messages wire come one after another; chunks may interleave the arguments of parallel tool calls.
//! So one block is open at a time. A second call's pieces open a new block when the open call's arguments are whole
//! (what nearly every server does), and are kept until then when they are not.

use bytes::Bytes;
use ipc_schema::refusal::quote;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::error::ApiError;
use super::openai::{ChatUsage, call_id, message_id, stop_reason, usage};
use super::sse::{self, Event, Parser};

/// What is kept of one answer until its end: tool calls, and the bytes of their arguments. A model's greatest answer is
/// some hundred kilobytes; a server that sends more without end is broken.
const CALLS_MAX: usize = 1_000;
const ARGUMENTS_MAX_BYTES: usize = 8 * 1024 * 1024;

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Option<Vec<ChunkChoice>>,
    #[serde(default)]
    usage: Option<ChatUsage>,
    #[serde(default)]
    error: Option<ChunkError>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

/// What is new. `reasoning_content`, which some servers add, is not read: it has no signature, so it could not be
/// sent back.
#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<FunctionDelta>,
}

#[derive(Default, Deserialize)]
struct FunctionDelta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

/// An error in the middle of a stream.
#[derive(Deserialize)]
#[serde(untagged)]
enum ChunkError {
    Object { message: String },
    Text(String),
}

/// One tool call as it grows.
struct Call {
    /// How the server tells its pieces apart.
    index: Option<u64>,
    theirs: Option<String>,
    name: String,
    arguments: String,
    /// How much of the arguments has been passed on.
    passed: usize,
    closed: bool,
}

/// The one open block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    /// By its place in `calls`.
    Call(usize),
}

/// Translates one stream.
pub(super) struct Translator {
    model: String,
    sent: usize,
    parser: Parser,
    out: Vec<u8>,
    begun: bool,
    done: bool,
    open: Open,
    blocks: usize,
    calls: Vec<Call>,
    /// The bytes of all their arguments.
    kept: usize,
    answered: usize,
    finish_reason: Option<String>,
    told: Option<ChatUsage>,
}

impl Translator {
    /// For an answer of `model` to a request of `sent` characters.
    pub fn new(model: &str, sent: usize) -> Self {
        Self {
            model: model.to_owned(),
            sent,
            parser: Parser::default(),
            out: Vec::new(),
            begun: false,
            done: false,
            open: Open::Nothing,
            blocks: 0,
            calls: Vec::new(),
            kept: 0,
            answered: 0,
            finish_reason: None,
            told: None,
        }
    }

    /// Translates what these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Bytes, ApiError> {
        let too_long = |_| ApiError::of_status(502, "an event of the stream is too long");
        for event in self.parser.feed(bytes).map_err(too_long)? {
            self.event(&event)?;
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    /// Ends the message when the server has closed the stream. Without a reason to stop and without `[DONE]` there
    /// is no end to tell: the stream was cut.
    pub fn finish(&mut self) -> Result<Bytes, ApiError> {
        if let Some(event) = self.parser.finish() {
            self.event(&event)?;
        }
        if self.finish_reason.is_some() && !self.done {
            self.end();
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    /// Whether the counts are estimates.
    pub fn estimated(&self) -> bool {
        self.told.is_none()
    }

    fn event(&mut self, event: &Event) -> Result<(), ApiError> {
        if self.done {
            return Ok(());
        }
        if event.data.trim() == "[DONE]" {
            if self.begun {
                self.end();
            }
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(&event.data).map_err(|_| {
            ApiError::of_status(
                502,
                format!("the stream holds {}, which is no chunk", quote(&event.data, 120)),
            )
        })?;
        if let Some(ChunkError::Object { message } | ChunkError::Text(message)) = chunk.error {
            return Err(ApiError::of_status(502, format!("the provider told an error: {message}")));
        }
        self.begin();
        self.told = chunk.usage.or(self.told.take());
        if let Some(choice) = chunk.choices.into_iter().flatten().next() {
            self.delta(choice.delta.unwrap_or_default());
            if self.calls.len() > CALLS_MAX || self.kept > ARGUMENTS_MAX_BYTES {
                return Err(ApiError::of_status(502, "the answer calls tools without end"));
            }
            self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        }
        Ok(())
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let message = json!({
            "id": message_id(), "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage(None, self.sent, 0),
        });
        self.say("message_start", &json!({ "type": "message_start", "message": message }));
    }

    fn delta(&mut self, delta: Delta) {
        for text in [delta.content, delta.refusal].into_iter().flatten().filter(|text| !text.is_empty()) {
            self.text(&text);
        }
        for piece in delta.tool_calls.into_iter().flatten() {
            self.piece(piece);
        }
    }

    fn text(&mut self, text: &str) {
        self.answered += text.chars().count();
        if self.open != Open::Text {
            self.close();
            self.open = Open::Text;
            let start = json!({ "type": "text", "text": "" });
            self.start(&start);
        }
        self.block_delta(&json!({ "type": "text_delta", "text": text }));
    }

    /// Takes a piece of a tool call in, and passes on what may be passed.
    fn piece(&mut self, piece: CallDelta) {
        let function = piece.function.unwrap_or_default();
        let theirs = piece.id.filter(|id| !id.is_empty());
        let name = function.name.filter(|name| !name.is_empty());
        let at = match self.find(piece.index, theirs.as_deref(), name.is_some()) {
            Some(at) => at,
            None => {
                let name = name.unwrap_or_default();
                let arguments = String::new();
                self.calls.push(Call {
                    index: piece.index,
                    theirs,
                    name,
                    arguments,
                    passed: 0,
                    closed: false,
                });
                self.calls.len() - 1
            }
        };
        let arguments = function.arguments.unwrap_or_default();
        self.answered += arguments.chars().count();
        self.kept += arguments.len();
        self.calls[at].arguments.push_str(&arguments);
        self.show(at);
    }

    /// The call that a piece belongs to; `None` for a new one.
    ///
    /// By index; but servers are known that give every call the index 0, or none. There a name begins a new call
    /// when it comes with another id, without an index, or after arguments that are whole. An id alone decides
    /// nothing: servers are known that give one id to all calls.
    fn find(&self, index: Option<u64>, theirs: Option<&str>, named: bool) -> Option<usize> {
        let at = match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index)?,
            None if named => return None,
            None => self.calls.len().checked_sub(1)?,
        };
        let Call { theirs: known, arguments, .. } = &self.calls[at];
        let other_id = theirs.is_some() && known.is_some() && theirs != known.as_deref();
        (!named || !(other_id || is_whole(arguments))).then_some(at)
    }

    /// Passes on what is new of call `at`, if its block is open or can be opened.
    fn show(&mut self, at: usize) {
        if self.open != Open::Call(at) {
            let blocked = matches!(self.open, Open::Call(other) if !is_whole(&self.calls[other].arguments));
            if blocked || self.calls[at].closed {
                return;
            }
            self.close();
            self.open = Open::Call(at);
            let start =
                json!({ "type": "tool_use", "id": call_id(), "name": self.calls[at].name, "input": {} });
            self.start(&start);
        }
        let call = &mut self.calls[at];
        let fresh = call.arguments[call.passed..].to_owned();
        call.passed = call.arguments.len();
        if !fresh.is_empty() {
            self.block_delta(&json!({ "type": "input_json_delta", "partial_json": fresh }));
        }
    }

    fn start(&mut self, block: &Value) {
        let start = json!({ "type": "content_block_start", "index": self.blocks, "content_block": block });
        self.say("content_block_start", &start);
    }

    fn block_delta(&mut self, delta: &Value) {
        let delta = json!({ "type": "content_block_delta", "index": self.blocks, "delta": delta });
        self.say("content_block_delta", &delta);
    }

    /// Closes the open block, if there is one.
    fn close(&mut self) {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Call(at) => self.calls[at].closed = true,
            Open::Text => {}
        }
        self.say("content_block_stop", &json!({ "type": "content_block_stop", "index": self.blocks }));
        self.blocks += 1;
    }

    fn end(&mut self) {
        self.done = true;
        self.close();
        // The calls that were kept while another one's arguments came in.
        for at in 0..self.calls.len() {
            if !self.calls[at].closed {
                self.show(at);
                self.close();
            }
        }
        let reason = stop_reason(self.finish_reason.as_deref(), !self.calls.is_empty());
        let usage = usage(self.told.as_ref(), self.sent, self.answered);
        let end = json!({ "stop_reason": reason, "stop_sequence": null });
        self.say("message_delta", &json!({ "type": "message_delta", "delta": end, "usage": usage }));
        self.say("message_stop", &json!({ "type": "message_stop" }));
    }

    fn say(&mut self, name: &str, data: &Value) {
        self.out.extend(sse::event(name, data));
    }
}

/// Whether these arguments are all there.
fn is_whole(arguments: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(arguments).is_ok()
}

#[cfg(test)]
mod tests;
