//! Holds a model call open.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

/// A gate in a script. A call that reaches it waits until the test opens it. The test can wait for the call.
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
    /// Makes a closed gate.
    pub fn new() -> Self {
        Self { open: Arc::new(watch::channel(false).0), arrived: Arc::new(Semaphore::new(0)) }
    }

    /// Lets every call through, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until a call has reached the gate. Each call is reported once.
    pub async fn arrived(&self) {
        // The semaphore is never closed, so this always succeeds.
        if let Ok(permit) = self.arrived.acquire().await {
            permit.forget();
        }
    }

    /// Reports a call at the gate and waits until the gate is open.
    pub(super) async fn pass(&self) {
        self.arrived.add_permits(1);
        let mut open = self.open.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = open.wait_for(|open| *open).await;
    }
}
