//! What a run's worker is for. `supervisor` makes it; the worker and what replaces it share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::UnboundedSender;

use crate::dispatch::{Event, RunNo};
use crate::domain::{Lane, RunId};

/// What a run's worker is for.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    /// The run's number in this process.
    pub no: RunNo,
    pub run: RunId,
    pub lane: Lane,
    /// Where the run reports to.
    pub events: UnboundedSender<Event>,
    /// How many `Feed`s it has obeyed. Dispatch tells by it which reports of a turn are out of date.
    fed: Arc<AtomicU64>,
}

impl WorkerHandle {
    /// An handle for which nothing is done yet.
    pub fn new(no: RunNo, run: RunId, lane: Lane, events: UnboundedSender<Event>) -> Self {
        Self { no, run, lane, events, fed: Arc::default() }
    }

    pub(super) fn obeyed_feed(&self) {
        self.fed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    /// Reports something. The receiver is gone only when the host ends: nobody is left to tell then.
    pub(super) fn report(&self, event: Event) {
        let _ = self.events.send(event);
    }
}
