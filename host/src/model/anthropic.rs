//! Providers of the Anthropic Messages wire. The box speaks it too: the host replaces model and limit, and passes the
//! answer on unchanged.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use hyper::header::HeaderValue;
use ipc_schema::server_sent_events::EventParser;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::error::ApiError;
use super::normalise::{CallIds, call_input, tool_name};
use super::refusal;
use super::request::{List, ModelRequest, RawEntry, Role, text_or_empty};

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
/// Of an answer it writes the blocks and fields that the wire takes; `normalise` has the rules for calls. An answer
/// that needs no change stays verbatim, as does what people and tools said.
///
/// # Errors
/// When an entry of the transcript cannot be read or written.
pub fn body(
    request: &ModelRequest<'_>,
    model: &str,
    max_tokens: u32,
    thoughts: Thoughts,
) -> Result<Vec<u8>, ApiError> {
    let failed =
        |error: serde_json::Error| ApiError::invalid(format!("the request cannot be written: {error}"));
    let mut ids = CallIds::default();
    let mut entries: Vec<WrittenEntry<'_>> = Vec::new();
    for raw in &request.messages.0 {
        let entry = RawEntry::parse(raw)?;
        let (content, verbatim) = match serde_json::from_str::<List<'_>>(entry.content.get()) {
            Ok(List(blocks)) => {
                let written = written_blocks(entry.role, &blocks, thoughts, &mut ids).map_err(failed)?;
                let verbatim = written.len() == blocks.len()
                    && written.iter().all(|block| matches!(block, Cow::Borrowed(_)));
                (WrittenContent::Blocks(written), verbatim)
            }
            Err(_) => (WrittenContent::Text(entry.content), true),
        };
        match entries.last_mut() {
            // An answer of which nothing is left separates two messages no longer.
            _ if matches!(&content, WrittenContent::Blocks(blocks) if blocks.is_empty()) => {}
            Some(last) if last.role == entry.role => last.append(content).map_err(failed)?,
            _ => {
                entries.push(WrittenEntry { role: entry.role, content, verbatim: verbatim.then_some(raw) });
            }
        }
    }
    let entries: Vec<_> = entries.iter().map(WrittenEntry::raw).collect::<Result<_, _>>().map_err(failed)?;
    let mut forwarded = request.clone();
    forwarded.model = model.to_owned();
    forwarded.max_tokens = request.max_tokens.min(max_tokens);
    forwarded.messages = List(entries.iter().map(AsRef::as_ref).collect());
    let mut written = Vec::with_capacity(request.length());
    serde_json::to_writer(&mut written, &forwarded).map_err(failed)?;
    Ok(written)
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    role: Role,
    content: WrittenContent<'a>,
    /// The entry as it came, if it needs no change: most do not, and a copy of them all would double the body.
    #[serde(skip)]
    verbatim: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenContent<'a> {
    Text(&'a RawValue),
    Blocks(Vec<Cow<'a, RawValue>>),
}

impl<'a> WrittenEntry<'a> {
    fn raw(&self) -> serde_json::Result<Cow<'a, RawValue>> {
        match self.verbatim {
            Some(raw) => Ok(Cow::Borrowed(raw)),
            None => to_raw_value(self).map(Cow::Owned),
        }
    }

    fn append(&mut self, more: WrittenContent<'a>) -> serde_json::Result<()> {
        let more = more.into_blocks()?;
        self.verbatim = None;
        let known = std::mem::replace(&mut self.content, WrittenContent::Blocks(Vec::new()));
        self.content = WrittenContent::Blocks(known.into_blocks()?.into_iter().chain(more).collect());
        Ok(())
    }
}

impl<'a> WrittenContent<'a> {
    fn into_blocks(self) -> serde_json::Result<Vec<Cow<'a, RawValue>>> {
        match self {
            Self::Blocks(blocks) => Ok(blocks),
            Self::Text(text) => Ok(vec![Cow::Owned(to_raw_value(&json!({ "type": "text", "text": text }))?)]),
        }
    }
}

fn written_blocks<'a>(
    role: Role,
    blocks: &[&'a RawValue],
    thoughts: Thoughts,
    ids: &mut CallIds,
) -> serde_json::Result<Vec<Cow<'a, RawValue>>> {
    if role == Role::Assistant {
        ids.begin_answer();
    }
    let written = blocks.iter().filter_map(|raw| match role {
        Role::Assistant => answer_block(raw, thoughts, ids).transpose(),
        Role::User => Some(user_block(raw, ids)),
    });
    let mut written: Vec<_> = written.collect::<Result<_, _>>()?;
    // An answer that was cut may end with a thought. Anthropic refuses it.
    while written.last().is_some_and(|block| is_thought(block)) {
        written.pop();
    }
    Ok(written)
}

fn is_thought(block: &RawValue) -> bool {
    serde_json::from_str::<Kind>(block.get())
        .is_ok_and(|block| matches!(block.kind.as_str(), "thinking" | "redacted_thinking"))
}

/// A block of an answer, or `None` for one that the wire does not take: a thought that is not sent, what belongs to
/// another provider, and what nobody knows.
fn answer_block<'a>(
    raw: &'a RawValue,
    thoughts: Thoughts,
    ids: &mut CallIds,
) -> serde_json::Result<Option<Cow<'a, RawValue>>> {
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get()) else { return Ok(None) };
    let text = |field: &str| text_or_empty(fields.get(field).copied());
    let is_text = |field: &str| fields.get(field).is_some_and(|raw| raw.get().starts_with('"'));
    let signed = !text("signature").is_empty();
    let known: &[&str] = match text("type").as_str() {
        "text" if !text("text").trim().is_empty() => &["text"],
        "tool_use" => &["id", "name", "input"],
        "thinking" if !is_text("thinking") => return Ok(None),
        "thinking" if signed && thoughts != Thoughts::None => &["thinking", "signature"],
        "thinking" if thoughts == Thoughts::All => &["thinking"],
        "redacted_thinking" if !text("data").is_empty() && thoughts != Thoughts::None => &["data"],
        _ => return Ok(None),
    };
    let mut written: BTreeMap<String, Cow<'_, RawValue>> = BTreeMap::new();
    let mut changed = false;
    for (name, value) in &fields {
        if known.contains(&name.as_str()) || matches!(name.as_str(), "type" | "cache_control") {
            written.insert(name.clone(), Cow::Borrowed(*value));
        } else {
            changed = true;
        }
    }
    if known.contains(&"input") {
        let input = call_input(fields.get("input").copied());
        if fields.get("input").is_none_or(|given| given.get() != input) {
            changed = true;
            written.insert("input".into(), Cow::Owned(RawValue::from_string(input.to_owned())?));
        }
        let (id, name) = (text("id"), text("name"));
        for (field, before, after) in
            [("id", &id, ids.kept(&id)), ("name", &name, tool_name(&name).into_owned())]
        {
            if *before != after {
                changed = true;
                written.insert(field.into(), Cow::Owned(to_raw_value(&after)?));
            }
        }
    }
    Ok(Some(if changed { Cow::Owned(to_raw_value(&written)?) } else { Cow::Borrowed(raw) }))
}

/// A block of people and tools. A result names its call by the id that the call has in this request.
fn user_block<'a>(raw: &'a RawValue, ids: &mut CallIds) -> serde_json::Result<Cow<'a, RawValue>> {
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get()) else {
        return Ok(Cow::Borrowed(raw));
    };
    if text_or_empty(fields.get("type").copied()) != "tool_result" {
        return Ok(Cow::Borrowed(raw));
    }
    let id = text_or_empty(fields.get("tool_use_id").copied());
    let new = ids.of_result(&id);
    if new == id {
        return Ok(Cow::Borrowed(raw));
    }
    let new = to_raw_value(&new)?;
    fields.insert("tool_use_id".into(), &new);
    to_raw_value(&fields).map(Cow::Owned)
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
                { "type": "mystery", "x": 1 },
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
