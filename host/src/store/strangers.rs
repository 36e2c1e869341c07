//! Chats that wait for admission as rows. `policy::strangers` decides which of them the host remembers.

use std::time::Duration;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::counters::bump;
use super::{Result, Store, StoreError, id, outbox};
use crate::domain::message::{Addressee, Attachment, Inbound, OfferedFile, ReplyTo, Sender};
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChatId, ChatKind, SenderId, WallMs};
use crate::policy::admission::REFUSED_FOR;
use crate::policy::strangers::{Known, Place, place};

/// Nobody can fill the owner's chat with notices: after so many new chats in this time, only `lazaret groups list`
/// shows the others. An owner's own chats do not count.
const ASKS: i64 = 5;
const ASKS_WITHIN: Duration = Duration::from_secs(3600);

/// A message from a chat that is not admitted. Only the content of the first one for the agent is stored.
#[derive(Debug, Clone)]
pub struct StrangerSeen {
    pub chat: ChatId,
    pub kind: ChatKind,
    pub title: String,
    pub sender: SenderId,
    pub sender_name: String,
    pub owner: bool,
    /// The code for the chat, if the chat is new.
    pub code: String,
    /// Its message, if it is kept until the chat is admitted.
    pub kept: Option<KeptMessage>,
    /// What the owner is told, if the chat is new.
    pub asks: Vec<OutgoingText>,
}

/// The first message of a chat that waits for admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMessage {
    pub message_id: String,
    pub sender: SenderId,
    pub sender_name: String,
    pub text: String,
    pub origin: Option<String>,
    pub reply_to: Option<ReplyTo>,
    pub attachments: Vec<Attachment>,
    pub at: i64,
}

/// A chat that waits for admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    pub chat: String,
    /// The code that the operator types to admit it.
    pub code: String,
    pub title: String,
    pub sender: String,
    pub sender_name: String,
    pub messages: u64,
    pub kind: ChatKind,
    pub kept: Option<KeptMessage>,
    pub first_at: WallMs,
    /// When its last message came.
    pub last_at: WallMs,
    /// Whether the owner has refused it.
    pub refused: bool,
}

impl Stranger {
    /// The kept message and its files, as the channel delivered them.
    pub fn first_message(self) -> Option<(Inbound, Vec<Attachment>)> {
        let (chat, kept) = (self.chat.parse().ok()?, self.kept?);
        let offered = |a: &Attachment| {
            let (handle, name, mime) = (a.handle.clone()?, a.name.clone(), a.mime.clone());
            Some(OfferedFile { handle, name, mime, bytes: Some(a.bytes), spoken: a.spoken })
        };
        let inbound = Inbound {
            chat,
            kind: self.kind,
            title: self.title,
            message_id: kept.message_id,
            version: 0,
            sender: Sender { id: kept.sender, name: kept.sender_name, is_bot: false },
            text: kept.text,
            origin: kept.origin,
            service: false,
            reply_to: kept.reply_to,
            attachments: kept.attachments.iter().filter_map(offered).collect(),
            addressee: Addressee::Us,
            at: WallMs(kept.at),
            press: None,
        };
        Some((inbound, kept.attachments))
    }
}

impl Store {
    /// Chats that wait for admission, or were refused, the latest first.
    pub async fn strangers(&self) -> Result<Vec<Stranger>> {
        self.read(|c| {
            let sql =
                "SELECT chat, code, title, sender, sender_name, messages, last_at, first_at, kind, first,
                        refused_at IS NOT NULL FROM stranger
                       ORDER BY last_at DESC";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| {
                Ok(Stranger {
                    chat: r.get(0)?,
                    code: r.get(1)?,
                    title: r.get(2)?,
                    sender: r.get(3)?,
                    sender_name: r.get(4)?,
                    messages: id(r.get(5)?),
                    last_at: WallMs(r.get(6)?),
                    first_at: WallMs(r.get(7)?),
                    kind: if r.get::<_, String>(8)? == "direct" { ChatKind::Direct } else { ChatKind::Room },
                    kept: r.get::<_, Option<String>>(9)?.and_then(|json| serde_json::from_str(&json).ok()),
                    refused: r.get(10)?,
                })
            })?;
            Ok(rows.collect::<std::result::Result<_, _>>()?)
        })
        .await
    }
}

/// Counts a message of a chat that is not admitted. A chat that is new asks to be admitted. One that was refused is
/// only counted, until it is new again after [`REFUSED_FOR`].
pub(super) fn count(c: &Connection, s: &StrangerSeen, owners: &[SenderId], now: WallMs) -> Result<()> {
    bump(c, "dropped_unregistered", 1)?;
    let json = |e: serde_json::Error| StoreError::Rule(format!("a message cannot be written as JSON: {e}"));
    let kept = s.kept.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
    let kind = s.kind.as_str();
    let (chat, sender) = (s.chat.as_str(), s.sender.as_str());
    let sql = "DELETE FROM stranger WHERE chat = ?1 AND refused_at < ?2";
    c.execute(sql, params![chat, now.0 - millis(REFUSED_FOR)])?;
    // An owner who writes in a room that waits makes the room's place the owner's.
    let sql = "UPDATE stranger SET messages = messages + 1, last_at = ?2, title = ?3,
                 first = CASE WHEN refused_at IS NULL THEN coalesce(first, ?4) END,
                 sender = CASE WHEN ?5 THEN ?6 ELSE sender END,
                 sender_name = CASE WHEN ?5 THEN ?7 ELSE sender_name END WHERE chat = ?1";
    if c.execute(sql, params![chat, now.0, s.title, kept, s.owner, sender, s.sender_name])? > 0 {
        return Ok(());
    }
    let Place::Kept(forgotten) = place(&known(c, owners)?, sender, s.owner, now) else {
        bump(c, "strangers_without_code", 1)?;
        return Ok(());
    };
    for chat in forgotten {
        c.execute("DELETE FROM stranger WHERE chat = ?1", [chat])?;
    }
    let sql = "INSERT INTO stranger(chat, code, kind, title, sender, sender_name, first_at, last_at, messages, first)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 1, ?8)";
    c.execute(sql, params![chat, s.code, kind, s.title, sender, s.sender_name, now.0, kept])?;
    let sql = "SELECT count(*) FROM stranger WHERE first_at > ?1";
    let asked: i64 = c.query_row(sql, [now.0 - millis(ASKS_WITHIN)], |r| r.get(0))?;
    let told = s.owner || asked <= ASKS;
    s.asks.iter().filter(|_| told).try_for_each(|asks| outbox::say(c, None, asks, now))
}

fn known(c: &Connection, owners: &[SenderId]) -> Result<Vec<Known>> {
    let mut rows = c.prepare_cached("SELECT chat, sender, first_at, refused_at IS NOT NULL FROM stranger")?;
    let rows = rows.query_map([], |r| {
        let sender: String = r.get(1)?;
        let owner = owners.iter().any(|owner| owner.as_str() == sender);
        Ok(Known { chat: r.get(0)?, sender, owner, first_at: WallMs(r.get(2)?), refused: r.get(3)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}
