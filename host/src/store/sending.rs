//! Sending: `delivery` claims a part of the outbox, gives it to its channel, and records the outcome.
//! `policy::delivery` decides what follows. This file stores each step in one transaction.
//!
//! ```text
//! ready ── claim ──> sending ── receipt ──> sent
//!                     │  │ └── a placeholder stands, or the beginning arrived ──> ready
//!                     │  ├──── certainly not arrived ──> deferred ──> (due at not_before) claim
//!                     │  └──── perhaps arrived ────────> uncertain ─> (due at not_before) claim
//!                     │                                   └ with a code: held, until /resend or /drop
//!                     └─ never, or a day of trying ────> failed        too old at a claim ──> expired
//! ```
//! A row in state `sending` that nobody is sending was cut off, because an earlier host died: see
//! [`SendOutcome::Died`].

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::counters::bump;
use super::held_and_given_up;
use super::outbox::DUE;
use super::{Result, Store, choices, id, parse};
use crate::domain::outbound::{DeliveryStrategy, Part, SpooledFile, Voice};
use crate::domain::{ChannelName, ChatId, MessageSeq, TurnId, WallMs};
use crate::policy::backoff::LONGEST_WAIT;
use crate::policy::delivery::{self, Doubt, Next, PartFacts, SendOutcome, Terms};
use crate::policy::delivery_notices::{self, GivenUp};

/// The next step for a chat's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one lives at a time, and only for a moment")]
pub enum NextPart {
    /// Send this part now. Its row is marked `sending`.
    Part(Box<Part>),
    /// This reply was too old to send, and its chat was told. The queue may have more.
    Expired(i64),
    /// The first part must wait until this time. The parts behind it wait too, to keep the order.
    NotBefore(WallMs),
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cut {
    /// Parts that the host sends again, and that may then be on the platform twice.
    pub uncertain: u64,
    /// Parts about which the host asks a person.
    pub held: u64,
    /// Empty placeholders that may be on the platform.
    pub strays: u64,
}

impl Store {
    /// Chats of a channel with parts to send. Held parts do not count, because they wait for a person.
    pub async fn chats_waiting(&self, channel: ChannelName) -> Result<Vec<ChatId>> {
        self.read(move |c| {
            let sql = format!(
                "SELECT DISTINCT chat FROM outbox INDEXED BY outbox_due
                 WHERE {DUE} AND code IS NULL AND chat LIKE ?1 || ':%'"
            );
            let mut rows = c.prepare_cached(&sql)?;
            let rows = rows.query_map([channel.as_str()], |r| r.get::<_, String>(0))?;
            rows.map(|chat| parse("outbox.chat", &chat?)).collect()
        })
        .await
    }

    /// Claims the first part of a chat's queue for sending.
    pub async fn claim(&self, chat: ChatId, terms: Terms, now: WallMs) -> Result<NextPart> {
        let head = self.write(move |c| claim(c, &chat, terms, now)).await?;
        failpoint!("store.claim.committed");
        Ok(head)
    }

    /// Transaction 3: stores the outcome of a claimed part, and returns the decision. It changes nothing if the part
    /// is not being sent, because then an earlier call succeeded and its answer was lost. `retry` is how long a reply
    /// is retried.
    pub async fn settle(
        &self,
        part: Part,
        happened: SendOutcome,
        retry: Duration,
        now: WallMs,
    ) -> Result<Next> {
        let next = self
            .write(move |c| {
                failpoint!("store.tx3.begin", super::injected);
                let next = after(&part, happened, retry, now);
                perform(c, &part, next.clone(), now)?;
                failpoint!("store.tx3.before_commit");
                Ok(next)
            })
            .await?;
        failpoint!("store.tx3.committed");
        Ok(next)
    }

    /// At boot: decides about the parts that were being sent when the host died. They may or may not have arrived.
    pub async fn recover_sending(&self, now: WallMs) -> Result<Cut> {
        self.write(move |c| {
            let sql = format!("SELECT {FIELDS} FROM outbox INDEXED BY outbox_due WHERE {DUE} AND state = 'sending' ORDER BY id");
            let mut rows = c.prepare(&sql)?;
            let cut: Vec<_> = rows.query_map([], part)?.collect::<rusqlite::Result<_>>()?;
            let mut found = Cut::default();
            for part in cut {
                let part = part?;
                let next = after(&part, SendOutcome::Died, Duration::MAX, now);
                match &next {
                    Next::Ask { .. } => found.held += 1,
                    Next::Again { doubt, .. } => {
                        found.uncertain += u64::from(doubt.copies);
                        found.strays += u64::from(doubt.strays);
                    }
                    _ => {}
                }
                perform(c, &part, next, now)?;
            }
            Ok(found)
        })
        .await
    }
}

/// The columns that [`part`] reads.
///
/// The last column is the platform's id of the message that the part quotes. It is empty if the platform has taken the
/// beginning of the part, because that beginning has the quote. The first message of a new session has the id of its
/// `/new` with `:first` behind it; the query removes that.
const FIELDS: &str =
    "id, ours, chat, voice, turn, answers, text, way, placeholder, attempts, lives_from, key, file, file_name,
     file_bytes, markup, choices,
     CASE WHEN answers IS NOT NULL AND part = 0 AND sent_at IS NULL THEN
       (SELECT replace(m.message_id, ':first', '')
        FROM message m JOIN chat h ON h.id = m.chat
        WHERE m.seq = outbox.answers AND m.chat = outbox.chat AND h.kind = 'room') END";

fn part(r: &Row<'_>) -> rusqlite::Result<Result<Part>> {
    let (chat, voice, way): (String, String, Option<String>) = (r.get(2)?, r.get(3)?, r.get(7)?);
    let (row, ours, text, placeholder, attempts, lives_from) =
        (r.get(0)?, r.get(1)?, r.get(6)?, r.get(8)?, r.get(9)?, WallMs(r.get(10)?));
    let turn = r.get::<_, Option<i64>>(4)?.map(|t| TurnId(id(t)));
    let answers = r.get::<_, Option<i64>>(5)?.map(|m| MessageSeq(id(m)));
    let (key, markup) = (r.get(11)?, r.get(15)?);
    let file = match r.get(12)? {
        Some(sha256) => Some(Box::new(SpooledFile { sha256, name: r.get(13)?, bytes: id(r.get(14)?) })),
        None => None,
    };
    let (choices, quotes) = (r.get::<_, Option<String>>(16)?, r.get(17)?);
    Ok((|| {
        Ok(Part {
            id: row,
            idempotency_key: ours,
            chat: parse("outbox.chat", &chat)?,
            voice: if voice == "reply" { Voice::Reply } else { Voice::Notice },
            turn,
            key,
            answers,
            quotes,
            text,
            markup,
            file,
            choices: choices.as_deref().map(choices::read).transpose()?.map(Box::new),
            // The column is empty until the first claim, which sets it.
            strategy: way.as_deref().map_or(Ok(DeliveryStrategy::Resend), |way| parse("outbox.way", way))?,
            placeholder,
            attempts,
            lives_from,
        })
    })())
}

fn claim(c: &Connection, chat: &ChatId, terms: Terms, now: WallMs) -> Result<NextPart> {
    failpoint!("store.claim.begin", super::injected);
    let sql = format!(
        "SELECT {FIELDS}, not_before, state, way IS NULL FROM outbox
         WHERE chat = ?1 AND {DUE} AND code IS NULL ORDER BY id LIMIT 1"
    );
    let row = c
        .query_row(&sql, [chat.as_str()], |r| {
            Ok((part(r)?, WallMs(r.get(18)?), r.get::<_, String>(19)?, r.get::<_, bool>(20)?))
        })
        .optional()?;
    let Some((part, not_before, state, fresh)) = row else { return Ok(NextPart::Empty) };
    let part = part?;
    if state == "sending" {
        // The sender ended without an outcome. Each chat has only one worker, so nobody is sending the part now.
        perform(c, &part, after(&part, SendOutcome::Died, Duration::MAX, now), now)?;
        return Ok(NextPart::NotBefore(now));
    }
    // A longer wait than this means that the clock was set back, so the wait is ignored.
    if not_before > now && not_before.since(now) <= LONGEST_WAIT {
        return Ok(NextPart::NotBefore(not_before));
    }
    if terms.stale(part.voice, now.since(part.lives_from)) {
        let why = delivery_notices::too_old(terms.lifetime);
        held_and_given_up::give_up(c, &part, GivenUp::Expired, &why, false, now)?;
        return Ok(NextPart::Expired(part.id));
    }
    let strategy = match (fresh, &part.file) {
        (false, _) => part.strategy,
        (true, None) => terms.strategy(part.voice),
        (true, Some(_)) => terms.file_strategy(part.voice),
    };
    let sql = "UPDATE outbox SET state = 'sending', attempts = attempts + 1, way = ?2 WHERE id = ?1";
    c.execute(sql, params![part.id, strategy.as_str()])?;
    Ok(NextPart::Part(Box::new(Part { strategy, ..part })))
}

/// The decision of `policy`. `part` is as it was before its claim, or for a part that was cut off as it is now.
fn after(part: &Part, happened: SendOutcome, retry: Duration, now: WallMs) -> Next {
    let facts = PartFacts {
        strategy: part.strategy,
        voice: part.voice,
        placeholder: part.placeholder.is_some(),
        attempts: part.attempts.saturating_add(1),
        age: now.since(part.lives_from),
    };
    delivery::next(facts, happened, retry)
}

/// Moves a row out of `sending`, and changes nothing the second time.
fn perform(c: &Connection, part: &Part, next: Next, now: WallMs) -> Result<()> {
    let row = part.id;
    let sql = "SELECT count(*) FROM outbox WHERE id = ?1 AND state = 'sending'";
    if c.query_row(sql, [row], |r| r.get::<_, i64>(0))? == 0 {
        return Ok(());
    }
    match next {
        Next::Sent { receipt } => {
            let sql =
                "UPDATE outbox SET state = 'sent', sent_at = ?2, receipt = ?3, error = NULL WHERE id = ?1";
            c.execute(sql, params![row, now.0, receipt])?;
            held_and_given_up::reached(c, &part.chat)
        }
        // Sending the placeholder does not count as an attempt at the text.
        Next::Fill { placeholder } => {
            let sql =
                "UPDATE outbox SET state = 'ready', placeholder = ?2, attempts = attempts - 1, not_before = 0
                       WHERE id = ?1";
            c.execute(sql, params![row, placeholder])?;
            Ok(())
        }
        // `text` stays whole, for people: `markup` alone is sent. The attempts name later questions, so they count on.
        Next::Rest { why, rest, .. } => {
            let sql = "UPDATE outbox SET state = 'ready', markup = ?2, file = NULL, placeholder = NULL, not_before = 0,
                              sent_at = ?3, error = ?4 WHERE id = ?1";
            c.execute(sql, params![row, rest, now.0, why])?;
            held_and_given_up::reached(c, &part.chat)
        }
        Next::Again { wait, doubt, forget, why } => {
            count(c, row, doubt)?;
            let state = if doubt.copies > 0 { "uncertain" } else { "deferred" };
            let sql = "UPDATE outbox SET state = ?2, not_before = ?3, error = ?4,
                              placeholder = CASE WHEN ?5 THEN NULL ELSE placeholder END WHERE id = ?1";
            c.execute(sql, params![row, state, now.plus(wait).0, why, forget])?;
            Ok(())
        }
        Next::Ask { why } => {
            count(c, row, Doubt { copies: 1, strays: 0 })?;
            held_and_given_up::hold(c, part, &why, now)
        }
        Next::GiveUp { why, doubt, gone } => {
            count(c, row, doubt)?;
            held_and_given_up::give_up(c, part, GivenUp::Failed, &why, gone, now)
        }
    }
}

fn count(c: &Connection, row: i64, doubt: Doubt) -> Result<()> {
    if doubt == Doubt::default() {
        return Ok(());
    }
    let sql = "UPDATE outbox SET uncertain = uncertain + ?2, strays = strays + ?3 WHERE id = ?1";
    c.execute(sql, params![row, doubt.copies, doubt.strays])?;
    for (name, by) in [("uncertain", doubt.copies), ("strays", doubt.strays)] {
        if by > 0 {
            bump(c, name, i64::from(by))?;
        }
    }
    Ok(())
}
