//! Stages: the steps of a message that `trace`, `status` and the terminal show. Only [`Store::stage`] writes them.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store, id, int, outbox};
use crate::domain::{ChatId, MessageSeq, Moment, RunId, TurnId, WallMs};

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

/// How a message has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageEnd {
    pub turn: Option<TurnId>,
    /// The turn's state and reason, or what became of a message without a turn.
    pub how: String,
    pub well: bool,
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
            let sql = "SELECT m.chat, h.grp, m.sender_name || ' (' || m.sender || ')', m.text, m.role,
                              iif(m.role = 'context' AND m.seq <= h.heard, 'done', m.state),
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
            let mut rows = c.prepare(
                "SELECT seq, chat, coalesce((SELECT t.state FROM turn t WHERE t.id = message.turn
                                                   AND t.state IN ('failed', 'stopped')), state), text
                     FROM message ORDER BY seq DESC LIMIT ?1",
            )?;
            let rows = rows
                .query_map([limit], |r| Ok((MessageSeq(id(r.get(0)?)), r.get(1)?, r.get(2)?, r.get(3)?)))?;
            Ok(rows.collect::<std::result::Result<_, _>>()?)
        })
        .await
    }

    /// How a message of a chat has ended; `None` while the chat has something to come of it. Without a message, this
    /// only waits for the chat's parts. The terminal uses it, because not every end of a turn has a letter.
    pub async fn end_of(&self, chat: ChatId, message: Option<MessageSeq>) -> Result<Option<MessageEnd>> {
        self.read(move |c| {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM outbox WHERE chat = ?1 AND {})", outbox::DUE);
            let Some(message) = message else {
                let waits: bool = c.query_row(&sql, [chat.as_str()], |r| r.get(0))?;
                let end = MessageEnd { turn: None, how: "not taken".to_owned(), well: false };
                return Ok(Some(end).filter(|_| !waits));
            };
            // The row is read before the parts: an end is stored together with what it says.
            let row = c
                .query_row(
                    "SELECT m.turn, CASE WHEN t.id IS NULL THEN coalesce(m.outcome, 'kept for a later turn')
                                         ELSE t.state || coalesce(': ' || t.why, '') END,
                            t.id IS NULL OR t.state = 'done'
                     FROM message m LEFT JOIN turn t ON t.id = m.turn
                     WHERE m.seq = ?1 AND (m.state = 'done' OR m.role = 'context') AND t.state IS NOT 'open'",
                    [int(message.0)],
                    |r| Ok((r.get::<_, Option<i64>>(0)?, r.get(1)?, r.get(2)?)),
                )
                .optional()?;
            let waits: bool = c.query_row(&sql, [chat.as_str()], |r| r.get(0))?;
            let end =
                row.map(|(turn, how, well)| MessageEnd { turn: turn.map(|t| TurnId(id(t))), how, well });
            Ok(end.filter(|_| !waits))
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
    // Every run of the lane that existed while the turn was open, including runs that never started. A lane has one
    // run at a time, so the first that ended after the turn is the last that can belong to it.
    let sql = "SELECT r.id, r.grp, r.ending, r.why FROM turn t CROSS JOIN run r INDEXED BY run_lane ON r.lane = t.lane
                 AND r.ended_at BETWEEN t.opened_at AND coalesce(
                   (SELECT min(l.ended_at) FROM run l WHERE l.lane = t.lane AND l.ended_at >= t.closed_at), 9e18)
               WHERE t.id = ?1 AND r.created_at <= coalesce(t.closed_at, r.created_at)
               UNION
               SELECT r.id, r.grp, r.ending, r.why FROM turn t CROSS JOIN run r INDEXED BY run_live ON r.lane = t.lane
               WHERE t.id = ?1 AND r.state <> 'ended' AND r.created_at <= coalesce(t.closed_at, r.created_at)
               ORDER BY 1";
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
