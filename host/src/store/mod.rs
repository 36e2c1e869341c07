//! The store: the only truth. One SQLite file, one writer thread that commits waiting callers together.
//!
//! Every public function is one transaction. Rows become domain types in here; nothing outside knows SQL.
//! `README.md` beside this file is the table page for whoever opens the file by hand.

mod adoption;
mod agent_questions;
mod attachments;
mod copy;
#[cfg(test)]
mod delivery_model;
#[cfg(test)]
mod delivery_tests;
mod disk_faults;
mod files;
mod groups;
mod inbox;
mod letters;
#[cfg(test)]
mod migration_tests;
mod migrations;
mod open;
mod outbox;
mod pins;
mod posture_gaps;
mod restore;
mod retention;
mod runs;
mod schema_upgrade;
#[cfg(test)]
mod tests;
mod trace;
mod turns;
mod undelivered;
mod usage;
mod writer;

pub use adoption::{OpenRequest, RunRow};
pub use agent_questions::{AnswerTaken, NewQuestion, Suspended};
pub use attachments::Waiting;
pub use copy::{Copied, back_up, check};
pub use disk_faults::{BALLAST, Trouble};
pub use groups::Admission;
pub use inbox::{Accepted, CommandRow, Intake, Placement, StrangerSeen};
pub use letters::letter_to_agent;
pub use open::{copies, known_damage, made_at};
pub use outbox::Head;
pub use posture_gaps::Loss;
pub use restore::{Around, Restored, begin_restore, restore, verify};
pub use retention::Cleared;
pub use runs::{Collected, NewRun, Take, Taken, TakenEffect};
pub use trace::{DeliveryCount, MessageTrace, OutboxTrace, StageRow};
pub use turns::{BeginState, Composed, InputState, Patience};
pub use undelivered::Word;
pub use usage::UsageRow;

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tokio::sync::watch;

use disk_faults::Reporter;
use schema_upgrade::Step;
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
    /// An older host has written this file, and a command may not migrate it.
    #[error(
        "the database {path} has schema {found}, this lazaret knows {known}: \
         the next start of the host (`lazaret up`) brings it there. Nothing was changed"
    )]
    Older {
        /// Which file.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// This binary's.
        known: i64,
    },
    /// The file could not be brought to this binary's schema.
    #[error(
        "the database {path} has schema {from} and could not be brought to {to} (at {step:?}: {why}). \
         It is as it was: the earlier lazaret can go on with it"
    )]
    Upgrade {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        from: i64,
        /// This binary's.
        to: i64,
        /// How far it came.
        step: Step,
        /// What was found.
        why: String,
    },
    /// The file is no database of ours, or is damaged.
    #[error("the database {path} is damaged or not Lazaret's ({why}). Nothing was changed; {remedy}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// A restore was cut.
    #[error("{path} is not opened: {why}")]
    Unfinished {
        /// Which file.
        path: PathBuf,
        /// What was being done, and what to do.
        why: String,
    },
    /// One statement failed; its transaction left no trace.
    #[error("the database refused: {0}")]
    Sql(rusqlite::Error),
    /// A statement came upon a page that makes no sense.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// There is no room on the disk. Nothing was stored.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The disk may not be written.
    #[error("the disk is read-only: {0}")]
    ReadOnly(String),
    /// Another program held the database longer than is waited for.
    #[error("another program holds the database: {0}")]
    Busy(String),
    /// The commit failed: an I/O error.
    #[error("the database could not commit: {0}")]
    Commit(String),
    /// A file beside the database could not be read or written.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
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
    /// Whether the same may succeed later: the disk has room again, another program lets go.
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Row { .. } | Self::Rule(_))
    }

    /// The machine's word.
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
    /// What the host does about an error depends on these few; the rest is a mistake of ours.
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
    fn damaged(path: &Path, why: String) -> Self {
        Self::Damaged { path: path.to_owned(), why, remedy: open::remedy(path) }
    }

    /// What a file beside the database says.
    fn file(path: &Path, e: &std::io::Error) -> Self {
        let told = format!("{}: {e}", path.display());
        match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full(told),
            std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(told),
            _ => Self::File { path: path.to_owned(), why: e.to_string() },
        }
    }

    /// Damage that a statement met, told of the file.
    fn of_file(self, path: &Path) -> Self {
        match self {
            Self::Corrupt(why) => Self::damaged(path, why),
            other => other,
        }
    }
}

/// The result of every function here.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The open store. Cheap to clone; the last clone to go closes the file.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    trouble: Reporter,
}

impl Store {
    /// Opens the database for the host, which holds the lock of the state: makes it where there is none, brings it to
    /// this binary's schema as a checked copy, and starts the writer thread. Where the last host did not close it, the
    /// full check runs beside what is done now, and tells of damage as [`Trouble`].
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Damaged`] and [`StoreError::Unfinished`] before anything is written;
    /// [`StoreError::Upgrade`]; [`StoreError::ReadOnly`], [`StoreError::Full`], [`StoreError::Open`].
    pub fn open(path: &Path) -> Result<Self> {
        let opened = open::for_host(path)?;
        let trouble = Reporter::new(path);
        if opened.unclean {
            tracing::info!(
                code = "store.unclean",
                "the last host did not close the database; it is being checked"
            );
            trouble.check_beside()?;
        }
        let writer = Writer::start(opened.connection, trouble.clone(), true)?;
        Ok(Self { writer, trouble })
    }

    /// Opens the database for a command, beside a host that may be running.
    ///
    /// # Errors
    /// As [`Store::open`], and [`StoreError::Older`]: only the host migrates.
    pub fn beside(path: &Path) -> Result<Self> {
        let connection = open::for_command(path)?;
        let trouble = Reporter::new(path);
        let writer = Writer::start(connection, trouble.clone(), false)?;
        Ok(Self { writer, trouble })
    }

    /// Closes the file when everything that waits is committed. After it every call is answered
    /// [`StoreError::Closed`]. A host that ends without it is taken for one that died: the next start checks the file.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// Says that a check has found damage, as a statement of the host's own would.
    pub fn is_damaged(&self, e: &StoreError) {
        if let StoreError::Damaged { why, .. } = e {
            self.trouble.met(&StoreError::Corrupt(why.clone()));
        }
    }

    /// Tells of a full disk, a read-only one, damage.
    pub fn trouble(&self) -> watch::Receiver<Trouble> {
        self.trouble.listen()
    }

    /// Runs `work` as one transaction on the writer thread; the answer comes after the commit.
    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let done = self.writer.run(work).await;
        if let Err(e) = &done {
            self.trouble.met(e);
        }
        done
    }
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
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string())).into()
}

/// Row ids are SQLite's signed integers; ours are never negative.
fn id(n: i64) -> u64 {
    n.unsigned_abs()
}

/// The other way.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
