//! Letters to agents. The store writes a letter as a row first, and `run` writes its file afterwards: a host that dies
//! in between finds the row and writes the file.

use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::{Response, Verdict};
use ipc_schema::names_and_paths::letter_name;
use ipc_schema::{LetterId, Refusal, ToAgentLetter};
use rusqlite::{Connection, params};

use super::{Result, StoreError, id, int};
use crate::domain::{RunId, TurnId, WallMs};
use crate::policy::letter_room;

/// A stored letter whose file must be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToWrite {
    pub n: u64,
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A letter from the host to an agent. `ack` is the highest number that the host has taken from the run.
pub fn letter_to_agent(
    run: &RunId,
    turn: Option<TurnId>,
    n: u64,
    ack: u64,
    at: WallMs,
    body: ToAgent,
) -> ToAgentLetter {
    ToAgentLetter { id: LetterId::of_host(n), run: run.clone(), turn, n, ack, at: at.rfc3339(), body }
}

/// Gives a letter its number, builds it and stores its bytes.
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
    Ok(ToWrite { n, name: letter_name(n, kind), bytes })
}

/// Stores the `response` to a request in the transaction of its verdict: a waiting agent gets it even if the host dies
/// right after.
pub(super) fn respond(
    c: &Connection,
    run: &RunId,
    turn: TurnId,
    request: LetterId,
    verdict: Verdict,
    now: WallMs,
) -> Result<ToWrite> {
    let sql = "SELECT from_n FROM run WHERE id = ?1";
    let ack = id(c.query_row(sql, [run.as_str()], |r| r.get(0))?);
    let verdict = letter_room::fit_verdict(verdict);
    next_letter(c, run, Some(turn), "response", now, |n| {
        let body = ToAgent::Response(Response { request, verdict });
        letter_to_agent(run, Some(turn), n, ack, now, body).to_bytes()
    })
}

/// Writes the verdict on a request, once; whether it was this one.
pub(super) fn store_verdict(
    c: &Connection,
    turn: TurnId,
    request: &LetterId,
    verdict: &Verdict,
) -> Result<bool> {
    failpoint!("store.verdict.begin", super::injected);
    let sql = "UPDATE request SET verdict = ?3 WHERE turn = ?1 AND id = ?2 AND verdict IS NULL";
    let text = serde_json::to_string(verdict)
        .map_err(|e| StoreError::Rule(format!("a verdict cannot be written as JSON: {e}")))?;
    Ok(c.execute(sql, params![int(turn.0), request.as_str(), text])? > 0)
}
