//! Hides a key that a stream spells in pieces: each event holds a part of it, so that [`Redactor`] does not see it in
//! the bytes. `attempt` passes every streamed answer through it, in the Messages wire.
//!
//! It holds back events while the text that they add up to may be the beginning of a key, and passes them as they came
//! if it is none.

use bytes::{Bytes, BytesMut};
use ipc_schema::server_sent_events::EventParser;
use serde_json::Value;

use super::redact::Redactor;
use super::write_events;

/// The most bytes that are held back. An answer that fills them with beginnings of a key is none.
const HELD_MAX_BYTES: usize = 64 * 1024;

pub(super) struct EventRedactor {
    redactor: Redactor,
    /// The beginning of an event.
    rest: BytesMut,
    /// Events with pieces of one text.
    held: BytesMut,
    /// Which text that is: the index of its block, and its field.
    whose: (Value, &'static str),
    text: String,
}

impl EventRedactor {
    pub fn new(redactor: Redactor) -> Self {
        let whose = (Value::Null, "");
        Self { redactor, rest: BytesMut::new(), held: BytesMut::new(), whose, text: String::new() }
    }

    /// Returns the events that may pass now.
    pub fn feed(&mut self, bytes: Bytes) -> Bytes {
        if self.redactor.is_idle() {
            return bytes;
        }
        let mut out = BytesMut::new();
        self.rest.extend_from_slice(&bytes);
        while let Some(end) = end_of_event(&self.rest) {
            let event = self.rest.split_to(end);
            self.event(&event, &mut out);
        }
        if self.rest.len() > HELD_MAX_BYTES {
            self.pass(&mut out);
            out.unsplit(self.rest.split());
        }
        out.freeze()
    }

    /// Returns what was held back, at the end of the stream.
    pub fn finish(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        self.pass(&mut out);
        out.unsplit(self.rest.split());
        out.freeze()
    }

    fn pass(&mut self, out: &mut BytesMut) {
        out.unsplit(self.held.split());
        self.text.clear();
    }

    fn event(&mut self, event: &[u8], out: &mut BytesMut) {
        let data = EventParser::default().feed(event).ok().and_then(|mut events| events.pop());
        let Some((mut value, field)) = data.as_deref().and_then(delta) else {
            // A ping or a comment ends no text.
            if data.is_some_and(|data| !data.contains("\"ping\"")) {
                self.pass(out);
            }
            let behind = if self.held.is_empty() { out } else { &mut self.held };
            behind.extend_from_slice(event);
            return;
        };
        let whose = (value["index"].take(), field);
        if self.whose != whose {
            self.pass(out);
            self.whose = whose;
        }
        self.text.push_str(value["delta"][field].as_str().unwrap_or_default());
        self.held.extend_from_slice(event);
        let clean = self.redactor.text(&self.text);
        if clean != self.text {
            value["index"] = self.whose.0.clone();
            value["delta"][field] = clean.as_str().into();
            self.held = BytesMut::from(&write_events::event("content_block_delta", &value)[..]);
            self.text = clean;
        }
        if self.redactor.beginning(self.text.as_bytes()) == 0 || self.held.len() > HELD_MAX_BYTES {
            self.pass(out);
        }
    }
}

/// The length of the first event, its blank line included.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    let ends = [&b"\n\n"[..], b"\r\n\r\n"];
    let found = ends.map(|end| bytes.windows(end.len()).position(|at| at == end).map(|at| at + end.len()));
    found.into_iter().flatten().min()
}

/// An event that adds a piece to a text, and the field with the piece.
fn delta(data: &str) -> Option<(Value, &'static str)> {
    if !data.contains("content_block_delta") {
        return None;
    }
    let value: Value = serde_json::from_str(data).ok()?;
    let field =
        ["text", "thinking", "partial_json"].into_iter().find(|field| value["delta"][field].is_string())?;
    Some((value, field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Secret;
    use serde_json::json;

    const KEY: &str = "sk-canary-0123456789";

    fn pieces(text: &str, size: usize, field: &str) -> String {
        let chars: Vec<char> = text.chars().collect();
        let event = |piece: &[char]| {
            let delta = json!({ "type": "x", field: piece.iter().collect::<String>() });
            let event = json!({ "type": "content_block_delta", "index": 1, "delta": delta });
            String::from_utf8(write_events::event("content_block_delta", &event)).unwrap()
        };
        chars.chunks(size).map(event).collect()
    }

    /// What passes of a stream that arrives in chunks, and the text in it.
    fn passed(stream: &str, chunk: usize) -> (String, String) {
        let mut redactor = EventRedactor::new(Redactor::new([&Secret::new(KEY)]));
        let mut out = Vec::new();
        for bytes in stream.as_bytes().chunks(chunk) {
            out.extend(redactor.feed(Bytes::copy_from_slice(bytes)));
        }
        out.extend(redactor.finish());
        let out = String::from_utf8(out).unwrap();
        let events = EventParser::default().feed(out.as_bytes()).unwrap();
        let values = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
        let text = values.filter_map(|value| {
            let delta = value["delta"].as_object()?.values().filter_map(Value::as_str);
            Some(delta.filter(|text| *text != "x").collect::<String>())
        });
        (out.clone(), text.collect())
    }

    #[test]
    fn a_key_in_pieces_is_hidden_and_everything_else_passes_as_it_came() {
        let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
        for size in [1, 3, 7, 11, 100] {
            for field in ["text", "thinking", "partial_json"] {
                for chunk in [1, 17, 100_000] {
                    let told = format!("some sk-can and {KEY}{KEY}, {hex}; sk-canary-");
                    let (_, text) = passed(&pieces(&told, size, field), chunk);
                    assert_eq!(text, "some sk-can and [redacted][redacted], [redacted]; sk-canary-");
                    let honest = format!(
                        "event: ping\r\ndata: {{}}\r\n\r\n{}data: {{\"type\":\"message_stop\"}}\n\n: half",
                        pieces("less is more: sk-canary-01234567", size, field)
                    );
                    assert_eq!(passed(&honest, chunk).0, honest);
                }
            }
        }
    }

    #[test]
    fn a_ping_between_two_pieces_does_not_part_them() {
        let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n: a comment\n\n";
        let (first, second) = KEY.split_at(9);
        let (out, text) =
            passed(&format!("{}{ping}{}", pieces(first, 99, "text"), pieces(second, 99, "text")), 100_000);
        assert_eq!(text, "[redacted]");
        assert!(!out.contains("canary"));
        let honest = format!("{}{ping}{}", pieces("yes", 9, "text"), pieces("!", 9, "text"));
        assert_eq!(passed(&honest, 9).0, honest);
    }

    #[test]
    fn an_event_passes_at_once_if_it_ends_in_no_beginning_of_a_key() {
        let mut redactor = EventRedactor::new(Redactor::new([&Secret::new(KEY)]));
        let event = pieces("hello!", 9, "text");
        assert_eq!(redactor.feed(Bytes::from(event.clone())), event);
        let event = pieces("hello s", 9, "text");
        assert!(redactor.feed(Bytes::from(event.clone())).is_empty());
        let stop = "data: {\"type\":\"content_block_stop\",\"index\":1}\n\n";
        assert_eq!(redactor.feed(Bytes::from_static(stop.as_bytes())), format!("{event}{stop}"));
    }
}
