//! Writes events of the Messages wire: for answers that no provider streamed in it.

use serde_json::{Value, json};

pub(super) fn event(name: &str, data: &Value) -> Vec<u8> {
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

/// Writes a whole message as the events that would have streamed it.
pub fn of_message(message: &Value) -> Vec<u8> {
    let usage = &message["usage"];
    let mut head = message.clone();
    head["content"] = json!([]);
    head["stop_reason"] = Value::Null;
    head["stop_sequence"] = Value::Null;
    let mut out = event("message_start", &json!({ "type": "message_start", "message": head }));
    for (index, block) in message["content"].as_array().into_iter().flatten().enumerate() {
        let (start, deltas) = parts_of(block);
        let opened = json!({ "type": "content_block_start", "index": index, "content_block": start });
        out.extend(event("content_block_start", &opened));
        for delta in deltas {
            let delta = json!({ "type": "content_block_delta", "index": index, "delta": delta });
            out.extend(event("content_block_delta", &delta));
        }
        out.extend(event("content_block_stop", &json!({ "type": "content_block_stop", "index": index })));
    }
    let end = json!({ "stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"] });
    out.extend(event("message_delta", &json!({ "type": "message_delta", "delta": end, "usage": usage })));
    out.extend(event("message_stop", &json!({ "type": "message_stop" })));
    out
}

/// Returns the empty start of a block and the deltas that fill it. A block of another kind starts complete.
fn parts_of(block: &Value) -> (Value, Vec<Value>) {
    match block["type"].as_str() {
        Some("text") => {
            let delta = json!({ "type": "text_delta", "text": block["text"] });
            (json!({ "type": "text", "text": "" }), vec![delta])
        }
        Some("tool_use") => {
            let mut start = block.clone();
            start["input"] = json!({});
            let delta = json!({ "type": "input_json_delta", "partial_json": block["input"].to_string() });
            (start, vec![delta])
        }
        Some("thinking") => {
            let text = json!({ "type": "thinking_delta", "thinking": block["thinking"] });
            let signature = json!({ "type": "signature_delta", "signature": block["signature"] });
            (json!({ "type": "thinking", "thinking": "", "signature": "" }), vec![text, signature])
        }
        _ => (block.clone(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use ipc_schema::server_sent_events::EventParser;

    use super::*;

    #[test]
    fn a_message_becomes_the_events_that_would_have_streamed_it() {
        let message = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
            "content": [
                { "type": "text", "text": "hi" },
                { "type": "tool_use", "id": "call_1", "name": "t", "input": { "a": 1 } },
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": { "input_tokens": 3, "output_tokens": 4 },
        });
        let events = EventParser::default().feed(&of_message(&message)).unwrap();
        let types: Vec<String> = events
            .iter()
            .map(|event| {
                let value: Value = serde_json::from_str(event).unwrap();
                value["type"].as_str().unwrap().to_owned()
            })
            .collect();
        let block = ["content_block_start", "content_block_delta", "content_block_stop"];
        let mut expected = vec!["message_start"];
        expected.extend(block);
        expected.extend(block);
        expected.extend(["message_delta", "message_stop"]);
        assert_eq!(types, expected);
        assert!(events[5].contains(r#""partial_json":"{\"a\":1}""#));
    }
}
