//! Where the gateway records the usage of model calls and the counts of refusals: in the store.

use std::time::Duration;

use async_trait::async_trait;
use ipc_schema::{GroupName, RunId, TurnId};

use crate::clock::Clock;
use crate::store::{Store, UsageRow};

/// The usage of one model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub run: RunId,
    pub group: GroupName,
    /// The turn that was open when the call began, if one was.
    pub turn: Option<TurnId>,
    /// The provider of the last attempt.
    pub provider: String,
    /// The model of the last attempt.
    pub model: String,
    /// Input tokens that the provider neither read from its cache nor wrote to it.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    /// The cost in micro-dollars; `None` when the model's price is not known.
    pub cost_micros: Option<u64>,
    /// Whether the counts are estimates, because the provider sent none or was cut off.
    pub estimated: bool,
    /// 200 for a whole answer; 499 when the runner hung up or the run ended; 502 when the answer was cut after its
    /// first byte; otherwise the status of the error that the runner received.
    pub status: u16,
    /// From the whole request to the last byte of the answer.
    pub took: Duration,
}

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
    async fn usage(&self, u: Usage) {
        let row = UsageRow {
            run: u.run,
            turn: u.turn,
            group: u.group,
            provider: u.provider,
            model: u.model,
            tokens: [u.input, u.output, u.cache_read, u.cache_write],
            micros: u.cost_micros,
            estimated: u.estimated,
            status: u.status,
            took_ms: u64::try_from(u.took.as_millis()).unwrap_or(u64::MAX),
            at: Clock::new().wall(),
        };
        if let Err(e) = self.add_usage(row).await {
            tracing::error!(code = e.code(), "a model call was not recorded: {e}");
        }
    }

    async fn refused(&self, code: &'static str, count: u64) {
        if let Err(e) = self.count(code, count).await {
            tracing::warn!(code = e.code(), "{count} refusals of {code} were not counted: {e}");
        }
    }
}
