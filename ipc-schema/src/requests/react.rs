//! `react`: an agent reacts to a message of the turn's chat with an emoji.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RequestArgs;
use crate::{MessageSeq, Refusal, RefusalCode};

/// Puts a reaction in the place of the agent's earlier one at a message of the turn's chat. Answered with
/// `{"message": "m-N"}`. Since minor version 2; offered where `begin.reactions` is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct React {
    /// One emoji. An empty text takes the agent's reaction back.
    pub emoji: String,
    /// The message; the newest one that the turn answers if this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageSeq>,
}

impl React {
    /// The longest emoji, in characters: sequences of several people are the longest.
    pub const EMOJI_MAX_CHARS: usize = 16;
}

impl RequestArgs for React {
    const KIND: &'static str = "react";

    fn check(&self) -> Result<(), Refusal> {
        if self.emoji.chars().count() > Self::EMOJI_MAX_CHARS || self.emoji.contains(char::is_whitespace) {
            let why = "a reaction is one emoji; say in words what needs more";
            return Err(Refusal::new(RefusalCode::Forbidden, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaction_is_one_emoji_or_none() {
        let ok = |emoji: &str| React { emoji: emoji.into(), message: None }.check().is_ok();
        assert!(ok("👍") && ok("👨\u{200d}💻") && ok(""));
        assert!(!ok("well done") && !ok(&"👍".repeat(React::EMOJI_MAX_CHARS + 1)));
    }
}
