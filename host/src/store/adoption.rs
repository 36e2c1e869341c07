//! What a starting host reads about the runs of the host before it. `daemon` and `run` adopt the containers with it.

use ipc_schema::letters::to_agent::InterruptWhy;
use ipc_schema::names_and_paths::letter_name;
use rusqlite::{Connection, OptionalExtension, params};

use super::letters_to_agent::ToWrite;
use super::turns;
use super::{Result, Store, StoreError, id, int, parse};
use crate::domain::{ChatId, Lane, LetterId, RunId, TurnId};

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    pub run: RunId,
    pub lane: Lane,
    /// The session that its box continues.
    pub session: String,
    /// The digest of its box's agent-runner.
    pub runner: String,
    /// Whether a model was chosen for its group after it began.
    pub model_chosen: bool,
    /// The provider and the model of its `begin`.
    pub began_with: Option<(String, String)>,
    /// The engine's id of its container, if the earlier host has stored it.
    pub container: Option<String>,
    /// Whether the runner has sent `ready`.
    pub ready: bool,
    /// The highest letter number taken from the agent.
    pub taken: u64,
    /// The lane's open turn, if the run knows it: from an input, or from `begin`. A box repeats the letters of a turn
    /// that `begin` names before it gets an input.
    pub turn: Option<(TurnId, ChatId)>,
    /// Whether the run was given an input of that turn.
    pub given: bool,
    /// Why that turn was interrupted, if it was.
    pub interrupted: Option<InterruptWhy>,
}

/// The provider and the model that a `begin` letter names.
fn model_of_begin(letter: &str) -> Option<(String, String)> {
    let letter: serde_json::Value = serde_json::from_str(letter).ok()?;
    let word = |field: &str| letter.pointer(&format!("/body/model/{field}"))?.as_str().map(str::to_owned);
    Some((word("provider")?, word("name")?))
}

/// A request without a verdict: the earlier host died before it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    pub turn: TurnId,
    pub id: LetterId,
    pub body: String,
}

impl Store {
    /// Runs that have not ended. At a start: those that the earlier host left.
    pub async fn unended_runs(&self) -> Result<Vec<RunRow>> {
        self.read(|c| {
            let sql = "SELECT id, lane, container, state = 'live', from_n, session, runner,
                              EXISTS (SELECT 1 FROM model_choice k WHERE k.grp = run.grp AND k.made_at > run.created_at),
                              (SELECT CAST(bytes AS TEXT) FROM to_agent a WHERE a.run = run.id AND a.n = 1)
                       FROM run INDEXED BY run_live WHERE state <> 'ended' ORDER BY id";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| {
                let (run, lane): (String, String) = (r.get(0)?, r.get(1)?);
                let begin: Option<String> = r.get(8)?;
                let rest = (r.get::<_, i64>(4)?, r.get(5)?, r.get(6)?, r.get(7)?);
                Ok((run, lane, r.get(2)?, r.get(3)?, rest, begin))
            })?;
            rows.map(|row| {
                let (run, lane, container, ready, (from_n, session, runner, model_chosen), begin) = row?;
                let (run, lane): (RunId, Lane) = (parse("run.id", &run)?, parse("run.lane", &lane)?);
                let turn = known_turn(c, &run, &lane)?;
                let given = turn.as_ref().is_some_and(|(_, _, given)| *given);
                let turn = turn.map(|(turn, chat, _)| (turn, chat));
                let interrupted = match &turn {
                    Some((turn, _)) => interrupted(c, &run, *turn)?,
                    None => None,
                };
                Ok(RunRow {
                    run,
                    lane,
                    session,
                    runner,
                    model_chosen,
                    began_with: begin.as_deref().and_then(model_of_begin),
                    container,
                    ready,
                    taken: id(from_n),
                    turn,
                    given,
                    interrupted,
                })
            })
            .collect()
        })
        .await
    }

    /// Letters that the agent has not acknowledged. The earlier host may have died before it wrote the file of the
    /// last.
    pub async fn unacknowledged(&self, run: RunId) -> Result<Vec<ToWrite>> {
        self.read(move |c| {
            let sql = "SELECT n, kind, bytes FROM to_agent WHERE run = ?1
                       AND n > (SELECT ack FROM run WHERE id = ?1) ORDER BY n";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([run.as_str()], |r| {
                Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?, r.get::<_, Vec<u8>>(2)?))
            })?;
            rows.map(|row| {
                let (n, kind, bytes) = row?;
                Ok(ToWrite { n: id(n), name: letter_name(id(n), &kind), bytes })
            })
            .collect()
        })
        .await
    }

    /// Requests of the run's open turn that have no verdict.
    pub async fn open_requests(&self, run: RunId) -> Result<Vec<OpenRequest>> {
        self.read(move |c| {
            let sql = "SELECT q.turn, q.id, q.body FROM turn t INDEXED BY turn_open CROSS JOIN request q ON q.turn = t.id
                       WHERE q.verdict IS NULL AND t.state = 'open'
                         AND EXISTS (SELECT 1 FROM consumed k WHERE k.run = ?1 AND k.turn = q.turn AND k.id = q.id)
                       ORDER BY q.at, q.id";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([run.as_str()], |r| {
                Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?))
            })?;
            rows.map(|row| {
                let (turn, letter, body) = row?;
                Ok(OpenRequest { turn: TurnId(id(turn)), id: parse("request.id", &letter)?, body })
            })
            .collect()
        })
        .await
    }
}

/// The lane's open turn, if the run knows it, and whether it was given an input of it.
fn known_turn(c: &Connection, run: &RunId, lane: &Lane) -> Result<Option<(TurnId, ChatId, bool)>> {
    let Some(open) = turns::open_of_lane(c, lane)? else { return Ok(None) };
    let sql = "SELECT count(*) FROM to_agent WHERE run = ?1 AND turn = ?2 AND kind = 'input'";
    let given = c.query_row(sql, params![run.as_str(), int(open.turn.0)], |r| r.get::<_, i64>(0))? > 0;
    let sql = "SELECT bytes FROM to_agent WHERE run = ?1 AND n = 1 AND kind = 'begin'";
    let begin: Option<Vec<u8>> = c.query_row(sql, [run.as_str()], |r| r.get(0)).optional()?;
    let begin = begin.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let named = begin.is_some_and(|begin| begin["body"]["open"]["turn"] == open.turn.to_string());
    Ok((given || named).then_some((open.turn, open.chat, given)))
}

fn interrupted(c: &Connection, run: &RunId, turn: TurnId) -> Result<Option<InterruptWhy>> {
    let sql = "SELECT json_extract(CAST(bytes AS TEXT), '$.body.why') FROM to_agent
               WHERE run = ?1 AND turn = ?2 AND kind = 'interrupt' ORDER BY n DESC LIMIT 1";
    let why: Option<String> =
        c.query_row(sql, params![run.as_str(), int(turn.0)], |r| r.get(0)).optional()?;
    why.map(|why| {
        serde_json::from_value(serde_json::Value::String(why))
            .map_err(|e| StoreError::Row { what: "to_agent.why".into(), why: e.to_string() })
    })
    .transpose()
}
