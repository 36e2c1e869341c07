//! Counters: refusals by code, dropped strangers, uncertain sends, the next box user and question code.

use rusqlite::{Connection, params};

use super::{Result, Store, int};

impl Store {
    /// Adds to a counter.
    pub async fn count(&self, name: &'static str, by: u64) -> Result<()> {
        self.write(move |c| bump(c, name, int(by)).map(drop)).await
    }
}

/// Adds to a counter and returns its value.
pub(super) fn bump(c: &Connection, name: &str, by: i64) -> Result<i64> {
    let sql = "INSERT INTO number VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET value = value + ?2 RETURNING value";
    Ok(c.prepare_cached(sql)?.query_row(params![name, by], |r| r.get(0))?)
}
