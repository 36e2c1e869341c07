//! Letters to agents: rows before they are files.

use ipc_schema::Refusal;
use rusqlite::{Connection, params};

use super::{Result, StoreError, id, int};
use crate::domain::{RunId, TurnId, WallMs};

/// A letter that is a row and must become a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToWrite {
    /// Its number.
    pub n: u64,
    /// Its type.
    pub kind: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Numbers a letter, builds it and stores its bytes.
pub(super) fn next_letter(
    c: &Connection,
    run: &RunId,
    turn: Option<TurnId>,
    kind: &'static str,
    now: WallMs,
    build: impl FnOnce(u64) -> std::result::Result<Vec<u8>, Refusal>,
) -> Result<ToWrite> {
    let sql = "UPDATE run SET to_n = to_n + 1 WHERE id = ?1 AND state <> 'ended' RETURNING to_n";
    let n = id(c.query_row(sql, [run.as_str()], |r| r.get(0))?);
    let bytes =
        build(n).map_err(|refusal| StoreError::Rule(format!("the {kind} letter of run {run}: {refusal}")))?;
    let sql = "INSERT INTO to_agent(run, n, turn, kind, bytes, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    c.execute(sql, params![run.as_str(), int(n), turn.map(|t| int(t.0)), kind, bytes, now.0])?;
    Ok(ToWrite { n, kind, bytes })
}
