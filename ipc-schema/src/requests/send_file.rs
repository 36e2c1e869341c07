//! `send_file`: an agent sends a file of its workspace to the turn's chat.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RequestArgs, grouped};
use crate::{Refusal, RefusalCode};

/// Sends a file of the workspace to the turn's chat, in order with what else is said there. Answered with
/// `{"sha256": …, "bytes": …}` once the host has copied it: what was copied is what is sent, whatever happens to the
/// file afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendFile {
    /// Below `/workspace`: absolute, or relative to it. A regular file with one name, over no link.
    pub path: String,
    /// Markdown below the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(description = format!("Markdown, at most {} characters.", grouped(Self::CAPTION_MAX_CHARS)))]
    pub caption: Option<String>,
    /// What it is called in the chat; the path's last part if this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl SendFile {
    /// The longest caption, in characters: every platform takes this much below a file.
    pub const CAPTION_MAX_CHARS: usize = 1_000;
    /// The longest path, in bytes (path_resolution(7)).
    pub const PATH_MAX_BYTES: usize = 4_095;
    /// The most files that one turn may send.
    pub const FILES_PER_TURN: u64 = 20;
    /// How many times the largest file all files of a turn may have together.
    pub const LARGEST_FILES_PER_TURN: u64 = 5;
}

impl RequestArgs for SendFile {
    const KIND: &'static str = "send_file";

    fn check(&self) -> Result<(), Refusal> {
        let caption = self.caption.as_deref().unwrap_or_default().chars().count();
        if caption > Self::CAPTION_MAX_CHARS {
            let why = format!(
                "the caption has {caption} characters, at most {}; say the rest in a message of its own",
                grouped(Self::CAPTION_MAX_CHARS)
            );
            return Err(Refusal::new(RefusalCode::TooBig, why));
        }
        if self.path.is_empty() || self.path.len() > Self::PATH_MAX_BYTES {
            let why = format!("a path has 1 to {} bytes", grouped(Self::PATH_MAX_BYTES));
            return Err(Refusal::new(RefusalCode::Forbidden, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_and_a_path_have_limits() {
        let refused = |path: usize, caption: usize| {
            let (path, caption) = ("a".repeat(path), Some("é".repeat(caption)));
            SendFile { path, caption, name: None }.check().map_err(|e| e.code)
        };
        assert_eq!(refused(SendFile::PATH_MAX_BYTES, SendFile::CAPTION_MAX_CHARS), Ok(()));
        assert_eq!(refused(1, SendFile::CAPTION_MAX_CHARS + 1), Err(RefusalCode::TooBig));
        assert_eq!(refused(0, 0), Err(RefusalCode::Forbidden));
        assert_eq!(refused(SendFile::PATH_MAX_BYTES + 1, 0), Err(RefusalCode::Forbidden));
    }
}
