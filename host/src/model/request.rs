//! Reads a request from a box. The bytes are hostile: the host parses nothing into a tree, bounds counts and depths,
//! and refuses whatever would make the *provider* open a connection for the box.
//!
//! The box has no network, but a provider has: an image or document by URL, a tool that runs at the provider, or an MCP
//! server would carry bytes of the box to an address of its choice. So only inline content and tools of the runner
//! pass, and an unknown field is refused, not forwarded.

use std::borrow::Cow;
use std::fmt;

use ipc_schema::refusal::quote;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::opaque::Opaque;

/// The most parts of one request: messages, blocks on every level, and tools together.
///
/// A block of 13 bytes, `{"type":"a"}`, becomes a value of more than 100 bytes, and up to 1,000 when it is written for
/// another wire: 32 MiB of such blocks took more than a gigabyte. The bound makes that 20 MiB beside the body. No
/// conversation comes near it: a part costs the model at least some 50 tokens, so this many fill a context of a
/// million.
const PARTS_MAX: usize = 20_000;

/// The most of a parser's error that is passed on. Some quote the text that they could not read, which may be all of a
/// body.
const WORDS_MAX: usize = 400;

/// The type of the blocks that hold what belongs to one provider.
const OPAQUE: &str = "opaque";

/// The most levels of content within content: an entry, a tool's result, a document, its blocks.
const DEPTH_MAX: usize = 4;

/// A request of the Messages wire (<https://docs.anthropic.com/en/api/messages>), its parts still as text.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRequest<'a> {
    /// The host replaces it.
    #[serde(default)]
    pub model: String,
    /// The longest answer in tokens. The host may lower it.
    #[serde(default = "no_limit")]
    pub max_tokens: u32,
    #[serde(default)]
    pub stream: bool,
    #[serde(borrow)]
    pub messages: List<'a>,
    /// The system prompt: a text or text blocks.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub system: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<List<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    top_k: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub stop_sequences: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    output_config: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
}

fn no_limit() -> u32 {
    u32::MAX
}

/// Who wrote an entry of the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The runner: messages of people and results of tools.
    User,
    Assistant,
}

/// One entry of the transcript.
#[derive(Debug)]
pub struct Entry<'a> {
    pub role: Role,
    pub blocks: Vec<Block<'a>>,
}

/// One block of content.
#[derive(Debug)]
pub enum Block<'a> {
    Text(Cow<'a, str>),
    /// The data is base64.
    Image {
        media_type: String,
        data: String,
    },
    /// A PDF document; the data is base64.
    Document {
        data: String,
    },
    ToolUse {
        id: String,
        name: String,
        input: Option<&'a RawValue>,
    },
    ToolResult {
        id: String,
        is_error: bool,
        content: Vec<Block<'a>>,
    },
    Thinking,
    /// What belongs to the provider that made the answer.
    Opaque(Opaque<'a>),
    /// A block of another type, such as a search result, by its type.
    Other(String),
}

/// One tool that the runner offers.
#[derive(Debug, Deserialize)]
pub struct Tool<'a> {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(borrow, default)]
    pub input_schema: Option<&'a RawValue>,
}

impl<'a> ModelRequest<'a> {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// What the host does not forward, and why.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let request = Self::again(body)?;
        let mut parts = PartCount::default();
        parts.add(request.messages.0.len())?;
        parts.add(request.tools.as_ref().map_or(0, |tools| tools.0.len()))?;
        for entry in &request.messages.0 {
            check_content(RawEntry::parse(entry)?.content, DEPTH_MAX, &mut parts)?;
        }
        if let Some(system) = request.system {
            check_content(system, DEPTH_MAX, &mut parts)?;
        }
        for tool in request.tools()? {
            if tool.kind.as_deref().is_some_and(|kind| kind != "custom") {
                return Err(ApiError::invalid(format!(
                    "tool {} would run at the provider, which has a network; only the runner's own tools pass",
                    quote(&tool.name, 80)
                )));
            }
        }
        Ok(request)
    }

    /// Reads a body that [`ModelRequest::parse`] has checked before.
    ///
    /// # Errors
    /// When it is not a request of the Messages wire.
    pub fn again(body: &'a [u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| bad("the request", &error))
    }

    /// The transcript's entries, for providers of another wire: one at a time, because each is a copy.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<'a>, ApiError>> {
        self.messages.0.iter().map(|raw| {
            let RawEntry { role, content } = RawEntry::parse(raw)?;
            Ok(Entry { role, blocks: blocks(content, DEPTH_MAX)? })
        })
    }

    /// Its approximate length when it is written again. A buffer that grows to it by doubling would take more memory.
    pub fn length(&self) -> usize {
        let lists = std::iter::once(&self.messages).chain(&self.tools);
        let elements: usize = lists.flat_map(|list| &list.0).map(|raw| raw.get().len() + 1).sum();
        elements + self.system.map_or(0, |raw| raw.get().len()) + 4096
    }

    /// The system prompt as one text.
    pub fn system_text(&self) -> Result<String, ApiError> {
        let texts = self.system.map(|system| blocks(system, DEPTH_MAX)).transpose()?.unwrap_or_default();
        Ok(plain_text(&texts))
    }

    pub fn tools(&self) -> Result<Vec<Tool<'a>>, ApiError> {
        let parse = |raw: &&'a RawValue| serde_json::from_str(raw.get()).map_err(|e| bad("a tool", &e));
        self.tools.iter().flat_map(|list| &list.0).map(parse).collect()
    }
}

/// Joins the text blocks, a paragraph each.
pub fn plain_text(blocks: &[Block<'_>]) -> String {
    let texts = blocks.iter().filter_map(|block| match block {
        Block::Text(text) => Some(text.as_ref()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n\n")
}

/// A list whose elements stay raw text, so that a long list of small elements costs little more than its bytes.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct List<'a>(pub Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Vec<&'de RawValue>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {PARTS_MAX} elements")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() == PARTS_MAX {
                        return Err(serde::de::Error::invalid_length(PARTS_MAX + 1, &self));
                    }
                    elements.push(element);
                }
                Ok(elements)
            }
        }
        deserializer.deserialize_seq(Elements).map(List)
    }
}

/// One entry, its content as raw text.
#[derive(Deserialize)]
pub struct RawEntry<'a> {
    pub role: Role,
    /// A text, or a list of blocks.
    #[serde(borrow)]
    pub content: &'a RawValue,
}

impl<'a> RawEntry<'a> {
    pub fn parse(raw: &'a RawValue) -> Result<Self, ApiError> {
        serde_json::from_str(raw.get()).map_err(|error| bad("a message", &error))
    }
}

/// The fields of a block that the host reads; it ignores the rest.
#[derive(Deserialize)]
struct RawBlock<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_use_id: Option<&'a RawValue>,
    #[serde(default)]
    is_error: Option<bool>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
}

impl<'a> RawBlock<'a> {
    fn parse(raw: &'a RawValue) -> Result<Self, ApiError> {
        serde_json::from_str(raw.get()).map_err(|error| bad("a block", &error))
    }
}

/// The source of a picture or document.
#[derive(Deserialize)]
struct BlockSource<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

/// Counts the parts of a request while it is checked.
#[derive(Default)]
struct PartCount(usize);

impl PartCount {
    /// Called before the parts are parsed into values.
    fn add(&mut self, more: usize) -> Result<(), ApiError> {
        self.0 += more;
        if self.0 > PARTS_MAX {
            return Err(ApiError::invalid(format!(
                "the request has more than {PARTS_MAX} messages, blocks and tools together"
            )));
        }
        Ok(())
    }
}

/// Refuses content that would make the provider fetch something, or that has too many parts.
fn check_content(content: &RawValue, depth: usize, parts: &mut PartCount) -> Result<(), ApiError> {
    let list = list(content, depth)?;
    parts.add(list.len())?;
    for block in list {
        let raw = block;
        let block = RawBlock::parse(raw)?;
        if block.kind == OPAQUE {
            parts.add(Opaque::read(raw).parts())?;
        }
        if let Some(nested) = block.content.filter(|raw| is_list(raw)) {
            check_content(nested, depth - 1, parts)?;
        }
        let Some(source) = block.source.filter(|raw| raw.get().starts_with('{')) else { continue };
        let source = parse_source(source)?;
        if !matches!(source.kind.as_str(), "base64" | "text" | "content") {
            return Err(ApiError::invalid(format!(
                "a block of type {} names a source of type {}, which the provider would fetch; only inline \
                 content passes: put the bytes in as base64",
                quote(&block.kind, 80),
                quote(&source.kind, 80)
            )));
        }
        if let Some(nested) = source.content.filter(|raw| is_list(raw)) {
            check_content(nested, depth - 1, parts)?;
        }
    }
    Ok(())
}

/// The blocks of content as raw text; a text alone has none.
fn list(content: &RawValue, depth: usize) -> Result<Vec<&RawValue>, ApiError> {
    if !is_list(content) {
        return Ok(Vec::new());
    }
    if depth == 0 {
        return Err(ApiError::invalid("content is nested too deeply"));
    }
    let List(list) = serde_json::from_str(content.get()).map_err(|error| bad("content", &error))?;
    Ok(list)
}

fn blocks(content: &RawValue, depth: usize) -> Result<Vec<Block<'_>>, ApiError> {
    if !is_list(content) {
        return Ok(vec![Block::Text(text_of(Some(content))?)]);
    }
    list(content, depth)?.into_iter().map(|raw| block(raw, depth)).collect()
}

fn block(whole: &RawValue, depth: usize) -> Result<Block<'_>, ApiError> {
    let raw = RawBlock::parse(whole)?;
    Ok(match raw.kind.as_str() {
        "text" => Block::Text(text_of(raw.text)?),
        "thinking" | "redacted_thinking" => Block::Thinking,
        OPAQUE => Block::Opaque(Opaque::read(whole)),
        "tool_use" => {
            Block::ToolUse { id: text_or_empty(raw.id), name: text_or_empty(raw.name), input: raw.input }
        }
        "tool_result" => Block::ToolResult {
            id: text_or_empty(raw.tool_use_id),
            is_error: raw.is_error.unwrap_or(false),
            content: raw.content.map(|content| blocks(content, depth - 1)).transpose()?.unwrap_or_default(),
        },
        "image" | "document" => match raw.source.map(parse_source).transpose()? {
            Some(BlockSource { media_type: Some(media_type), data: Some(data), .. }) => {
                match (raw.kind.as_str(), media_type.as_str()) {
                    ("image", _) => Block::Image { media_type, data },
                    (_, "application/pdf") => Block::Document { data },
                    _ => Block::Other(raw.kind),
                }
            }
            _ => Block::Other(raw.kind),
        },
        _ => Block::Other(raw.kind),
    })
}

fn parse_source(raw: &RawValue) -> Result<BlockSource<'_>, ApiError> {
    serde_json::from_str(raw.get()).map_err(|error| bad("a source", &error))
}

fn text_of(raw: Option<&RawValue>) -> Result<Cow<'_, str>, ApiError> {
    let raw = raw.ok_or_else(|| ApiError::invalid("a block lacks its text, id or name"))?;
    serde_json::from_str::<String>(raw.get()).map(Cow::Owned).map_err(|error| bad("a text", &error))
}

/// The text of an id or a name, which a server may have left out; `normalise` gives it another one.
pub(super) fn text_or_empty(raw: Option<&RawValue>) -> String {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

fn is_list(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

fn bad(what: &str, error: &serde_json::Error) -> ApiError {
    let why: String = error.to_string().chars().take(WORDS_MAX).collect();
    ApiError::invalid(format!("{what} is not of the Messages wire as the gateway passes it: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(value: serde_json::Value) -> Result<(), String> {
        let body = value.to_string();
        ModelRequest::parse(body.as_bytes()).map(|_| ()).map_err(|error| error.message)
    }

    fn with_blocks(blocks: serde_json::Value) -> Result<(), String> {
        parse(json!({ "messages": [{ "role": "user", "content": blocks }] }))
    }

    #[test]
    fn what_the_provider_would_fetch_is_refused_wherever_it_hides() {
        let url = json!({ "type": "image", "source": { "type": "url", "url": "https://evil.example/?d=1" } });
        let file = json!({ "type": "document", "source": { "type": "file", "file_id": "f" } });
        let result = json!({ "type": "tool_result", "tool_use_id": "t", "content": [url] });
        let document = json!({ "type": "document", "source": { "type": "content", "content": [url] } });
        for block in [url, file, result, document] {
            let refused = with_blocks(json!([block])).unwrap_err();
            assert!(refused.contains("only inline content passes"), "{refused}");
        }
        let inline =
            json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "" } });
        assert_eq!(with_blocks(json!([inline])), Ok(()));
        let label =
            json!({ "type": "search_result", "source": "https://x.example", "title": "t", "content": [] });
        assert_eq!(with_blocks(json!([label])), Ok(()), "a label is not fetched");
    }

    #[test]
    fn tools_and_servers_at_the_provider_are_refused() {
        let tool =
            json!({ "messages": [], "tools": [{ "type": "web_fetch_20250910", "name": "web_fetch" }] });
        assert!(parse(tool).unwrap_err().contains("would run at the provider"));
        let servers = json!({ "messages": [], "mcp_servers": [{ "url": "https://evil.example" }] });
        assert!(parse(servers).unwrap_err().contains("unknown field `mcp_servers`"));
        let own = json!({ "messages": [], "tools": [{ "name": "ls", "input_schema": {} }, { "type": "custom", "name": "x" }] });
        assert_eq!(parse(own), Ok(()));
    }

    #[test]
    fn a_key_given_twice_cannot_mean_two_things() {
        let body = br#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","type":"url"}}]}]}"#;
        assert!(ModelRequest::parse(body).is_err());
        assert!(ModelRequest::parse(br#"{"messages":[],"stream":false,"stream":true}"#).is_err());
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let mut block = json!({ "type": "text", "text": "x" });
        for _ in 0..DEPTH_MAX {
            block = json!({ "type": "tool_result", "tool_use_id": "t", "content": [block] });
        }
        assert!(with_blocks(json!([block])).unwrap_err().contains("too deeply"));
        let many = format!("{{\"messages\":[{}0]}}", "0,".repeat(PARTS_MAX));
        assert!(ModelRequest::parse(many.as_bytes()).is_err());
        let deep = format!("{{\"messages\":{}", "[".repeat(1_000_000));
        assert!(ModelRequest::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn the_parts_of_a_request_are_bounded_over_all_its_lists() {
        let entry = |blocks: usize| {
            let list = vec![r#"{"type":"a"}"#; blocks].join(",");
            format!(r#"{{"role":"user","content":[{list}]}}"#)
        };
        let body = |entries: usize, blocks: usize| {
            format!(r#"{{"messages":[{}]}}"#, vec![entry(blocks); entries].join(","))
        };
        let refused = |text: &str| ModelRequest::parse(text.as_bytes()).err().map(|error| error.message);
        assert_eq!(refused(&body(100, 199)), None, "100 messages and 19,900 blocks");
        let many = refused(&body(100, 200)).unwrap();
        assert!(many.contains("more than 20000 messages, blocks and tools together"), "{many}");
        assert!(refused(&body(27, 90_000)).is_some(), "a list alone can be too long");

        let nested: Value = serde_json::from_str(&entry(10_000)).unwrap();
        let nested = json!({ "type": "tool_result", "tool_use_id": "t", "content": nested["content"] });
        assert!(with_blocks(json!([nested, nested])).unwrap_err().contains("more than 20000"));
        let tools = format!(r#"{{"messages":[],"tools":[{}{{}}]}}"#, "{},".repeat(20_000));
        assert!(refused(&tools).is_some());
    }

    #[test]
    fn an_error_does_not_give_a_body_back() {
        let words = "x".repeat(1_000_000);
        let field = format!(r#"{{"messages":[],"{words}":1}}"#);
        let tool = format!(r#"{{"messages":[],"tools":[{{"type":"t","name":"{words}"}}]}}"#);
        for body in [field, tool] {
            assert!(ModelRequest::parse(body.as_bytes()).err().unwrap().message.len() < 1_000);
        }
    }

    #[test]
    fn a_transcript_is_read_block_by_block() {
        let body = json!({
            "system": [{ "type": "text", "text": "be" }, { "type": "text", "text": "kind" }],
            "messages": [
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "…", "signature": "s" },
                    { "type": "tool_use", "id": "t1", "name": "ls", "input": { "a": [1] } } ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": "no" } ] },
            ],
        })
        .to_string();
        let request = ModelRequest::parse(body.as_bytes()).unwrap();
        assert_eq!(request.system_text().unwrap(), "be\n\nkind");
        let entries: Vec<_> = request.entries().map(Result::unwrap).collect();
        assert_eq!(plain_text(&entries[0].blocks), "hi");
        assert!(
            matches!(entries[1].blocks[..], [Block::Thinking, Block::ToolUse { input: Some(input), .. }] if input.get() == r#"{"a":[1]}"#)
        );
        assert!(
            matches!(&entries[2].blocks[0], Block::ToolResult { is_error: true, content, .. } if plain_text(content) == "no")
        );
    }
}
