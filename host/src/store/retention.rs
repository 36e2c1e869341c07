//! Deletes old rows, lists what cleanup must not delete, and moves stored times when the clock was wrong. `maintenance`
//! calls it.

use rusqlite::{Connection, params};

use super::outbox::DUE;
use super::{Result, Store, parse};
use crate::domain::message::Attachment;
use crate::domain::{GroupName, RunId, WallMs};

/// Runs whose rows one transaction deletes.
const RUNS: u32 = 20;
/// Rows of a table that one transaction deletes. The number is small because a person's message waits for the
/// transaction.
const ROWS: u32 = 500;

/// The progress of [`Store::clear`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cleared {
    /// Rows deleted so far.
    pub rows: u64,
    after: String,
    done: bool,
}

impl Cleared {
    /// Whether no old row is left.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl Store {
    /// Runs that have not ended, and ended runs of an open turn. Cleanup keeps everything of theirs.
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

    /// Files of messages that are not answered yet.
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

    /// Each group with the number of its newest session.
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

    /// Deletes a batch of rows: letters of runs that ended before `letters`, stages before `letters`, model calls
    /// before `usage`. Messages, turns, the outbox and the audit trail stay. The caller passes the returned progress in
    /// again until [`Cleared::is_done`]. SQLite reuses the freed pages, so the file stops growing.
    pub async fn clear(&self, from: Cleared, letters: WallMs, usage: WallMs) -> Result<Cleared> {
        self.write(move |c| {
            let (runs, after) = delete_of_runs(c, &from.after, letters)?;
            let steps = delete_oldest(c, "stage", "wall", letters)?;
            let calls = delete_oldest(c, "usage", "at", usage)?;
            let done = after == from.after && steps == 0 && calls == 0;
            Ok(Cleared { rows: from.rows + runs + steps + calls, after, done })
        })
        .await
    }

    /// Moves the times of everything that waits after the clock was set forward by `by` milliseconds, so that nothing
    /// grows old by that. `now` is the time before the change. A row with a later time keeps it: an earlier host
    /// stamped it with a correct clock, and this one started in 1970.
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

/// Deletes rows of ended runs in the order of their ids, which is that of time. Returns the last run it looked at.
fn delete_of_runs(c: &Connection, after: &str, before: WallMs) -> Result<(u64, String)> {
    let sql = "SELECT id FROM run r WHERE id > ?1 AND state = 'ended' AND ended_at < ?2
                 AND NOT EXISTS (SELECT 1 FROM turn t WHERE t.lane = r.lane AND t.state = 'open' AND r.ended_at >= t.opened_at)
                 AND (EXISTS (SELECT 1 FROM to_agent WHERE run = r.id) OR EXISTS (SELECT 1 FROM consumed WHERE run = r.id))
               ORDER BY id LIMIT ?3";
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows.query_map(params![after, before.0, RUNS], |r| r.get::<_, String>(0))?;
    let (mut deleted, mut last) = (0, after.to_owned());
    for run in rows {
        last = run?;
        for table in ["to_agent", "given", "consumed"] {
            deleted += c.execute(&format!("DELETE FROM {table} WHERE run = ?1"), [&last])? as u64;
        }
    }
    Ok((deleted, last))
}

/// Deletes the oldest rows of a table, up to the first that is young enough. Rows of open turns stay.
fn delete_oldest(c: &Connection, table: &str, time: &str, before: WallMs) -> Result<u64> {
    let sql = format!(
        "DELETE FROM {table} WHERE rowid IN (
           SELECT rowid FROM {table}
           WHERE rowid < coalesce((SELECT rowid FROM {table} WHERE {time} >= ?1 ORDER BY rowid LIMIT 1), 9223372036854775807)
             AND (turn IS NULL OR turn NOT IN (SELECT id FROM turn WHERE state = 'open'))
           ORDER BY rowid LIMIT ?2)"
    );
    Ok(c.execute(&sql, params![before.0, ROWS])? as u64)
}
