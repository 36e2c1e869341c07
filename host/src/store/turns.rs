//! Turns as rows. `crate::turns` decides what becomes of a turn; this file loads what it decides by, and applies what
//! it wants, in the transaction of the caller.

use ipc_schema::letters::to_agent::InterruptWhy;
use ipc_schema::requests::Answer;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::letters_to_agent::store_verdict;
use super::{Result, Store, StoreError, fires, id, int, outbox, parse, tool_rules};
use crate::domain::ending::TurnEnd;
use crate::domain::message::Command;
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChatId, Lane, MessageSeq, TurnId, WallMs};
use crate::text::Reader;
use crate::turns::{
    Cause, Change, Collected, Details, Event, Need, OpenTurn, QuestionEnd, Reading, TurnMessage, View, Wait,
    decide, verdict_on,
};

/// The lane's open turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTurnRow {
    pub turn: TurnId,
    pub lane: Lane,
    pub chat: ChatId,
    /// Which attempt the next (or running) run is.
    pub attempt: u32,
    /// When it was opened.
    pub opened_at: WallMs,
}

impl Store {
    /// The lane's open turn.
    pub async fn open_turn(&self, lane: Lane) -> Result<Option<OpenTurnRow>> {
        self.read(move |c| open_of_lane(c, &lane)).await
    }

    /// At a start: opens a turn for every lane where somebody waits and none is open. The host itself leaves none
    /// behind; a chat that moved to another group takes its waiting messages along.
    pub async fn open_forgotten(&self, now: WallMs) -> Result<()> {
        self.write(move |c| {
            let sql =
                "SELECT DISTINCT h.grp FROM message m INDEXED BY message_wakes JOIN chat h ON h.id = m.chat
                       WHERE m.role = 'wake' AND m.state = 'waiting'";
            let mut rows = c.prepare(sql)?;
            let groups = rows.query_map([], |r| r.get::<_, String>(0))?;
            for group in groups {
                let lane = Lane::conversation(parse("chat.grp", &group?)?);
                happen(c, &lane, &Event::Started, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Every open turn: at boot each is a lane that wants a run.
    pub async fn open_turns(&self) -> Result<Vec<OpenTurnRow>> {
        self.read(|c| {
            let mut rows =
                c.prepare(&format!("{OPEN} INDEXED BY turn_open WHERE state = 'open' ORDER BY id"))?;
            let rows = rows.query_map([], open_row)?;
            rows.map(|row| checked_open(row?)).collect()
        })
        .await
    }

    /// Whether a `/stop` means the lane's open turn.
    pub async fn is_meant(&self, lane: Lane, order: MessageSeq) -> Result<bool> {
        self.read(move |c| Ok(view(c, &lane, &Event::Stop { order })?.is_meant_by(order))).await
    }

    /// Tells the lane's turn of a `/stop` that a box is told of. Whether the order means the open turn.
    pub async fn stop(&self, lane: Lane, order: MessageSeq, now: WallMs) -> Result<bool> {
        self.write(move |c| {
            let event = Event::Stop { order };
            let view = view(c, &lane, &event)?;
            apply(c, &lane, &decide(&view, &event), now)?;
            Ok(view.is_meant_by(order))
        })
        .await
    }

    /// Ends the lane's open turn without a letter of its box. Returns the turn that wants a run now.
    pub async fn end_turn(
        &self,
        lane: Lane,
        why: InterruptWhy,
        order: Option<MessageSeq>,
        now: WallMs,
    ) -> Result<Option<TurnId>> {
        self.write(move |c| {
            let changes = happen(c, &lane, &Event::Interrupt { why, order }, now)?;
            Ok(Collected::of(&changes).next())
        })
        .await
    }

    /// Says something in the chat of the lane's open turn, once per `word`.
    pub async fn tell_open_turn(
        &self,
        lane: Lane,
        word: &'static str,
        notice: String,
        now: WallMs,
    ) -> Result<()> {
        self.write(move |c| match open_of_lane(c, &lane)? {
            None => Ok(()),
            // Nobody waits for the turn of a fire.
            Some(open) if fires::causing(c, open.turn)?.is_some() => Ok(()),
            Some(open) => {
                outbox::say(c, Some(open.turn), &OutgoingText::notice(&open.chat, word, notice), now)
            }
        })
        .await
    }
}

/// How many context messages the end of a turn closes at once. More than a turn is given.
const CLOSED_AT_ONCE: u32 = 500;

const OPEN: &str = "SELECT id, lane, chat, attempt, opened_at FROM turn";

type RawOpen = (i64, String, String, u32, i64);

fn open_row(r: &Row<'_>) -> rusqlite::Result<RawOpen> {
    Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
}

fn checked_open((turn, lane, chat, attempt, opened): RawOpen) -> Result<OpenTurnRow> {
    Ok(OpenTurnRow {
        turn: TurnId(id(turn)),
        lane: parse("turn.lane", &lane)?,
        chat: parse("turn.chat", &chat)?,
        attempt,
        opened_at: WallMs(opened),
    })
}

pub(super) fn open_of_lane(c: &Connection, lane: &Lane) -> Result<Option<OpenTurnRow>> {
    let sql = format!("{OPEN} WHERE lane = ?1 AND state = 'open'");
    c.query_row(&sql, [lane.to_string()], open_row).optional()?.map(checked_open).transpose()
}

/// Lets an event happen to a lane. Returns what was done.
pub(super) fn happen(c: &Connection, lane: &Lane, event: &Event<'_>, now: WallMs) -> Result<Vec<Change>> {
    let changes = decide(&view(c, lane, event)?, event);
    apply(c, lane, &changes, now)?;
    Ok(changes)
}

/// What the decision about an event must know.
pub(super) fn view(c: &Connection, lane: &Lane, event: &Event<'_>) -> Result<View> {
    let sql = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'turn'), 0) + 1";
    let next_turn = TurnId(id(one(c, sql, [])?));
    let open = open_turn_of(c, lane)?;
    let mut details = Details::default();
    for need in event.needs(open.as_ref()) {
        load(c, lane, event, open.as_ref(), *need, &mut details)?;
    }
    Ok(View { next_turn, open, reader: Reader::of(&lane.group), details })
}

/// The lane's open turn, and what it waits for.
pub(super) fn open_turn_of(c: &Connection, lane: &Lane) -> Result<Option<OpenTurn>> {
    let Some(row) = open_of_lane(c, lane)? else { return Ok(None) };
    let OpenTurnRow { turn, chat, attempt, opened_at, .. } = row;
    let fire = fires::causing(c, turn)?;
    let sql = "SELECT request, expires_at FROM question WHERE turn = ?1 AND state = 'open' ORDER BY id";
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows.query_map([int(turn.0)], |r| Ok((r.get::<_, String>(0)?, r.get(1)?)))?;
    let waits = rows.map(|row| {
        let (request, until) = row?;
        Ok(Wait::Answer { request: parse("question.request", &request)?, until: WallMs(until) })
    });
    let waits = waits.collect::<Result<_>>()?;
    let sql = "SELECT count(*) FROM run WHERE lane = ?1 AND state <> 'ended'";
    let has_run = one(c, sql, [lane.to_string()])? > 0;
    Ok(Some(OpenTurn { turn, chat, attempt, opened_at, waits, fire, has_run }))
}

fn load(
    c: &Connection,
    lane: &Lane,
    event: &Event<'_>,
    open: Option<&OpenTurn>,
    need: Need,
    details: &mut Details,
) -> Result<()> {
    match (need, open) {
        (Need::Waiting, _) => {
            // The oldest of each chat, and of these the oldest.
            let sql = "SELECT m.seq, h.id FROM chat h CROSS JOIN message m ON m.seq =
                         (SELECT min(seq) FROM message WHERE chat = h.id AND role = 'wake' AND state = 'waiting')
                       WHERE h.grp = ?1 ORDER BY m.seq LIMIT 1";
            let row = c
                .prepare_cached(sql)?
                .query_row([lane.group.as_str()], |r| Ok((r.get(0)?, r.get::<_, String>(1)?)))
                .optional()?;
            details.waiting = match row.filter(|_| lane.task_id().is_none()) {
                Some((seq, chat)) => Some((MessageSeq(id(seq)), parse("message.chat", &chat)?)),
                None => None,
            };
            details.waiting_fire = fires::waiting(c, lane)?;
        }
        (Need::Session, _) => {
            let sql = "SELECT session FROM grp WHERE name = ?1";
            details.session = id(one(c, sql, [lane.group.as_str()])?);
        }
        (_, None) => {}
        (Need::LastStop, Some(open)) => details.last_stop = last_stop(c, lane, open.turn)?,
        (Need::Messages, Some(open)) => {
            details.messages = match event {
                Event::Done { run, ack, .. } | Event::EndRefused { run, ack } => {
                    let sql = "SELECT m.seq, m.returned,
                                 CASE (SELECT g.n <= ?3 FROM given g WHERE g.run = ?2 AND g.seq = m.seq)
                                   WHEN 1 THEN 2 WHEN 0 THEN 1 ELSE 0 END
                               FROM message m WHERE m.turn = ?1 AND m.state = 'in_turn' ORDER BY m.seq";
                    messages(c, sql, params![int(open.turn.0), run.as_str(), int(*ack)])?
                }
                _ => {
                    let sql = "SELECT m.seq, m.returned,
                                 (SELECT coalesce(max(1 + (g.n <= r.ack)), 0) FROM given g CROSS JOIN run r
                                  WHERE g.seq = m.seq AND r.id = g.run)
                               FROM message m WHERE m.turn = ?1 AND m.state = 'in_turn' ORDER BY m.seq";
                    messages(c, sql, params![int(open.turn.0)])?
                }
            };
            let sql = "SELECT CASE WHEN t.fire IS NULL
                         THEN (SELECT min(seq) FROM message WHERE turn = t.id AND role = 'wake')
                         ELSE t.opened_after END FROM turn t WHERE t.id = ?1";
            let first: Option<i64> = c.prepare_cached(sql)?.query_row([int(open.turn.0)], |r| r.get(0))?;
            details.first = first.map(|seq| MessageSeq(id(seq)));
            let sql = "SELECT count(*) FROM chat WHERE id = ?1 AND grp <> ?2";
            details.moved = one(c, sql, params![open.chat.as_str(), lane.group.as_str()])? > 0;
        }
        (Need::Silent, Some(open)) => {
            // A reaction is an answer.
            let sql = "SELECT count(*) FROM chat WHERE id = ?1 AND kind = 'direct'
                         AND NOT EXISTS (SELECT 1 FROM outbox WHERE turn = ?2)
                         AND NOT EXISTS (SELECT 1 FROM request WHERE turn = ?2 AND kind = 'react'
                                         AND json_extract(verdict, '$.outcome') = 'ok')";
            details.silent = one(c, sql, params![open.chat.as_str(), int(open.turn.0)])? > 0;
        }
        (Need::FailedStarts, Some(open)) => {
            let sql =
                "SELECT count(*) FROM run WHERE lane = ?1 AND ending = 'never_started' AND created_at >= ?2";
            let starts = one(c, sql, params![lane.to_string(), open.opened_at.0])?;
            details.failed_starts = u32::try_from(starts).unwrap_or(u32::MAX);
        }
    }
    Ok(())
}

fn messages(c: &Connection, sql: &str, params: impl Params) -> Result<Vec<TurnMessage>> {
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows.query_map(params, |r| {
        let reading = match r.get::<_, i64>(2)? {
            0 => Reading::Ungiven,
            1 => Reading::Given,
            _ => Reading::Acknowledged,
        };
        Ok(TurnMessage { seq: MessageSeq(id(r.get(0)?)), reading, returned: r.get(1)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The newest `/stop` of a lane's people since the turn's first message, whichever chat of the group it was written in.
fn last_stop(c: &Connection, lane: &Lane, turn: TurnId) -> Result<Option<(MessageSeq, WallMs)>> {
    let sql =
        "SELECT m.seq, m.text, m.stored_at FROM chat h CROSS JOIN message m INDEXED BY message_command ON m.chat = h.id
               WHERE h.grp = ?1 AND m.role = 'command'
                 AND m.seq > (SELECT coalesce((SELECT min(seq) FROM message WHERE turn = ?2), t.opened_after)
                              FROM turn t WHERE t.id = ?2)
               ORDER BY m.seq DESC";
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows.query_map(params![lane.group.as_str(), int(turn.0)], |r| {
        Ok((r.get(0)?, r.get::<_, String>(1)?, WallMs(r.get(2)?)))
    })?;
    for row in rows {
        let (seq, text, at) = row?;
        if Command::of(&text) == Some(Command::Stop) {
            return Ok(Some((MessageSeq(id(seq)), at)));
        }
    }
    Ok(None)
}

fn one(c: &Connection, sql: &str, params: impl Params) -> Result<i64> {
    Ok(c.prepare_cached(sql)?.query_row(params, |r| r.get(0))?)
}

fn execute(c: &Connection, sql: &str, params: impl Params) -> Result<usize> {
    Ok(c.prepare_cached(sql)?.execute(params)?)
}

/// Does what was decided.
pub(super) fn apply(c: &Connection, lane: &Lane, changes: &[Change], now: WallMs) -> Result<()> {
    changes.iter().try_for_each(|change| apply_one(c, lane, change, now))
}

fn apply_one(c: &Connection, lane: &Lane, change: &Change, now: WallMs) -> Result<()> {
    match change {
        Change::Open { turn, chat, cause } => return open(c, lane, *turn, chat, *cause, now),
        Change::End { turn, end } => return close(c, *turn, end, now),
        Change::EndQuestion(question) => return end_question(c, question, now),
        Change::AllowAlways { tool, command, by } => {
            return tool_rules::add(c, &lane.group, tool, command.as_deref(), by, now);
        }
        Change::EndFire { fire, outcome } => return fires::end(c, *fire, outcome, now),
        Change::KeepAnswer { fire, text } => {
            execute(c, "UPDATE fire SET said = ?2 WHERE id = ?1", params![int(fire.0), text])?
        }
        Change::Say { turn, outgoing } => return outbox::say(c, *turn, outgoing, now),
        // What a lane waits for follows from its rows: its open turn, its questions, its runs.
        Change::Resume { .. } | Change::Suspend { .. } => 0,
        Change::Join { message, turn } => {
            let sql = "UPDATE message SET state = 'in_turn', turn = ?2 WHERE seq = ?1";
            execute(c, sql, [int(message.0), int(turn.0)])?
        }
        Change::GiveBack { messages } => {
            each(c, "UPDATE message SET state = 'waiting', turn = NULL WHERE seq = ?1", messages)?
        }
        Change::CountReturn { messages } => {
            each(c, "UPDATE message SET returned = returned + 1 WHERE seq = ?1", messages)?
        }
        Change::Ungive { run, ack } => {
            execute(c, "DELETE FROM given WHERE run = ?1 AND n > ?2", params![run.as_str(), int(*ack)])?
        }
        Change::Finish { message, outcome } => {
            let sql = "UPDATE message SET state = 'done', outcome = ?2 WHERE seq = ?1";
            execute(c, sql, params![int(message.0), outcome])?
        }
        Change::Replace { message, by } => {
            let sql = "UPDATE message SET state = 'done', turn = NULL, outcome = 'replaced by m-' || ?2 WHERE seq = ?1";
            execute(c, sql, [int(message.0), int(by.0)])?
        }
        Change::CountAttempts { turn, cost } => {
            let sql = "UPDATE turn SET attempt = attempt + ?2 WHERE id = ?1";
            execute(c, sql, params![int(turn.0), cost])?
        }
        Change::TakeLateAnswer { question } => {
            let sql = "UPDATE question SET state = 'late', ended_at = ?2 WHERE id = ?1";
            execute(c, sql, [*question, now.0])?
        }
        Change::BeginSession { number, order } => {
            let group = lane.group.as_str();
            let sql = "UPDATE chat SET heard = max(heard, ?2) WHERE grp = ?1";
            execute(c, sql, params![group, int(order.0)])?;
            execute(c, "UPDATE grp SET session = ?2 WHERE name = ?1", params![group, int(*number)])?
        }
    };
    Ok(())
}

fn each(c: &Connection, sql: &str, messages: &[MessageSeq]) -> Result<usize> {
    let mut statement = c.prepare_cached(sql)?;
    messages.iter().try_fold(0, |done, seq| Ok(done + statement.execute([int(seq.0)])?))
}

fn open(c: &Connection, lane: &Lane, turn: TurnId, chat: &ChatId, cause: Cause, now: WallMs) -> Result<()> {
    let sql = "INSERT INTO turn(id, grp, lane, chat, state, opened_at) VALUES (?1, ?2, ?3, ?4, 'open', ?5)";
    let group = lane.group.as_str();
    execute(c, sql, params![int(turn.0), group, lane.to_string(), chat.as_str(), now.0])?;
    match cause {
        Cause::Messages => {
            let sql = "UPDATE message SET state = 'in_turn', turn = ?2
                       WHERE chat = ?1 AND role = 'wake' AND state = 'waiting'";
            execute(c, sql, params![chat.as_str(), int(turn.0)])?;
        }
        Cause::Task(fire) => fires::opened(c, fire, turn, now)?,
    }
    Ok(())
}

fn close(c: &Connection, turn: TurnId, end: &TurnEnd, now: WallMs) -> Result<()> {
    let sql = "UPDATE turn SET state = ?2, why = ?3, closed_at = ?4 WHERE id = ?1 AND state = 'open'";
    if execute(c, sql, params![int(turn.0), end.state, end.why, now.0])? != 1 {
        return Err(StoreError::Rule(format!("{turn} is not open")));
    }
    let sql = "UPDATE question SET state = 'over', ended_at = ?2 WHERE turn = ?1 AND state = 'open'";
    execute(c, sql, [int(turn.0), now.0])?;
    outbox::withdraw_questions(c, turn)?;
    // Context older than the newest answered message was given, or left out for good and counted. One number says so,
    // and the newest rows, which may have been given. The nightly work closes the rest in small steps.
    let newest = "SELECT coalesce(max(seq), 0) FROM message WHERE turn = ?1 AND state = 'in_turn'";
    let newest = one(c, newest, [int(turn.0)])?;
    let sql = "UPDATE message SET state = 'done', turn = coalesce(turn, ?1) WHERE seq IN
                 (SELECT m.seq FROM turn t CROSS JOIN chat h ON h.id = t.chat
                  CROSS JOIN message m INDEXED BY message_context ON m.chat = h.id AND m.seq > h.heard AND m.seq < ?2
                  WHERE t.id = ?1 AND m.role = 'context' AND m.state = 'waiting' ORDER BY m.seq DESC LIMIT ?3)";
    execute(c, sql, params![int(turn.0), newest, CLOSED_AT_ONCE])?;
    let sql = "UPDATE chat SET heard = max(heard, ?2) WHERE id = (SELECT chat FROM turn WHERE id = ?1)";
    execute(c, sql, [int(turn.0), newest])?;
    execute(c, "UPDATE message SET state = 'done' WHERE turn = ?1 AND state = 'in_turn'", [int(turn.0)])?;
    Ok(())
}

/// Gives a question its end, and its request the verdict that follows from the answer.
fn end_question(c: &Connection, question: &QuestionEnd, now: WallMs) -> Result<()> {
    let QuestionEnd { turn, request, answer } = question;
    let state = match answer {
        Answer::Answered { .. } => "answered",
        Answer::Pending => "pending",
        Answer::Expired => "expired",
    };
    let sql =
        "UPDATE question SET state = ?3, ended_at = ?4 WHERE turn = ?1 AND request = ?2 AND state = 'open'";
    execute(c, sql, params![int(turn.0), request.as_str(), state, now.0])?;
    let sql = "SELECT permission FROM question WHERE turn = ?1 AND request = ?2";
    let permission = c.prepare_cached(sql)?.query_row(params![int(turn.0), request.as_str()], |r| r.get(0));
    let permission = tool_rules::asked(permission.optional()?.flatten())?;
    if let Some(verdict) = verdict_on(permission.as_ref(), answer) {
        store_verdict(c, *turn, request, &verdict)?;
    }
    Ok(())
}
