//! Where the gateway records the usage of model calls and the counts of refusals: in the store.

use async_trait::async_trait;

use crate::clock::Clock;
use crate::store::{Store, Usage};

/// Records usage and refusals. A trait, so that tests of the gateway need no store.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Records one model call. The gateway calls it exactly once for every call that it tried, failed and cancelled
    /// ones included, after the last byte of the answer.
    async fn usage(&self, usage: Usage);

    /// Adds to the count of refused requests with this code. The gateway calls it a few times a minute at most.
    async fn refused(&self, code: &'static str, count: u64);
}

#[async_trait]
impl Ledger for Store {
    async fn usage(&self, usage: Usage) {
        if let Err(e) = self.add_usage(usage, Clock::new().wall()).await {
            tracing::error!(code = e.code(), "a model call was not recorded: {e}");
        }
    }

    async fn refused(&self, code: &'static str, count: u64) {
        if let Err(e) = self.count(code, count).await {
            tracing::warn!(code = e.code(), "{count} refusals of {code} were not counted: {e}");
        }
    }
}
