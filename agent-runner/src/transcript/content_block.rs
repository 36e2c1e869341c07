//! Content blocks of the model's answers, stored verbatim.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One content block, verbatim: the provider checks the signatures of thinking blocks, and refuses a conversation in
/// which one was changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Block(Box<RawValue>);

/// The fields of a block that the runner reads.
#[derive(Debug, Default, Deserialize)]
pub struct View<'a> {
    /// `text`, `thinking`, `tool_use`, …
    #[serde(rename = "type", borrow, default)]
    pub kind: Cow<'a, str>,
    #[serde(default)]
    pub text: Option<String>,
    /// Set in a tool call only.
    #[serde(default)]
    pub id: Option<String>,
    /// Set in a tool call only.
    #[serde(default)]
    pub name: Option<String>,
    /// Set in a tool call only.
    #[serde(borrow, default)]
    pub input: Option<&'a RawValue>,
}

impl Block {
    /// Makes a block of raw JSON. Line breaks become blanks, because a transcript entry is one line; in JSON they
    /// stand only between tokens.
    ///
    /// # Errors
    /// When `json` is not JSON.
    pub fn new(json: &str) -> serde_json::Result<Self> {
        RawValue::from_string(json.replace(['\n', '\r'], " ")).map(Self)
    }

    pub fn raw(&self) -> &RawValue {
        &self.0
    }

    /// A block of an unknown shape has an empty view.
    pub fn view(&self) -> View<'_> {
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }

    /// `None` for other blocks than text.
    pub fn text(&self) -> Option<String> {
        let view = self.view();
        (view.kind == "text").then_some(view.text).flatten()
    }

    pub fn is_tool_use(&self) -> bool {
        self.view().kind == "tool_use"
    }
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
    fn an_unknown_block_is_carried_not_read() {
        for json in [r#"{"type":"server_tool_use","input":[1]}"#, "[1]", r#"{"type":7}"#] {
            let block = Block::new(json).unwrap();
            assert!(!block.is_tool_use() && block.text().is_none());
        }
    }
}
