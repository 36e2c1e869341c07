//! Deletes old rows, lists what cleanup must not delete, and moves stored times when the clock was wrong. `maintenance`
//! calls it.

use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::DUE;
use super::{Result, Store, int, parse};
use crate::domain::message::Attachment;
use crate::domain::{GroupName, RunId, WallMs, Zone};

/// Runs that one transaction looks at.
const RUNS: u32 = 20;
/// Rows that one transaction deletes or closes. The number is small because a person's message waits for the
/// transaction.
const ROWS: u32 = 500;

/// The progress of [`Store::clear`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cleared {
    /// Rows deleted so far.
    pub rows: u64,
    next: Chore,
    /// The last run whose letters were looked at.
    run: String,
    /// The last row of the present table that was looked at.
    row: i64,
}

/// What the next step of [`Store::clear`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Chore {
    #[default]
    Letters,
    Stages,
    Calls,
    Fires,
    Context,
    Nothing,
}

impl Cleared {
    /// Whether no old row is left.
    pub fn is_done(&self) -> bool {
        self.next == Chore::Nothing
    }
}

impl Store {
    /// Runs that have not ended, and ended runs of an open turn. Cleanup keeps everything of theirs.
    pub async fn runs_in_use(&self) -> Result<Vec<RunId>> {
        self.read(|c| {
            let sql = "SELECT id FROM run INDEXED BY run_live WHERE state <> 'ended' UNION
                       SELECT r.id FROM turn t INDEXED BY turn_open CROSS JOIN run r INDEXED BY run_lane
                         ON r.lane = t.lane AND r.ended_at >= t.opened_at WHERE t.state = 'open'";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| r.get::<_, String>(0))?;
            rows.map(|id| parse("run.id", &id?)).collect()
        })
        .await
    }

    /// Files of messages that are not answered yet.
    pub async fn media_in_use(&self) -> Result<Vec<String>> {
        self.read(|c| {
            let sql = "SELECT attachments FROM message INDEXED BY message_files
                       WHERE state <> 'done' AND instr(attachments, '\"file\":\"') > 0";
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

    /// Does one step of the nightly work on rows: deletes letters of runs that ended before `letters`, stages before
    /// `letters`, model calls before `usage` and fires before `fires`, and closes context that was left out for good.
    /// Messages, turns, the outbox and the audit trail stay. The caller passes the returned progress in again until
    /// [`Cleared::is_done`].
    ///
    /// A step looks at a bounded number of rows: a person's message waits for it. SQLite reuses the freed pages, so the
    /// file stops growing.
    pub async fn clear(
        &self,
        from: Cleared,
        letters: WallMs,
        usage: WallMs,
        fires: WallMs,
    ) -> Result<Cleared> {
        self.write(move |c| {
            let mut at = from;
            at.rows += match at.next {
                Chore::Letters => letters_step(c, &mut at, letters)?,
                Chore::Stages => rows_step(c, "stage", "wall", &mut at, letters)?,
                Chore::Calls => {
                    c.execute(
                        "DELETE FROM usage_day WHERE day = (SELECT min(day) FROM usage_day) AND day < ?1",
                        [usage.day(&Zone::utc())],
                    )?;
                    rows_step(c, "usage", "at", &mut at, usage)?
                }
                Chore::Fires => fires_step(c, &mut at, fires)?,
                Chore::Context => context_step(c, &mut at)?,
                Chore::Nothing => 0,
            };
            Ok(at)
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

/// Deletes old letters, run by run in the order of their ids, which is that of time. It goes from run to run that still
/// has letters, and ends at the first that began too late to be old.
fn letters_step(c: &Connection, at: &mut Cleared, before: WallMs) -> Result<u64> {
    let next = "SELECT r.id, r.created_at, r.state = 'ended' AND r.ended_at < ?2 AND NOT EXISTS
                  (SELECT 1 FROM turn t WHERE t.lane = r.lane AND t.state = 'open' AND r.ended_at >= t.opened_at)
                FROM run r WHERE r.id = (SELECT min(run) FROM
                  (SELECT min(run) AS run FROM to_agent WHERE run > ?1
                   UNION ALL SELECT min(run) FROM consumed WHERE run > ?1))";
    let mut deleted = 0;
    for _ in 0..RUNS {
        let row = c.prepare_cached(next)?.query_row(params![at.run, before.0], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?, r.get::<_, bool>(2)?))
        });
        let Some((run, _, old)) = row.optional()?.filter(|(_, created, _)| *created < before.0) else {
            at.next = Chore::Stages;
            return Ok(deleted);
        };
        if old {
            deleted += delete_letters(c, &run, u64::from(ROWS) - deleted)?;
            if deleted >= u64::from(ROWS) {
                // The run may have more.
                return Ok(deleted);
            }
        }
        at.run = run;
    }
    Ok(deleted)
}

/// Deletes at most so many rows of a run, the letters last: what is left is found by them.
fn delete_letters(c: &Connection, run: &str, most: u64) -> Result<u64> {
    let mut deleted = 0;
    for (table, key) in [("given", "seq"), ("consumed", "n"), ("to_agent", "n")] {
        let sql = format!(
            "DELETE FROM {table} WHERE run = ?1 AND {key} IN
               (SELECT {key} FROM {table} WHERE run = ?1 ORDER BY {key} LIMIT ?2)"
        );
        deleted += c.prepare_cached(&sql)?.execute(params![run, int(most - deleted)])? as u64;
    }
    Ok(deleted)
}

/// Deletes the oldest rows of a table, up to the first that is young enough. Rows of open turns stay.
fn rows_step(c: &Connection, table: &str, time: &str, at: &mut Cleared, before: WallMs) -> Result<u64> {
    let sql = format!(
        "SELECT rowid, {time} < ?2, turn IN (SELECT id FROM turn INDEXED BY turn_open WHERE state = 'open')
         FROM {table} WHERE rowid > ?1 ORDER BY rowid LIMIT ?3"
    );
    let mut rows = c.prepare_cached(&sql)?;
    let rows = rows.query_map(params![at.row, before.0, ROWS], |r| {
        Ok((r.get::<_, i64>(0)?, r.get::<_, bool>(1)?, r.get::<_, Option<bool>>(2)?.unwrap_or(false)))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let old = rows.iter().take_while(|(_, old, _)| *old);
    let mut delete = c.prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?1"))?;
    let (mut looked, mut deleted) = (0, 0);
    for (row, _, in_use) in old {
        looked += 1;
        at.row = *row;
        if !in_use {
            deleted += delete.execute([row])? as u64;
        }
    }
    if looked < ROWS {
        (at.row, at.next) = (0, if at.next == Chore::Stages { Chore::Calls } else { Chore::Fires });
    }
    Ok(deleted)
}

fn fires_step(c: &Connection, at: &mut Cleared, before: WallMs) -> Result<u64> {
    let sql = "SELECT id FROM fire INDEXED BY fire_ended WHERE state = 'ended' AND ended_at < ?1 LIMIT ?2";
    let mut rows = c.prepare_cached(sql)?;
    let old = rows.query_map(params![before.0, ROWS], |r| r.get::<_, i64>(0))?;
    let old = old.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut delete = c.prepare_cached("DELETE FROM fire WHERE id = ?1")?;
    for fire in &old {
        delete.execute([fire])?;
    }
    if old.len() < ROWS as usize {
        at.next = Chore::Context;
    }
    Ok(old.len() as u64)
}

/// Closes context that an ended turn left out: see `turns::close`.
fn context_step(c: &Connection, at: &mut Cleared) -> Result<u64> {
    let sql = "UPDATE message SET state = 'done' WHERE seq IN
                 (SELECT m.seq FROM chat h CROSS JOIN message m INDEXED BY message_context
                    ON m.chat = h.id AND m.seq <= h.heard
                  WHERE m.role = 'context' AND m.state = 'waiting' LIMIT ?1)";
    if c.prepare_cached(sql)?.execute([ROWS])? == 0 {
        at.next = Chore::Nothing;
    }
    // Nothing was deleted.
    Ok(0)
}
