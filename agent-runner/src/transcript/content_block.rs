//! Content blocks of the model's answers, stored verbatim.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// One content block, verbatim: the provider checks the signatures of thinking blocks, and refuses a conversation in
/// which one was changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Block(#[serde(deserialize_with = "mended")] Box<RawValue>);

/// The fields of a block that the runner reads. A field of another type than expected counts as missing.
#[derive(Debug, Default)]
pub struct View<'a> {
    /// `text`, `thinking`, `tool_use`, …
    pub kind: String,
    pub text: Option<String>,
    /// Set in a tool call only.
    pub id: Option<String>,
    /// Set in a tool call only.
    pub name: Option<String>,
    /// Set in a tool call only.
    pub input: Option<&'a RawValue>,
}

impl Block {
    /// Makes a block of raw JSON. Line breaks become blanks, because a transcript entry is one line; in JSON they
    /// stand only between tokens.
    ///
    /// # Errors
    /// When `json` is not JSON.
    pub fn new(json: &str) -> serde_json::Result<Self> {
        let json = json.replace(['\n', '\r'], " ");
        RawValue::from_string(without_half_surrogates(&json).into_owned()).map(Self)
    }

    /// The same block under another id.
    ///
    /// # Errors
    /// When the block is no JSON object.
    pub fn with_id(&self, id: &str) -> serde_json::Result<Self> {
        let id = serde_json::to_string(id)?;
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(self.0.get())?;
        fields.insert("id".into(), serde_json::from_str(&id)?);
        serde_json::value::to_raw_value(&fields).map(Self)
    }

    pub fn raw(&self) -> &RawValue {
        &self.0
    }

    /// A block of an unknown shape has an empty view.
    pub fn view(&self) -> View<'_> {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(self.0.get()).unwrap_or_default();
        let text = |field: &str| fields.get(field).and_then(|raw| serde_json::from_str(raw.get()).ok());
        View {
            kind: text("type").unwrap_or_default(),
            text: text("text"),
            id: text("id"),
            name: text("name"),
            input: fields.get("input").copied(),
        }
    }

    /// `None` for other blocks than text.
    pub fn text(&self) -> Option<String> {
        let view = self.view();
        (view.kind == "text").then_some(view.text).flatten()
    }

    pub fn is_tool_use(&self) -> bool {
        self.view().kind == "tool_use"
    }

    /// Whether this is a thought, or something else that only the model that made it can read.
    pub fn is_thought(&self) -> bool {
        matches!(self.view().kind.as_str(), "thinking" | "redacted_thinking" | "opaque")
    }
}

fn mended<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<RawValue>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    match without_half_surrogates(raw.get()) {
        Cow::Borrowed(_) => Ok(raw),
        Cow::Owned(json) => RawValue::from_string(json).map_err(serde::de::Error::custom),
    }
}

/// Replaces `\ud83d` without its other half by `\ufffd`. A model may stop between the halves; JSON permits that, and no
/// provider takes it.
fn without_half_surrogates(json: &str) -> Cow<'_, str> {
    if !json.contains("\\ud") && !json.contains("\\uD") {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (length, kept) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, true),
            (Some(0xd800..=0xdfff), _) => (6, false),
            (Some(_), _) => (6, true),
            (None, _) => (2, true),
        };
        let (escape, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        out.push_str(if kept { escape } else { "\\ufffd" });
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The UTF-16 unit of an escape `\uXXXX` at the beginning of a text.
fn unit(escape: &str) -> Option<u16> {
    escape.strip_prefix("\\u")?.get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_kept_to_the_byte() {
        let json =
            r#"{"type":"thinking","thinking":"a\u0041","signature":"x==","n":1.50,"z":18446744073709551617}"#;
        let block = Block::new(json).unwrap();
        assert_eq!(serde_json::to_string(&block).unwrap(), json);
        let again: Block = serde_json::from_str(json).unwrap();
        assert_eq!(again.raw().get(), json);
    }

    #[test]
    fn a_block_is_one_line() {
        let block = Block::new("{\"type\":\"text\",\r\n\"text\":\"a\\nb\"}").unwrap();
        assert!(!block.raw().get().contains('\n'));
        assert_eq!(block.text().as_deref(), Some("a\nb"));
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced_and_a_whole_one_stays() {
        for (json, kept) in [
            (r#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"a":"\uDE00x\ud83d\ud83d\ude00"}"#, r#"{"a":"\ufffdx\ufffd\ud83d\ude00"}"#),
            (r#"{"a":"\\ud83d \u00e4 \""}"#, r#"{"a":"\\ud83d \u00e4 \""}"#),
        ] {
            assert_eq!(Block::new(json).unwrap().raw().get(), kept);
            assert_eq!(serde_json::from_str::<Block>(json).unwrap().raw().get(), kept);
            serde_json::from_str::<serde_json::Value>(kept).unwrap();
        }
    }

    #[test]
    fn each_field_is_read_by_itself() {
        let block = Block::new(r#"{"type":"tool_use","id":7,"name":null,"input":[1],"text":{}}"#).unwrap();
        let view = block.view();
        assert_eq!((view.kind.as_str(), view.id, view.name, view.text), ("tool_use", None, None, None));
        assert_eq!(view.input.unwrap().get(), "[1]");
        assert_eq!(block.with_id("c").unwrap().view().id.as_deref(), Some("c"));
    }

    #[test]
    fn an_unknown_block_is_carried_not_read() {
        for json in [r#"{"type":"server_tool_use","input":[1]}"#, "[1]", r#"{"type":7}"#] {
            let block = Block::new(json).unwrap();
            assert!(!block.is_tool_use() && block.text().is_none());
        }
    }
}
