//! File names of letters, and the paths inside the box. Host and runner build and parse every name here.

use crate::refusal::{Refusal, RefusalCode, quote};

/// The directory of letters from the host to the box, below a run's directory and below [`box_path::IPC`].
pub const TO_AGENT: &str = "to-agent";
/// The directory of letters from the box to the host.
pub const FROM_AGENT: &str = "from-agent";
/// The letter that ends a run: the only name outside the pattern.
pub const CLOSE: &str = "_close";
/// The gateway's socket, inside [`box_path::RUN`].
pub const GATEWAY_SOCKET: &str = "gateway.sock";
/// The runner's file name inside [`box_path::RUNNER_DIR`].
pub const RUNNER: &str = "agent-runner";

/// The tool that runs commands: the only one whose rules may match on the command line.
pub const RUN_COMMAND: &str = "run_command";
/// The runner's tools, for the owner's rules.
pub const TOOLS: &[&str] = &[
    RUN_COMMAND,
    "read_command",
    "stop_command",
    "read_file",
    "write_file",
    "edit_file",
    "list_files",
    "search_files",
    "save_memory",
    "search_memory",
    "list_memories",
    "forget_memory",
    "daily_log",
    "send_message",
    "update_personality",
    "ask_person",
    "send_file",
    "schedule_task",
    "list_tasks",
    "update_task",
    "pause_task",
    "resume_task",
    "cancel_task",
    "task_history",
    "remind",
    "search_history",
    "react",
];

/// Paths inside the box. They are part of the protocol, because the runner has no settings.
pub mod box_path {
    /// Holds the runner binary; read-only.
    pub const RUNNER_DIR: &str = "/lazaret";
    /// Holds both letter directories.
    pub const IPC: &str = "/ipc";
    /// Holds the gateway's socket; read-only.
    pub const RUN: &str = "/run/lazaret";
    /// Holds the group's transcripts.
    pub const SESSION: &str = "/session";
    /// Holds the group's files.
    pub const WORKSPACE: &str = "/workspace";
    /// Holds attachments that the host stored; read-only.
    pub const INBOX: &str = "/inbox";
    /// Holds files that all groups share; writable for the group `main` only.
    pub const GLOBAL: &str = "/global";
}

/// The file name of letter `n` of type `kind`: `0000000003-message.json`.
pub fn letter_name(n: u64, kind: &str) -> String {
    format!("{n:010}-{kind}.json")
}

/// A parsed file name of a letter directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileName<'a> {
    /// The name of a complete letter.
    Letter {
        /// The letter's number in its direction, from 1.
        n: u64,
        /// The letter's type according to the name; the envelope may differ.
        kind: &'a str,
    },
    /// A file that is still being written. It is never read, but counts against the budget.
    Partial,
    /// `_close`.
    Close,
}

/// Parses a file name: `^[0-9]{10}-[a-z_]{1,32}\.json$`, a dot-file, or `_close`.
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
                "{} is not a letter name (0000000001-type.json)",
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
