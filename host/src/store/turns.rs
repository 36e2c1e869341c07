//! Turns: opened by a wake, given to a run as letters, closed with their replies.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::attachments::{self, Waiting};
use super::groups::chat_facts;
use super::letters::{ToWrite, next_letter};
use super::{Result, Store, StoreError, agent_questions, id, int, outbox, parse};
use crate::domain::limits::ContextLimits;
use crate::domain::message::{Command, StoredMessage};
use crate::domain::outbound::OutgoingText;
use crate::domain::run::TurnEnd;
use crate::domain::{ChatId, ChatKind, Lane, LetterId, MessageSeq, RunId, TurnId, WallMs};
use crate::text;

/// A letter is at most 256 KiB, and context comes on top. The rest of a burst goes into the next letter.
const INPUT_BYTES: usize = 150 * 1024;
/// What context may take of a letter, beside the messages.
const CONTEXT_BYTES: usize = 60 * 1024;
/// How many closed turns `begin` lists.
const CLOSED_LISTED: i64 = 20;

/// So often a message may come back from a box that had it in a letter and did not acknowledge that.
const RETURNS: u32 = 3;

/// The lane's open turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTurnRow {
    /// Its id.
    pub turn: TurnId,
    /// Its lane.
    pub lane: Lane,
    /// Its chat.
    pub chat: ChatId,
    /// Which attempt the next (or running) run is.
    pub attempt: u32,
    /// When it was opened.
    pub opened_at: WallMs,
}

/// What `begin` says about turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginState {
    /// The open turn and the ids of its letters that were consumed.
    pub open: Option<(OpenTurnRow, Vec<LetterId>)>,
    /// The newest closed turns of the lane.
    pub closed: Vec<TurnId>,
}

/// What an input says.
#[derive(Debug, Clone, PartialEq)]
pub struct InputState {
    /// The turn.
    pub turn: TurnId,
    /// Its chat.
    pub chat: ChatId,
    /// What sort of chat.
    pub kind: ChatKind,
    /// The chat's title.
    pub title: String,
    /// Messages this run has not been given, in order.
    pub messages: Vec<StoredMessage>,
    /// Context that was left out.
    pub omitted: u64,
}

/// Whether a letter may wait for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// What belongs together goes together.
    Whole,
    /// It has waited once: messages whose files came meanwhile go with the next letter, or one would wait for ever.
    Spent,
}

/// What came of making an input letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Composed {
    /// There is nothing that the run was not given.
    Nothing,
    /// Its row is stored.
    Letter(TurnId, ChatId, ToWrite),
    /// It would name these files of the turn, and nobody has tried to fetch them.
    Files(TurnId, Vec<Waiting>),
}

impl Store {
    /// What `begin` must say for a lane.
    pub async fn begin_state(&self, lane: Lane) -> Result<BeginState> {
        self.write(move |c| {
            let open = match open_of_lane(c, &lane)? {
                None => None,
                Some(open) => {
                    let sql = "SELECT DISTINCT id FROM consumed WHERE turn = ?1 ORDER BY id";
                    let mut rows = c.prepare(sql)?;
                    let ids = rows.query_map([int(open.turn.0)], |r| r.get::<_, String>(0))?;
                    let ids = ids.map(|i| parse("consumed.id", &i?)).collect::<Result<_>>()?;
                    Some((open, ids))
                }
            };
            let sql = "SELECT id FROM turn WHERE lane = ?1 AND state <> 'open' ORDER BY id DESC LIMIT ?2";
            let mut rows = c.prepare(sql)?;
            let closed = rows.query_map(params![lane.to_string(), CLOSED_LISTED], |r| r.get::<_, i64>(0))?;
            let closed = closed.map(|t| Ok(TurnId(id(t?)))).collect::<Result<_>>()?;
            Ok(BeginState { open, closed })
        })
        .await
    }

    /// Makes the next input letter for a run from what its lane's open turn holds and the run was not given:
    /// a row before it is a file. Call again until there is nothing new.
    pub async fn compose_input<F>(
        &self,
        run: RunId,
        lane: Lane,
        limits: ContextLimits,
        patience: Patience,
        now: WallMs,
        build: F,
    ) -> Result<Composed>
    where
        F: FnOnce(u64, InputState) -> std::result::Result<Vec<u8>, ipc_schema::Refusal> + Send + 'static,
    {
        let composed = self
            .write(move |c| {
                failpoint!("store.input.begin", super::injected);
                let Some(open) = open_of_lane(c, &lane)? else { return Ok(Composed::Nothing) };
                let (mut messages, omitted) = ungiven(c, &run, &open, limits)?;
                if patience == Patience::Spent {
                    attachments::leave_later(&mut messages);
                }
                if !messages.iter().any(|m| m.wakes) {
                    return Ok(Composed::Nothing);
                }
                let files = attachments::waiting(&messages);
                if !files.is_empty() {
                    return Ok(Composed::Files(open.turn, files));
                }
                let (kind, title) = chat_facts(c, &open.chat)?;
                let given: Vec<MessageSeq> = messages.iter().map(|m| m.seq).collect();
                let state =
                    InputState { turn: open.turn, chat: open.chat.clone(), kind, title, messages, omitted };
                let letter = next_letter(c, &run, Some(open.turn), "input", now, |n| build(n, state))?;
                for seq in given {
                    let sql = "INSERT OR IGNORE INTO given(run, seq, n) VALUES (?1, ?2, ?3)";
                    c.execute(sql, params![run.as_str(), int(seq.0), int(letter.n)])?;
                }
                // What they wrote goes before what they were asked.
                agent_questions::pend(c, open.turn, now)?;
                Ok(Composed::Letter(open.turn, open.chat, letter))
            })
            .await?;
        failpoint!("store.input.committed");
        Ok(composed)
    }

    /// The lane's open turn.
    pub async fn open_turn(&self, lane: Lane) -> Result<Option<OpenTurnRow>> {
        self.write(move |c| open_of_lane(c, &lane)).await
    }

    /// Opens a turn for every lane where somebody waits and none is open. None is left behind by what the host does
    /// itself; a chat that moved to another group takes its waiting messages along.
    pub async fn open_forgotten(&self, now: WallMs) -> Result<()> {
        self.write(move |c| {
            let sql = "SELECT DISTINCT h.grp FROM message m JOIN chat h ON h.id = m.chat
                       WHERE m.role = 'wake' AND m.state = 'waiting'";
            let mut rows = c.prepare(sql)?;
            let groups = rows.query_map([], |r| r.get::<_, String>(0))?;
            for group in groups {
                let lane = Lane::conversation(parse("chat.grp", &group?)?);
                if open_of_lane(c, &lane)?.is_none() {
                    next(c, &lane, now)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Every open turn: at boot each is a lane that wants a run.
    pub async fn open_turns(&self) -> Result<Vec<OpenTurnRow>> {
        self.write(|c| {
            let mut rows = c.prepare(&format!("{OPEN} WHERE state = 'open' ORDER BY id"))?;
            let rows = rows.query_map([], open_row)?;
            rows.map(|row| checked_open(row?)).collect()
        })
        .await
    }

    /// Whether the lane's open turn is one that a `/stop` can mean: it holds something that was written before it.
    pub async fn is_meant(&self, lane: Lane, order: MessageSeq) -> Result<bool> {
        self.write(move |c| match open_of_lane(c, &lane)? {
            Some(open) => began_before(c, open.turn, order),
            None => Ok(false),
        })
        .await
    }

    /// What a `/stop` means that a box is told of: whatever the open turn holds of before it, and no box was given,
    /// ends here. Whether the open turn is one that it can mean.
    pub async fn stop(&self, lane: Lane, order: MessageSeq) -> Result<bool> {
        self.write(move |c| {
            let Some(open) = open_of_lane(c, &lane)? else { return Ok(false) };
            if !began_before(c, open.turn, order)? {
                return Ok(false);
            }
            // A turn that no box was given anything of is ended as a whole.
            let sql = "UPDATE message SET state = 'done', outcome = 'stopped before an agent read it'
                       WHERE turn = ?1 AND state = 'in_turn' AND role = 'wake' AND seq < ?2
                         AND seq NOT IN (SELECT seq FROM given)
                         AND EXISTS (SELECT 1 FROM message o JOIN given g ON g.seq = o.seq WHERE o.turn = ?1)";
            c.execute(sql, params![int(open.turn.0), int(order.0)])?;
            Ok(true)
        })
        .await
    }

    /// Closes the lane's open turn from the host's side, without a letter, and says why in its chat. What was written
    /// after `order` is the next turn; a turn that holds nothing else is not what was meant, and stays open. Returns
    /// the turn that wants a run now.
    pub async fn end_turn(
        &self,
        lane: Lane,
        order: Option<MessageSeq>,
        end: TurnEnd,
        notice: String,
        now: WallMs,
    ) -> Result<Option<TurnId>> {
        self.write(move |c| {
            let Some(open) = open_of_lane(c, &lane)? else { return Ok(None) };
            if let Some(order) = order {
                if !began_before(c, open.turn, order)? {
                    return Ok(Some(open.turn));
                }
                let sql = "UPDATE message SET state = 'waiting', turn = NULL
                           WHERE turn = ?1 AND state = 'in_turn' AND seq > ?2";
                c.execute(sql, params![int(open.turn.0), int(order.0)])?;
            }
            outbox::say(c, Some(open.turn), &OutgoingText::notice(&open.chat, "end", notice), now)?;
            close(c, &open, None, &end, now)?;
            next(c, &lane, now)
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
            Some(open) => {
                outbox::say(c, Some(open.turn), &OutgoingText::notice(&open.chat, word, notice), now)
            }
        })
        .await
    }
}

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

/// Opens a turn and takes in every waiting wake of its chat.
pub(super) fn open(c: &Connection, lane: &Lane, chat: &ChatId, now: WallMs) -> Result<TurnId> {
    let sql = "INSERT INTO turn(grp, lane, chat, state, opened_at) VALUES (?1, ?2, ?3, 'open', ?4)";
    c.execute(sql, params![lane.group.as_str(), lane.to_string(), chat.as_str(), now.0])?;
    let turn = c.last_insert_rowid();
    let sql = "UPDATE message SET state = 'in_turn', turn = ?2 WHERE chat = ?1 AND role = 'wake' AND state = 'waiting'";
    c.execute(sql, params![chat.as_str(), turn])?;
    Ok(TurnId(id(turn)))
}

pub(super) fn join(c: &Connection, seq: MessageSeq, turn: TurnId) -> Result<()> {
    let sql = "UPDATE message SET state = 'in_turn', turn = ?2 WHERE seq = ?1";
    c.execute(sql, params![int(seq.0), int(turn.0)])?;
    Ok(())
}

/// Messages of a turn that reached no agent: in no letter, or in one that its run never acknowledged.
const UNREAD: &str = "turn = ?1 AND state = 'in_turn' AND role = 'wake' AND NOT EXISTS
    (SELECT 1 FROM given g JOIN run r ON r.id = g.run WHERE g.seq = message.seq AND g.n <= r.ack)";

/// Whether somebody wrote in the turn what no agent has read.
pub(super) fn has_unread(c: &Connection, turn: TurnId) -> Result<bool> {
    let sql = format!("SELECT count(*) FROM message WHERE {UNREAD}");
    Ok(c.query_row(&sql, [int(turn.0)], |r| r.get::<_, i64>(0))? > 0)
}

/// Lets those wait for the next turn.
pub(super) fn put_back_unread(c: &Connection, turn: TurnId) -> Result<()> {
    c.execute(&format!("UPDATE message SET state = 'waiting', turn = NULL WHERE {UNREAD}"), [int(turn.0)])?;
    Ok(())
}

/// Whether the turn holds something that was written before `order`.
pub(super) fn began_before(c: &Connection, turn: TurnId, order: MessageSeq) -> Result<bool> {
    let sql = "SELECT count(*) FROM message WHERE turn = ?1 AND role = 'wake' AND seq < ?2";
    Ok(c.query_row(sql, params![int(turn.0), int(order.0)], |r| r.get::<_, i64>(0))? > 0)
}

/// Before a turn closes for a box that was killed when it did not obey `/stop`: what was written after that order, and
/// that no agent has acknowledged, is the next turn.
pub(super) fn put_back_later(c: &Connection, open: &OpenTurnRow) -> Result<()> {
    let order = last_stop(c, &open.lane)?.map_or(0, |order| int(order.0));
    c.execute(
        &format!("UPDATE message SET state = 'waiting', turn = NULL WHERE {UNREAD} AND seq > ?2"),
        params![int(open.turn.0), order],
    )?;
    Ok(())
}

/// The newest `/stop` of a lane's people, whichever chat of the group it was written in.
fn last_stop(c: &Connection, lane: &Lane) -> Result<Option<MessageSeq>> {
    let sql = "SELECT m.seq, m.text FROM message m JOIN chat h ON h.id = m.chat
               WHERE h.grp = ?1 AND m.role = 'command' ORDER BY m.seq DESC";
    let mut rows = c.prepare(sql)?;
    let rows =
        rows.query_map([lane.group.as_str()], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?)))?;
    for row in rows {
        let (seq, text) = row?;
        if Command::of(&text) == Some(Command::Stop) {
            return Ok(Some(MessageSeq(id(seq))));
        }
    }
    Ok(None)
}

/// Whether a message that wakes the lane waits beside its open turn.
pub(super) fn others_wait(c: &Connection, lane: &Lane) -> Result<bool> {
    let sql = "SELECT count(*) FROM message m JOIN chat h ON h.id = m.chat
               WHERE h.grp = ?1 AND m.role = 'wake' AND m.state = 'waiting'";
    Ok(c.query_row(sql, [lane.group.as_str()], |r| r.get::<_, i64>(0))? > 0)
}

/// Opens the turn of the lane's oldest waiting message, if there is one.
pub(super) fn next(c: &Connection, lane: &Lane, now: WallMs) -> Result<Option<TurnId>> {
    let sql = "SELECT m.chat FROM message m JOIN chat h ON h.id = m.chat
               WHERE h.grp = ?1 AND m.role = 'wake' AND m.state = 'waiting' ORDER BY m.seq LIMIT 1";
    let chat = c.query_row(sql, [lane.group.as_str()], |r| r.get::<_, String>(0)).optional()?;
    chat.map(|chat| open(c, lane, &parse("message.chat", &chat)?, now)).transpose()
}

/// Closes a turn. With `settled = (run, ack)` the messages that reached that run in letters up to `ack` are
/// answered, and the others wait for the next turn; without, all of them end here.
pub(super) fn close(
    c: &Connection,
    open: &OpenTurnRow,
    settled: Option<(&RunId, u64)>,
    end: &TurnEnd,
    now: WallMs,
) -> Result<()> {
    let turn = int(open.turn.0);
    let sql = "UPDATE turn SET state = ?2, why = ?3, closed_at = ?4 WHERE id = ?1 AND state = 'open'";
    if c.execute(sql, params![turn, end.state, end.why, now.0])? != 1 {
        return Err(StoreError::Rule(format!("{} is not open", open.turn)));
    }
    agent_questions::over(c, open.turn, now)?;
    if let Some((run, ack)) = settled {
        give_back(c, open, run, ack, now)?;
        // The box ignores letters of a turn it has ended: what lay in those was not given after all.
        c.execute("DELETE FROM given WHERE run = ?1 AND n > ?2", params![run.as_str(), int(ack)])?;
    }
    // Context older than the newest answered message was given, or left out for good and counted.
    let sql = "UPDATE message SET state = 'done', turn = coalesce(turn, ?1)
               WHERE chat = ?2 AND role = 'context' AND state = 'waiting'
                 AND seq < (SELECT coalesce(max(seq), 0) FROM message WHERE turn = ?1 AND state = 'in_turn')";
    c.execute(sql, params![turn, open.chat.as_str()])?;
    c.execute("UPDATE message SET state = 'done' WHERE turn = ?1 AND state = 'in_turn'", [turn])?;
    Ok(())
}

/// Lets the messages that a box left unread wait for the next turn. A letter that crosses with the turn's end comes
/// back once and is read by the next turn; what comes back time and again is a box that reads nothing, and would have
/// a turn after the other until somebody looks.
fn give_back(c: &Connection, open: &OpenTurnRow, run: &RunId, ack: u64, now: WallMs) -> Result<()> {
    let turn = int(open.turn.0);
    let given = "seq IN (SELECT seq FROM given WHERE run = ?2 AND n > ?3)";
    let sql = format!(
        "UPDATE message SET returned = returned + 1 WHERE turn = ?1 AND state = 'in_turn' AND role = 'wake' AND {given}"
    );
    c.execute(&sql, params![turn, run.as_str(), int(ack)])?;
    let unread =
        "turn = ?1 AND state = 'in_turn' AND seq NOT IN (SELECT seq FROM given WHERE run = ?2 AND n <= ?3)";
    let sql = format!("SELECT count(*) FROM message WHERE {unread} AND returned >= ?4");
    let lost: u64 =
        c.query_row(&sql, params![turn, run.as_str(), int(ack), RETURNS], |r| Ok(id(r.get(0)?)))?;
    if lost > 0 {
        outbox::say(
            c,
            Some(open.turn),
            &OutgoingText::notice(&open.chat, "unread", text::unread(lost)),
            now,
        )?;
    }
    let sql = format!("UPDATE message SET state = 'waiting', turn = NULL WHERE {unread} AND returned < ?4");
    c.execute(&sql, params![turn, run.as_str(), int(ack), RETURNS])?;
    Ok(())
}

/// The messages of the open turn, and the context before them, that `run` has not been given.
fn ungiven(
    c: &Connection,
    run: &RunId,
    open: &OpenTurnRow,
    limits: ContextLimits,
) -> Result<(Vec<StoredMessage>, u64)> {
    const FIELDS: &str =
        "seq, chat, role, sender, sender_name, owner, text, version, reply_to, attachments, sent_at";
    let sql = format!(
        "SELECT {FIELDS} FROM message m WHERE turn = ?1 AND role = 'wake' AND state = 'in_turn'
           AND NOT EXISTS (SELECT 1 FROM given g WHERE g.run = ?2 AND g.seq = m.seq) ORDER BY seq"
    );
    let mut rows = c.prepare_cached(&sql)?;
    let rows = rows.query_map(params![int(open.turn.0), run.as_str()], stored)?;
    let mut messages = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let message = row??;
        bytes += weight(&message);
        if bytes > INPUT_BYTES && !messages.is_empty() {
            break;
        }
        messages.push(message);
    }
    let Some(newest) = messages.last().map(|m| m.seq) else { return Ok((messages, 0)) };
    let sql = format!(
        "SELECT {FIELDS} FROM message m WHERE chat = ?1 AND role = 'context' AND state = 'waiting' AND seq < ?2
           AND NOT EXISTS (SELECT 1 FROM given g WHERE g.run = ?3 AND g.seq = m.seq) ORDER BY seq DESC"
    );
    let mut rows = c.prepare_cached(&sql)?;
    let rows = rows.query_map(params![open.chat.as_str(), int(newest.0), run.as_str()], stored)?;
    let (mut kept, mut omitted, mut tokens) = (0, 0, 0);
    for row in rows {
        let message = row??;
        tokens += message.text.len() / 4 + 20;
        bytes += weight(&message);
        if kept == limits.messages || tokens > limits.tokens || bytes > INPUT_BYTES + CONTEXT_BYTES {
            omitted += 1;
            continue;
        }
        kept += 1;
        messages.push(message);
    }
    messages.sort_by_key(|m| m.seq);
    Ok((messages, omitted))
}

/// What a message takes in a letter: its texts as JSON, with their escapes, and room for names and punctuation.
fn weight(m: &StoredMessage) -> usize {
    let json = |text: &str| serde_json::to_string(text).map_or(text.len() * 6, |t| t.len());
    let quoted = m.reply_to.as_ref().map_or(0, |r| json(&r.text));
    let files: usize =
        m.attachments.iter().map(|a| 1_000 + json(&a.mime) + a.problem.as_deref().map_or(0, json)).sum();
    json(&m.text) + quoted + files + 1_200
}

fn stored(r: &Row<'_>) -> rusqlite::Result<Result<StoredMessage>> {
    let seq: i64 = r.get(0)?;
    let (chat, role): (String, String) = (r.get(1)?, r.get(2)?);
    let (reply_to, attachments): (Option<String>, String) = (r.get(8)?, r.get(9)?);
    let row = |why: String| StoreError::Row { what: format!("message {seq}"), why };
    let (sender_id, sender_name, owner, text, version, at) =
        (r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?, r.get(7)?, r.get(10)?);
    Ok((|| {
        Ok(StoredMessage {
            seq: MessageSeq(id(seq)),
            chat: parse("message.chat", &chat)?,
            wakes: role == "wake",
            sender_id,
            sender_name,
            owner,
            text,
            version,
            reply_to: reply_to
                .map(|t| serde_json::from_str(&t))
                .transpose()
                .map_err(|e| row(e.to_string()))?,
            attachments: serde_json::from_str(&attachments).map_err(|e| row(e.to_string()))?,
            at: WallMs(at),
        })
    })())
}
