//! Renders answers as bytes, for both wires.
//!
//! Texts and arguments are cut into small deltas, so that the code that joins them is tested too.

use serde_json::{Value, json};

use super::conversation::Wire;

/// The number of characters in one delta.
const DELTA_CHARS: usize = 11;

/// A complete answer.
pub(super) struct Answer<'a> {
    /// The model's name in the request.
    pub model: &'a Value,
    /// A number that is unique in the server.
    pub id: u64,
    /// The content blocks, in the format of the Messages wire.
    pub content: &'a Value,
    /// The numbers of input and output tokens.
    pub tokens: (u64, u64),
}

impl Answer<'_> {
    /// Returns the complete answer for a request that is not streamed.
    pub fn whole(&self, wire: Wire) -> String {
        match wire {
            Wire::Anthropic => self.message(self.content.clone(), self.stop_reason().into()).to_string(),
            Wire::OpenAi => self.completion().to_string(),
        }
    }

    /// Returns the answer as a stream of events.
    pub fn stream(&self, wire: Wire) -> String {
        match wire {
            Wire::Anthropic => self.anthropic_events(),
            Wire::OpenAi => self.openai_chunks(),
        }
    }

    fn blocks(&self) -> impl Iterator<Item = &Value> {
        self.content.as_array().into_iter().flatten()
    }

    fn stop_reason(&self) -> &'static str {
        if self.blocks().any(|block| block["type"] == "tool_use") { "tool_use" } else { "end_turn" }
    }

    fn message(&self, content: Value, stop_reason: Value) -> Value {
        let (input, output) = self.tokens;
        json!({
            "id": format!("msg_{}", self.id), "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": null,
            "usage": { "input_tokens": input, "output_tokens": output,
                       "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0 },
        })
    }

    fn anthropic_events(&self) -> String {
        let start = json!({ "type": "message_start", "message": self.message(json!([]), Value::Null) });
        let mut events = vec![start, json!({ "type": "ping" })];
        for (index, block) in self.blocks().enumerate() {
            let (empty, deltas) = anthropic_parts(block);
            events.push(json!({ "type": "content_block_start", "index": index, "content_block": empty }));
            let delta = |delta| json!({ "type": "content_block_delta", "index": index, "delta": delta });
            events.extend(deltas.into_iter().map(delta));
            events.push(json!({ "type": "content_block_stop", "index": index }));
        }
        let end = json!({ "stop_reason": self.stop_reason(), "stop_sequence": null });
        events.push(
            json!({ "type": "message_delta", "delta": end, "usage": { "output_tokens": self.tokens.1 } }),
        );
        events.push(json!({ "type": "message_stop" }));
        let line =
            |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("x"));
        events.iter().map(line).collect()
    }

    fn completion(&self) -> Value {
        let text: String = self.blocks().filter_map(|block| block["text"].as_str()).collect();
        let calls: Vec<Value> = self.calls().map(|(_, call)| call).collect();
        let mut message = json!({ "role": "assistant", "content": text });
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        json!({
            "id": format!("chatcmpl-{}", self.id), "object": "chat.completion", "model": self.model,
            "choices": [{ "index": 0, "message": message, "finish_reason": self.finish_reason() }],
            "usage": self.openai_usage(),
        })
    }

    fn openai_chunks(&self) -> String {
        let chunk = |choices: Value, usage: Value| {
            json!({ "id": format!("chatcmpl-{}", self.id), "object": "chat.completion.chunk", "model": self.model,
                    "choices": choices, "usage": usage })
        };
        let delta =
            |delta: Value| chunk(json!([{ "index": 0, "delta": delta, "finish_reason": null }]), Value::Null);
        let mut chunks = vec![delta(json!({ "role": "assistant", "content": "" }))];
        for block in self.blocks() {
            let texts = pieces(block["text"].as_str().unwrap_or_default());
            chunks.extend(texts.map(|text| delta(json!({ "content": text }))));
            let thoughts = pieces(block["thinking"].as_str().unwrap_or_default());
            chunks.extend(thoughts.map(|thought| delta(json!({ "reasoning_content": thought }))));
        }
        for (index, mut call) in self.calls() {
            let arguments = call["function"]["arguments"].take();
            call["function"]["arguments"] = json!("");
            call["index"] = json!(index);
            chunks.push(delta(json!({ "tool_calls": [call] })));
            let more =
                |piece| json!({ "tool_calls": [{ "index": index, "function": { "arguments": piece } }] });
            chunks.extend(pieces(arguments.as_str().unwrap_or_default()).map(|piece| delta(more(piece))));
        }
        let end = json!([{ "index": 0, "delta": {}, "finish_reason": self.finish_reason() }]);
        chunks.push(chunk(end, Value::Null));
        chunks.push(chunk(json!([]), self.openai_usage()));
        let lines: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        lines + "data: [DONE]\n\n"
    }

    fn calls(&self) -> impl Iterator<Item = (usize, Value)> {
        let calls = self.blocks().filter(|block| block["type"] == "tool_use").enumerate();
        calls.map(|(index, block)| {
            let function = json!({ "name": block["name"], "arguments": block["input"].to_string() });
            (index, json!({ "id": block["id"], "type": "function", "function": function }))
        })
    }

    fn finish_reason(&self) -> &'static str {
        if self.stop_reason() == "tool_use" { "tool_calls" } else { "stop" }
    }

    fn openai_usage(&self) -> Value {
        let (input, output) = self.tokens;
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
    }
}

/// Returns the empty block that begins a content block, and the deltas that fill it.
fn anthropic_parts(block: &Value) -> (Value, Vec<Value>) {
    let text = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
    match block["type"].as_str() {
        Some("thinking") => {
            let thoughts = text("thinking");
            let delta = |piece| json!({ "type": "thinking_delta", "thinking": piece });
            let mut deltas: Vec<Value> = pieces(&thoughts).map(delta).collect();
            deltas.push(json!({ "type": "signature_delta", "signature": block["signature"] }));
            (json!({ "type": "thinking", "thinking": "", "signature": "" }), deltas)
        }
        Some("tool_use") => {
            let mut empty = block.clone();
            empty["input"] = json!({});
            let input = block["input"].to_string();
            let delta = |piece| json!({ "type": "input_json_delta", "partial_json": piece });
            (empty, pieces(&input).map(delta).collect())
        }
        _ => {
            let words = text("text");
            let delta = |piece| json!({ "type": "text_delta", "text": piece });
            (json!({ "type": "text", "text": "" }), pieces(&words).map(delta).collect())
        }
    }
}

/// Returns an error in the format of the wire.
pub(super) fn error(wire: Wire, kind: &str, message: &str) -> String {
    let error = match wire {
        Wire::Anthropic => json!({ "type": "error", "error": { "type": kind, "message": message } }),
        Wire::OpenAi => json!({ "error": { "type": kind, "code": kind, "message": message } }),
    };
    error.to_string()
}

/// Cuts a text into pieces of a few characters.
fn pieces(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = characters.chunks(DELTA_CHARS).map(|piece| piece.iter().collect()).collect();
    pieces.into_iter()
}
