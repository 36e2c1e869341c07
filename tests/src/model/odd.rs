//! Odd answers: refusals, cuts and elements as real servers send them, in a share of the calls.

use fastrand::Rng;
use serde_json::{Value, json};

use super::conversation::Wire;

/// The share of odd answers, and the chance that chooses them.
pub(super) struct Odd {
    share: f64,
    chance: Rng,
    /// How many answers were odd.
    pub played: u64,
}

/// What the server does instead of a proper answer, or to one.
pub(super) enum Oddity {
    /// It refuses with this status and body.
    Refusal(u16, String),
    /// It sends this stream, and then cuts the connection or ends it.
    Stream { bytes: Vec<u8>, cut: bool },
}

/// Refusals that pass, that another request avoids, and that end the turn.
const REFUSALS: [(u16, &str); 16] = [
    (408, r#"{"error":{"message":"timeout"}}"#),
    (409, r#"{"error":{"message":"conflict"}}"#),
    (425, r#"{"detail":"too early"}"#),
    (429, r#"{"error":{"message":"Rate limit reached","type":"tokens","code":"rate_limit_exceeded"}}"#),
    (500, "<html>oops</html>"),
    (503, r#"[{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}]"#),
    (529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#),
    (200, "<html>a captive portal</html>"),
    (200, r#"{"error":{"code":502,"message":"Provider disconnected"}}"#),
    (400, r#"{"error":"max_tokens is too large"}"#),
    (400, r#"{"error":{"message":"prompt is too long: 9 tokens > 8 maximum"}}"#),
    (500, r#"{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}"#),
    (404, r#"{"detail":"no deployment fits: context window exceeded"}"#),
    (400, r#"{"error":{"message":"Your credit balance is too low"}}"#),
    (400, r#"{"error":{"message":"Content Exists Risk"}}"#),
    (422, r#"{"detail":[{"loc":["body"],"msg":"Input should be valid"}]}"#),
];

/// Events that mean nothing, on both wires.
const NOTHING: [&str; 6] =
    ["data: ", ": comment", "data: <html>", "data: {\"x\":", "data: 7", "data: {\"type\":\"new\"}"];

/// Events that mean nothing on one wire.
const OF_ANTHROPIC: [&str; 3] = [
    r#"data: {"type":"content_block_stop","index":99}"#,
    r#"data: {"type":"message_delta","delta":{},"usage":{"output_tokens":null,"input_tokens":-1}}"#,
    r#"data: {"type":"content_block_delta","index":99,"delta":{"type":"input_json_delta","partial_json":7}}"#,
];
const OF_OPENAI: [&str; 5] = [
    r#"data: {"choices":null,"usage":{"prompt_tokens":null,"completion_tokens":10.0}}"#,
    r#"data: {"choices":[{"delta":{"content":[]},"finish_reason":""}]}"#,
    r#"data: {"choices":[{"delta":{"content":7,"content":null}}]}"#,
    r#"data: {"choices":[{"delta":{"tool_calls":[{"index":-1,"function":{"arguments":""}}]}}],"error":null}"#,
    r#"data: {"choices":[7],"usage":[]}"#,
];

impl Odd {
    pub fn new(share: f64, seed: u64) -> Self {
        Self { share, chance: Rng::with_seed(seed), played: 0 }
    }

    /// Decides about one call with this proper stream. `None` leaves it as it is.
    pub fn play(&mut self, wire: Wire, stream: &[u8]) -> Option<Oddity> {
        if self.chance.f64() >= self.share {
            return None;
        }
        self.played += 1;
        Some(match self.chance.u8(..4) {
            0 => {
                let (status, body) = REFUSALS[self.chance.usize(..REFUSALS.len())];
                Oddity::Refusal(status, body.to_owned())
            }
            1 => Oddity::Stream {
                bytes: stream[..self.chance.usize(..stream.len())].to_vec(),
                cut: self.chance.bool(),
            },
            2 => {
                let mut events = self.odd_events(wire, stream);
                let at = self.chance.usize(..=events.len() / 2);
                events.truncate(at);
                events.push(match wire {
                    Wire::Anthropic => r#"data: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#.into(),
                    Wire::OpenAi => r#"data: {"error":{"code":503,"message":"busy"},"choices":[{"finish_reason":"error"}]}"#.into(),
                });
                Oddity::Stream { bytes: joined(&events), cut: false }
            }
            _ => {
                let mut bytes = joined(&self.odd_events(wire, stream));
                if self.chance.bool() {
                    bytes.splice(0..0, *b"\xef\xbb\xbf");
                }
                Oddity::Stream { bytes, cut: false }
            }
        })
    }

    /// The events of a stream, spelt oddly, with odd events between them.
    fn odd_events(&mut self, wire: Wire, stream: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(stream);
        let mut events = Vec::new();
        for event in text.split_terminator("\n\n") {
            while self.chance.u8(..3) == 0 {
                let of_wire: &[&str] = if wire == Wire::Anthropic { &OF_ANTHROPIC } else { &OF_OPENAI };
                let all = NOTHING.len() + of_wire.len();
                let at = self.chance.usize(..all);
                events.push(
                    NOTHING.get(at).or_else(|| of_wire.get(at - NOTHING.len())).map_or("", |e| e).to_owned(),
                );
            }
            let parsed =
                event.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok());
            match parsed.filter(|_| wire == Wire::OpenAi) {
                Some(chunk) => {
                    events.extend(self.odd_chunk(chunk).iter().map(|chunk| format!("data: {chunk}")))
                }
                None => events.push(event.to_owned()),
            }
        }
        events
    }

    /// A chunk with the same meaning, as another server would send it.
    fn odd_chunk(&mut self, mut chunk: Value) -> Vec<Value> {
        let Some(fields) = chunk.pointer_mut("/choices/0/delta").and_then(Value::as_object_mut) else {
            return vec![chunk];
        };
        let mut after = Vec::new();
        if let Some(text) = fields.get("content").filter(|text| text.is_string() && self.chance.bool()) {
            let parts = json!([{ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] }, { "type": "text", "text": text }]);
            fields.insert("content".to_owned(), parts);
        }
        if let Some(call) = fields.get_mut("tool_calls").and_then(|calls| calls.get_mut(0)) {
            match self.chance.u8(..4) {
                0 => call["index"] = json!(call["index"].to_string()),
                1 => call["index"] = json!(-1),
                2 if call["function"]["name"].is_string() => {
                    let again = json!({ "index": call["index"], "id": call["id"], "function": { "name": call["function"]["name"], "arguments": "" } });
                    after.push(
                        json!({ "choices": [{ "delta": { "tool_calls": [again] }, "finish_reason": null }] }),
                    );
                }
                _ => {}
            }
        }
        after.insert(0, chunk);
        after
    }
}

fn joined(events: &[String]) -> Vec<u8> {
    events.iter().map(|event| format!("{event}\n\n")).collect::<String>().into_bytes()
}
