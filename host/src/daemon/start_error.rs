//! The reasons why the host did not start. `daemon` returns them, and `lazaret up` prints them.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another host runs on this state.
    #[error("another lazaret runs on {path}{}; end it first, or choose another LAZARET_ROOT", holder.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        path: PathBuf,
        /// The process id of the lock's holder, if the system tells it.
        holder: Option<u32>,
    },
    /// A requirement of the machine failed.
    #[error("{what}: {why}")]
    Machine {
        what: String,
        /// The system's error, and what to do.
        why: String,
        code: &'static str,
    },
}

impl StartError {
    pub(super) fn machine(code: &'static str, what: impl Into<String>, why: impl ToString) -> Self {
        Self::Machine { what: what.into(), why: why.to_string(), code }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Locked { .. } => "host.locked",
            Self::Machine { code, .. } => code,
        }
    }
}
