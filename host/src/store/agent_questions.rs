//! Questions that agents ask people, as rows. `crate::turns` decides what becomes of them.
//!
//! A question is `open` until somebody answers it, its time is over, or somebody writes something else; then its
//! request has its verdict. In the last case it is `pending`, and can still be answered until its time is over.

use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::requests::AskPerson;
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::counters::bump;
use super::groups::chat_facts;
use super::inbox::{self, Accepted};
use super::letters_to_agent::{ToWrite, respond};
use super::{Result, Store, StoreError, id, int, outbox, parse, tool_rules, turns};
use crate::domain::message::Sender;
use crate::domain::outbound::OutgoingText;
use crate::domain::permission::AskedPermission;
use crate::domain::{ChatId, GroupName, Lane, LetterId, MessageSeq, RunId, TurnId, WallMs};
use crate::turns::{AnswerCommand, Answering, Event, Question, code_of, take_answer};

/// Letters and digits that nobody mistakes for another.
const CODE: &[u8; 31] = b"ABCDEFGHJKLMNPQRSTUVWXYZ2345678";
/// The longest code, in characters: there are 887 million of them.
const LONGEST: u32 = 6;
/// How many codes of one length are tried.
const TRIES: u32 = 31;

/// A question as an agent asks it.
#[derive(Debug, Clone)]
pub struct NewQuestion {
    pub turn: TurnId,
    pub request: LetterId,
    /// The chat of the turn.
    pub chat: ChatId,
    pub ask: AskPerson,
    /// Set if it asks an owner for a permission.
    pub permission: Option<AskedPermission>,
    /// When nobody waits for the answer any more.
    pub expires: WallMs,
    pub now: WallMs,
}

/// What an answer led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerTaken {
    /// The turn that waited for it goes on.
    GoesOn(Lane),
    /// Its turn was over: it is a message of its own.
    Late(Accepted),
    /// Only an owner may answer it.
    OwnersOnly,
    /// Nobody waits for the permission any more.
    Over,
    /// No question has this code here.
    Unknown,
    /// The command was carried out before.
    Before,
}

/// How far a permission is that a request needs before the host performs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granting {
    NotAsked,
    /// An owner was asked.
    Waits,
    Granted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspended {
    pub lane: Lane,
    /// When its question expires.
    pub until: WallMs,
}

impl Store {
    /// Whether this request has an open question.
    pub async fn is_asked(&self, turn: TurnId, request: LetterId) -> Result<bool> {
        self.read(move |c| {
            let sql = "SELECT count(*) FROM question WHERE turn = ?1 AND request = ?2 AND state = 'open'";
            let asked: i64 = c.query_row(sql, params![int(turn.0), request.as_str()], |r| r.get(0))?;
            Ok(asked > 0)
        })
        .await
    }

    /// Whether an owner has allowed this request, or every request of its kind. A request that was denied has its
    /// verdict.
    pub async fn granting(
        &self,
        group: GroupName,
        kind: &'static str,
        turn: TurnId,
        request: LetterId,
    ) -> Result<Granting> {
        self.read(move |c| {
            let sql = "SELECT state FROM question WHERE turn = ?1 AND request = ?2";
            let asked = c
                .prepare_cached(sql)?
                .query_row(params![int(turn.0), request.as_str()], |r| r.get::<_, String>(0));
            Ok(match asked.optional()?.as_deref() {
                Some("open") => Granting::Waits,
                Some("answered") => Granting::Granted,
                _ if tool_rules::allows(c, &group, kind)? => Granting::Granted,
                _ => Granting::NotAsked,
            })
        })
        .await
    }

    /// Asks, once: a repeat of the request says nothing again. `say` makes what the chat reads, from the code. Returns
    /// whether the turn still waits for an answer.
    pub async fn ask<F>(&self, new: NewQuestion, say: F) -> Result<bool>
    where
        F: FnOnce(&str) -> Option<OutgoingText> + Send + 'static,
    {
        self.write(move |c| {
            let NewQuestion { turn, request, chat, ask, permission, expires, now } = new;
            let asked = "SELECT count(*) FROM question WHERE turn = ?1 AND request = ?2";
            let asked: i64 = c.query_row(asked, params![int(turn.0), request.as_str()], |r| r.get(0))?;
            if !outbox::is_open(c, turn)? {
                return Ok(false);
            }
            if asked > 0 {
                return Ok(true);
            }
            let unwritable = |e| StoreError::Rule(format!("a question cannot be written as JSON: {e}"));
            let choices = serde_json::to_string(&ask.choices).map_err(unwritable)?;
            let permission =
                permission.map(|asked| serde_json::to_string(&asked)).transpose().map_err(unwritable)?;
            free_old_codes(c, now)?;
            let code = free_code(c)?;
            let sql =
                "INSERT INTO question(code, turn, request, chat, text, choices, state, asked_at, expires_at, permission)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', ?7, ?8, ?9)";
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
                    expires.0,
                    permission
                ],
            )?;
            if let Some(outgoing) = say(&code) {
                outbox::say(c, Some(turn), &outgoing, now)?;
            }
            Ok(true)
        })
        .await
    }

    /// A person's `/answer CODE TEXT`, which is thereby carried out.
    pub async fn answer(&self, command: MessageSeq, now: WallMs) -> Result<AnswerTaken> {
        let taken = self.write(move |c| {
            failpoint!("store.answer.begin", super::injected);
            let Some(command) = answer_command(c, command)? else { return Ok(AnswerTaken::Before) };
            let Some(question) = question(c, &command)? else { return Ok(AnswerTaken::Unknown) };
            let lane = question.lane.clone();
            match take_answer(command, question, now) {
                Answering::Unknown => Ok(AnswerTaken::Unknown),
                Answering::OwnersOnly => Ok(AnswerTaken::OwnersOnly),
                Answering::Over => Ok(AnswerTaken::Over),
                Answering::InTime(changes) => {
                    turns::apply(c, &lane, &changes, now)?;
                    Ok(AnswerTaken::GoesOn(lane))
                }
                Answering::Late(changes, message) => {
                    turns::apply(c, &lane, &changes, now)?;
                    Ok(AnswerTaken::Late(inbox::place(c, &message, now)?))
                }
            }
        });
        let taken = taken.await?;
        failpoint!("store.answer.committed");
        Ok(taken)
    }

    /// Ends every question whose time is over. Returns the lanes that go on.
    pub async fn expire_questions(&self, now: WallMs) -> Result<Vec<Lane>> {
        self.write(move |c| {
            let sql =
                "SELECT DISTINCT t.lane FROM question q INDEXED BY question_open JOIN turn t ON t.id = q.turn
                       WHERE q.state = 'open' AND q.expires_at <= ?1";
            let lanes = lanes(c, sql, params![now.0])?;
            for lane in &lanes {
                turns::happen(c, lane, &Event::TimePassed { now }, now)?;
            }
            Ok(lanes)
        })
        .await
    }

    /// Turns that wait for a person and have no run.
    pub async fn suspended(&self) -> Result<Vec<Suspended>> {
        self.read(|c| {
            let sql =
                "SELECT DISTINCT t.lane FROM question q INDEXED BY question_open JOIN turn t ON t.id = q.turn
                       WHERE q.state = 'open' AND t.state = 'open'";
            let mut suspended = Vec::new();
            for lane in lanes(c, sql, [])? {
                if let Some(until) = turns::open_turn_of(c, &lane)?.and_then(|open| open.suspended_until()) {
                    suspended.push(Suspended { lane, until });
                }
            }
            Ok(suspended)
        })
        .await
    }

    /// Makes the `response` to every request of the run's open turn that has a verdict and that this run was not told.
    pub async fn untold_verdicts(&self, run: RunId, now: WallMs) -> Result<Vec<ToWrite>> {
        self.write(move |c| {
            let sql = "SELECT q.turn, q.id, q.verdict FROM turn t INDEXED BY turn_open CROSS JOIN request q ON q.turn = t.id
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

fn lanes(c: &Connection, sql: &str, params: impl Params) -> Result<Vec<Lane>> {
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows.query_map(params, |r| r.get::<_, String>(0))?;
    rows.map(|lane| parse("turn.lane", &lane?)).collect()
}

/// The command, unless it was carried out before.
fn answer_command(c: &Connection, seq: MessageSeq) -> Result<Option<AnswerCommand>> {
    let sql = "SELECT chat, text, sender, sender_name, owner FROM message
               WHERE seq = ?1 AND role = 'command' AND state = 'waiting'";
    let row = c
        .query_row(sql, [int(seq.0)], |r| {
            let texts = (r.get::<_, String>(0)?, r.get(1)?, r.get::<_, String>(2)?);
            Ok((texts, r.get(3)?, r.get(4)?))
        })
        .optional()?;
    let Some(((chat, line, sender), name, owner)) = row else { return Ok(None) };
    let chat: ChatId = parse("message.chat", &chat)?;
    let (kind, title) = chat_facts(c, &chat)?;
    let sender = Sender { id: parse("message.sender", &sender)?, name, is_bot: false };
    Ok(Some(AnswerCommand { seq, chat, kind, title, line, sender, owner }))
}

/// The question that the command's code names in its chat.
fn question(c: &Connection, command: &AnswerCommand) -> Result<Option<Question>> {
    let sql = "SELECT q.id, q.turn, q.request, q.text, q.choices, q.state = 'open', q.expires_at, t.lane, q.permission
               FROM question q
               JOIN turn t ON t.id = q.turn WHERE q.chat = ?1 AND q.code = ?2 AND q.state IN ('open', 'pending')";
    let row = c
        .query_row(sql, params![command.chat.as_str(), code_of(&command.line)], |r| {
            let texts = (r.get::<_, String>(2)?, r.get(3)?, r.get::<_, String>(4)?, r.get::<_, String>(7)?);
            Ok((r.get(0)?, r.get(1)?, texts, r.get(5)?, r.get(6)?, r.get(8)?))
        })
        .optional()?;
    let Some((row, turn, (request, text, choices, lane), open, expires, asked)) = row else {
        return Ok(None);
    };
    Ok(Some(Question {
        id: row,
        turn: TurnId(id(turn)),
        request: parse("question.request", &request)?,
        lane: parse("turn.lane", &lane)?,
        open,
        expires_at: WallMs(expires),
        text,
        choices: serde_json::from_str(&choices).unwrap_or_default(),
        permission: tool_rules::asked(asked)?,
    }))
}

/// Frees the codes of questions whose time is over. Their requests have their verdicts.
fn free_old_codes(c: &Connection, now: WallMs) -> Result<()> {
    let sql = "UPDATE question INDEXED BY question_code SET state = 'expired', ended_at = ?1
               WHERE state IN ('open', 'pending') AND state = 'pending' AND expires_at <= ?1";
    c.execute(sql, [now.0])?;
    Ok(())
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
