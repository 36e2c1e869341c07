//! Refusals of letters and files from the box: a code for machines and a reason for people.

use std::fmt;

use crate::text_sanitize::is_zero_width;

/// The codes of refused letters. The text of a code is an interface: responses, counters, logs and the `rejected/`
/// folder use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The file name is neither a letter name, nor a dot-name, nor `_close`.
    Name,
    /// The file is a link, FIFO, socket, device or directory.
    NotRegular,
    /// The file has more than one hard link: the same bytes under several names.
    Nlink,
    /// The file belongs to another user than the box's.
    Owner,
    /// The file lies on another filesystem than its directory.
    Device,
    /// The file is larger than allowed.
    TooBig,
    /// The file is not JSON: syntax, encoding, depth, NUL, a number out of range.
    Json,
    /// The file is JSON but not a valid letter: unknown, missing, duplicate or mistyped fields, trailing bytes.
    Schema,
    /// The envelope has a major version that this side does not speak.
    Version,
    /// The envelope contradicts the file's name or directory: number, run, id.
    Envelope,
    /// The file vanished between the listing and the read. The reader tries again and reports nothing.
    Gone,
    /// The host failed with an I/O error of its own. The letter stays, and the host tries again.
    Io,
    /// The number or id was already consumed with other bytes.
    Replay,
    /// The letter's turn is not open in this run.
    Stale,
    /// The acknowledgement falls, or exceeds what the host wrote.
    Ack,
    /// The turn has too many requests or messages.
    Rate,
    /// The directory holds too much, or too much passed through it in a turn. The host ends the run.
    Flood,
    /// The group has no right to do this.
    Forbidden,
    /// This version does not know the type of request or letter.
    Unsupported,
}

impl RefusalCode {
    /// Every code, for tables and tests.
    pub const ALL: [RefusalCode; 19] = [
        Self::Name,
        Self::NotRegular,
        Self::Nlink,
        Self::Owner,
        Self::Device,
        Self::TooBig,
        Self::Json,
        Self::Schema,
        Self::Version,
        Self::Envelope,
        Self::Gone,
        Self::Io,
        Self::Replay,
        Self::Stale,
        Self::Ack,
        Self::Rate,
        Self::Flood,
        Self::Forbidden,
        Self::Unsupported,
    ];

    /// The code as the interface text: `ipc.name`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "ipc.name",
            Self::NotRegular => "ipc.not_regular",
            Self::Nlink => "ipc.nlink",
            Self::Owner => "ipc.owner",
            Self::Device => "ipc.device",
            Self::TooBig => "ipc.too_big",
            Self::Json => "ipc.json",
            Self::Schema => "ipc.schema",
            Self::Version => "ipc.version",
            Self::Envelope => "ipc.envelope",
            Self::Gone => "ipc.gone",
            Self::Io => "ipc.io",
            Self::Replay => "ipc.replay",
            Self::Stale => "ipc.stale",
            Self::Ack => "ipc.ack",
            Self::Rate => "ipc.rate",
            Self::Flood => "ipc.flood",
            Self::Forbidden => "ipc.forbidden",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One refusal. The reason is safe to print, because text from the box is quoted and cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Refusal {
    /// For machines.
    pub code: RefusalCode,
    /// For a person: what is wrong.
    pub reason: String,
}

impl Refusal {
    /// Makes a refusal. `reason` must quote text from the box with [`quote`].
    pub fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Quotes text from the box for a log line or a reason: control characters escaped, cut to `max` characters.
pub fn quote(text: &str, max: usize) -> String {
    let cut: String = text.chars().take(max).collect();
    let more = if text.chars().nth(max).is_some() { "…" } else { "" };
    // Debug escapes control characters only. Marks that reverse the direction of a line are as bad in a log.
    let escaped = format!("{cut:?}").chars().fold(String::new(), |mut out, c| {
        if is_zero_width(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        out
    });
    format!("{escaped}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_words() {
        let mut seen = std::collections::HashSet::new();
        for code in RefusalCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
        }
    }

    #[test]
    fn a_quoted_name_cannot_reach_the_terminal() {
        assert_eq!(quote("a\u{1b}[31m\nb", 10), r#""a\u{1b}[31m\nb""#);
        assert_eq!(quote("a\u{202e}b\u{200b}", 10), r#""a\u{202e}b\u{200b}""#);
        assert_eq!(quote("abcdef", 3), r#""abc"…"#);
    }
}
