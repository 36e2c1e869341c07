//! Letters from boxes: transaction 2 takes one, with all that it causes, or refuses it.

use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::{Refusal, RefusalCode};
use rusqlite::{Connection, OptionalExtension, params};

use super::counters::bump;
use super::letters_to_agent::{ToWrite, respond, store_verdict};
use super::turns::{self, OpenTurnRow};
use super::{Result, Store, StoreError, audit, id, int, outbox, parse};
use crate::domain::ending::TurnEnd;
use crate::domain::outbound::OutgoingText;
use crate::domain::{Lane, LetterId, RunId, TurnId, WallMs};
use crate::turns::{Collected, Event};

/// A letter from the box that was read safely, for transaction 2.
#[derive(Debug, Clone)]
pub struct Take {
    /// The run, from the directory.
    pub run: RunId,
    /// The number, from the file name.
    pub n: u64,
    pub id: LetterId,
    /// The turn that the letter names.
    pub turn: Option<TurnId>,
    pub ack: u64,
    /// What two copies of a letter have in common, whichever run wrote them.
    pub sha256: String,
    pub effect: TakenEffect,
    pub now: WallMs,
}

/// The effect of a letter on the store.
#[derive(Debug, Clone)]
pub enum TakenEffect {
    /// No effect besides that the letter is taken: draft, status, failed.
    Nothing,
    /// The box is ready.
    Ready {
        /// What the chat must know about the session.
        told: Option<OutgoingText>,
    },
    Message {
        outgoing: OutgoingText,
        /// How much a turn may send to its chat before its end.
        limit: u32,
    },
    /// The end of the turn, with its last reply.
    TurnDone {
        end: TurnEnd,
        /// The reply, and a notice where the host has to explain.
        texts: Vec<OutgoingText>,
        /// The notice for a direct chat, if the whole turn has said nothing.
        if_silent: Option<OutgoingText>,
    },
    /// A request to the host.
    Request {
        kind: String,
        body: String,
        /// How many requests a turn may make.
        limit: u32,
    },
}

/// The result of transaction 2.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// The effect is stored.
    Fresh,
    /// The turn is closed.
    Closed {
        /// The lane's next turn, which is open already.
        next: Option<TurnId>,
    },
    /// The caller must perform the request and answer it.
    Perform,
    /// The request was performed before. The caller sends its verdict again.
    Answered(ToWrite),
    /// The same letter was taken before. The caller only unlinks it.
    Repeat,
    /// The letter is not allowed. Its number is used up, and a request gets an answer.
    Refused(Refusal, Option<ToWrite>),
    /// The end of a turn is not allowed, and the turn is closed without it.
    EndRefused {
        refusal: Refusal,
        /// The lane's next turn, which is open already.
        next: Option<TurnId>,
    },
}

impl Store {
    /// Transaction 2: takes a letter from a box.
    pub async fn take(&self, take: Take) -> Result<Taken> {
        let taken = self
            .write(move |c| {
                failpoint!("store.tx2.begin", super::injected);
                let taken = taken(c, &take)?;
                let refused = match &taken {
                    Taken::Repeat => return Ok(taken),
                    Taken::Refused(refusal, _) | Taken::EndRefused { refusal, .. } => Some(refusal.clone()),
                    _ => None,
                };
                mark_consumed(c, &take, refused.is_none())?;
                failpoint!("store.tx2.before_commit");
                let Some(refusal) = refused else { return Ok(taken) };
                bump(c, refusal.code.as_str(), 1)?;
                if matches!(taken, Taken::EndRefused { .. }) {
                    return Ok(taken);
                }
                let response = match (&take.effect, take.turn) {
                    // The request that had the id first has its own answer.
                    (TakenEffect::Request { .. }, _) if refusal.code == RefusalCode::Replay => None,
                    (TakenEffect::Request { .. }, Some(turn)) if known_run(c, &take.run)? => {
                        let code = refusal.code.to_string();
                        let verdict = Verdict::Refused { code, reason: refusal.reason.clone() };
                        Some(respond(c, &take.run, turn, take.id, verdict, take.now)?)
                    }
                    _ => None,
                };
                Ok(Taken::Refused(refusal, response))
            })
            .await?;
        failpoint!("store.tx2.committed");
        Ok(taken)
    }

    /// Uses up the number of a letter that could not be read, so that the next letter is taken.
    pub async fn pass_over(&self, run: RunId, n: u64, code: RefusalCode) -> Result<()> {
        self.write(move |c| {
            c.execute(
                "UPDATE run SET from_n = max(from_n, ?2) WHERE id = ?1",
                params![run.as_str(), int(n)],
            )?;
            bump(c, code.as_str(), 1).map(drop)
        })
        .await
    }

    /// Stores the verdict of a request, and the letter that carries it.
    pub async fn verdict(
        &self,
        run: RunId,
        turn: TurnId,
        request: LetterId,
        verdict: Verdict,
        now: WallMs,
    ) -> Result<ToWrite> {
        self.write(move |c| {
            store_verdict(c, turn, &request, &verdict)?;
            respond(c, &run, turn, request, verdict, now)
        })
        .await
    }
}

fn refused(code: RefusalCode, why: impl Into<String>) -> Taken {
    Taken::Refused(Refusal::new(code, why), None)
}

/// Checks a letter in this order: is its number used, is the acknowledgement valid, is the turn open, is its id used,
/// are the limits kept. Then it applies the effect.
fn taken(c: &Connection, take: &Take) -> Result<Taken> {
    let sql = "SELECT lane, from_n, to_n, ack FROM run WHERE id = ?1 AND state <> 'ended'";
    let row = c
        .query_row(sql, [take.run.as_str()], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?, r.get::<_, i64>(2)?, r.get::<_, i64>(3)?))
        })
        .optional()?;
    let Some((lane, from_n, to_n, ack)) = row else {
        return Ok(refused(RefusalCode::Stale, "the run has ended"));
    };
    let lane: Lane = parse("run.lane", &lane)?;
    if take.n <= id(from_n) {
        let sql = "SELECT sha256 FROM consumed WHERE run = ?1 AND n = ?2";
        let known: Option<String> =
            c.query_row(sql, params![take.run.as_str(), int(take.n)], |r| r.get(0)).optional()?;
        return Ok(match known {
            Some(sha256) if sha256 == take.sha256 => Taken::Repeat,
            _ => refused(RefusalCode::Replay, format!("number {} was used before", take.n)),
        });
    }
    if take.ack < id(ack) || take.ack > id(to_n) {
        let why = format!("acknowledges {}, after {ack}, of {to_n} written", take.ack);
        return Ok(refused(RefusalCode::Ack, why));
    }
    let open = turns::open_of_lane(c, &lane)?;
    let open = match (take.turn, open) {
        (None, open) => open,
        (Some(turn), Some(open)) if open.turn == turn => Some(open),
        (Some(turn), _) => return Ok(refused(RefusalCode::Stale, format!("{turn} is not open"))),
    };
    match known_id(c, take)? {
        Some(sha256) if sha256 != take.sha256 => replayed(c, take, &lane, id(ack)),
        // A run repeats what the run before it has said. A request is answered again.
        Some(_) if matches!(take.effect, TakenEffect::Message { .. }) => {
            mark_consumed(c, take, true)?;
            Ok(Taken::Repeat)
        }
        _ => effect(c, take, &lane, open),
    }
}

/// The digest of the letter that has used this letter's id in its turn. The other ids (`run:N`) belong to a run, and
/// nothing is kept under them.
fn known_id(c: &Connection, take: &Take) -> Result<Option<String>> {
    let Some(turn) = take.turn.filter(|turn| take.id.belongs_to(*turn)) else { return Ok(None) };
    let sql = "SELECT sha256 FROM consumed INDEXED BY consumed_turn WHERE turn = ?1 AND id = ?2 LIMIT 1";
    let known = c.prepare_cached(sql)?.query_row(params![int(turn.0), take.id.as_str()], |r| r.get(0));
    Ok(known.optional()?)
}

/// Refuses a letter whose id has another content already. A box that has ended its turn waits for the next one, so the
/// turn ends even so.
fn replayed(c: &Connection, take: &Take, lane: &Lane, ack: u64) -> Result<Taken> {
    let refusal = Refusal::new(RefusalCode::Replay, format!("id {} was used with another content", take.id));
    if !matches!(take.effect, TakenEffect::TurnDone { .. }) {
        return Ok(Taken::Refused(refusal, None));
    }
    let (who, what) = (format!("agent:{}", lane.group), format!("{}: {}", take.run, refusal.reason));
    audit(c, take.now, &who, "turn's end refused", &what)?;
    let changes = turns::happen(c, lane, &Event::EndRefused { run: &take.run, ack }, take.now)?;
    Ok(Taken::EndRefused { refusal, next: Collected::of(&changes).next() })
}

fn effect(c: &Connection, take: &Take, lane: &Lane, open: Option<OpenTurnRow>) -> Result<Taken> {
    let turnless = || refused(RefusalCode::Stale, "no turn is open");
    match &take.effect {
        TakenEffect::Nothing => Ok(Taken::Fresh),
        TakenEffect::Ready { told } => {
            if let Some(told) = told {
                outbox::say(c, None, told, take.now)?;
            }
            let sql = "UPDATE run SET state = 'live', ready_at = ?2 WHERE id = ?1 AND state = 'starting'";
            match c.execute(sql, params![take.run.as_str(), take.now.0])? {
                1 => Ok(Taken::Fresh),
                _ => Ok(refused(RefusalCode::Replay, "the run has said `ready` before")),
            }
        }
        TakenEffect::Message { outgoing, limit } => {
            let Some(open) = open else { return Ok(turnless()) };
            let said = outbox::said(c, open.turn)?;
            if said >= *limit {
                let why = format!("{said} parts, files and questions before a turn's end are enough");
                return Ok(refused(RefusalCode::Rate, why));
            }
            outbox::say(c, Some(open.turn), outgoing, take.now)?;
            Ok(Taken::Fresh)
        }
        TakenEffect::TurnDone { end, texts, if_silent } => {
            if open.is_none() {
                return Ok(turnless());
            }
            let (run, if_silent) = (&take.run, if_silent.as_ref());
            let event = Event::Done { run, ack: take.ack, end, texts, if_silent };
            let changes = turns::happen(c, lane, &event, take.now)?;
            Ok(Taken::Closed { next: Collected::of(&changes).next() })
        }
        TakenEffect::Request { kind, body, limit } => {
            let Some(open) = open else { return Ok(turnless()) };
            request(c, take, open.turn, kind, body, *limit)
        }
    }
}

fn request(c: &Connection, take: &Take, turn: TurnId, kind: &str, body: &str, limit: u32) -> Result<Taken> {
    let sql = "SELECT verdict FROM request WHERE turn = ?1 AND id = ?2";
    let known: Option<Option<String>> =
        c.query_row(sql, params![int(turn.0), take.id.as_str()], |r| r.get(0)).optional()?;
    match known {
        Some(Some(verdict)) => {
            let verdict = serde_json::from_str(&verdict)
                .map_err(|e| StoreError::Row { what: "request.verdict".into(), why: e.to_string() })?;
            let letter = respond(c, &take.run, turn, take.id.clone(), verdict, take.now)?;
            return Ok(Taken::Answered(letter));
        }
        Some(None) => return Ok(Taken::Perform),
        None => {}
    }
    let made: u32 =
        c.query_row("SELECT count(*) FROM request WHERE turn = ?1", [int(turn.0)], |r| r.get(0))?;
    if made >= limit {
        return Ok(refused(RefusalCode::Rate, format!("{limit} requests in one turn are enough")));
    }
    let sql = "INSERT INTO request(turn, id, run, kind, body, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    c.execute(sql, params![int(turn.0), take.id.as_str(), take.run.as_str(), kind, body, take.now.0])?;
    Ok(Taken::Perform)
}

/// A refused letter uses up its number and acknowledges nothing. Its id is not stored for the turn, because the list
/// for the next run must contain only letters that the host has accepted.
fn mark_consumed(c: &Connection, take: &Take, accepted: bool) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO consumed(run, n, id, turn, sha256, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    // Nobody repeats a draft or a status.
    let repeated = accepted && !matches!(take.effect, TakenEffect::Nothing);
    let turn = take.turn.filter(|_| repeated).map(|t| int(t.0));
    c.execute(sql, params![take.run.as_str(), int(take.n), take.id.as_str(), turn, take.sha256, take.now.0])?;
    let ack = if accepted { int(take.ack) } else { 0 };
    let sql = "UPDATE run SET from_n = max(from_n, ?2), ack = max(ack, ?3) WHERE id = ?1";
    c.execute(sql, params![take.run.as_str(), int(take.n), ack])?;
    Ok(())
}

/// Whether the run may get letters, which it may not after its end.
fn known_run(c: &Connection, run: &RunId) -> Result<bool> {
    let sql = "SELECT count(*) FROM run WHERE id = ?1 AND state <> 'ended'";
    Ok(c.query_row(sql, [run.as_str()], |r| r.get::<_, i64>(0))? == 1)
}
