//! Why a run cannot go on. Everything else is answered inside its turn.

use std::io;
use std::path::PathBuf;

use ipc_schema::letter_writer::WriteError;
use ipc_schema::{Refusal, RefusalCode};

/// The end of this run: said in a `failed` letter and on stderr, then exit 1. The transcript is safe in every
/// case, so the host may start another run on it.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A letter of the host that this runner cannot take.
    #[error("the host's letter {name} cannot be used: {refusal}; `lazaret ipc show --full` shows it whole")]
    Letter {
        name: String,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// The directory of the host's letters, or one of them, cannot be read.
    #[error("cannot read {path}: {source}; the host mounts it readable for this user")]
    Inbox {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Our own letters cannot be written, for longer than a busy host explains.
    #[error("cannot write a letter: {0}; is /ipc/from-agent full or read-only?")]
    Outbox(#[from] WriteError),
    /// The directory for our own letters cannot be opened.
    #[error("cannot open {path} for letters: {source}; the host mounts it writable for this user")]
    OutboxDir {
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A letter of ours does not fit the wall.
    #[error("a letter of our own was refused by its writer: {0}")]
    OwnLetter(Refusal),
    /// `begin` names a session that is no file name.
    #[error("session {name:?} is not 1 to 64 of a-z, 0-9 and '-'")]
    SessionName { name: String },
    /// The transcript cannot be read.
    #[error("cannot read the transcript {path}: {source}; move it aside to start anew")]
    SessionUnreadable {
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The transcript cannot be written. Nothing may be said that it does not hold.
    #[error("cannot write the transcript {path}: {source}; is the session's disk budget used up?")]
    SessionUnwritable {
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The gateway did not answer.
    #[error("the host did not answer {tries} times in a row on {socket}: {reason}")]
    HostUnreachable {
        /// How often it was tried.
        tries: u32,
        socket: PathBuf,
        reason: String,
    },
}

impl Fatal {
    /// The code in the `failed` letter.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Letter { refusal, .. } | Self::OwnLetter(refusal) => refusal.code.as_str(),
            Self::Inbox { .. } | Self::Outbox(_) | Self::OutboxDir { .. } => RefusalCode::Io.as_str(),
            Self::SessionName { .. } => "session.name",
            Self::SessionUnreadable { .. } => "session.unreadable",
            Self::SessionUnwritable { .. } => "session.unwritable",
            Self::HostUnreachable { .. } => "host.unreachable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_end_has_a_code_of_its_own_kind() {
        let io = || io::Error::other("x");
        let path = || PathBuf::from("/x");
        let all = [
            Fatal::Inbox { path: path(), source: io() },
            Fatal::SessionName { name: "x".into() },
            Fatal::SessionUnreadable { path: path(), source: io() },
            Fatal::SessionUnwritable { path: path(), source: io() },
            Fatal::HostUnreachable { tries: 180, socket: path(), reason: "x".into() },
            Fatal::Letter { name: "x".into(), refusal: Refusal::new(RefusalCode::Schema, "x") },
        ];
        let codes: HashSet<_> = all.iter().map(Fatal::code).collect();
        assert_eq!(codes.len(), all.len());
    }
}
