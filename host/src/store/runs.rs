//! Runs. A letter to the agent gets its row here before its file.

use ipc_schema::Refusal;
use rusqlite::params;

use super::letters_to_agent::{ToWrite, next_letter};
use super::turns::{self};
use super::{Result, Store, id};
use crate::domain::{Ending, Lane, RunId, TurnId, WallMs};
use crate::turns::{Collected, Event};

/// A run whose box the host is about to make.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub run: RunId,
    pub lane: Lane,
    pub session: String,
    pub image: String,
    /// The digest of the box's agent-runner.
    pub runner: String,
    pub now: WallMs,
}

impl Store {
    /// Stores the run's row. The database also enforces that a lane has at most one run that has not ended.
    pub async fn new_run(&self, new: NewRun) -> Result<()> {
        self.write(move |c| {
            failpoint!("store.new_run.begin", super::injected);
            let sql = "INSERT INTO run(id, grp, lane, state, session, image, runner, created_at)
                       VALUES (?1, ?2, ?3, 'starting', ?4, ?5, ?6, ?7)";
            let NewRun { run, lane, session, image, runner, now } = new;
            c.execute(
                sql,
                params![run.as_str(), lane.group.as_str(), lane.to_string(), session, image, runner, now.0],
            )?;
            Ok(())
        })
        .await?;
        failpoint!("store.new_run.committed");
        Ok(())
    }

    /// Stores the engine's id of the box.
    pub async fn run_container(&self, run: RunId, container: String) -> Result<()> {
        self.write(move |c| {
            c.execute("UPDATE run SET container = ?2 WHERE id = ?1", params![run.as_str(), container])?;
            Ok(())
        })
        .await
    }

    /// Stores the next letter to an agent. Its row is stored before its file is written.
    pub async fn add_letter<F>(
        &self,
        run: RunId,
        turn: Option<TurnId>,
        kind: &'static str,
        now: WallMs,
        build: F,
    ) -> Result<ToWrite>
    where
        F: FnOnce(u64) -> std::result::Result<Vec<u8>, Refusal> + Send + 'static,
    {
        let letter = self
            .write(move |c| {
                failpoint!("store.letter.begin", super::injected);
                next_letter(c, &run, turn, kind, now, build)
            })
            .await?;
        failpoint!("store.letter.committed");
        Ok(letter)
    }

    /// The highest number that was written to the agent. `_close` contains it.
    pub async fn highest_written(&self, run: RunId) -> Result<u64> {
        self.read(move |c| {
            Ok(id(c.query_row("SELECT to_n FROM run WHERE id = ?1", [run.as_str()], |r| r.get(0))?))
        })
        .await
    }

    /// Ends a run, once, and decides what follows for its lane. It also accepts a run that failed before it had a row,
    /// because otherwise its lane would wait for ever.
    pub async fn collect(&self, run: RunId, lane: Lane, ending: Ending, now: WallMs) -> Result<Collected> {
        let collected = self
            .write(move |c| {
                failpoint!("store.collect.begin", super::injected);
                let sql = "UPDATE run SET state = 'ended', ended_at = ?2, ending = ?3, why = ?4
                       WHERE id = ?1 AND state <> 'ended'";
                let ended =
                    c.execute(sql, params![run.as_str(), now.0, ending.word(), ending.to_string()])?;
                let known = "SELECT count(*) FROM run WHERE id = ?1";
                let known: i64 = c.query_row(known, [run.as_str()], |r| r.get(0))?;
                if ended == 0 && known > 0 {
                    return Ok(Collected::Idle);
                }
                let changes = turns::happen(c, &lane, &Event::RunEnded { ending: &ending, now }, now)?;
                Ok(Collected::of(&changes))
            })
            .await?;
        failpoint!("store.collect.committed");
        Ok(collected)
    }
}
