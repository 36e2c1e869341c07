//! Why a file from the box is not taken: a code for machines, a reason for people.

use std::fmt;

use crate::text_sanitize::is_unseen;

/// The codes of refused letters. The text is an interface: it stands in responses, counters, logs and the
/// `rejected/` folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The name is neither a letter's, nor a draft's, nor `_close`.
    Name,
    /// A link, FIFO, socket, device or directory stands where a letter should.
    NotRegular,
    /// More than one hard link: the same bytes under several names.
    Nlink,
    /// The file belongs to another user than the lane's.
    Owner,
    /// The file lies on another filesystem than its directory.
    Device,
    /// Larger than the cap.
    TooBig,
    /// Not JSON: syntax, encoding, depth, NUL, a number out of range.
    Json,
    /// JSON, but not the letter it claims to be: unknown, missing, doubled or mistyped fields, trailing bytes.
    Schema,
    /// Envelope of a major version that this side does not speak.
    Version,
    /// The envelope contradicts where or when it was found: number, run, id.
    Envelope,
    /// The file vanished between the listing and the read. Nothing to report: the name is looked at again.
    Gone,
    /// The host could not read (an I/O error of its own); the letter stays and is tried again.
    Io,
    /// A number or id that was already consumed, with other bytes.
    Replay,
    /// For a turn that is not open in this run.
    Stale,
    /// An acknowledgement that falls, or that exceeds what was written.
    Ack,
    /// Too many requests or messages in a turn.
    Rate,
    /// Too much in the directory, or too much that passed through it in a turn; the run is ended.
    Flood,
    /// The group may not do this.
    Forbidden,
    /// A request type that this host does not know.
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

    /// The code as it is written everywhere.
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

/// One refusal. The reason is safe to print: what came from the box is quoted and cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Refusal {
    /// The code.
    pub code: RefusalCode,
    /// What is wrong, for a person.
    pub reason: String,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Quotes text from the box for a log line or a reason: control characters escaped, cut to `max` characters.
pub fn quote(text: &str, max: usize) -> String {
    let cut: String = text.chars().take(max).collect();
    let more = if text.chars().nth(max).is_some() { "…" } else { "" };
    // Rust's own escapes stop at control characters; a mark that turns the line around is as bad in a log.
    let escaped = format!("{cut:?}").chars().fold(String::new(), |mut out, c| {
        if is_unseen(c) {
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
