//! The assignment of a run's worker. `supervisor` makes it; the worker and its replacement share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::UnboundedSender;

use crate::dispatch::{Event, RunNo};
use crate::domain::{Lane, RunId};

/// The identity of a run, and where its worker reports.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The run's number in this process.
    pub no: RunNo,
    pub run: RunId,
    pub lane: Lane,
    /// The channel to which the worker reports.
    pub events: UnboundedSender<Event>,
    /// The number of `Feed` orders that the worker has obeyed. Dispatch uses it to recognize outdated reports about a
    /// turn.
    fed: Arc<AtomicU64>,
}

impl Assignment {
    pub fn new(no: RunNo, run: RunId, lane: Lane, events: UnboundedSender<Event>) -> Self {
        Self { no, run, lane, events, fed: Arc::default() }
    }

    pub(super) fn obeyed_feed(&self) {
        self.fed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    /// Reports an event. The receiver is gone only when the host ends, and then nobody needs the report.
    pub(super) fn report(&self, event: Event) {
        let _ = self.events.send(event);
    }
}
