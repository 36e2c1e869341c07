//! The outbox: nothing is sent that is not a row here.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::settings::bump;
use super::{Result, Store, id, int, parse};
use crate::domain::outbound::{Part, Saying, Voice};
use crate::domain::{ChannelName, ChatId, MessageSeq, TurnId, WallMs};

/// What a chat's queue offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// This part goes now; it is marked `sending`.
    Part(Part),
    /// The first part may not go before this time; what is behind it waits, so that order holds.
    NotBefore(WallMs),
    /// Nothing waits.
    Empty,
}

/// What a send came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The platform has it, under this id.
    Receipt(String),
    /// Not now.
    Later {
        /// When to try again.
        at: WallMs,
        /// What the platform said.
        error: String,
    },
    /// Never.
    Failed(String),
    /// It grew too old to be said.
    Expired,
}

/// Numbers for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryCount {
    /// Rows that wait.
    pub waiting: u64,
    /// Rows that failed for good.
    pub failed: u64,
    /// Rows whose send was interrupted by a crash.
    pub uncertain: u64,
}

impl Saying {
    /// A notice of one part. `word` is unique within the turn, so that a repeat says nothing twice.
    pub fn notice(chat: &ChatId, word: &str, text: String) -> Self {
        let key = format!("notice:{word}");
        Self { chat: chat.clone(), voice: Voice::Notice, key, parts: vec![text], answers: None }
    }
}

impl Store {
    /// Queues something to be said.
    pub async fn say(&self, turn: Option<TurnId>, saying: Saying, now: WallMs) -> Result<()> {
        self.write(move |c| say(c, turn, &saying, now)).await
    }

    /// Chats of a channel that have something waiting.
    pub async fn chats_waiting(&self, channel: ChannelName) -> Result<Vec<ChatId>> {
        self.write(move |c| {
            let sql = "SELECT DISTINCT chat FROM outbox WHERE state IN ('ready', 'sending') AND chat LIKE ?1 || ':%'";
            let mut rows = c.prepare_cached(sql)?;
            let rows = rows.query_map([channel.as_str()], |r| r.get::<_, String>(0))?;
            rows.map(|chat| parse("outbox.chat", &chat?)).collect()
        })
        .await
    }

    /// Takes the head of a chat's queue for sending.
    pub async fn claim(&self, chat: ChatId, now: WallMs) -> Result<Head> {
        let head = self
            .write(move |c| {
                failpoint!("store.claim.begin", super::injected);
                let sql =
                    "SELECT id, voice, turn, answers, text, attempts, created_at, not_before FROM outbox
                       WHERE chat = ?1 AND state IN ('ready', 'sending') ORDER BY id LIMIT 1";
                let row = c
                    .query_row(sql, [chat.as_str()], |r| {
                        let voice: String = r.get(1)?;
                        let part = Part {
                            id: r.get(0)?,
                            chat: chat.clone(),
                            voice: if voice == "reply" { Voice::Reply } else { Voice::Notice },
                            turn: r.get::<_, Option<i64>>(2)?.map(|t| TurnId(id(t))),
                            answers: r.get::<_, Option<i64>>(3)?.map(|m| MessageSeq(id(m))),
                            text: r.get(4)?,
                            attempts: r.get(5)?,
                            created: WallMs(r.get(6)?),
                        };
                        Ok((part, WallMs(r.get(7)?)))
                    })
                    .optional()?;
                let Some((part, not_before)) = row else { return Ok(Head::Empty) };
                if not_before > now {
                    return Ok(Head::NotBefore(not_before));
                }
                let sql = "UPDATE outbox SET state = 'sending', attempts = attempts + 1 WHERE id = ?1";
                c.execute(sql, [part.id])?;
                Ok(Head::Part(part))
            })
            .await?;
        failpoint!("store.claim.committed");
        Ok(head)
    }

    /// Transaction 3: writes what a send came to.
    pub async fn sent(&self, row: i64, sent: Sent, now: WallMs) -> Result<()> {
        self.write(move |c| {
            failpoint!("store.tx3.begin", super::injected);
            match sent {
                Sent::Receipt(receipt) => c.execute(
                    "UPDATE outbox SET state = 'sent', sent_at = ?2, receipt = ?3, error = NULL WHERE id = ?1",
                    params![row, now.0, receipt],
                ),
                Sent::Later { at, error } => c.execute(
                    "UPDATE outbox SET state = 'ready', not_before = ?2, error = ?3 WHERE id = ?1",
                    params![row, at.0, error],
                ),
                Sent::Failed(error) => {
                    c.execute("UPDATE outbox SET state = 'failed', error = ?2 WHERE id = ?1", params![row, error])
                }
                Sent::Expired => c.execute("UPDATE outbox SET state = 'expired' WHERE id = ?1", [row]),
            }?;
            failpoint!("store.tx3.before_commit");
            Ok(())
        })
        .await?;
        failpoint!("store.tx3.committed");
        Ok(())
    }

    /// At boot: a row that was being sent when the host died may or may not have arrived. It is due again and
    /// counted as uncertain, except on channels that know our ids and drop the repeat. Returns how many.
    pub async fn recover_sending(&self) -> Result<u64> {
        self.write(|c| {
            let sql = "UPDATE outbox SET state = 'ready', not_before = 0,
                              uncertain = uncertain + (chat NOT LIKE 'terminal:%')
                       WHERE state = 'sending' RETURNING uncertain";
            let mut rows = c.prepare(sql)?;
            let rows: Vec<i64> = rows.query_map([], |r| r.get(0))?.collect::<std::result::Result<_, _>>()?;
            let uncertain = rows.iter().filter(|n| **n > 0).count();
            if uncertain > 0 {
                bump(c, "uncertain", i64::try_from(uncertain).unwrap_or(i64::MAX))?;
            }
            Ok(u64::try_from(uncertain).unwrap_or(0))
        })
        .await
    }
}

pub(super) fn say(c: &Connection, turn: Option<TurnId>, saying: &Saying, now: WallMs) -> Result<()> {
    let sql = "INSERT INTO outbox(chat, voice, turn, key, part, answers, text, state, not_before, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'ready', 0, ?8) ON CONFLICT DO NOTHING";
    for (part, text) in saying.parts.iter().enumerate() {
        let part = i64::try_from(part).unwrap_or(i64::MAX);
        let turn = turn.map(|t| int(t.0));
        let answers = saying.answers.map(|m| int(m.0));
        let (chat, voice) = (saying.chat.as_str(), saying.voice.as_str());
        c.execute(sql, params![chat, voice, turn, saying.key, part, answers, text, now.0])?;
    }
    Ok(())
}

/// How long a reply may wait before it is too stale to be said.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
