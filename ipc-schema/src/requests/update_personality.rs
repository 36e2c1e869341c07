//! `update_personality`: an agent replaces the `CLAUDE.md` of its group.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RequestArgs;
use crate::{Refusal, RefusalCode, escaped};

/// Replaces the whole text of the group's `CLAUDE.md`. Answered with `{"sha256": …}` of the new text, or refused
/// when the file is no longer the one the agent read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePersonality {
    /// The new text.
    #[schemars(description = format!("The new text, at most {} KiB.", Self::TEXT_MAX_BYTES >> 10))]
    pub text: String,
    /// The digest of the text it is based on, as `begin` or the last answer gave it; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_sha256: Option<String>,
}

impl UpdatePersonality {
    /// The longest `CLAUDE.md`, in bytes.
    pub const TEXT_MAX_BYTES: usize = 64 * 1024;
    /// The most bytes that it takes in a letter, where quotation marks, backslashes and line feeds are two bytes and
    /// control characters six.
    pub const ESCAPED_MAX_BYTES: usize = 80 * 1024;
}

impl RequestArgs for UpdatePersonality {
    const KIND: &'static str = "update_personality";

    fn check(&self) -> Result<(), Refusal> {
        let bytes = self.text.len();
        if bytes > Self::TEXT_MAX_BYTES {
            let why = format!(
                "{bytes} bytes; a personality has at most {}. Shorten it, or keep details in a file",
                Self::TEXT_MAX_BYTES
            );
            return Err(Refusal::new(RefusalCode::TooBig, why));
        }
        let bytes = escaped::len(&self.text);
        if bytes > Self::ESCAPED_MAX_BYTES {
            let why = format!(
                "{bytes} bytes as JSON; a personality has at most {}. Leave out control characters, or shorten it",
                Self::ESCAPED_MAX_BYTES
            );
            return Err(Refusal::new(RefusalCode::TooBig, why));
        }
        if self.text.trim().is_empty() {
            let why =
                "an empty personality would leave the agent without instructions; write what should hold";
            return Err(Refusal::new(RefusalCode::Forbidden, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_neither_empty_nor_too_long() {
        let refused =
            |text: String| UpdatePersonality { text, base_sha256: None }.check().map_err(|e| e.code);
        assert_eq!(refused("x".repeat(UpdatePersonality::TEXT_MAX_BYTES)), Ok(()));
        assert_eq!(refused("x".repeat(UpdatePersonality::TEXT_MAX_BYTES + 1)), Err(RefusalCode::TooBig));
        assert_eq!(
            refused("\u{1}".repeat(20_000)),
            Err(RefusalCode::TooBig),
            "g5: six bytes each in a letter"
        );
        assert_eq!(refused("\n".repeat(20_000) + "x"), Ok(()));
        assert_eq!(refused("  ".into()), Err(RefusalCode::Forbidden));
    }
}
