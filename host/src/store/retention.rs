//! What the store keeps for a while only, and times that move with the clock.

use rusqlite::{Connection, params};

use super::outbox::DUE;
use super::{Result, Store, parse};
use crate::domain::message::Attachment;
use crate::domain::{GroupName, RunId, WallMs};

/// Runs whose rows go in one transaction.
const RUNS: u32 = 20;
/// Rows of a table that go in one transaction: a person's message waits for it no longer than for another message.
const ROWS: u32 = 500;

/// How far clearing has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cleared {
    /// Rows that went.
    pub rows: u64,
    after: String,
    done: bool,
}

impl Cleared {
    /// Nothing is left that may go.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl Store {
    /// Runs that have not ended, and those whose turn is still open: nothing of theirs may go.
    pub async fn runs_in_use(&self) -> Result<Vec<RunId>> {
        self.read(|c| {
            let sql = "SELECT id FROM run WHERE state <> 'ended' UNION
                       SELECT r.id FROM run r JOIN turn t ON t.lane = r.lane AND t.state = 'open'
                       WHERE r.ended_at >= t.opened_at";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| r.get::<_, String>(0))?;
            rows.map(|id| parse("run.id", &id?)).collect()
        })
        .await
    }

    /// Attachments of messages that are not answered yet.
    pub async fn media_in_use(&self) -> Result<Vec<String>> {
        self.read(|c| {
            let sql = "SELECT attachments FROM message WHERE state <> 'done' AND attachments <> '[]'";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| r.get::<_, String>(0))?;
            let mut files = Vec::new();
            for text in rows {
                let attachments: Vec<Attachment> = serde_json::from_str(&text?).unwrap_or_default();
                files.extend(attachments.into_iter().filter_map(|a| a.file));
            }
            Ok(files)
        })
        .await
    }

    /// The number of each group's newest session.
    pub async fn sessions(&self) -> Result<Vec<(GroupName, u64)>> {
        self.read(|c| {
            let mut rows = c.prepare("SELECT name, session FROM grp")?;
            let rows = rows.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?)))?;
            rows.map(|row| {
                row.map_err(Into::into).and_then(|(n, s)| Ok((parse("grp.name", &n)?, super::id(s))))
            })
            .collect()
        })
        .await
    }

    /// Removes a handful of rows: letters of runs that ended before `letters`, steps before it, model calls before
    /// `usage`. Messages, turns, what was said and the audit trail stay. Called again with what it returned until
    /// that is done; the pages are used again, the file grows no more.
    pub async fn clear(&self, from: Cleared, letters: WallMs, usage: WallMs) -> Result<Cleared> {
        self.write(move |c| {
            let (runs, after) = of_runs(c, &from.after, letters)?;
            let steps = oldest(c, "stage", "wall", letters)?;
            let calls = oldest(c, "usage", "at", usage)?;
            let done = after == from.after && steps == 0 && calls == 0;
            Ok(Cleared { rows: from.rows + runs + steps + calls, after, done })
        })
        .await
    }

    /// The clock went on by `by` milliseconds without that much having passed: what waits is as old as before. `now` is
    /// what the clock said until then. A row of a later time was stamped by an earlier host with another clock, whose
    /// time it keeps: a machine that begins in 1970 finds rows of this year.
    pub async fn move_times(&self, by: i64, now: WallMs) -> Result<()> {
        self.write(move |c| {
            let sql = format!(
                "UPDATE outbox SET created_at = created_at + ?1, lives_from = lives_from + ?1,
                        not_before = CASE not_before WHEN 0 THEN 0 ELSE max(not_before + ?1, 1) END
                 WHERE {DUE} AND lives_from <= ?2"
            );
            c.execute(&sql, [by, now.0])?;
            let sql = "UPDATE turn SET opened_at = opened_at + ?1 WHERE state = 'open' AND opened_at <= ?2";
            c.execute(sql, [by, now.0])?;
            let sql = "UPDATE question SET asked_at = asked_at + ?1, expires_at = expires_at + ?1
                       WHERE state IN ('open', 'pending') AND asked_at <= ?2";
            c.execute(sql, [by, now.0])?;
            Ok(())
        })
        .await
    }
}

/// Rows of ended runs, by the order of their ids, which is that of time. Returns the last run that was looked at.
fn of_runs(c: &Connection, after: &str, before: WallMs) -> Result<(u64, String)> {
    let sql = "SELECT id FROM run r WHERE id > ?1 AND state = 'ended' AND ended_at < ?2
                 AND NOT EXISTS (SELECT 1 FROM turn t WHERE t.lane = r.lane AND t.state = 'open' AND r.ended_at >= t.opened_at)
                 AND (EXISTS (SELECT 1 FROM to_agent WHERE run = r.id) OR EXISTS (SELECT 1 FROM consumed WHERE run = r.id))
               ORDER BY id LIMIT ?3";
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows.query_map(params![after, before.0, RUNS], |r| r.get::<_, String>(0))?;
    let (mut gone, mut last) = (0, after.to_owned());
    for run in rows {
        last = run?;
        for table in ["to_agent", "given", "consumed"] {
            gone += c.execute(&format!("DELETE FROM {table} WHERE run = ?1"), [&last])? as u64;
        }
    }
    Ok((gone, last))
}

/// The oldest rows of a table that only grows, up to the first that is young enough; those of open turns stay.
fn oldest(c: &Connection, table: &str, time: &str, before: WallMs) -> Result<u64> {
    let sql = format!(
        "DELETE FROM {table} WHERE rowid IN (
           SELECT rowid FROM {table}
           WHERE rowid < coalesce((SELECT rowid FROM {table} WHERE {time} >= ?1 ORDER BY rowid LIMIT 1), 9223372036854775807)
             AND (turn IS NULL OR turn NOT IN (SELECT id FROM turn WHERE state = 'open'))
           ORDER BY rowid LIMIT ?2)"
    );
    Ok(c.execute(&sql, params![before.0, ROWS])? as u64)
}
