//! Reports a full disk, a read-only disk and a damaged file to the host, which then stops accepting messages. The
//! writer and the readers call it with every error. It never ends the host by itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::open::{Marker, marker_path, write_marker};
use super::{Result, StoreError, copy};
use crate::host_files;

/// The faults since the store was opened. A count grows with every transaction that failed for its reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreFaults {
    /// How often the disk was full.
    pub full: u64,
    /// How often the disk was read-only.
    pub read_only: u64,
    /// What damage was found, and what to do.
    pub damaged: Option<String>,
    /// The writer panicked over a commit, which was rolled back.
    pub panics: u64,
}

/// Why a commit failed. Every caller of the batch gets a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Full(String),
    ReadOnly(String),
    Busy(String),
    Corrupt(String),
    Other(String),
}

impl Fault {
    pub(super) fn code(&self) -> &'static str {
        StoreError::from(self.clone()).code()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(why)
            | Self::ReadOnly(why)
            | Self::Busy(why)
            | Self::Corrupt(why)
            | Self::Other(why) => f.write_str(why),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full(why) => Self::Full(why),
            Fault::ReadOnly(why) => Self::ReadOnly(why),
            Fault::Busy(why) => Self::Busy(why),
            Fault::Corrupt(why) => Self::Corrupt(why),
            Fault::Other(why) => Self::Commit(why),
        }
    }
}

/// Publishes faults to the host, and releases the ballast at once.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    path: PathBuf,
    faults: Arc<watch::Sender<StoreFaults>>,
    /// A full check is running.
    checking: Arc<AtomicBool>,
}

impl Reporter {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), faults: Arc::default(), checking: Arc::default() }
    }

    pub(super) fn listen(&self) -> watch::Receiver<StoreFaults> {
        self.faults.subscribe()
    }

    /// Classifies an error and reports it. If the disk is full, it removes the ballast: SQLite cannot even delete rows
    /// then, and the host must still store its notices and the ends of turns.
    pub(super) fn fault(&self, e: StoreError) -> Fault {
        let fault = match e {
            StoreError::Full(why) => Fault::Full(why),
            StoreError::ReadOnly(why) => Fault::ReadOnly(why),
            StoreError::Busy(why) => Fault::Busy(why),
            StoreError::Corrupt(why) => Fault::Corrupt(why),
            // SQLite reports a quota and a disk that became read-only like a broken disk: the disk itself is asked.
            StoreError::Commit(why) => return self.fault_by_disk(&why),
            other => return self.fault_by_disk(&other.to_string()),
        };
        self.publish(&fault);
        fault
    }

    /// Classifies an error by the state of the disk, and reports it.
    pub(super) fn fault_by_disk(&self, why: &str) -> Fault {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let probed = host_files::probe(dir).map_err(|e| e.kind());
        // A file system allocates whole blocks: the last few cannot be used.
        let nearly_full = host_files::room(dir).is_ok_and(|room| room.free < 64 << 10);
        let fault = match probed {
            Err(ReadOnlyFilesystem) => Fault::ReadOnly(why.to_owned()),
            Err(StorageFull | QuotaExceeded) => Fault::Full(why.to_owned()),
            _ if nearly_full => Fault::Full(why.to_owned()),
            _ => Fault::Other(why.to_owned()),
        };
        self.publish(&fault);
        fault
    }

    /// The writer panicked over a commit.
    pub(super) fn panicked(&self) -> Fault {
        self.faults.send_modify(|t| t.panics += 1);
        Fault::Other("the host panicked over it".to_owned())
    }

    /// Reports the error of one caller's statement, before any commit.
    pub(super) fn report(&self, e: &StoreError) {
        match e {
            StoreError::Full(why) => self.publish(&Fault::Full(why.clone())),
            StoreError::ReadOnly(why) => self.publish(&Fault::ReadOnly(why.clone())),
            StoreError::Corrupt(why) => self.publish(&Fault::Corrupt(why.clone())),
            _ => {}
        }
    }

    fn publish(&self, fault: &Fault) {
        match fault {
            Fault::Full(_) => {
                let ballast = self.path.with_file_name(BALLAST);
                if let Err(e) = host_files::remove(&ballast) {
                    tracing::error!(code = "store.full", "{} was not removed: {e}", ballast.display());
                }
                self.faults.send_modify(|t| t.full += 1);
            }
            Fault::ReadOnly(_) => self.faults.send_modify(|t| t.read_only += 1),
            Fault::Corrupt(why) => self.damaged(why),
            Fault::Busy(_) | Fault::Other(_) => {}
        }
    }

    fn damaged(&self, why: &str) {
        if self.faults.borrow().damaged.is_some() {
            return;
        }
        let damage = StoreError::damaged(&self.path, why.to_owned());
        tracing::error!(code = damage.code(), "{damage}");
        // The next start must check, even if another program has closed the file cleanly meanwhile.
        if let Err(e) = write_marker(&self.path, Marker::Damaged, why) {
            tracing::error!(
                code = e.code(),
                "the mark of the damage could not be written, so the next start does not check the file: {e}"
            );
        }
        self.faults.send_modify(|t| t.damaged = Some(damage.to_string()));
    }

    /// Removes the marker of an open file. It stays if a check did not finish: the next start repeats that check.
    pub(super) fn closed(&self) {
        if self.faults.borrow().damaged.is_some() || self.checking.load(Ordering::Acquire) {
            return;
        }
        let marker = marker_path(&self.path, Marker::Open);
        if let Err(e) = host_files::remove(&marker) {
            tracing::warn!(
                code = "store.close",
                "{} cannot be removed, so the next start checks the file: {e}",
                marker.display()
            );
        }
    }

    /// Runs the full check on a thread and a connection of its own. Nothing waits for it.
    pub(super) fn check_in_background(&self) -> Result<()> {
        let this = self.clone();
        this.checking.store(true, Ordering::Release);
        std::thread::Builder::new()
            .name("store-check".into())
            .spawn(move || {
                match copy::reader(&this.path).and_then(|reader| copy::unsound(&reader)) {
                    Ok(None) => tracing::info!("the database is intact"),
                    Ok(Some(why)) => this.damaged(&why),
                    Err(e) => {
                        tracing::warn!(code = e.code(), "the database could not be checked: {e}");
                        return;
                    }
                }
                this.checking.store(false, Ordering::Release);
            })
            .map(drop)
            .map_err(|e| StoreError::Rule(format!("no thread for the check: {e}")))
    }
}

/// The file beside the database that is removed when the disk is full, so that there is room for the last writes.
pub const BALLAST: &str = "ballast";
