//! Where the gateway records the usage of model calls and the counts of refusals: in the store.

use async_trait::async_trait;

use crate::clock::Clock;
use crate::domain::WallMs;
use crate::policy::backoff::STORE_AGAIN;
use crate::store::{Store, StoreError, Usage};

/// Records usage and refusals. A trait, so that tests of the gateway need no store.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Records one model call. The gateway calls it exactly once for every call that it tried, failed and cancelled
    /// ones included, after the last byte of the answer.
    async fn usage(&self, usage: Usage);

    /// Adds to the count of refused requests with this code. The gateway calls it a few times a minute at most.
    async fn refused(&self, code: &'static str, count: u64);
}

/// Tries until the store takes it: another program holds the database, or the disk is full.
async fn record_later(store: Store, usage: Usage, at: WallMs) {
    loop {
        tokio::time::sleep(STORE_AGAIN).await;
        match store.add_usage(usage.clone(), at).await {
            Err(e) if e.passes() && !matches!(e, StoreError::Closed) => {}
            Err(e) => {
                return tracing::error!(code = e.code(), "a model call was not recorded: {e}: {usage:?}");
            }
            Ok(()) => return,
        }
    }
}

#[async_trait]
impl Ledger for Store {
    async fn usage(&self, usage: Usage) {
        let at = Clock::new().wall();
        let Err(e) = self.add_usage(usage.clone(), at).await else { return };
        tracing::warn!(code = e.code(), "a model call waits to be recorded: {e}");
        // The call's run may end meanwhile, so it does not wait for this.
        tokio::spawn(record_later(self.clone(), usage, at));
    }

    async fn refused(&self, code: &'static str, count: u64) {
        if let Err(e) = self.count(code, count).await {
            tracing::warn!(code = e.code(), "{count} refusals of {code} were not counted: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_call_is_recorded_after_another_program_held_the_database_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lazaret.db");
        let store = Store::open(&path).unwrap();
        let usage = Usage {
            run: "019ab000-0000-7000-8000-000000000001".parse().unwrap(),
            group: crate::domain::GroupName::main(),
            turn: None,
            provider: "p".into(),
            model: "m".into(),
            input: 7,
            output: 1,
            cache_read: 0,
            cache_write: 0,
            cost_micros: Some(3),
            estimated: false,
            status: 200,
            took: Duration::ZERO,
            zone: crate::domain::Zone::utc(),
        };
        let theirs = rusqlite::Connection::open(&path).unwrap();
        theirs.execute_batch("ALTER TABLE usage RENAME TO hidden").unwrap();
        tokio::time::pause();
        store.usage(usage).await;
        theirs.execute_batch("ALTER TABLE hidden RENAME TO usage").unwrap();
        tokio::time::sleep(STORE_AGAIN * 3).await;
        tokio::time::resume();
        store.close().await;
        let recorded: i64 = theirs.query_row("SELECT sum(input) FROM usage", [], |r| r.get(0)).unwrap();
        assert_eq!(recorded, 7);
    }
}
