//! Holding a model call open.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

/// A gate in a script: a call that comes to it waits until the test opens it, and the test can wait for the call.
#[derive(Debug, Clone)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    arrived: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self { open: Arc::new(watch::channel(false).0), arrived: Arc::new(Semaphore::new(0)) }
    }

    /// Lets every call through, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until a call stands before the gate; each call is reported once.
    pub async fn arrived(&self) {
        // The semaphore is never closed.
        if let Ok(permit) = self.arrived.acquire().await {
            permit.forget();
        }
    }

    /// A call comes to the gate.
    pub(super) async fn pass(&self) {
        self.arrived.add_permits(1);
        let mut open = self.open.subscribe();
        // The sender lives in `self`.
        let _ = open.wait_for(|open| *open).await;
    }
}
