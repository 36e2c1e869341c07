//! Questions that agents ask people, and what becomes of them.
//!
//! A question is open until somebody answers it, time is over, or somebody writes something else; then its request
//! has its verdict. Written past, it can still be answered until its time is over. While it is open and its lane has no
//! run, its turn is *suspended*.

use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::requests::{Answer, AskPerson};
use rusqlite::{Connection, OptionalExtension, params};

use super::groups::{bump, chat_facts};
use super::inbox::{self, Accepted};
use super::letters::{ToWrite, respond};
use super::turns::{self, OpenTurnRow};
use super::{Result, Store, StoreError, id, int, outbox, parse};
use crate::domain::message::{Admitted, Inbound, ReplyTo, Role, Sender};
use crate::domain::outbound::OutgoingText;
use crate::domain::run::TurnEnd;
use crate::domain::{ChatId, Lane, LetterId, MessageSeq, RunId, TurnId, WallMs};

/// Letters and digits that nobody mistakes for another.
const CODE: &[u8; 31] = b"ABCDEFGHJKLMNPQRSTUVWXYZ2345678";
/// The longest code, in characters: there are 887 million of them.
const LONGEST: u32 = 6;
/// How many codes of one length are tried.
const TRIES: u32 = 31;
/// How much of a question a late answer quotes.
const QUOTE: usize = 200;

/// A question as an agent asks it.
#[derive(Debug, Clone)]
pub struct NewQuestion {
    /// Its turn.
    pub turn: TurnId,
    /// Its letter.
    pub request: LetterId,
    /// The chat of the turn.
    pub chat: ChatId,
    /// What is asked.
    pub ask: AskPerson,
    /// When nobody waits for the answer any more.
    pub expires: WallMs,
    /// When.
    pub now: WallMs,
}

/// What an answer led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerTaken {
    /// The turn that waited for it goes on.
    GoesOn(Lane),
    /// Its turn was over: it is a message of its own.
    Late(Accepted),
    /// No question has this code here.
    Unknown,
    /// The command was carried out before.
    Before,
}

/// A suspended turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspended {
    /// Its lane.
    pub lane: Lane,
    /// When its question expires.
    pub until: WallMs,
}

impl Store {
    /// Asks, once: a repeat of the request says nothing again. `say` makes what the chat reads, from the code.
    pub async fn ask<F>(&self, new: NewQuestion, say: F) -> Result<()>
    where
        F: FnOnce(&str) -> Option<OutgoingText> + Send + 'static,
    {
        self.write(move |c| {
            let NewQuestion { turn, request, chat, ask, expires, now } = new;
            let asked = "SELECT count(*) FROM question WHERE turn = ?1 AND request = ?2";
            let asked: i64 = c.query_row(asked, params![int(turn.0), request.as_str()], |r| r.get(0))?;
            if asked > 0 {
                return Ok(());
            }
            let choices = serde_json::to_string(&ask.choices)
                .map_err(|e| StoreError::Rule(format!("choices cannot be written as JSON: {e}")))?;
            lapse(c, now)?;
            let code = free_code(c)?;
            let sql =
                "INSERT INTO question(code, turn, request, chat, text, choices, state, asked_at, expires_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', ?7, ?8)";
            c.execute(
                sql,
                params![
                    code,
                    int(turn.0),
                    request.as_str(),
                    chat.as_str(),
                    ask.question,
                    choices,
                    now.0,
                    expires.0
                ],
            )?;
            match say(&code) {
                Some(outgoing) => outbox::say(c, Some(turn), &outgoing, now),
                None => Ok(()),
            }
        })
        .await
    }

    /// A person's `/answer CODE TEXT`, which is thereby carried out.
    pub async fn answer(&self, command: MessageSeq, now: WallMs) -> Result<AnswerTaken> {
        self.write(move |c| {
            let sql = "SELECT chat, text, sender, sender_name, owner FROM message
                       WHERE seq = ?1 AND role = 'command' AND state = 'waiting'";
            let row = c
                .query_row(sql, [int(command.0)], |r| {
                    let sender = (r.get::<_, String>(2)?, r.get::<_, String>(3)?, r.get::<_, bool>(4)?);
                    Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, sender))
                })
                .optional()?;
            let Some((chat, line, sender)) = row else { return Ok(AnswerTaken::Before) };
            let mut words = line.splitn(3, char::is_whitespace).skip(1);
            let code = words.next().unwrap_or_default().to_uppercase();
            let words = words.next().unwrap_or_default().trim();
            lapse(c, now)?;
            let taken = take_answer(c, &chat, &code, words, sender, now)?;
            if taken != AnswerTaken::Unknown {
                let sql = "UPDATE message SET state = 'done', outcome = 'answered' WHERE seq = ?1";
                c.execute(sql, [int(command.0)])?;
            }
            Ok(taken)
        })
        .await
    }

    /// Ends every question whose time is over. Returns the lanes that go on.
    pub async fn expire_questions(&self, now: WallMs) -> Result<Vec<Lane>> {
        self.write(move |c| {
            lapse(c, now)?;
            let sql = "SELECT q.turn, q.request, t.lane FROM question q JOIN turn t ON t.id = q.turn
                       WHERE q.state = 'open' AND q.expires_at <= ?1";
            let mut rows = c.prepare(sql)?;
            let rows = rows
                .query_map([now.0], |r| Ok((r.get(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?)))?
                .collect::<std::result::Result<Vec<(i64, _, _)>, _>>()?;
            rows.into_iter()
                .map(|(turn, request, lane)| {
                    end(c, turn, &request, "expired", &Answer::Expired, now)?;
                    parse("turn.lane", &lane)
                })
                .collect()
        })
        .await
    }

    /// Turns that wait for a person and have no run.
    pub async fn suspended(&self) -> Result<Vec<Suspended>> {
        self.write(|c| {
            let sql = "SELECT t.lane, min(q.expires_at) FROM turn t JOIN question q ON q.turn = t.id
                       WHERE t.state = 'open' AND q.state = 'open'
                         AND NOT EXISTS (SELECT 1 FROM run r WHERE r.lane = t.lane AND r.state <> 'ended')
                       GROUP BY t.lane";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| Ok((r.get::<_, String>(0)?, WallMs(r.get(1)?))))?;
            rows.map(|row| {
                let (lane, until) = row?;
                Ok(Suspended { lane: parse("turn.lane", &lane)?, until })
            })
            .collect()
        })
        .await
    }

    /// Makes the `response` to every request of the run's open turn that has a verdict and that this run was not told.
    pub async fn untold_verdicts(&self, run: RunId, now: WallMs) -> Result<Vec<ToWrite>> {
        self.write(move |c| {
            let sql = "SELECT q.turn, q.id, q.verdict FROM request q JOIN turn t ON t.id = q.turn
                       WHERE q.verdict IS NOT NULL AND t.state = 'open'
                         AND EXISTS (SELECT 1 FROM consumed k WHERE k.run = ?1 AND k.turn = q.turn AND k.id = q.id)
                         AND NOT EXISTS (SELECT 1 FROM to_agent a
                             WHERE a.run = ?1 AND a.turn = q.turn AND a.kind = 'response'
                               AND json_extract(CAST(a.bytes AS TEXT), '$.body.request') = q.id)
                       ORDER BY q.at, q.id";
            let mut rows = c.prepare_cached(sql)?;
            let rows = rows.query_map([run.as_str()], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            let rows = rows.collect::<std::result::Result<Vec<(i64, String, String)>, _>>()?;
            rows.into_iter()
                .map(|(turn, request, verdict)| {
                    let verdict: Verdict = serde_json::from_str(&verdict)
                        .map_err(|e| StoreError::Row { what: "request.verdict".into(), why: e.to_string() })?;
                    let request = parse("request.id", &request)?;
                    respond(c, &run, TurnId(id(turn)), request, verdict, now)
                })
                .collect()
        })
        .await
    }
}

fn take_answer(
    c: &Connection,
    chat: &str,
    code: &str,
    words: &str,
    (sender, name, owner): (String, String, bool),
    now: WallMs,
) -> Result<AnswerTaken> {
    let sql = "SELECT q.id, q.turn, q.request, q.text, q.choices, q.state, t.lane FROM question q
               JOIN turn t ON t.id = q.turn WHERE q.chat = ?1 AND q.code = ?2 AND q.state IN ('open', 'pending')";
    let row = c
        .query_row(sql, params![chat, code], |r| {
            let ids = (r.get::<_, i64>(0)?, r.get::<_, i64>(1)?, r.get::<_, String>(2)?);
            let said = (r.get::<_, String>(3)?, r.get::<_, String>(4)?);
            Ok((ids, said, r.get::<_, String>(5)?, r.get::<_, String>(6)?))
        })
        .optional()?;
    let Some(((question, turn, request), (asked, choices), state, lane)) = row else {
        return Ok(AnswerTaken::Unknown);
    };
    let choices: Vec<String> = serde_json::from_str(&choices).unwrap_or_default();
    let chosen = words.parse::<usize>().ok().and_then(|n| choices.get(n.checked_sub(1)?));
    let text = chosen.cloned().unwrap_or_else(|| words.to_owned());
    if text.is_empty() {
        return Ok(AnswerTaken::Unknown);
    }
    let lane: Lane = parse("turn.lane", &lane)?;
    if state == "open" {
        let answer = Answer::Answered { text, from: sender, name };
        end(c, turn, &request, "answered", &answer, now)?;
        return Ok(AnswerTaken::GoesOn(lane));
    }
    c.execute("UPDATE question SET state = 'late', ended_at = ?2 WHERE id = ?1", params![question, now.0])?;
    let chat: ChatId = parse("question.chat", chat)?;
    let (kind, title) = chat_facts(c, &chat)?;
    let inbound = Inbound {
        chat,
        kind,
        title,
        message_id: format!("answer:{question}"),
        version: 0,
        sender: Sender { id: parse("message.sender", &sender)?, name, is_bot: false },
        text,
        reply_to: Some(ReplyTo { from: "you".into(), text: asked.chars().take(QUOTE).collect() }),
        attachments: Vec::new(),
        addresses_us: true,
        at: now,
    };
    let admitted = Admitted { group: lane.group, role: Role::Wake, owner, inbound, attachments: Vec::new() };
    Ok(AnswerTaken::Late(inbox::place(c, &admitted, now)?))
}

/// Gives a question its end, and its request the verdict.
fn end(c: &Connection, turn: i64, request: &str, state: &str, answer: &Answer, now: WallMs) -> Result<()> {
    let sql =
        "UPDATE question SET state = ?3, ended_at = ?4 WHERE turn = ?1 AND request = ?2 AND state = 'open'";
    c.execute(sql, params![turn, request, state, now.0])?;
    let json = |e: serde_json::Error| StoreError::Rule(format!("an answer cannot be written as JSON: {e}"));
    let verdict = Verdict::Ok { result: serde_json::to_value(answer).map_err(json)? };
    let verdict = serde_json::to_string(&verdict).map_err(json)?;
    let sql = "UPDATE request SET verdict = ?3 WHERE turn = ?1 AND id = ?2 AND verdict IS NULL";
    c.execute(sql, params![turn, request, verdict])?;
    Ok(())
}

/// When the turn's open question expires, if it has one.
pub(super) fn open_of_turn(c: &Connection, turn: TurnId) -> Result<Option<WallMs>> {
    let sql = "SELECT min(expires_at) FROM question WHERE turn = ?1 AND state = 'open'";
    Ok(c.query_row(sql, [int(turn.0)], |r| r.get::<_, Option<i64>>(0))?.map(WallMs))
}

/// Somebody wrote something else: what was asked in this turn waits no longer.
pub(super) fn pend(c: &Connection, turn: TurnId, now: WallMs) -> Result<()> {
    let mut rows = c.prepare_cached("SELECT request FROM question WHERE turn = ?1 AND state = 'open'")?;
    let requests = rows
        .query_map([int(turn.0)], |r| r.get::<_, String>(0))?
        .collect::<std::result::Result<Vec<_>, _>>()?;
    requests.iter().try_for_each(|request| end(c, int(turn.0), request, "pending", &Answer::Pending, now))
}

/// Also a late answer comes in time, or not at all. The request has its verdict long since.
fn lapse(c: &Connection, now: WallMs) -> Result<()> {
    let sql =
        "UPDATE question SET state = 'expired', ended_at = ?1 WHERE state = 'pending' AND expires_at <= ?1";
    c.execute(sql, [now.0])?;
    Ok(())
}

/// The turn is over: nobody can answer its questions any more.
pub(super) fn over(c: &Connection, turn: TurnId, now: WallMs) -> Result<()> {
    let sql = "UPDATE question SET state = 'over', ended_at = ?2 WHERE turn = ?1 AND state = 'open'";
    c.execute(sql, params![int(turn.0), now.0])?;
    Ok(())
}

/// Ends the lane's turn if it is suspended: somebody wrote, and that is the next turn. Its question can still be
/// answered; the answer is then a message of its own.
pub(super) fn end_suspended(c: &Connection, open: &OpenTurnRow, now: WallMs) -> Result<bool> {
    let sql = "SELECT count(*) FROM run WHERE lane = ?1 AND state <> 'ended'";
    let runs: i64 = c.query_row(sql, [open.lane.to_string()], |r| r.get(0))?;
    if runs > 0 || open_of_turn(c, open.turn)?.is_none() {
        return Ok(false);
    }
    pend(c, open.turn, now)?;
    turns::put_back_unread(c, open.turn)?;
    turns::close(c, open, None, &TurnEnd { state: "done", why: "pending".into() }, now)?;
    Ok(true)
}

/// Two characters, and one more each time that so many in a row are taken: it never looks for long.
fn free_code(c: &Connection) -> Result<String> {
    for length in 2..=LONGEST {
        for _ in 0..TRIES {
            let n = usize::try_from(bump(c, "question", 1)?).unwrap_or(0);
            // 387 shares no factor with 31: the codes come in an order that nobody takes for a count.
            let scrambled = n.wrapping_mul(387);
            let at = |place: u32| CODE.get(scrambled / CODE.len().pow(place) % CODE.len());
            let code: String = (0..length).rev().filter_map(at).map(|b| char::from(*b)).collect();
            let taken = "SELECT count(*) FROM question WHERE code = ?1 AND state IN ('open', 'pending')";
            if c.query_row(taken, [&code], |r| r.get::<_, i64>(0))? == 0 {
                return Ok(code);
            }
        }
    }
    Err(StoreError::Rule("too many questions are open; one more cannot be asked".into()))
}
