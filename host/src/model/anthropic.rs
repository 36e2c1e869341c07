//! Providers of the Anthropic Messages wire. The box speaks it too: the host replaces model and limit, and passes the
//! answer on unchanged.

use bytes::{Bytes, BytesMut};
use hyper::header::HeaderValue;
use ipc_schema::server_sent_events::EventParser;
use serde::Deserialize;

use super::error::ApiError;
use super::normalise::{CallIds, tool_name};
use super::refusal;
use super::request::{Block, Content, Entry, ModelRequest, Role};

/// Returns the version of the wire that the box asked for, if it is a date. The host forwards no other header of a box:
/// `anthropic-beta` could switch on tools that run at the provider.
pub fn version(asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    let shape = |byte: &u8| if byte.is_ascii_digit() { b'0' } else { *byte };
    asked.filter(|value| value.as_bytes().iter().map(shape).eq(*b"0000-00-00")).cloned()
}

/// Which thoughts in the transcript are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoughts {
    /// Used when they were refused. A thought is signed for the model that had it, and another model refuses the whole
    /// request because of it: this happens after an owner changes a group's model.
    None,
    /// Those with a signature. Anthropic refuses others.
    Signed,
    /// Those without a signature too ([`Dialect::thoughts`](super::dialect::Dialect)).
    All,
}

/// Writes the body for a provider.
///
/// Of an answer it writes the blocks that the wire takes; `normalise` has the rules for calls.
///
/// # Errors
/// Never in practice: every type of a request can be written.
pub fn body(
    request: &ModelRequest<'_>,
    model: &str,
    max_tokens: u32,
    thoughts: Thoughts,
) -> Result<Vec<u8>, ApiError> {
    let mut ids = CallIds::default();
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for Entry { role, content } in &request.messages {
        let (role, content) = (*role, written(*role, content, thoughts, &mut ids));
        match entries.last_mut() {
            // An answer of which nothing is left separates two messages no longer.
            _ if content.blocks.is_empty() => {}
            Some(last) if last.role == role => {
                last.content.bare = false;
                last.content.blocks.extend(content.blocks);
            }
            _ => entries.push(Entry { role, content }),
        }
    }
    let mut written = request.buffer();
    serde_json::to_writer(&mut written, &request.with(model, max_tokens, entries))
        .map_err(|error| ApiError::invalid(format!("the request cannot be written: {error}")))?;
    Ok(written)
}

fn written<'a>(role: Role, content: &Content<'a>, thoughts: Thoughts, ids: &mut CallIds) -> Content<'a> {
    if role == Role::Assistant && !content.bare {
        ids.begin_answer();
    }
    let mut blocks: Vec<_> =
        content.blocks.iter().filter_map(|block| written_block(block, thoughts, ids)).collect();
    // An answer that was cut may end with a thought. Anthropic refuses it.
    while matches!(blocks.last(), Some(Block::Thinking { .. } | Block::RedactedThinking { .. })) {
        blocks.pop();
    }
    Content { blocks, bare: content.bare }
}

/// A block as it is sent, or `None` for one that the wire does not take: a blank text, a thought that is not sent, and
/// what belongs to another provider.
fn written_block<'a>(block: &Block<'a>, thoughts: Thoughts, ids: &mut CallIds) -> Option<Block<'a>> {
    let mut block = block.clone();
    let is_sent = match &mut block {
        Block::Text { text, .. } => !text.read().trim().is_empty(),
        Block::ToolUse { id, name, .. } => {
            *id = ids.kept(id).into();
            *name = tool_name(name).into_owned().into();
            true
        }
        // A result names its call by the id that the call has in this request.
        Block::ToolResult { tool_use_id, .. } => {
            *tool_use_id = ids.of_result(tool_use_id).into();
            true
        }
        Block::Thinking { signature, .. } => {
            thoughts == Thoughts::All || thoughts == Thoughts::Signed && signature.is_some()
        }
        Block::RedactedThinking { data } => thoughts != Thoughts::None && !data.read().is_empty(),
        Block::Image(_) | Block::Document(_) => true,
        Block::Opaque(_) => false,
    };
    is_sent.then_some(block)
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

#[derive(Default, Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
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

    fn forwarded(request: &Value, thoughts: Thoughts) -> Value {
        let text = request.to_string();
        let request = ModelRequest::parse(text.as_bytes()).unwrap();
        serde_json::from_slice(&body(&request, "the-model", 1000, thoughts).unwrap()).unwrap()
    }

    #[test]
    fn the_host_chooses_model_and_limit_and_the_rest_stays_verbatim() {
        let content = json!([
            { "type": "thinking", "thinking": "…", "signature": "s=" },
            { "type": "text", "text": "ä \u{1f600}" },
            { "type": "tool_use", "id": "toolu_1", "name": "ls", "input": { "n": 1.50 } },
        ]);
        let asked = json!({
            "model": "the-box-would-like", "max_tokens": 1_000_000, "stream": true, "temperature": 0.5,
            "messages": [{ "role": "assistant", "content": content }],
            "system": [{ "type": "text", "text": "s", "cache_control": { "type": "ephemeral" } }],
        });
        let mut expected = asked.clone();
        expected["model"] = json!("the-model");
        expected["max_tokens"] = json!(1000);
        assert_eq!(forwarded(&asked, Thoughts::Signed), expected);
        assert_eq!(forwarded(&json!({ "messages": [], "max_tokens": 5 }), Thoughts::Signed)["max_tokens"], 5);
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
        assert_eq!(forwarded(&asked, Thoughts::None)["messages"], left);
    }

    #[test]
    fn of_an_answer_only_what_the_wire_takes_is_written() {
        let call = |id: &str, name: Value, input: Value| json!({ "type": "tool_use", "id": id, "name": name, "input": input });
        let result =
            |id: &str| json!({ "type": "tool_result", "tool_use_id": id, "content": "ok", "is_error": true });
        let asked = json!({ "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": [{ "type": "thinking", "thinking": "cut off", "signature": "s" }] },
            { "role": "user", "content": [{ "type": "text", "text": "still there?" }] },
            { "role": "assistant", "content": [
                { "type": "opaque", "maker": "p/m", "message": { "reasoning_content": "hm" } },
                { "type": "thinking", "thinking": "hm", "signature": "" },
                { "type": "redacted_thinking" },
                { "type": "text", "text": " " },
                { "type": "text", "text": "looking", "novel": 1, "citations": null },
                call("functions.ls:0", json!("my tool"), Value::Null),
                call("", Value::Null, json!([1])),
                call("toolu_1", json!("ls"), json!({ "a": 1 })),
                { "type": "tool_use", "id": 7, "extra_content": {} } ] },
            { "role": "user", "content": [
                result("functions.ls:0"), result(""), result("toolu_1"), { "type": "text", "text": "go on" } ] },
        ]});
        let written = forwarded(&asked, Thoughts::Signed);
        let expected = json!([
            { "role": "user", "content": [
                { "type": "text", "text": "hi" }, { "type": "text", "text": "still there?" } ] },
            { "role": "assistant", "content": [
                { "type": "text", "text": "looking" },
                call("call00001", json!("my_tool"), json!({})),
                call("call00002", json!("unnamed"), json!({})),
                call("toolu_1", json!("ls"), json!({ "a": 1 })),
                call("call00003", json!("unnamed"), json!({})) ] },
            { "role": "user", "content": [
                result("call00001"), result("call00002"), result("toolu_1"), { "type": "text", "text": "go on" } ] },
        ]);
        assert_eq!(written["messages"], expected);
        let all = forwarded(&asked, Thoughts::All);
        assert_eq!(all["messages"][1]["content"][0], json!({ "type": "thinking", "thinking": "hm" }));
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
