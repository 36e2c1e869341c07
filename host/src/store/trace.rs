//! Stages: the steps of a message that `trace`, `status` and the terminal show. Only [`Store::stage`] writes them.

use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::DUE;
use super::undelivered::{self, Held, Unreachable};
use super::{Result, Store, id, int};
use crate::domain::{GroupName, MessageSeq, Moment, RunId, TurnId, WallMs};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageRow {
    pub name: String,
    /// Wall time, for display.
    pub wall: WallMs,
    /// The host's monotonic clock in microseconds, for differences.
    pub mono_us: i64,
    pub run: Option<String>,
}

/// A message with its turn, runs and replies.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageTrace {
    pub seq: MessageSeq,
    pub chat: String,
    pub group: String,
    pub sender: String,
    pub text: String,
    /// Its role: wake, context or command.
    pub role: String,
    pub state: String,
    /// The outcome of a command, or why it was replaced.
    pub outcome: Option<String>,
    /// When it was written, according to the platform.
    pub sent_at: WallMs,
    pub stored_at: WallMs,
    pub stages: Vec<StageRow>,
    pub turn: Option<TurnTrace>,
}

/// A turn and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnTrace {
    pub turn: TurnId,
    /// open, done, failed, stopped.
    pub state: String,
    pub why: Option<String>,
    pub attempt: u32,
    pub stages: Vec<StageRow>,
    /// The runs that were given the message.
    pub runs: Vec<RunTrace>,
    pub outbox: Vec<OutboxTrace>,
    /// Model calls, input and output tokens.
    pub usage: (u64, u64, u64),
}

/// A run in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunTrace {
    pub run: String,
    pub group: String,
    pub ending: Option<String>,
    pub why: Option<String>,
}

/// A part of the outbox in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxTrace {
    pub id: i64,
    pub voice: String,
    pub text: String,
    /// ready, sending, sent, deferred, uncertain, failed, expired.
    pub state: String,
    /// The code for `/resend` and `/drop`, while the part is held.
    pub code: Option<String>,
    /// Copies that may exist on the platform besides the one with the receipt.
    pub uncertain: u64,
    /// Placeholders that may exist there besides the claimed one.
    pub strays: u64,
    /// Attempts to send it.
    pub attempts: u32,
    pub sent_at: Option<WallMs>,
    /// The platform's id for it.
    pub receipt: Option<String>,
    /// The last error from the platform.
    pub error: Option<String>,
}

/// Numbers of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryCount {
    /// Rows that are ready or being sent.
    pub waiting: u64,
    /// Rows that will be tried again.
    pub deferred: u64,
    /// Copies that may exist on a platform besides the intended one.
    pub uncertain: u64,
    /// Empty placeholders that may exist there.
    pub strays: u64,
    /// Rows that failed for good.
    pub failed: u64,
    /// Replies that became too old to send.
    pub expired: u64,
    /// Parts that a person must resend or drop.
    pub held: Vec<Held>,
    /// Chats that cannot be reached.
    pub unreachable: Vec<Unreachable>,
}

/// Numbers of the whole store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    pub messages: u64,
    pub turns: Vec<(String, u64)>,
    /// Runs that have not ended.
    pub runs: Vec<(String, String, String)>,
    pub numbers: Vec<(String, i64)>,
    pub delivery: DeliveryCount,
}

impl Store {
    /// Stores a stage without waiting for it. If that fails, a trace lacks a line, and no message is lost.
    pub fn stage(
        &self,
        turn: Option<TurnId>,
        seq: Option<MessageSeq>,
        run: Option<&RunId>,
        name: &'static str,
        at: Moment,
    ) {
        let store = self.clone();
        let run = run.map(ToString::to_string);
        tokio::spawn(async move {
            let stored = store
                .write(move |c| {
                    let sql = "INSERT INTO stage VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                    let mono = i64::try_from(at.mono.as_micros()).unwrap_or(i64::MAX);
                    let (turn, seq) = (turn.map(|t| int(t.0)), seq.map(|m| int(m.0)));
                    c.execute(sql, params![turn, seq, run, name, at.wall.0, mono])?;
                    Ok(())
                })
                .await;
            if let Err(e) = stored {
                tracing::warn!(code = e.code(), "stage {name} was not stored: {e}");
            }
        });
    }

    pub async fn message_trace(&self, seq: MessageSeq) -> Result<Option<MessageTrace>> {
        self.read(move |c| {
            let sql =
                "SELECT m.chat, h.grp, m.sender_name || ' (' || m.sender || ')', m.text, m.role, m.state,
                              m.outcome, m.sent_at, m.stored_at, m.turn
                       FROM message m JOIN chat h ON h.id = m.chat WHERE m.seq = ?1";
            let row = c
                .query_row(sql, [int(seq.0)], |r| {
                    let turn: Option<i64> = r.get(9)?;
                    let trace = MessageTrace {
                        seq,
                        chat: r.get(0)?,
                        group: r.get(1)?,
                        sender: r.get(2)?,
                        text: r.get(3)?,
                        role: r.get(4)?,
                        state: r.get(5)?,
                        outcome: r.get(6)?,
                        sent_at: WallMs(r.get(7)?),
                        stored_at: WallMs(r.get(8)?),
                        stages: Vec::new(),
                        turn: None,
                    };
                    Ok((trace, turn))
                })
                .optional()?;
            let Some((mut trace, turn)) = row else { return Ok(None) };
            trace.stages = stages(c, "seq", int(seq.0))?;
            trace.turn = turn.map(|t| turn_trace(c, t)).transpose()?;
            Ok(Some(trace))
        })
        .await
    }

    /// The newest messages, for `trace` without an id.
    pub async fn newest_messages(&self, limit: u32) -> Result<Vec<(MessageSeq, String, String, String)>> {
        self.read(move |c| {
            let mut rows =
                c.prepare("SELECT seq, chat, state, text FROM message ORDER BY seq DESC LIMIT ?1")?;
            let rows = rows
                .query_map([limit], |r| Ok((MessageSeq(id(r.get(0)?)), r.get(1)?, r.get(2)?, r.get(3)?)))?;
            Ok(rows.collect::<std::result::Result<_, _>>()?)
        })
        .await
    }

    /// The messages that caused a turn, and the number of the turn's parts. The terminal uses them to decide when to
    /// stop waiting.
    pub async fn turn_messages(&self, turn: TurnId) -> Result<(Vec<MessageSeq>, u64)> {
        self.read(move |c| {
            let mut rows =
                c.prepare("SELECT seq FROM message WHERE turn = ?1 AND role = 'wake' ORDER BY seq")?;
            let rows = rows.query_map([int(turn.0)], |r| Ok(MessageSeq(id(r.get(0)?))))?;
            let seqs = rows.collect::<std::result::Result<_, _>>()?;
            let sql = "SELECT count(*) FROM outbox WHERE turn = ?1";
            let parts: i64 = c.query_row(sql, [int(turn.0)], |r| r.get(0))?;
            Ok((seqs, id(parts)))
        })
        .await
    }

    /// Counts the messages that wait for the group's next turn.
    pub async fn count_waiting(&self, group: &GroupName) -> Result<u64> {
        let group = group.to_string();
        self.read(move |c| {
            let sql = "SELECT count(*) FROM message m JOIN chat h ON h.id = m.chat
                       WHERE h.grp = ?1 AND m.role = 'wake' AND m.state = 'waiting'";
            Ok(id(c.query_row(sql, [group], |r| r.get(0))?))
        })
        .await
    }

    /// Numbers for `status`.
    pub async fn summary(&self) -> Result<Summary> {
        self.read(|c| {
            let count = |sql: &str| c.query_row(sql, [], |r| r.get::<_, i64>(0)).map(id);
            let mut turns = c.prepare("SELECT state, count(*) FROM turn GROUP BY state ORDER BY state")?;
            let turns = turns.query_map([], |r| Ok((r.get(0)?, id(r.get(1)?))))?;
            let mut runs = c.prepare("SELECT id, lane, state FROM run WHERE state <> 'ended' ORDER BY id")?;
            let runs = runs.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            let mut numbers =
                c.prepare("SELECT name, value FROM number WHERE name <> 'uid' ORDER BY name")?;
            let numbers = numbers.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok(Summary {
                messages: count("SELECT count(*) FROM message")?,
                turns: turns.collect::<std::result::Result<_, _>>()?,
                runs: runs.collect::<std::result::Result<_, _>>()?,
                numbers: numbers.collect::<std::result::Result<_, _>>()?,
                delivery: DeliveryCount {
                    waiting: count(&format!(
                        "SELECT count(*) FROM outbox WHERE {DUE} AND state IN ('ready', 'sending')"
                    ))?,
                    deferred: count(&format!(
                        "SELECT count(*) FROM outbox WHERE {DUE} AND state IN ('deferred', 'uncertain') AND code IS NULL"
                    ))?,
                    uncertain: count("SELECT coalesce(sum(uncertain), 0) FROM outbox")?,
                    strays: count("SELECT coalesce(sum(strays), 0) FROM outbox")?,
                    failed: count("SELECT count(*) FROM outbox WHERE state = 'failed'")?,
                    expired: count("SELECT count(*) FROM outbox WHERE state = 'expired'")?,
                    held: undelivered::held(c)?,
                    unreachable: undelivered::all_unreachable(c)?,
                },
            })
        })
        .await
    }
}

fn stages(c: &Connection, column: &str, value: i64) -> Result<Vec<StageRow>> {
    let sql =
        format!("SELECT name, wall, mono_us, run FROM stage WHERE {column} = ?1 ORDER BY wall, mono_us");
    let mut rows = c.prepare(&sql)?;
    let rows = rows.query_map([value], |r| {
        Ok(StageRow { name: r.get(0)?, wall: WallMs(r.get(1)?), mono_us: r.get(2)?, run: r.get(3)? })
    })?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

fn turn_trace(c: &Connection, turn: i64) -> Result<TurnTrace> {
    let sql = "SELECT state, why, attempt FROM turn WHERE id = ?1";
    let (state, why, attempt) = c.query_row(sql, [turn], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    // Every run of the lane that existed while the turn was open, including runs that never started.
    let sql = "SELECT r.id, r.grp, r.ending, r.why FROM run r JOIN turn t ON t.lane = r.lane
               WHERE t.id = ?1 AND r.created_at <= coalesce(t.closed_at, r.created_at)
                 AND coalesce(r.ended_at, t.opened_at) >= t.opened_at ORDER BY r.id";
    let mut runs = c.prepare(sql)?;
    let runs = runs.query_map([turn], |r| {
        Ok(RunTrace { run: r.get(0)?, group: r.get(1)?, ending: r.get(2)?, why: r.get(3)? })
    })?;
    let sql = "SELECT id, voice, trim(text || coalesce(' [file ' || file_name || ']', '')), state, attempts, sent_at, receipt, error, code, uncertain, strays
               FROM outbox WHERE turn = ?1 ORDER BY id";
    let mut said = c.prepare(sql)?;
    let said = said.query_map([turn], |r| {
        Ok(OutboxTrace {
            id: r.get(0)?,
            voice: r.get(1)?,
            text: r.get(2)?,
            state: r.get(3)?,
            attempts: r.get(4)?,
            sent_at: r.get::<_, Option<i64>>(5)?.map(WallMs),
            receipt: r.get(6)?,
            error: r.get(7)?,
            code: r.get(8)?,
            uncertain: id(r.get(9)?),
            strays: id(r.get(10)?),
        })
    })?;
    let sql = "SELECT count(*), coalesce(sum(input + cache_read + cache_write), 0), coalesce(sum(output), 0)
               FROM usage WHERE turn = ?1";
    let usage = c.query_row(sql, [turn], |r| Ok((id(r.get(0)?), id(r.get(1)?), id(r.get(2)?))))?;
    Ok(TurnTrace {
        turn: TurnId(id(turn)),
        state,
        why,
        attempt,
        stages: stages(c, "turn", turn)?,
        runs: runs.collect::<std::result::Result<_, _>>()?,
        outbox: said.collect::<std::result::Result<_, _>>()?,
        usage,
    })
}
