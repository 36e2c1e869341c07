//! Reads a request from a box. The bytes are hostile: the host parses nothing into a tree, and bounds counts and
//! depths.
//!
//! The box has no network, but a provider has: an image or document by URL, a tool that runs at the provider, or an MCP
//! server would carry bytes of the box to an address of its choice. So the request is read into the types below, and
//! what goes to a provider is written from them: a list of what passes, not a list of what is known to be bad. Every
//! other field, type and shape is refused with its place.
//!
//! There is one exception: a block of an *answer* may have fields that the host does not know, because servers put them
//! there and runners store answers as they came. Such a field is left out, and one of another type counts as missing.
//!
//! Three values pass as they are, because only the tool or the model reads them: a call's arguments, a tool's schema,
//! and the fields of a block [`Opaque`]. `strict_json` and `opaque` check them.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::normalise::Arguments;
use super::opaque::Opaque;
use super::strict_json::{self, LEVELS_MAX, Object, Passed, Place, Text, is_list, one_of, plain};

/// The most parts of one request: messages, blocks on every level, and tools together.
///
/// A block of 13 bytes, `{"type":"a"}`, becomes a value of more than 100 bytes, and up to 1,000 when it is written for
/// another wire: 32 MiB of such blocks took more than a gigabyte. The bound makes that 20 MiB beside the body. No
/// conversation comes near it: a part costs the model at least some 50 tokens, so this many fill a context of a
/// million.
const PARTS_MAX: usize = 20_000;

/// A request of the Messages wire (<https://docs.anthropic.com/en/api/messages>).
#[derive(Clone, Serialize)]
pub struct ModelRequest<'a> {
    /// The host fills it in. It does not read the box's.
    pub model: String,
    /// The longest answer in tokens. The host may lower it.
    pub max_tokens: u32,
    pub stream: bool,
    pub messages: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_sequences: Option<Vec<Text<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<CacheControl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata<'a>>,
    /// Its length as it came. What is written of it is about as long.
    #[serde(skip)]
    pub length: usize,
}

/// Who wrote an entry of the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The runner: messages of people and results of tools.
    User,
    Assistant,
}

/// One entry of the transcript.
#[derive(Debug, Clone, Serialize)]
pub struct Entry<'a> {
    pub role: Role,
    pub content: Content<'a>,
}

#[derive(Debug, Clone)]
pub struct Content<'a> {
    pub blocks: Vec<Block<'a>>,
    /// It came as a text without a list around it, and is written so.
    pub bare: bool,
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.blocks[..] {
            [Block::Text { text, .. }] if self.bare => text.serialize(serializer),
            blocks => blocks.serialize(serializer),
        }
    }
}

/// One block of content.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block<'a> {
    Text {
        text: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Image(Media<'a>),
    /// A PDF document.
    Document(Media<'a>),
    ToolUse {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        input: Arguments<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<Content<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Thinking {
        thinking: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<Text<'a>>,
    },
    RedactedThinking {
        data: Text<'a>,
    },
    /// What belongs to the provider that made the answer.
    #[serde(skip)]
    Opaque(Opaque<'a>),
}

#[derive(Debug, Clone, Serialize)]
pub struct Media<'a> {
    pub source: Source<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

/// The bytes of a picture or document: the only source that makes no provider fetch anything.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "base64")]
pub struct Source<'a> {
    pub media_type: &'static str,
    pub data: Text<'a>,
}

/// One tool that the runner offers.
#[derive(Debug, Clone, Serialize)]
pub struct Tool<'a> {
    pub name: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ToolChoice<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable_parallel_tool_use: bool,
}

/// A point up to which the provider may cache.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CacheControl {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Thinking {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct OutputConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text<'a>>,
}

/// What a content may hold depends on whose it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    System,
    User,
    Answer,
    ToolResult,
}

impl Whose {
    fn blocks(self) -> &'static [&'static str] {
        match self {
            Self::System => &["text"],
            Self::User => &["text", "image", "document", "tool_result"],
            Self::Answer => &["text", "tool_use", "thinking", "redacted_thinking", "opaque"],
            Self::ToolResult => &["text", "image", "document"],
        }
    }
}

const PICTURES: &[&str] = &["image/jpeg", "image/png", "image/gif", "image/webp"];
const DOCUMENTS: &[&str] = &["application/pdf"];

impl<'a> ModelRequest<'a> {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// What the host does not forward, where it stands, and what passes there.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let mut reader = Reader::default();
        let mut fields = Object::of_body(body, &Place::Request)?;
        fields.maybe("model", Text::of)?;
        let request = Self {
            model: String::new(),
            max_tokens: fields.maybe("max_tokens", plain)?.unwrap_or(u32::MAX),
            stream: fields.maybe("stream", plain)?.unwrap_or(false),
            messages: fields.needed("messages", |raw, place| reader.each(raw, place, Reader::entry))?,
            system: fields.maybe("system", |raw, place| reader.content(raw, place, Whose::System))?,
            tools: fields
                .maybe("tools", |raw, place| reader.each(raw, place, |_, raw, place| tool(raw, place)))?,
            tool_choice: fields.maybe("tool_choice", tool_choice)?,
            temperature: fields.maybe("temperature", plain)?,
            top_p: fields.maybe("top_p", plain)?,
            top_k: fields.maybe("top_k", plain)?,
            stop_sequences: fields.maybe("stop_sequences", |raw, place| {
                reader.each(raw, place, |_, raw, place| Text::of(raw, place))
            })?,
            thinking: fields.maybe("thinking", thinking)?,
            output_config: fields.maybe("output_config", output_config)?,
            cache_control: fields.maybe("cache_control", cache_control)?,
            metadata: fields.maybe("metadata", metadata)?,
            length: body.len(),
        };
        fields.end()?;
        Ok(request)
    }

    /// The same request for this model with this limit and these messages.
    pub fn with(&self, model: &str, max_tokens: u32, messages: Vec<Entry<'a>>) -> Self {
        Self {
            model: model.to_owned(),
            max_tokens: self.max_tokens.min(max_tokens),
            messages,
            system: self.system.clone(),
            tools: self.tools.clone(),
            tool_choice: self.tool_choice.clone(),
            stop_sequences: self.stop_sequences.clone(),
            ..*self
        }
    }

    /// A buffer for what is written of it. One that grows by doubling would take more memory.
    pub fn buffer(&self) -> Vec<u8> {
        Vec::with_capacity(self.length + 4096)
    }

    /// The system prompt as one text.
    pub fn system_text(&self) -> String {
        self.system.as_ref().map(|content| plain_text(&content.blocks)).unwrap_or_default()
    }
}

/// Joins the text blocks, a paragraph each.
pub fn plain_text(blocks: &[Block<'_>]) -> String {
    let texts = blocks.iter().filter_map(|block| match block {
        Block::Text { text, .. } => Some(text.read()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n\n")
}

/// Counts the parts of a request while it is read.
#[derive(Default)]
struct Reader {
    parts: usize,
}

impl Reader {
    /// Called before the parts become values.
    fn count(&mut self, more: usize) -> Result<(), ApiError> {
        self.parts += more;
        if self.parts > PARTS_MAX {
            return Err(ApiError::invalid(format!(
                "the request has more than {PARTS_MAX} messages, blocks and tools together"
            )));
        }
        Ok(())
    }

    fn each<'a, T>(
        &mut self,
        raw: &'a RawValue,
        place: &Place<'_>,
        mut read: impl FnMut(&mut Self, &'a RawValue, &Place<'_>) -> Result<T, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        let list = strict_json::list(raw, place, PARTS_MAX)?;
        self.count(list.len())?;
        let elements = list.into_iter().enumerate();
        elements.map(|(n, raw)| read(self, raw, &Place::Element(place, n))).collect()
    }

    fn entry<'a>(&mut self, raw: &'a RawValue, place: &Place<'_>) -> Result<Entry<'a>, ApiError> {
        let mut fields = Object::of(raw, place)?;
        let (role, whose) = match fields.one_of("role", &["user", "assistant"])? {
            "user" => (Role::User, Whose::User),
            _ => (Role::Assistant, Whose::Answer),
        };
        let content = fields.needed("content", |raw, place| self.content(raw, place, whose))?;
        fields.end()?;
        Ok(Entry { role, content })
    }

    fn content<'a>(
        &mut self,
        raw: &'a RawValue,
        place: &Place<'_>,
        whose: Whose,
    ) -> Result<Content<'a>, ApiError> {
        if is_list(raw) {
            let blocks = self.each(raw, place, |reader, raw, place| reader.block(raw, place, whose))?;
            return Ok(Content { blocks: blocks.into_iter().flatten().collect(), bare: false });
        }
        let text = Text::of(raw, place)?;
        Ok(Content { blocks: vec![Block::Text { text, cache_control: None }], bare: true })
    }

    /// `None` for a block of an answer that lacks what the wire wants in it.
    fn block<'a>(
        &mut self,
        raw: &'a RawValue,
        place: &Place<'_>,
        whose: Whose,
    ) -> Result<Option<Block<'a>>, ApiError> {
        let mut fields = Object::of(raw, place)?;
        let kind = fields.one_of("type", whose.blocks())?;
        if whose == Whose::Answer {
            return self.answer_block(kind, raw, fields);
        }
        let block = match kind {
            "image" => Block::Image(media(&mut fields, PICTURES)?),
            "document" => Block::Document(media(&mut fields, DOCUMENTS)?),
            "tool_result" => Block::ToolResult {
                tool_use_id: fields.needed("tool_use_id", Text::of)?.read(),
                content: fields.maybe("content", |raw, place| self.content(raw, place, Whose::ToolResult))?,
                is_error: fields.maybe("is_error", plain)?.unwrap_or(false),
                cache_control: fields.maybe("cache_control", cache_control)?,
            },
            _ => Block::Text {
                text: fields.needed("text", Text::of)?,
                cache_control: fields.maybe("cache_control", cache_control)?,
            },
        };
        fields.end()?;
        Ok(Some(block))
    }

    fn answer_block<'a>(
        &mut self,
        kind: &str,
        raw: &'a RawValue,
        mut fields: Object<'a, '_>,
    ) -> Result<Option<Block<'a>>, ApiError> {
        let cache_control = fields.maybe("cache_control", cache_control)?;
        let mut text = |name| {
            let given = fields.maybe(name, |raw, place| {
                raw.get().starts_with('"').then(|| Text::of(raw, place)).transpose()
            });
            given.map(Option::flatten)
        };
        Ok(match kind {
            "tool_use" => {
                let words = |text: Option<Text<'a>>| text.map(Text::read).unwrap_or_default();
                let (id, name) = (words(text("id")?), words(text("name")?));
                let input = Arguments::of(fields.take("input"));
                Some(Block::ToolUse { id, name, input, cache_control })
            }
            "thinking" => {
                let signature = text("signature")?.filter(|text| !text.read().is_empty());
                text("thinking")?.map(|thinking| Block::Thinking { thinking, signature })
            }
            "redacted_thinking" => text("data")?.map(|data| Block::RedactedThinking { data }),
            "opaque" => {
                let opaque = Opaque::of(raw, fields.place())?;
                self.count(opaque.parts())?;
                Some(Block::Opaque(opaque))
            }
            _ => text("text")?.map(|text| Block::Text { text, cache_control }),
        })
    }
}

fn media<'a>(fields: &mut Object<'a, '_>, types: &'static [&'static str]) -> Result<Media<'a>, ApiError> {
    let source = fields.needed("source", |raw, place| {
        let mut fields = Object::of(raw, place)?;
        fields.one_of("type", &["base64"])?;
        let media_type = fields.one_of("media_type", types)?;
        let data = fields.needed("data", base64)?;
        fields.end()?;
        Ok(Source { media_type, data })
    })?;
    Ok(Media { source, cache_control: fields.maybe("cache_control", cache_control)? })
}

fn base64<'a>(raw: &'a RawValue, place: &Place<'_>) -> Result<Text<'a>, ApiError> {
    let text = Text::of(raw, place)?;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if text.read().bytes().all(is_base64) { Ok(text) } else { Err(place.refuse("is not base64")) }
}

fn tool<'a>(raw: &'a RawValue, place: &Place<'_>) -> Result<Tool<'a>, ApiError> {
    let mut fields = Object::of(raw, place)?;
    // Tools of other types run at the provider, which has a network.
    fields.maybe("type", |raw, place| one_of(raw, place, &["custom"]))?;
    let schema = Passed { levels: LEVELS_MAX, schema: true };
    let tool = Tool {
        name: fields.needed("name", Text::of)?,
        description: fields.maybe("description", Text::of)?,
        input_schema: fields.maybe("input_schema", |raw, place| schema.object(raw, place))?,
        cache_control: fields.maybe("cache_control", cache_control)?,
    };
    fields.end()?;
    Ok(tool)
}

fn tool_choice<'a>(raw: &'a RawValue, place: &Place<'_>) -> Result<ToolChoice<'a>, ApiError> {
    let mut fields = Object::of(raw, place)?;
    let choice = ToolChoice {
        kind: fields.one_of("type", &["auto", "any", "tool", "none"])?,
        name: fields.maybe("name", Text::of)?,
        disable_parallel_tool_use: fields.maybe("disable_parallel_tool_use", plain)?.unwrap_or(false),
    };
    fields.end()?;
    Ok(choice)
}

fn cache_control(raw: &RawValue, place: &Place<'_>) -> Result<CacheControl, ApiError> {
    let mut fields = Object::of(raw, place)?;
    let cache_control = CacheControl {
        kind: fields.one_of("type", &["ephemeral"])?,
        ttl: fields.maybe("ttl", |raw, place| one_of(raw, place, &["5m", "1h"]))?,
    };
    fields.end()?;
    Ok(cache_control)
}

fn thinking(raw: &RawValue, place: &Place<'_>) -> Result<Thinking, ApiError> {
    let mut fields = Object::of(raw, place)?;
    let thinking = Thinking {
        kind: fields.one_of("type", &["enabled", "disabled", "adaptive"])?,
        budget_tokens: fields.maybe("budget_tokens", plain)?,
        display: fields.maybe("display", |raw, place| one_of(raw, place, &["summarized", "omitted"]))?,
    };
    fields.end()?;
    Ok(thinking)
}

fn output_config(raw: &RawValue, place: &Place<'_>) -> Result<OutputConfig, ApiError> {
    const EFFORTS: &[&str] = &["low", "medium", "high", "xhigh", "max"];
    let mut fields = Object::of(raw, place)?;
    let effort = fields.maybe("effort", |raw, place| one_of(raw, place, EFFORTS))?;
    fields.end()?;
    Ok(OutputConfig { effort })
}

fn metadata<'a>(raw: &'a RawValue, place: &Place<'_>) -> Result<Metadata<'a>, ApiError> {
    let mut fields = Object::of(raw, place)?;
    let user_id = fields.maybe("user_id", Text::of)?;
    fields.end()?;
    Ok(Metadata { user_id })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
