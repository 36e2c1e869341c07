//! Model calls with their tokens and cost. The gateway adds one row per call.

use rusqlite::params;

use super::{Result, Store, int};
use crate::domain::{GroupName, RunId, TurnId, WallMs};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The run that called.
    pub run: RunId,
    /// The turn that called.
    pub turn: Option<TurnId>,
    /// The group that pays.
    pub group: GroupName,
    pub provider: String,
    pub model: String,
    /// Input, output, cache read and cache write tokens.
    pub tokens: [u64; 4],
    /// The cost in millionths of a dollar. `None`: the model has no price.
    pub micros: Option<u64>,
    /// Whether the tokens are estimated.
    pub estimated: bool,
    pub status: u16,
    /// Its duration in milliseconds.
    pub took_ms: u64,
    pub at: WallMs,
}

impl Store {
    /// Adds a model call.
    pub async fn add_usage(&self, u: UsageRow) -> Result<()> {
        self.write(move |c| {
            let [input, output, cache_read, cache_write] = u.tokens.map(int);
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
                    input,
                    output,
                    cache_read,
                    cache_write,
                    u.micros.map(int),
                    u.estimated,
                    u.status,
                    int(u.took_ms),
                    u.at.0
                ],
            )?;
            Ok(())
        })
        .await
    }
}
