//! Model calls with their tokens and cost. The gateway adds one row per call.

use std::time::Duration;

use rusqlite::params;

use super::{Result, Store, int};
use crate::domain::{GroupName, RunId, TurnId, WallMs};

/// The usage of one model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub run: RunId,
    /// The group that pays.
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

impl Store {
    /// Adds a model call that ended at `at`.
    pub async fn add_usage(&self, u: Usage, at: WallMs) -> Result<()> {
        self.write(move |c| {
            let sql =
                "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
            c.execute(
                sql,
                params![
                    u.run.as_str(),
                    u.turn.map(|t| int(t.0)),
                    u.group.as_str(),
                    u.provider,
                    u.model,
                    int(u.input),
                    int(u.output),
                    int(u.cache_read),
                    int(u.cache_write),
                    u.cost_micros.map(int),
                    u.estimated,
                    u.status,
                    u64::try_from(u.took.as_millis()).map_or(i64::MAX, int),
                    at.0
                ],
            )?;
            Ok(())
        })
        .await
    }
}
