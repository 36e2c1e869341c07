//! What model calls cost.

use rusqlite::params;

use super::{Result, Store, int};
use crate::domain::{GroupName, RunId, TurnId, WallMs};

/// One model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// In which run.
    pub run: RunId,
    /// In which turn.
    pub turn: Option<TurnId>,
    /// Whose.
    pub group: GroupName,
    /// At which provider.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// Input, output, cache read and cache write tokens.
    pub tokens: [u64; 4],
    /// Millionths of a dollar, for a priced model.
    pub micros: Option<u64>,
    /// Whether the tokens are estimated.
    pub estimated: bool,
    /// The HTTP status.
    pub status: u16,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// When it ended.
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
