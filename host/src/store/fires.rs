//! Fires of tasks as rows: planned by `policy::task_fires`, opened by `due_fires`, and ended once.

use ipc_schema::escaped;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Result, Store, StoreError, id, int, parse, tasks};
use crate::domain::task::{FireOutcome, Task, TaskState, Work};
use crate::domain::{ChatId, FireId, Lane, TaskId, TurnId, WallMs, Zone};
use crate::policy::task_fires::{Fate, Plan, SPREAD, Unfinished, plan};
use crate::schedule::Schedule;
use crate::turns::CausingFire;

/// Fires that wait, which are few. SQLite takes the index only for a statement that repeats its condition.
pub(super) const WAITS: &str = "fire INDEXED BY fire_waits WHERE state IN ('later', 'due')";

/// What a fire gives to its box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireInput {
    pub fire: FireId,
    pub task: Task,
    pub planned: WallMs,
    pub late: bool,
}

impl FireInput {
    /// Its size in a letter.
    pub(super) fn weight(&self) -> usize {
        let gate = match &self.task.work {
            Work::Agent(work) => work.gate.as_deref(),
            Work::Remind => None,
        };
        1_000 + escaped::len(&self.task.prompt) + gate.map_or(0, escaped::len)
    }
}

/// What became of a fire, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireRow {
    pub fire: FireId,
    pub planned: WallMs,
    /// `later`, `due`, `open` or an outcome.
    pub state: String,
    pub why: Option<String>,
    pub turn: Option<TurnId>,
    pub started_at: Option<WallMs>,
    pub ended_at: Option<WallMs>,
    /// Input and output tokens of its model calls, while the host keeps them.
    pub tokens: (u64, u64),
    /// Millionths of a dollar.
    pub micros: u64,
    /// The part of the outbox with its first reply.
    pub reply: Option<i64>,
    /// The beginning of its answer.
    pub said: Option<String>,
}

impl Store {
    /// Active tasks whose planned time has come, and those that are planned further than `now`, because the clock went
    /// back. The first 500.
    pub async fn tasks_to_plan(&self, now: WallMs) -> Result<Vec<Task>> {
        self.read(move |c| {
            let due =
                "INDEXED BY task_next WHERE state = 'active' AND next_at <= ?1 ORDER BY next_at LIMIT 500";
            let mut found = tasks::select(c, due, [now.0])?;
            let back = "INDEXED BY task_planned WHERE state = 'active' AND planned_to > ?1 LIMIT 500";
            found.extend(tasks::select(c, back, [now.0])?);
            Ok(found)
        })
        .await
    }

    /// Gives each planned time of a task that has come a fire, once. Times before `oldest` get none. Returns whether
    /// more have come than one transaction takes.
    pub async fn plan_fires(
        &self,
        task: TaskId,
        schedule: Schedule,
        zone: Zone,
        now: WallMs,
        oldest: WallMs,
    ) -> Result<bool> {
        let more = self
            .write(move |c| {
                failpoint!("store.fires.plan", super::injected);
                // A change of the task brings its rules anew in the next call.
                let current = tasks::by_id(c, task)?.filter(|task| {
                    task.state == TaskState::Active
                        && task.schedule == schedule.canonical()
                        && task.zone == zone.name()
                });
                let Some(task) = current else { return Ok(false) };
                let plan = plan(&task, &schedule, &zone, unfinished(c, &task)?, now, oldest);
                let spread = late_fires(c, now)?;
                for (at, fate) in &plan.fires {
                    insert(c, task.id, *at, *fate, spread, now)?;
                }
                let Plan { after, next_at, left, .. } = plan;
                let state = if next_at.is_some() { "active" } else { "done" };
                let sql = "UPDATE task SET planned_to = ?2, next_at = ?3, fires_left = ?4, state = ?5 WHERE id = ?1";
                let next = next_at.map(|at| at.0);
                c.execute(sql, params![int(task.id.0), after.0, next, left, state])?;
                Ok(plan.is_cut(now))
            })
            .await?;
        failpoint!("store.fires.planned");
        Ok(more)
    }

    /// Makes a fire beside the schedule. One moment has one fire, so an order that is performed again makes no second.
    pub async fn fire_now(&self, task: TaskId, at: WallMs) -> Result<FireId> {
        self.write(move |c| {
            let sql = "INSERT INTO fire(task, planned, state, late, not_before) VALUES (?1, ?2, 'due', 0, ?2)
                       ON CONFLICT(task, planned) DO NOTHING";
            c.execute(sql, [int(task.0), at.0])?;
            let sql = "SELECT id FROM fire WHERE task = ?1 AND planned = ?2";
            Ok(FireId(id(c.query_row(sql, [int(task.0), at.0], |r| r.get(0))?)))
        })
        .await
    }

    /// When the next fire comes: a planned time of an active task, or a late fire that waits for its turn.
    pub async fn next_fire_at(&self) -> Result<Option<WallMs>> {
        self.read(|c| {
            let sql = format!(
                "SELECT min(at) FROM
                   (SELECT min(next_at) AS at FROM task INDEXED BY task_next WHERE state = 'active' AND next_at IS NOT NULL
                    UNION ALL SELECT min(not_before) FROM {WAITS} AND state = 'later')"
            );
            Ok(c.query_row(&sql, [], |r| r.get::<_, Option<i64>>(0))?.map(WallMs))
        })
        .await
    }

    /// The newest fires of a task.
    pub async fn fires(&self, task: TaskId, count: u32) -> Result<Vec<FireRow>> {
        self.read(move |c| {
            let sql = "SELECT f.id, f.planned, coalesce(f.outcome, f.state), f.why, f.turn, f.started_at, f.ended_at,
                         coalesce((SELECT sum(input + cache_read + cache_write) FROM usage WHERE turn = f.turn), 0),
                         coalesce((SELECT sum(output) FROM usage WHERE turn = f.turn), 0),
                         coalesce((SELECT sum(micros) FROM usage WHERE turn = f.turn), 0),
                         (SELECT min(id) FROM outbox WHERE turn = f.turn AND voice = 'reply'),
                         coalesce(f.said, (SELECT text FROM outbox WHERE turn = f.turn AND voice = 'reply' ORDER BY id LIMIT 1))
                       FROM fire f WHERE f.task = ?1 ORDER BY f.planned DESC LIMIT ?2";
            let mut rows = c.prepare_cached(sql)?;
            let rows = rows.query_map(params![int(task.0), count], fire_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}

fn fire_row(r: &Row<'_>) -> rusqlite::Result<FireRow> {
    let time = |at: Option<i64>| at.map(WallMs);
    Ok(FireRow {
        fire: FireId(id(r.get(0)?)),
        planned: WallMs(r.get(1)?),
        state: r.get(2)?,
        why: r.get(3)?,
        turn: r.get::<_, Option<i64>>(4)?.map(|t| TurnId(id(t))),
        started_at: time(r.get(5)?),
        ended_at: time(r.get(6)?),
        tokens: (id(r.get(7)?), id(r.get(8)?)),
        micros: id(r.get(9)?),
        reply: r.get(10)?,
        said: r.get(11)?,
    })
}

/// A suspended turn does not hold up the next fire: it only waits for a person.
fn unfinished(c: &Connection, task: &Task) -> Result<Unfinished> {
    let sql = "SELECT coalesce(sum(f.state IN ('later', 'due')), 0),
                 coalesce(sum(f.state = 'open' AND (
                   NOT EXISTS (SELECT 1 FROM question q WHERE q.turn = f.turn AND q.state = 'open')
                   OR EXISTS (SELECT 1 FROM run r WHERE r.lane = ?2 AND r.state <> 'ended'))), 0)
               FROM fire f INDEXED BY fire_unfinished WHERE f.task = ?1 AND f.state <> 'ended'";
    let lane = task.lane().to_string();
    let (waits, works): (i64, i64) =
        c.prepare_cached(sql)?.query_row(params![int(task.id.0), lane], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(Unfinished { waits: waits > 0, works: works > 0 })
}

/// When the next late fire may start, so that late fires come one after another.
fn late_fires(c: &Connection, now: WallMs) -> Result<WallMs> {
    let sql = format!("SELECT max(not_before) FROM {WAITS} AND late = 1");
    let last: Option<i64> = c.prepare_cached(&sql)?.query_row([], |r| r.get(0))?;
    Ok(last.map_or(now, |last| WallMs(last).plus(SPREAD).max(now)))
}

fn insert(c: &Connection, task: TaskId, at: WallMs, fate: Fate, spread: WallMs, now: WallMs) -> Result<()> {
    let (state, late, not_before, outcome) = match fate {
        Fate::Runs { late: false } => ("due", false, at, None),
        Fate::Runs { late: true } if spread <= now => ("due", true, now, None),
        Fate::Runs { late: true } => ("later", true, spread, None),
        Fate::Skipped => ("ended", false, at, Some(FireOutcome::Skipped)),
        Fate::Missed => ("ended", true, at, Some(FireOutcome::Missed)),
    };
    let sql = "INSERT INTO fire(task, planned, state, late, not_before, outcome, why, ended_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT(task, planned) DO NOTHING";
    let ended = outcome.as_ref().map(|_| now.0);
    let (word, why) = (outcome.as_ref().map(FireOutcome::word), outcome.as_ref().and_then(FireOutcome::why));
    let values = params![int(task.0), at.0, state, late, not_before.0, word, why, ended];
    c.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The fire that caused an open turn.
pub(super) fn causing(c: &Connection, turn: TurnId) -> Result<Option<CausingFire>> {
    let sql = "SELECT f.id, t.name, f.late, t.silent,
                 (SELECT CASE e.outcome WHEN 'failed' THEN e.why END FROM fire e
                  WHERE e.task = t.id AND e.planned < f.planned AND e.outcome IN ('ran', 'caught_up', 'gated', 'failed')
                  ORDER BY e.planned DESC LIMIT 1)
               FROM turn u JOIN fire f ON f.id = u.fire JOIN task t ON t.id = f.task WHERE u.id = ?1";
    let row = c.prepare_cached(sql)?.query_row([int(turn.0)], |r| {
        let (fire, task, late, silent) = (FireId(id(r.get(0)?)), r.get(1)?, r.get(2)?, r.get(3)?);
        Ok(CausingFire { fire, task, late, silent, failed_before: r.get(4)? })
    });
    Ok(row.optional()?)
}

/// The oldest fire that waits for the lane, and the chat of its task.
pub(super) fn waiting(c: &Connection, lane: &Lane) -> Result<Option<(FireId, ChatId)>> {
    let sql = "SELECT f.id, t.chat FROM fire f INDEXED BY fire_waits CROSS JOIN task t ON t.id = f.task
               WHERE f.state IN ('later', 'due') AND f.state = 'due' AND t.grp = ?1 AND t.remind = 0
                 AND CASE WHEN ?2 IS NULL THEN t.isolated = 0 ELSE t.isolated = 1 AND t.id = ?2 END
               ORDER BY f.not_before, f.id LIMIT 1";
    let task = lane.task_id().map(|task| int(task.0));
    let row = c.prepare_cached(sql)?.query_row(params![lane.group.as_str(), task], |r| {
        Ok((FireId(id(r.get(0)?)), r.get::<_, String>(1)?))
    });
    row.optional()?.map(|(fire, chat)| Ok((fire, parse("task.chat", &chat)?))).transpose()
}

/// Notes that a fire has opened a turn.
pub(super) fn opened(c: &Connection, fire: FireId, turn: TurnId, now: WallMs) -> Result<()> {
    let sql = "UPDATE fire SET state = 'open', turn = ?2, started_at = ?3 WHERE id = ?1 AND state = 'due'";
    if c.prepare_cached(sql)?.execute(params![int(fire.0), int(turn.0), now.0])? != 1 {
        return Err(StoreError::Rule(format!("{fire} is not due")));
    }
    let sql = "UPDATE turn SET fire = ?2, opened_after = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0)
               WHERE id = ?1";
    c.prepare_cached(sql)?.execute([int(turn.0), int(fire.0)])?;
    Ok(())
}

/// Gives a fire its outcome. A fire has one.
pub(super) fn end(c: &Connection, fire: FireId, outcome: &FireOutcome, now: WallMs) -> Result<()> {
    let sql = "UPDATE fire SET state = 'ended', outcome = ?2, why = ?3, ended_at = ?4 WHERE id = ?1 AND outcome IS NULL";
    let changed =
        c.prepare_cached(sql)?.execute(params![int(fire.0), outcome.word(), outcome.why(), now.0])?;
    if changed != 1 {
        return Err(StoreError::Rule(format!("{fire} has an outcome")));
    }
    Ok(())
}

/// The fire of an open turn, if `run` has not got it.
pub(super) fn ungiven(c: &Connection, turn: TurnId, run: &str) -> Result<Option<FireInput>> {
    let sql = "SELECT f.id, f.task, f.planned, f.late FROM turn u JOIN fire f ON f.id = u.fire
               WHERE u.id = ?1 AND f.run IS NOT ?2";
    let row = c.prepare_cached(sql)?.query_row(params![int(turn.0), run], |r| {
        Ok((FireId(id(r.get(0)?)), TaskId(id(r.get(1)?)), WallMs(r.get(2)?), r.get(3)?))
    });
    let Some((fire, task, planned, late)) = row.optional()? else { return Ok(None) };
    let task = tasks::by_id(c, task)?.ok_or_else(|| StoreError::Rule(format!("{fire} has no task")))?;
    Ok(Some(FireInput { fire, task, planned, late }))
}

/// Notes that a letter has carried the fire to a run.
pub(super) fn given(c: &Connection, fire: FireId, run: &str) -> Result<()> {
    c.prepare_cached("UPDATE fire SET run = ?2 WHERE id = ?1")?.execute(params![int(fire.0), run])?;
    Ok(())
}
