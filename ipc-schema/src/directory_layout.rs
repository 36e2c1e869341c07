//! Where things lie: file names of letters, and the paths inside the box.

use crate::refusal::{Refusal, RefusalCode, quote};

/// Host → box direction, below a run's directory and below [`box_path::IPC`].
pub const TO_AGENT: &str = "to-agent";
/// Box → host direction.
pub const FROM_AGENT: &str = "from-agent";
/// The sentinel that ends a run: the only name outside the pattern.
pub const CLOSE: &str = "_close";
/// The gateway's socket, inside the run's socket folder.
pub const GATEWAY_SOCKET: &str = "gateway.sock";
/// The runner's file name inside its digest folder.
pub const RUNNER: &str = "agent-runner";

/// Paths as the box sees them. They are part of the protocol: the runner has no settings.
pub mod box_path {
    /// Folder of the runner binary (read-only).
    pub const RUNNER_DIR: &str = "/lazaret";
    /// Parent of both letter directories.
    pub const IPC: &str = "/ipc";
    /// Folder of the gateway's socket (read-only).
    pub const RUN: &str = "/run/lazaret";
    /// The group's transcripts.
    pub const SESSION: &str = "/session";
    /// The group's files.
    pub const WORKSPACE: &str = "/workspace";
    /// Attachments that the host stored (read-only).
    pub const INBOX: &str = "/inbox";
    /// Files shared by all groups (writable for `main` only).
    pub const GLOBAL: &str = "/global";
}

/// `0000000003-message.json`: ten digits, the letter's type, `.json`.
pub fn letter_name(n: u64, kind: &str) -> String {
    format!("{n:010}-{kind}.json")
}

/// What a file name in a letter directory says about the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileName<'a> {
    /// A finished letter.
    Letter {
        /// Its number.
        n: u64,
        /// Its type, as the name claims it.
        kind: &'a str,
    },
    /// A file being written. Never read; it counts against the budget.
    Partial,
    /// `_close`.
    Close,
}

/// Reads a file name: `^[0-9]{10}-[a-z_]{1,32}\.json$`, a dot-file, or `_close`.
///
/// # Errors
/// [`RefusalCode::Name`] for everything else, number 0 included.
pub fn parse_name(name: &[u8]) -> Result<FileName<'_>, Refusal> {
    if name == CLOSE.as_bytes() {
        return Ok(FileName::Close);
    }
    if name.first() == Some(&b'.') {
        return Ok(FileName::Partial);
    }
    let parsed = std::str::from_utf8(name).ok().and_then(|text| {
        let (digits, rest) = text.split_at_checked(10)?;
        let kind = rest.strip_prefix('-')?.strip_suffix(".json")?;
        let n: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
        let kind_fits =
            (1..=32).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (n > 0 && kind_fits).then_some(FileName::Letter { n, kind })
    });
    parsed.ok_or_else(|| {
        Refusal::new(
            RefusalCode::Name,
            format!(
                "{} is no letter's name (0000000001-type.json)",
                quote(&String::from_utf8_lossy(name), 80)
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_strictly() {
        assert_eq!(parse_name(b"0000000003-message.json"), Ok(FileName::Letter { n: 3, kind: "message" }));
        assert_eq!(
            parse_name(b"0000000009-turn_done.json"),
            Ok(FileName::Letter { n: 9, kind: "turn_done" })
        );
        assert_eq!(parse_name(b"_close"), Ok(FileName::Close));
        assert_eq!(parse_name(b".0000000003-message.json.part"), Ok(FileName::Partial));
        let long = format!("0000000001-{}.json", "a".repeat(33));
        for bad in [
            &b""[..],
            b"3-message.json",
            b"0000000000-message.json",
            b"00000000030-message.json",
            b"0000000003-Message.json",
            b"0000000003-.json",
            b"0000000003-message.json\n",
            b"0000000003-message.json.json",
            b"0000000003-mess/age.json",
            b"x..%2f",
            b"-rf",
            b"+000000003-message.json",
            b"000000000\xff-message.json",
            "٠٠٠٠٠-a.json".as_bytes(),
            long.as_bytes(),
        ] {
            assert_eq!(
                parse_name(bad).unwrap_err().code,
                RefusalCode::Name,
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(n in 1u64..=9_999_999_999, kind in "[a-z_]{1,32}") {
            let name = letter_name(n, &kind);
            prop_assert_eq!(parse_name(name.as_bytes()), Ok(FileName::Letter { n, kind: &kind }));
        }

        #[test]
        fn no_name_panics(name in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_name(&name);
        }
    }
}
