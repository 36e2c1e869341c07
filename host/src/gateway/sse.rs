//! Server-sent events, both ways
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>).

use serde_json::{Value, json};

/// The greatest event that is read. A provider that sends more in one event is broken.
const EVENT_MAX_BYTES: usize = 8 * 1024 * 1024;

/// One event's data. The event's name is not kept: both wires repeat in the data what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The data lines, joined by line feeds.
    pub data: String,
}

/// An event went past the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Cuts a stream of bytes into events, however the network cuts the bytes.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Parser {
    /// The events that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.end_line(&mut events);
        }
        self.line.extend_from_slice(rest);
        if self.line.len() + self.data.len() > EVENT_MAX_BYTES {
            // Forgotten, for a reader that reads on all the same: the meter does.
            *self = Self::default();
            return Err(TooLong);
        }
        Ok(events)
    }

    /// The event that the end of the stream completes: some servers leave out the last empty line.
    pub fn finish(&mut self) -> Option<Event> {
        let mut events = Vec::new();
        self.end_line(&mut events);
        self.end_event(&mut events);
        events.pop()
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.is_empty() {
            self.end_event(events);
        } else if let Some(value) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        }
    }

    fn end_event(&mut self, events: &mut Vec<Event>) {
        if self.data.pop().is_some() {
            events
                .push(Event { data: String::from_utf8_lossy(&std::mem::take(&mut self.data)).into_owned() });
        }
    }
}

/// One event as it goes over the wire.
pub(super) fn event(name: &str, data: &Value) -> Vec<u8> {
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

/// A whole Anthropic message as the events that would have streamed it.
pub(super) fn of_message(message: &Value) -> Vec<u8> {
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

/// A block's empty start and the deltas that fill it. Blocks of other kinds start as they end.
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
    use super::*;

    fn data(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.data.as_str()).collect()
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let wire = ": hello\r\nevent: a\r\ndata: {\"x\":\r\ndata: \"ä\"}\r\n\r\ndata:2\n\n\ndata: 3";
        for cut in 0..=wire.len() {
            let mut parser = Parser::default();
            let mut events = parser.feed(&wire.as_bytes()[..cut]).unwrap();
            events.extend(parser.feed(&wire.as_bytes()[cut..]).unwrap());
            events.extend(parser.finish());
            assert_eq!(data(&events), ["{\"x\":\n\"ä\"}", "2", "3"], "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_it_fills_the_memory() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let refused = (0..16).position(|_| parser.feed(&chunk) == Err(TooLong));
        assert_eq!(refused, Some(8));
    }

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
        let mut parser = Parser::default();
        let events = parser.feed(&of_message(&message)).unwrap();
        let types: Vec<String> = events
            .iter()
            .map(|event| {
                let value: Value = serde_json::from_str(&event.data).unwrap();
                value["type"].as_str().unwrap().to_owned()
            })
            .collect();
        let block = ["content_block_start", "content_block_delta", "content_block_stop"];
        let mut expected = vec!["message_start"];
        expected.extend(block);
        expected.extend(block);
        expected.extend(["message_delta", "message_stop"]);
        assert_eq!(types, expected);
        assert!(events[5].data.contains(r#""partial_json":"{\"a\":1}""#));
    }
}
