//! Providers of the Anthropic Messages wire. The box speaks it too: the host replaces model and limit, and passes the
//! answer on unchanged.

use bytes::{Bytes, BytesMut};
use hyper::header::HeaderValue;
use ipc_schema::server_sent_events::EventParser;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::error::ApiError;
use super::refusal;
use super::request::{List, ModelRequest, RawEntry, Role};

/// Returns the version of the wire that the box asked for, if it is a date. The host forwards no other header of a box:
/// `anthropic-beta` could switch on tools that run at the provider.
pub fn version(asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    let shape = |byte: &u8| if byte.is_ascii_digit() { b'0' } else { *byte };
    asked.filter(|value| value.as_bytes().iter().map(shape).eq(*b"0000-00-00")).cloned()
}

/// Writes the body for a provider.
///
/// With `thinking` false it leaves the thoughts in the transcript out. A thought is signed for the model that had it,
/// and another model refuses the whole request because of it: this happens after an owner changes a group's model.
///
/// # Errors
/// When an entry of the transcript cannot be read or written.
pub fn body(
    request: &ModelRequest<'_>,
    model: &str,
    max_tokens: u32,
    thinking: bool,
) -> Result<Vec<u8>, ApiError> {
    let failed =
        |error: serde_json::Error| ApiError::invalid(format!("the request cannot be written: {error}"));
    let entries: Vec<Box<RawValue>>;
    let mut forwarded = request.clone();
    forwarded.model = model.to_owned();
    forwarded.max_tokens = request.max_tokens.min(max_tokens);
    if !thinking {
        let stripped = request.messages.0.iter().filter_map(|raw| without_thinking(raw).transpose());
        entries = stripped.collect::<Result<_, _>>()?;
        forwarded.messages = List(entries.iter().map(AsRef::as_ref).collect());
    }
    let mut written = Vec::with_capacity(request.length());
    serde_json::to_writer(&mut written, &forwarded).map_err(failed)?;
    Ok(written)
}

/// Whether a provider refused a request because of a thought of another model. The wire has no error type for it, so
/// only the message tells.
pub fn refuses_thinking(error: &ApiError) -> bool {
    error.status == 400 && error.message.contains("thinking") && error.message.contains("block")
}

#[derive(Serialize)]
struct StrippedEntry<'a> {
    role: Role,
    content: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

/// Returns an entry without its thoughts, or `None` when nothing is left. The wire joins neighbours of one role.
fn without_thinking(raw: &RawValue) -> Result<Option<Box<RawValue>>, ApiError> {
    let entry = RawEntry::parse(raw)?;
    let Ok(List(blocks)) = serde_json::from_str::<List<'_>>(entry.content.get()) else {
        return Ok(Some(raw.to_owned()));
    };
    let is_thought = |block: &&RawValue| {
        serde_json::from_str::<Kind>(block.get())
            .is_ok_and(|block| matches!(block.kind.as_str(), "thinking" | "redacted_thinking"))
    };
    let content: Vec<_> = blocks.into_iter().filter(|block| !is_thought(block)).collect();
    if content.is_empty() {
        return Ok(None);
    }
    let stripped = to_raw_value(&StrippedEntry { role: entry.role, content });
    stripped.map(Some).map_err(|error| ApiError::invalid(format!("a message cannot be written: {error}")))
}

/// Passes a stream on, byte for byte, once its first event shows that it is an answer.
///
/// Until then the box has received nothing and the attempt may be repeated: a provider may answer 200 and report in its
/// first event that it is overloaded.
#[derive(Default)]
pub struct PassThrough {
    begun: bool,
    held: BytesMut,
    parser: EventParser,
}

impl PassThrough {
    /// Returns the bytes that may pass now.
    pub fn feed(&mut self, bytes: Bytes) -> Result<Bytes, ApiError> {
        if self.begun {
            return Ok(bytes);
        }
        self.held.extend_from_slice(&bytes);
        let too_long = |_| ApiError::of_status(502, "the first event of the stream is too long");
        for event in self.parser.feed(&bytes).map_err(too_long)? {
            self.begun = self.begun || is_beginning(&event)?;
        }
        Ok(if self.begun { std::mem::take(&mut self.held).freeze() } else { Bytes::new() })
    }
}

/// Whether this event begins an answer. A ping does not, nor does an event that cannot be read.
fn is_beginning(event: &str) -> Result<bool, ApiError> {
    if let Some(refusal) = refusal::in_answer(event.as_bytes()) {
        return Err(refusal.error(refusal.said.clone()));
    }
    let kind = serde_json::from_str::<Kind>(event).map(|event| event.kind).unwrap_or_default();
    Ok(kind == "message_start" || kind.starts_with("content_block_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn forwarded(request: &Value, thinking: bool) -> Value {
        let text = request.to_string();
        let request = ModelRequest::parse(text.as_bytes()).unwrap();
        serde_json::from_slice(&body(&request, "the-model", 1000, thinking).unwrap()).unwrap()
    }

    #[test]
    fn the_host_chooses_model_and_limit_and_the_rest_stays_verbatim() {
        let content = json!([
            { "type": "thinking", "thinking": "…", "signature": "s=", "extra": 1.50 },
            { "type": "text", "text": "ä \u{1f600}", "citations": [{ "x": null }] },
        ]);
        let asked = json!({
            "model": "the-box-would-like", "max_tokens": 1_000_000, "stream": true, "temperature": 0.5,
            "messages": [{ "role": "assistant", "content": content }],
            "system": [{ "type": "text", "text": "s", "cache_control": { "type": "ephemeral" } }],
        });
        let mut expected = asked.clone();
        expected["model"] = json!("the-model");
        expected["max_tokens"] = json!(1000);
        assert_eq!(forwarded(&asked, true), expected);
        assert_eq!(forwarded(&json!({ "messages": [], "max_tokens": 5 }), true)["max_tokens"], 5);
    }

    #[test]
    fn thoughts_of_another_model_can_be_left_out() {
        let asked = json!({ "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": [{ "type": "redacted_thinking", "data": "x" }] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "…", "signature": "s" },
                { "type": "tool_use", "id": "t", "name": "ls", "input": {} } ] },
        ]});
        let left = json!([
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "ls", "input": {} }] },
        ]);
        assert_eq!(forwarded(&asked, false)["messages"], left);
    }

    #[test]
    fn a_version_is_a_date_and_nothing_else() {
        let asked = |text: &'static str| version(Some(&HeaderValue::from_static(text)));
        assert!(asked("2023-06-01").is_some());
        for bad in ["", "2023-06-01x", "latest", "2023-06-0"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
        assert_eq!(version(None), None);
    }

    #[test]
    fn nothing_passes_before_the_answer_has_begun() {
        let mut stream = PassThrough::default();
        assert_eq!(
            stream.feed(Bytes::from_static(b"event: ping\ndata: {\"type\":\"ping\"}\n\n")).unwrap(),
            ""
        );
        let start = b"data: {\"type\":\"message_start\",\"message\":{}}\n\n";
        assert_eq!(stream.feed(Bytes::from_static(&start[..9])).unwrap(), "");
        assert!(stream.feed(Bytes::from_static(&start[9..])).unwrap().ends_with(&start[9..]));
        assert_eq!(stream.feed(Bytes::from_static(b"anything")).unwrap(), "anything");

        let overloaded = br#"data: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
        let mut stream = PassThrough::default();
        stream.feed(Bytes::from_static(overloaded)).unwrap();
        let refused = stream.feed(Bytes::from_static(b"\n\n")).unwrap_err();
        assert_eq!((refused.status, refused.message.as_str()), (529, "busy"));
    }
}
