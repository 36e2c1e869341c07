//! Passes panics between the store and the supervised set: the store counts them for `lazaret status`, and a panic of
//! the store's own thread counts as a worker's panic.

use std::sync::Arc;

use crate::policy::backoff::STORE_AGAIN;
use crate::services::Services;

/// The counter that `lazaret status` shows.
const COUNTER: &str = "worker_panics";

/// Counts panics as they happen.
pub(super) async fn count(services: Arc<Services>) {
    loop {
        count_now(&services).await;
        services.workers.noted().await;
    }
}

/// Counts the panics that are not counted yet, and retries while the store fails.
pub(super) async fn count_now(services: &Services) {
    loop {
        let panics = services.workers.take_uncounted();
        if panics == 0 {
            return;
        }
        let Err(e) = services.store.count(COUNTER, panics).await else { continue };
        tracing::warn!(code = e.code(), "{panics} panics are not counted yet: {e}");
        services.workers.give_back(panics);
        tokio::time::sleep(STORE_AGAIN).await;
    }
}

/// Counts the panics of the store's thread, which continues after each of them.
pub(super) async fn watch_store(services: Arc<Services>) {
    let mut trouble = services.store.faults();
    let mut known = 0;
    // `services` holds the store, so the store's reports do not end before this worker.
    while trouble.wait_for(|trouble| trouble.panics > known).await.is_ok() {
        known += 1;
        services.workers.note("the store");
        services.workers.rest("the store").await;
    }
}
