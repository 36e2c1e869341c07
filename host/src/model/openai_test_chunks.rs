//! Chat completion chunks for the tests of `model` and of `gateway`.

use serde_json::{Value, json};

pub fn delta(delta: Value) -> Value {
    json!({ "choices": [{ "index": 0, "delta": delta }] })
}

/// A piece of a tool call.
pub fn call(index: impl Into<Value>, id: &str, name: Option<&str>, arguments: &str) -> Value {
    let piece =
        json!({ "index": index.into(), "id": id, "function": { "name": name, "arguments": arguments } });
    delta(json!({ "tool_calls": [piece] }))
}

pub fn stop(reason: &str) -> Value {
    json!({ "choices": [{ "delta": {}, "finish_reason": reason }] })
}

/// The bytes of a stream of these chunks, without `[DONE]`.
pub fn stream(chunks: &[Value]) -> String {
    chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect()
}
