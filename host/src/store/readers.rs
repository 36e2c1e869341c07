//! Connections that only read, so that a read never waits for a write. `Store::read` calls this.
//!
//! SQLite's WAL lets a reader work on its own snapshot while the writer commits. Every read is a transaction of its
//! own that begins after the call, so it sees every write that was answered before.
//!
//! A connection is opened by the first read that needs it and kept. Reads run on tokio's blocking threads, and a
//! semaphore bounds their number: closing it refuses new reads, and taking all its permits waits for the running ones.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Result, StoreError, copy};
use crate::host_files;

/// Reads that run at once. They are short: more of them would compete with the writer for the processor.
const READERS: u32 = 3;

/// The pool. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    path: Arc<Path>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        let permits = Arc::new(Semaphore::new(READERS as usize));
        Self { path: path.into(), permits, idle: Arc::default() }
    }

    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let this = self.clone();
        host_files::blocking(move || this.work_with(permit, work)).await
    }

    /// The permit lives as long as the connection is in use, also when the caller stops waiting.
    fn work_with<T>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let kept = self.idle().pop();
        let connection = kept.map_or_else(|| copy::reader(&self.path), Ok)?;
        #[cfg(test)]
        super::statement_log::listen(&connection);
        // Several statements of one read see one snapshot.
        let snapshot = connection.unchecked_transaction()?;
        let done = work(&snapshot);
        // A connection that cannot end its transaction is not used again.
        if snapshot.commit().is_ok() {
            self.idle().push(connection);
        }
        drop(permit);
        done
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the running reads, refuses later ones and closes the connections.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(READERS).await;
        self.permits.close();
        self.idle().clear();
        drop(all);
    }
}
