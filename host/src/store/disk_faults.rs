//! What is wrong with the place where the database lies: the disk is full, may not be written, or the file is damaged.
//! The writer meets it first; the host hears of it here and stops taking in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::open::{Beside, beside, note};
use super::{Result, StoreError, copy};
use crate::disk;

/// What the store has met since it was opened. The numbers grow with every commit that failed for that reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// The disk was full.
    pub full: u64,
    /// The disk could not be written.
    pub read_only: u64,
    /// The file is damaged: what was found, and what to do.
    pub damaged: Option<String>,
    /// The writer panicked over a commit, which was rolled back.
    pub panics: u64,
}

/// Why a commit failed, for every caller it carried.
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

/// Tells the host, and does at once what cannot wait for it.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    path: PathBuf,
    told: Arc<watch::Sender<Trouble>>,
    /// A full check runs that has not come to its end.
    checking: Arc<AtomicBool>,
}

impl Reporter {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), told: Arc::default(), checking: Arc::default() }
    }

    pub(super) fn listen(&self) -> watch::Receiver<Trouble> {
        self.told.subscribe()
    }

    /// Sorts an error, tells the host, and gives the ballast back when the disk is full: SQLite cannot even delete
    /// then, and what the host must still say and settle has to be stored.
    pub(super) fn fault(&self, e: StoreError) -> Fault {
        let fault = match e {
            StoreError::Full(why) => Fault::Full(why),
            StoreError::ReadOnly(why) => Fault::ReadOnly(why),
            StoreError::Busy(why) => Fault::Busy(why),
            StoreError::Corrupt(why) => Fault::Corrupt(why),
            // SQLite tells one I/O error from another poorly (a quota and a disk that became read-only look like a
            // broken one): the disk itself is asked.
            StoreError::Commit(why) => return self.look_around(&why),
            other => return self.look_around(&other.to_string()),
        };
        self.tell(&fault);
        fault
    }

    /// The same for an error of which nothing more is known.
    pub(super) fn look_around(&self, why: &str) -> Fault {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let probed = disk::probe(dir).map_err(|e| e.kind());
        // A file system hands out whole blocks; what is left of the last ones is no room.
        let little = disk::room(dir).is_ok_and(|room| room.free < 64 << 10);
        let fault = match probed {
            Err(ReadOnlyFilesystem) => Fault::ReadOnly(why.to_owned()),
            Err(StorageFull | QuotaExceeded) => Fault::Full(why.to_owned()),
            _ if little => Fault::Full(why.to_owned()),
            _ => Fault::Other(why.to_owned()),
        };
        self.tell(&fault);
        fault
    }

    /// The writer panicked over a commit.
    pub(super) fn panicked(&self) -> Fault {
        self.told.send_modify(|t| t.panics += 1);
        Fault::Other("the host panicked over it".to_owned())
    }

    /// What one caller's statement met before there was a commit.
    pub(super) fn met(&self, e: &StoreError) {
        match e {
            StoreError::Full(why) => self.tell(&Fault::Full(why.clone())),
            StoreError::ReadOnly(why) => self.tell(&Fault::ReadOnly(why.clone())),
            StoreError::Corrupt(why) => self.tell(&Fault::Corrupt(why.clone())),
            _ => {}
        }
    }

    fn tell(&self, fault: &Fault) {
        match fault {
            Fault::Full(_) => {
                let ballast = self.path.with_file_name(BALLAST);
                if let Err(e) = disk::remove(&ballast) {
                    tracing::error!(code = "store.full", "{} was not given back: {e}", ballast.display());
                }
                self.told.send_modify(|t| t.full += 1);
            }
            Fault::ReadOnly(_) => self.told.send_modify(|t| t.read_only += 1),
            Fault::Corrupt(why) => self.damaged(why),
            Fault::Busy(_) | Fault::Other(_) => {}
        }
    }

    fn damaged(&self, why: &str) {
        if self.told.borrow().damaged.is_some() {
            return;
        }
        let told = StoreError::damaged(&self.path, why.to_owned());
        tracing::error!(code = told.code(), "{told}");
        // The next start checks before it opens, whoever has meanwhile closed the file cleanly.
        if let Err(e) = note(&self.path, Beside::Damaged, why) {
            tracing::error!(code = e.code(), "and this could not be noted: {e}");
        }
        self.told.send_modify(|t| t.damaged = Some(told.to_string()));
    }

    /// The file is closed. A check that a quick end has cut is made up for by the next start.
    pub(super) fn closed(&self) {
        if self.told.borrow().damaged.is_some() || self.checking.load(Ordering::Acquire) {
            return;
        }
        let sign = beside(&self.path, Beside::Open);
        if let Err(e) = disk::remove(&sign) {
            tracing::warn!(
                code = "store.close",
                "{} stays, so the next start checks the file: {e}",
                sign.display()
            );
        }
    }

    /// The full check on a thread and a connection of its own: it takes as long as it takes, and nothing waits for it.
    pub(super) fn check_beside(&self) -> Result<()> {
        let this = self.clone();
        this.checking.store(true, Ordering::Release);
        std::thread::Builder::new()
            .name("store-check".into())
            .spawn(move || {
                match copy::reader(&this.path).and_then(|reader| copy::unsound(&reader)) {
                    Ok(None) => tracing::info!("the database is sound"),
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

/// The file beside the database that is given back when the disk is full.
pub const BALLAST: &str = "ballast";
