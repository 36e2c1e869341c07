//! [`Store`]: the handle that every caller holds. It opens and closes the database and runs each function's
//! transaction on the writer thread or on a reader.

use std::path::Path;

use rusqlite::Connection;
use tokio::sync::watch;

use super::fault_reporter::{Reporter, StoreFaults};
use super::open;
use super::readers::Readers;
use super::writer::Writer;
use super::{Result, StoreError};

/// The open store. Cheap to clone. Dropping the last clone closes the file, but only [`Store::close`] waits for that
/// and tells the next host that this one ended well.
#[derive(Debug, Clone)]
pub struct Store {
    // Declared first, so dropped first: the last connection to close empties the WAL, and that is the writer's.
    readers: Readers,
    writer: Writer,
    reporter: Reporter,
}

impl Store {
    /// Opens the database for the host, which holds the lock of `state/`: creates it if there is none, upgrades it to
    /// this binary's schema as a checked copy, and starts the writer thread. If the last host did not close the
    /// database, the full check runs in the background and reports damage as [`StoreFaults`].
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Damaged`] and [`StoreError::Unfinished`] before anything is written;
    /// [`StoreError::Upgrade`]; [`StoreError::ReadOnly`], [`StoreError::Full`], [`StoreError::Open`].
    pub fn open(path: &Path) -> Result<Self> {
        let opened = open::for_host(path)?;
        let reporter = Reporter::new(path);
        if opened.unclean {
            tracing::info!(
                code = "store.unclean",
                "the last host did not close the database; it is being checked"
            );
            reporter.check_in_background()?;
        }
        Self::start(path, opened.connection, reporter, true)
    }

    /// Opens the database for a command; a host may be running.
    ///
    /// # Errors
    /// As [`Store::open`], and [`StoreError::Older`]: only the host migrates.
    pub fn open_for_command(path: &Path) -> Result<Self> {
        Self::start(path, open::for_command(path)?, Reporter::new(path), false)
    }

    /// Opens the database for a command that only reads, beside a running host. It takes no lock that a write waits
    /// for, and a write through it fails.
    ///
    /// # Errors
    /// As [`Store::open_for_command`].
    pub fn open_to_read(path: &Path) -> Result<Self> {
        open::to_read(path)?;
        let reporter = Reporter::new(path);
        Ok(Self { readers: Readers::new(path), writer: Writer::absent(), reporter })
    }

    fn start(path: &Path, connection: Connection, reporter: Reporter, host: bool) -> Result<Self> {
        #[cfg(test)]
        super::statement_log::listen(&connection);
        let writer = Writer::start(connection, reporter.clone(), host)?;
        Ok(Self { readers: Readers::new(path), writer, reporter })
    }

    /// Closes the file once everything queued is committed. Every later call is answered with [`StoreError::Closed`].
    /// If a host ends without it, the next start checks the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Reports damage that a check outside the store has found.
    pub fn report_damage(&self, e: &StoreError) {
        if let StoreError::Damaged { why, .. } = e {
            self.reporter.report(&StoreError::Corrupt(why.clone()));
        }
    }

    /// Watches for a full disk, a read-only disk and damage.
    pub fn faults(&self) -> watch::Receiver<StoreFaults> {
        self.reporter.listen()
    }

    /// Runs `work` as one transaction on the writer thread and answers after the commit.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let done = self.writer.run(work).await;
        if let Err(e) = &done {
            self.reporter.report(e);
        }
        done
    }

    /// Runs `work` in a read transaction, beside whatever is being written. It sees every write that was answered
    /// before it was called.
    ///
    /// A read that a following write depends on needs no place on the writer thread either: another caller's write may
    /// come between two transactions there just as well. What must not change in between belongs in one `write`.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.readers.run(work).await.map_err(|e| match e {
            // An I/O error says little about the disk: the disk itself is asked, as after a failed commit.
            StoreError::Commit(why) => self.reporter.fault(StoreError::Commit(why)).into(),
            e => {
                self.reporter.report(&e);
                e
            }
        })
    }
}
