//! The errors that end a run. Everything else is answered inside its turn.
//!
//! [`crate::run_loop`] reports a [`Fatal`] in a `failed` letter and on stderr, and exits with 1.

use std::io;
use std::path::PathBuf;

use ipc_schema::letter_writer::WriteError;
use ipc_schema::{Refusal, RefusalCode};

/// An error that ends the run. The transcript is intact in every case, so the host may start another run on it.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A letter of the host is invalid for this runner.
    #[error("cannot use the host's letter {name}: {refusal}; `lazaret ipc show --full` shows all of it")]
    Letter { name: String, refusal: Refusal },
    #[error("cannot read {path}: {source}; the host mounts it readable for this user")]
    Inbox { path: PathBuf, source: io::Error },
    /// The outbox stayed unwritable for longer than a busy host explains.
    #[error("cannot write a letter: {0}; is /ipc/from-agent full or read-only?")]
    Outbox(#[from] WriteError),
    #[error("cannot open {path} for letters: {source}; the host mounts it writable for this user")]
    OutboxDir { path: PathBuf, source: io::Error },
    /// This runner built a letter that the protocol refuses.
    #[error("this runner built an invalid letter: {0}; please report this")]
    OwnLetter(Refusal),
    /// `begin` names a session that is not a valid file name.
    #[error("session {name:?} is not 1 to 64 of a-z, 0-9 and '-'")]
    SessionName { name: String },
    #[error("cannot read the transcript {path}: {source}; move it aside to start anew")]
    SessionUnreadable { path: PathBuf, source: io::Error },
    /// The run must end, because it may send nothing that the transcript does not hold.
    #[error("cannot write the transcript {path}: {source}; is the session's disk budget used up?")]
    SessionUnwritable { path: PathBuf, source: io::Error },
    #[error("the host did not answer {tries} times in a row on {socket}: {reason}")]
    HostUnreachable { tries: u32, socket: PathBuf, reason: String },
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
