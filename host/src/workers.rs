//! The supervised set. Every worker of the host is spawned here, so that the host catches and counts each panic and
//! reacts to it.
//!
//! [`Workers::keep`] starts a worker again after a panic, with a growing wait; after too many panics the host ends
//! (`policy::worker_restart` decides both). [`Workers::caught`] is for work whose caller reacts to a panic itself, such
//! as a run, for which a panic counts as a crash. `daemon` writes the count into the store.
//!
//! The panic hook (`telemetry`) logs where a panic happened. A worker must not hold a lock over an `await`. It must
//! leave the store and the disk so that its next start can go on, because its memory is lost.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::policy::worker_restart::{AfterPanic, RecentPanics};

/// The work panicked. The panic is already counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host's own work panicked; its log says where")
    }
}

#[derive(Debug, Clone)]
pub struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    began: Instant,
    /// Notified when a panic was counted.
    noted: Notify,
    /// Notified when there are too many panics.
    too_many: Notify,
}

#[derive(Debug, Default)]
struct State {
    recent: RecentPanics,
    /// Panics that the store's counter does not contain yet.
    uncounted: u64,
}

impl Default for Workers {
    fn default() -> Self {
        let (noted, too_many) = (Notify::new(), Notify::new());
        Self(Arc::new(Shared { state: Mutex::default(), began: Instant::now(), noted, too_many }))
    }
}

impl Workers {
    /// Spawns a worker that starts again after each panic.
    pub fn keep<W, F>(&self, name: impl fmt::Display, work: W) -> JoinHandle<F::Output>
    where
        W: FnMut() -> F + Send + 'static,
        F: Future<Output: Send> + Send + 'static,
    {
        let (workers, name) = (self.clone(), name.to_string());
        tokio::spawn(async move { workers.kept(&name, work).await })
    }

    /// Spawns work that is done once. The holder of the handle reacts to a panic.
    pub fn once<T: Send + 'static>(
        &self,
        name: impl fmt::Display,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Result<T, Panicked>> {
        let (workers, name) = (self.clone(), name.to_string());
        tokio::spawn(async move { workers.caught(&name, work).await })
    }

    /// Runs a worker, and starts it again after each panic. Never returns after too many panics.
    pub async fn kept<F: Future>(&self, name: &str, mut work: impl FnMut() -> F) -> F::Output {
        loop {
            // The call of `work` itself may panic too.
            if let Ok(done) = self.caught(name, async { work().await }).await {
                return done;
            }
            self.rest(name).await;
        }
    }

    /// Waits, after a panic of the worker `name`, until it may start again. Never returns after too many panics.
    pub async fn rest(&self, name: &str) {
        let now = self.0.began.elapsed();
        let decision = self.state().recent.note(now);
        match decision {
            AfterPanic::Restart(wait) => {
                tracing::warn!(code = "worker.restart", "{name} starts again in {} s", wait.as_secs());
                tokio::time::sleep(wait).await;
            }
            AfterPanic::EndHost => {
                tracing::error!(code = "worker.panics", "the host ends: too many panics, the last in {name}");
                self.0.too_many.notify_one();
                std::future::pending().await
            }
        }
    }

    /// Does work once. The caller reacts to a panic.
    ///
    /// # Errors
    /// [`Panicked`], if the work panicked.
    pub async fn caught<T>(&self, name: &str, work: impl Future<Output = T>) -> Result<T, Panicked> {
        AssertUnwindSafe(Box::pin(work)).catch_unwind().await.map_err(|_| {
            self.note(name);
            Panicked
        })
    }

    /// Counts a panic that other code has caught.
    pub fn note(&self, name: &str) {
        tracing::error!(code = "worker.panic", "{name} ended with a panic");
        self.state().uncounted += 1;
        self.0.noted.notify_one();
    }

    /// Returns when a panic was counted since the last call.
    pub async fn noted(&self) {
        self.0.noted.notified().await;
    }

    /// Takes the panics that the store has to count.
    pub fn take_uncounted(&self) -> u64 {
        std::mem::take(&mut self.state().uncounted)
    }

    /// Gives the panics back if the store did not count them.
    pub fn give_back(&self, panics: u64) {
        self.state().uncounted += panics;
    }

    /// Returns when there are too many panics for this host to go on.
    pub async fn too_many(&self) {
        self.0.too_many.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every use is a single call, so a panic leaves the state consistent.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_starts_again_and_is_counted() {
        let (workers, starts) = (Workers::default(), Arc::new(AtomicU32::new(0)));
        let kept = workers.keep("a test", {
            let starts = Arc::clone(&starts);
            move || {
                let starts = starts.fetch_add(1, Ordering::Relaxed);
                async move { if starts == 0 { panic!("at its first start") } else { "done" } }
            }
        });
        workers.noted().await;
        assert_eq!(workers.take_uncounted(), 1);
        assert_eq!(kept.await.unwrap(), "done");
        assert_eq!((starts.load(Ordering::Relaxed), workers.take_uncounted()), (2, 0));
    }

    #[tokio::test]
    async fn a_caught_panic_is_the_callers_and_does_not_end_the_host() {
        let workers = Workers::default();
        for n in 0..20 {
            let work = async {
                if n >= 0 {
                    panic!("number {n}")
                }
            };
            assert_eq!(workers.caught("a run", work).await, Err(Panicked));
        }
        assert_eq!(workers.take_uncounted(), 20);
        assert!(tokio::time::timeout(Duration::from_millis(10), workers.too_many()).await.is_err());
    }

    #[tokio::test]
    async fn too_many_panics_are_told() {
        let workers = Workers::default();
        for _ in 0..5 {
            // Five workers panic once each, so none of them waits for another.
            drop(workers.keep("a test", || async { panic!("always") }));
        }
        tokio::time::timeout(Duration::from_secs(10), workers.too_many()).await.unwrap();
    }
}
