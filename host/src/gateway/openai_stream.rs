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
mod tests {
    use super::*;

    /// The events of a stream of these data lines, cut into bytes `step` at a time.
    fn events(lines: &[Value], step: usize) -> Vec<Value> {
        let mut translator = Translator::new("gpt", 40);
        let wire: String = lines.iter().map(|line| format!("data: {line}\n\n")).collect();
        let mut out = Vec::new();
        for bytes in wire.as_bytes().chunks(step) {
            out.extend(translator.feed(bytes).unwrap());
        }
        out.extend(translator.finish().unwrap());
        let mut parser = Parser::default();
        let events = parser.feed(&out).unwrap();
        events.iter().map(|event| serde_json::from_str(&event.data).unwrap()).collect()
    }

    fn delta(delta: Value) -> Value {
        json!({ "choices": [{ "index": 0, "delta": delta }] })
    }

    fn call(index: Value, id: &str, name: Option<&str>, arguments: &str) -> Value {
        let piece = json!({ "index": index, "id": id, "function": { "name": name, "arguments": arguments } });
        delta(json!({ "tool_calls": [piece] }))
    }

    fn stop(reason: &str) -> Value {
        json!({ "choices": [{ "delta": {}, "finish_reason": reason }] })
    }

    /// The tool calls as a reader of the Messages wire puts them together, which also checks that blocks neither
    /// overlap nor skip an index.
    fn calls(events: &[Value]) -> Vec<(String, String)> {
        let mut open = None;
        let mut next = 0;
        let mut calls = Vec::new();
        for event in events {
            match event["type"].as_str().unwrap() {
                "content_block_start" => {
                    assert_eq!((open, event["index"].as_u64()), (None, Some(next)), "blocks overlap");
                    open = Some(next);
                    if event["content_block"]["type"] == "tool_use" {
                        let name = event["content_block"]["name"].as_str().unwrap().to_owned();
                        calls.push((name, String::new()));
                    }
                }
                "content_block_delta" => {
                    assert_eq!(event["index"].as_u64(), open);
                    if let Some(json) = event["delta"]["partial_json"].as_str() {
                        calls.last_mut().unwrap().1.push_str(json);
                    }
                }
                "content_block_stop" => {
                    assert_eq!(event["index"].as_u64(), open.take());
                    next += 1;
                }
                _ => {}
            }
        }
        assert_eq!(open, None, "a block stayed open");
        calls
    }

    fn ids(events: &[Value]) -> Vec<&str> {
        events.iter().filter_map(|event| event["content_block"]["id"].as_str()).collect()
    }

    fn pair(name: &str, arguments: &str) -> (String, String) {
        (name.to_owned(), arguments.to_owned())
    }

    #[test]
    fn text_and_counts_become_a_message_however_the_bytes_are_cut() {
        let lines = [
            delta(json!({ "role": "assistant", "content": "" })),
            delta(json!({ "reasoning_content": "hidden" })),
            delta(json!({ "content": "Grüß" })),
            delta(json!({ "content": " dich" })),
            stop("stop"),
            json!({ "choices": [], "usage": { "prompt_tokens": 9, "completion_tokens": 3 } }),
            json!("[DONE]"),
        ];
        let types = [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        for step in [1, 7, 10_000] {
            // `[DONE]` is no JSON string on the wire.
            let mut translator = Translator::new("gpt", 40);
            let wire: String = lines.iter().map(|line| format!("data: {line}\n\n")).collect();
            let wire = wire.replace("\"[DONE]\"", "[DONE]");
            let mut out = Vec::new();
            for bytes in wire.as_bytes().chunks(step) {
                out.extend(translator.feed(bytes).unwrap());
            }
            assert!(translator.finish().unwrap().is_empty(), "the end was told at [DONE]");
            assert!(!translator.estimated());
            let events = Parser::default().feed(&out).unwrap();
            let events: Vec<Value> = events.iter().map(|e| serde_json::from_str(&e.data).unwrap()).collect();
            assert_eq!(events.iter().map(|e| e["type"].as_str().unwrap()).collect::<Vec<_>>(), types);
            assert_eq!(events[5]["usage"]["input_tokens"], 9);
            assert_eq!(events[5]["delta"]["stop_reason"], "end_turn");
            assert!(!String::from_utf8(out).unwrap().contains("hidden"));
        }
    }

    #[test]
    fn parallel_calls_with_one_id_are_two_calls_with_two_ids() {
        let lines = [
            call(json!(0), "call_1", Some("ls"), ""),
            call(json!(0), "", None, "{\"a\":"),
            call(json!(0), "", None, "1}"),
            call(json!(1), "call_1", Some("cat"), "{\"b\":2}"),
            stop("tool_calls"),
        ];
        let events = events(&lines, 13);
        assert_eq!(calls(&events), [pair("ls", "{\"a\":1}"), pair("cat", "{\"b\":2}")]);
        let ids = ids(&events);
        assert!(ids[0] != ids[1] && ids.iter().all(|id| id.starts_with("call_") && id.len() <= 40));
    }

    #[test]
    fn interleaved_arguments_end_up_in_their_own_calls() {
        let lines = [
            call(json!(0), "a", Some("ls"), "{\"a\""),
            call(json!(1), "b", Some("cat"), "{\"b\""),
            call(json!(0), "", None, ":1}"),
            call(json!(1), "", None, ":2}"),
            stop("tool_calls"),
        ];
        assert_eq!(calls(&events(&lines, 99)), [pair("ls", "{\"a\":1}"), pair("cat", "{\"b\":2}")]);
    }

    #[test]
    fn calls_that_all_have_index_0_or_none_are_told_apart() {
        for index in [json!(0), Value::Null] {
            for ids in [["a", "b"], ["same", "same"]] {
                let lines = [
                    call(index.clone(), ids[0], Some("ls"), "{\"a\":1}"),
                    call(index.clone(), ids[1], Some("ls"), "{\"b\":2}"),
                    stop("stop"),
                ];
                let events = events(&lines, 99);
                assert_eq!(
                    calls(&events),
                    [pair("ls", "{\"a\":1}"), pair("ls", "{\"b\":2}")],
                    "{index} {ids:?}"
                );
                assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
            }
        }
    }

    #[test]
    fn a_name_that_is_repeated_with_every_piece_is_one_call() {
        let lines = [
            call(json!(0), "a", Some("ls"), "{\"a\""),
            call(json!(0), "a", Some("ls"), ":1}"),
            stop("tool_calls"),
        ];
        assert_eq!(calls(&events(&lines, 99)), [pair("ls", "{\"a\":1}")]);
    }

    #[test]
    fn counts_that_are_not_told_are_estimated() {
        let mut translator = Translator::new("gpt", 40);
        translator.feed(format!("data: {}\n\n", delta(json!({ "content": "eight ch" }))).as_bytes()).unwrap();
        translator.feed(format!("data: {}\n\n", stop("length")).as_bytes()).unwrap();
        let end = String::from_utf8(translator.finish().unwrap().to_vec()).unwrap();
        assert!(translator.estimated());
        assert!(end.contains(r#""usage":{"input_tokens":10,"output_tokens":2}"#), "{end}");
        assert!(end.contains(r#""stop_reason":"max_tokens""#), "{end}");
    }

    #[test]
    fn a_stream_that_stops_without_a_reason_has_no_end() {
        let told = events(&[delta(json!({ "content": "half" }))], 99);
        assert_eq!(told.last().unwrap()["type"], "content_block_delta");
    }

    #[test]
    fn errors_and_garbage_are_told() {
        let told =
            |line: &str| Translator::new("gpt", 0).feed(format!("data: {line}\n\n").as_bytes()).unwrap_err();
        assert!(told(r#"{"error":{"message":"quota"}}"#).message.ends_with("quota"));
        assert!(told(r#"{"error":"quota"}"#).message.ends_with("quota"));
        assert!(told("<html>").message.contains("no chunk"));
    }
}
