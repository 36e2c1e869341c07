//! Why the store did not do what it was asked: one type for every function of `store`.
//!
//! What the host does about an error depends on the variant, never on the text.

use std::path::{Path, PathBuf};

use super::backup_list;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("cannot open the database {path}: {source}")]
    Open { path: PathBuf, source: rusqlite::Error },
    /// A newer host has written this file.
    #[error(
        "the database {path} has schema {found}, this lazaret knows {known}: use the newer binary that wrote it, \
         or restore a copy from before the upgrade. Nothing was changed"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// An older host has written this file, and a command may not migrate it.
    #[error(
        "the database {path} has schema {found}, this lazaret knows {known}: \
         the next start of the host (`lazaret up`) upgrades it. Nothing was changed"
    )]
    Older { path: PathBuf, found: i64, known: i64 },
    /// The file could not be upgraded to this binary's schema.
    #[error(
        "the database {path} has schema {from} and could not be upgraded to {to} (step \"{step}\": {why}). \
         It is unchanged: the earlier lazaret can go on with it"
    )]
    Upgrade {
        path: PathBuf,
        from: i64,
        to: i64,
        /// How far it came.
        step: String,
        why: String,
    },
    /// The file is not a database of Lazaret's, or is damaged.
    #[error("the database {path} is damaged or not Lazaret's ({why}). Nothing was changed; {remedy}")]
    Damaged { path: PathBuf, why: String, remedy: String },
    /// A restore was interrupted.
    #[error("{path} is not opened: {why}")]
    Unfinished {
        path: PathBuf,
        /// What was being done, and what to do.
        why: String,
    },
    /// One statement failed; its transaction left no trace.
    #[error("the database refused: {0}")]
    Sql(rusqlite::Error),
    /// A statement read a damaged page.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// There is no room on the disk. Nothing was stored.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The disk may not be written.
    #[error("the disk is read-only: {0}")]
    ReadOnly(String),
    /// Another program kept the database locked past the busy timeout.
    #[error("another program holds the database: {0}")]
    Busy(String),
    /// The commit failed: an I/O error.
    #[error("the database could not commit: {0}")]
    Commit(String),
    /// A file beside the database could not be read or written.
    #[error("{path}: {why}")]
    File {
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A row holds a value that this binary cannot parse.
    #[error("row {what} cannot be read: {why}")]
    Row { what: String, why: String },
    /// The caller asked for something that the store does not allow.
    #[error("{0}")]
    Rule(String),
    /// The store was closed: the host is ending.
    #[error("the database is closed")]
    Closed,
}

impl StoreError {
    /// Whether a retry may succeed: the disk has room again, or another program has released its lock.
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Row { .. } | Self::Rule(_))
    }

    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "store.open",
            Self::Newer { .. } => "store.newer",
            Self::Older { .. } => "store.older",
            Self::Upgrade { .. } => "store.upgrade",
            Self::Damaged { .. } | Self::Corrupt(_) => "store.damaged",
            Self::Unfinished { .. } => "store.unfinished",
            Self::Full(_) => "store.full",
            Self::ReadOnly(_) => "store.read_only",
            Self::Busy(_) => "store.busy",
            Self::File { .. } => "store.file",
            Self::Sql(_) => "store.sql",
            Self::Commit(_) => "store.commit",
            Self::Row { .. } => "store.row",
            Self::Rule(_) => "store.rule",
            Self::Closed => "store.closed",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(e.to_string()),
            Some(ErrorCode::ReadOnly) => Self::ReadOnly(e.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(e.to_string()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(e.to_string()),
            Some(ErrorCode::SystemIoFailure) => Self::Commit(e.to_string()),
            _ => Self::Sql(e),
        }
    }
}

impl StoreError {
    pub(super) fn damaged(path: &Path, why: String) -> Self {
        Self::Damaged { path: path.to_owned(), why, remedy: backup_list::remedy(path) }
    }

    /// An I/O error of a file beside the database.
    pub(super) fn file(path: &Path, e: &std::io::Error) -> Self {
        let described = format!("{}: {e}", path.display());
        match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full(described),
            std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(described),
            _ => Self::File { path: path.to_owned(), why: e.to_string() },
        }
    }

    /// Names the file in an error that a statement reported without it.
    pub(super) fn of_file(self, path: &Path) -> Self {
        match self {
            Self::Corrupt(why) => Self::damaged(path, why),
            other => other,
        }
    }
}

/// The result of every function here.
pub type Result<T> = std::result::Result<T, StoreError>;
