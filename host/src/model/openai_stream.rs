//! Translates a stream of chat completion chunks into events of the Messages wire.
//!
//! Blocks of the Messages wire come one after another, and chunks may interleave the arguments of parallel tool calls.
//! So one block is open at a time. Pieces of a second call open a new block when the arguments of the open call are
//! complete, as with nearly every server; otherwise they wait until then.

use bytes::Bytes;
use ipc_schema::refusal::quote;
use ipc_schema::server_sent_events::EventParser;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::opaque::{Gathered, maker};
use super::openai::{ChatUsage, call_id, message_id, stop_reason, usage};
use super::write_events;

/// The most tool calls of one answer, and bytes of their arguments, that are kept until its end. The longest answers of
/// models are some hundred kilobytes; a server that sends without end is broken.
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

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallDelta>>,
    /// What belongs to the provider, such as `reasoning_content`.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<FunctionDelta>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
struct FunctionDelta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ChunkError {
    Object { message: String },
    Text(String),
}

/// One tool call as it grows.
struct Call {
    /// The id for the box.
    id: String,
    /// How the server tells the pieces of parallel calls apart.
    index: Option<u64>,
    server_id: Option<String>,
    name: String,
    arguments: String,
    /// How many bytes of the arguments the box has received.
    passed: usize,
    closed: bool,
}

/// The one open block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    /// An index into `calls`.
    Call(usize),
}

pub(super) struct Translator {
    provider: String,
    model: String,
    sent: usize,
    parser: EventParser,
    out: Vec<u8>,
    begun: bool,
    done: bool,
    open: Open,
    blocks: usize,
    calls: Vec<Call>,
    /// The bytes of the arguments of all calls.
    argument_bytes: usize,
    answered: usize,
    opaque: Gathered,
    finish_reason: Option<String>,
    counted: Option<ChatUsage>,
}

impl Translator {
    /// For an answer of `provider`'s `model` to a request of `sent` characters.
    pub fn new(provider: &str, model: &str, sent: usize) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            sent,
            parser: EventParser::default(),
            out: Vec::new(),
            begun: false,
            done: false,
            open: Open::Nothing,
            blocks: 0,
            calls: Vec::new(),
            argument_bytes: 0,
            answered: 0,
            opaque: Gathered::default(),
            finish_reason: None,
            counted: None,
        }
    }

    /// Translates the events that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Bytes, ApiError> {
        let too_long = |_| ApiError::of_status(502, "an event of the stream is too long");
        for event in self.parser.feed(bytes).map_err(too_long)? {
            self.event(&event)?;
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    /// Ends the message when the server has closed the stream. Without a reason to stop and without `[DONE]` the stream
    /// was cut, and no end is written.
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
        self.counted.is_none()
    }

    fn event(&mut self, event: &str) -> Result<(), ApiError> {
        if self.done {
            return Ok(());
        }
        if event.trim() == "[DONE]" {
            if self.begun {
                self.end();
            }
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(event).map_err(|_| {
            ApiError::of_status(502, format!("the stream holds {}, which is no chunk", quote(event, 120)))
        })?;
        if let Some(ChunkError::Object { message } | ChunkError::Text(message)) = chunk.error {
            return Err(ApiError::of_status(502, format!("the provider reported an error: {message}")));
        }
        self.begin();
        self.counted = chunk.usage.or(self.counted.take());
        if let Some(choice) = chunk.choices.into_iter().flatten().next() {
            self.delta(choice.delta.unwrap_or_default());
            if self.calls.len() > CALLS_MAX || self.argument_bytes > ARGUMENTS_MAX_BYTES {
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
        self.write("message_start", &json!({ "type": "message_start", "message": message }));
    }

    fn delta(&mut self, delta: Delta) {
        for text in [delta.content, delta.refusal].into_iter().flatten().filter(|text| !text.is_empty()) {
            self.text(&text);
        }
        for piece in delta.tool_calls.into_iter().flatten() {
            self.piece(piece);
        }
        self.opaque.message(delta.rest);
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

    /// Takes a piece of a tool call, and passes on what the box may receive now.
    fn piece(&mut self, piece: CallDelta) {
        let function = piece.function.unwrap_or_default();
        let server_id = piece.id.filter(|id| !id.is_empty());
        let name = function.name.filter(|name| !name.is_empty());
        let at = match self.find(piece.index, server_id.as_deref(), name.is_some()) {
            Some(at) => at,
            None => {
                self.calls.push(Call {
                    id: call_id(),
                    index: piece.index,
                    server_id,
                    name: String::new(),
                    arguments: String::new(),
                    passed: 0,
                    closed: false,
                });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at];
        if call.name.is_empty() {
            call.name = name.unwrap_or_default();
        }
        self.opaque.call(&call.id, piece.rest);
        let arguments = function.arguments.unwrap_or_default();
        self.answered += arguments.chars().count();
        self.argument_bytes += arguments.len();
        self.calls[at].arguments.push_str(&arguments);
        self.pass_on(at);
    }

    /// Returns the call that a piece belongs to; `None` for a new one.
    ///
    /// The index decides. But some servers give every call the index 0, or none: there a name begins a new call when it
    /// comes with another id, without an index, or after complete arguments. An id alone decides nothing: some servers
    /// give one id to all calls.
    fn find(&self, index: Option<u64>, server_id: Option<&str>, named: bool) -> Option<usize> {
        let at = match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index)?,
            None if named && self.calls.last().is_none_or(|call| !call.name.is_empty()) => return None,
            None => self.calls.len().checked_sub(1)?,
        };
        let Call { server_id: known, name, arguments, .. } = &self.calls[at];
        let other_id = server_id.is_some() && known.is_some() && server_id != known.as_deref();
        let waits = name.is_empty() && !other_id;
        (!named || waits || !(other_id || is_whole(arguments))).then_some(at)
    }

    /// Passes on the new bytes of call `at`, if its block is open or can be opened. It waits for the call's name, which
    /// some servers send after the id.
    fn pass_on(&mut self, at: usize) {
        if self.open != Open::Call(at) {
            let blocked = matches!(self.open, Open::Call(other) if !is_whole(&self.calls[other].arguments));
            if blocked || self.calls[at].closed || self.calls[at].name.is_empty() {
                return;
            }
            self.close();
            self.open = Open::Call(at);
            let Call { id, name, .. } = &self.calls[at];
            let start = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
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
        self.write("content_block_start", &start);
    }

    fn block_delta(&mut self, delta: &Value) {
        let delta = json!({ "type": "content_block_delta", "index": self.blocks, "delta": delta });
        self.write("content_block_delta", &delta);
    }

    /// Closes the open block, if there is one.
    fn close(&mut self) {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Call(at) => self.calls[at].closed = true,
            Open::Text => {}
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.write("content_block_stop", &json!({ "type": "content_block_stop", "index": self.blocks }));
        self.blocks += 1;
    }

    fn end(&mut self) {
        self.done = true;
        self.close();
        // The calls that waited for the arguments of another one.
        for at in 0..self.calls.len() {
            if !self.calls[at].closed {
                self.pass_on(at);
                self.close();
            }
        }
        if let Some(block) = self.opaque.block(&maker(&self.provider, &self.model)) {
            self.start(&block);
            self.stop();
        }
        // A call without a name is no call.
        let calls = self.calls.iter().any(|call| call.closed);
        let reason = stop_reason(self.finish_reason.as_deref(), calls);
        let usage = usage(self.counted.as_ref(), self.sent, self.answered);
        let end = json!({ "stop_reason": reason, "stop_sequence": null });
        self.write("message_delta", &json!({ "type": "message_delta", "delta": end, "usage": usage }));
        self.write("message_stop", &json!({ "type": "message_stop" }));
    }

    fn write(&mut self, name: &str, data: &Value) {
        self.out.extend(write_events::event(name, data));
    }
}

fn is_whole(arguments: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(arguments).is_ok()
}

#[cfg(test)]
mod tests;
