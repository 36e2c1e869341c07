//! The store: the only truth. One SQLite file, one writer thread that commits waiting callers together.
//!
//! Every public function is one transaction. Rows become domain types in here; nothing outside knows SQL.
//! `README.md` beside this file is the table page for whoever opens the file by hand.

mod adoption;
mod inbox;
mod letters;
mod migrations;
mod outbox;
mod questions;
mod runs;
mod settings;
#[cfg(test)]
mod tests;
mod trace;
mod turns;
mod usage;
mod writer;

pub use adoption::{OpenRequest, RunRow};
pub use inbox::{Accepted, CommandRow, Intake, Placement, StrangerSeen};
pub use outbox::{Head, LIFETIME, Sent};
pub use questions::{AnswerTaken, NewQuestion, Suspended};
pub use runs::{Collected, NewRun, Take, Taken, TakenEffect};
pub use settings::Admission;
pub use trace::{MessageTrace, OutboxTrace, StageRow};
pub use turns::{BeginState, InputState};
pub use usage::UsageRow;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use writer::Writer;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("cannot open the database {path}: {source}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A newer host has written this file.
    #[error(
        "the database {path} has schema {found}, this lazaret knows {known}: use the newer binary that wrote it, \
         or restore a copy from before the upgrade. Nothing was changed"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// This binary's.
        known: i64,
    },
    /// The file is no database of ours, or is damaged.
    #[error(
        "the database {path} is damaged or not Lazaret's ({why}): put back a copy of yours, or move it away to begin anew"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// One statement failed; its transaction left no trace.
    #[error("the database refused: {0}")]
    Sql(#[from] rusqlite::Error),
    /// The commit failed: disk full, read-only, I/O error.
    #[error("the database could not commit: {0}")]
    Commit(String),
    /// A row holds what this binary cannot read.
    #[error("row {what} cannot be read: {why}")]
    Row {
        /// Which.
        what: String,
        /// Why not.
        why: String,
    },
    /// A rule of the store was about to be broken by the caller.
    #[error("{0}")]
    Rule(String),
    /// The writer thread is gone: the host is ending.
    #[error("the database is closed")]
    Closed,
}

impl StoreError {
    /// The machine's word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "store.open",
            Self::Newer { .. } => "store.newer",
            Self::Damaged { .. } => "store.damaged",
            Self::Sql(_) => "store.sql",
            Self::Commit(_) => "store.commit",
            Self::Row { .. } => "store.row",
            Self::Rule(_) => "store.rule",
            Self::Closed => "store.closed",
        }
    }
}

/// The result of every function here.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The open store. Cheap to clone; the last clone to go closes the file.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
}

impl Store {
    /// Opens (or creates) the database, brings it to this binary's schema and starts the writer thread.
    ///
    /// # Errors
    /// [`StoreError::Newer`] and [`StoreError::Damaged`] before anything is written; [`StoreError::Open`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut connection = connect(path)?;
        migrations::bring_up(&mut connection)?;
        Ok(Self { writer: Writer::start(connection)? })
    }

    /// Runs `work` as one transaction on the writer thread; the answer comes after the commit.
    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.writer.run(work).await
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    // SQLite gives its side files the mode of the database. Where this fails, the open below says why.
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(open)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(open)?;
    // The first statement that reads the file: a foreign file is told from a database here.
    if let Err(e) = connection.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0)) {
        return Err(StoreError::Damaged { path: path.to_owned(), why: e.to_string() });
    }
    // Whose file it is comes before the first pragma that would write into it.
    migrations::check(&connection, path)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(open)?;
    connection.pragma_update(None, "synchronous", "full").map_err(open)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(open)?;
    Ok(connection)
}

/// Turns a stored text back into a checked type.
fn parse<T: std::str::FromStr>(what: &str, text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| StoreError::Row { what: what.to_owned(), why: e.to_string() })
}

/// What SQLite says where a failpoint says so.
#[cfg(feature = "failpoints")]
fn injected(error: std::io::Error) -> StoreError {
    use rusqlite::ffi;
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        _ if error.raw_os_error().is_some() => ffi::SQLITE_IOERR,
        _ => ffi::SQLITE_BUSY,
    };
    StoreError::Sql(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string())))
}

/// Row ids are SQLite's signed integers; ours are never negative.
fn id(n: i64) -> u64 {
    n.unsigned_abs()
}

/// The other way.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
