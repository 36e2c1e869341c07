//! Files that agents send: outbox rows whose bytes are in the spool. The `send_file` request and the spool's cleanup
//! call it.
//!
//! A file is in the spool before its row is written and stays there while a row needs it: no row lacks its file.

use std::collections::BTreeSet;

use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::{LetterId, RefusalCode};

use super::letters_to_agent::{ToWrite, respond, store_verdict};
use super::outbox::{self, DUE};
use super::{Result, Store, id, int};
use crate::domain::outbound::OutgoingText;
use crate::domain::{RunId, TurnId, WallMs};

/// Why a request of an ended turn is refused.
pub const TURN_OVER: &str = "the turn has ended, and nothing more of it is sent";

/// The files that a turn has sent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FilesSent {
    pub files: u64,
    /// All their bytes.
    pub bytes: u64,
}

impl Store {
    /// Counts the files of a turn. A snapshot is enough for the limit: a run handles one request of its turn at a time.
    pub async fn files_sent(&self, turn: TurnId) -> Result<FilesSent> {
        self.read(move |c| {
            let sql = "SELECT count(*), coalesce(sum(file_bytes), 0) FROM outbox WHERE turn = ?1 AND file IS NOT NULL";
            Ok(c.query_row(sql, [int(turn.0)], |r| {
                Ok(FilesSent { files: id(r.get(0)?), bytes: id(r.get(1)?) })
            })?)
        })
        .await
    }

    /// Stores the verdict on a `send_file` and the outbox part in one transaction, so that a host that dies sends the
    /// file once. A request that has its verdict sends nothing again, and an ended turn nothing at all.
    pub async fn send_file(
        &self,
        run: RunId,
        turn: TurnId,
        request: LetterId,
        verdict: Verdict,
        outgoing: OutgoingText,
        now: WallMs,
    ) -> Result<ToWrite> {
        self.write(move |c| {
            let open = outbox::is_open(c, turn)?;
            let over =
                || Verdict::Refused { code: RefusalCode::Stale.to_string(), reason: TURN_OVER.to_owned() };
            let verdict = if open { verdict } else { over() };
            if store_verdict(c, turn, &request, &verdict)? && open {
                outbox::say(c, Some(turn), &outgoing, now)?;
            }
            respond(c, &run, turn, request, verdict, now)
        })
        .await
    }

    /// Digests of the files that the outbox has not sent yet.
    pub async fn spool_in_use(&self) -> Result<BTreeSet<String>> {
        self.read(move |c| {
            let sql = format!(
                "SELECT DISTINCT file FROM outbox INDEXED BY outbox_due WHERE {DUE} AND file IS NOT NULL"
            );
            let mut rows = c.prepare(&sql)?;
            let rows = rows.query_map([], |r| r.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}
