//! Transaction 1: stores the admitted messages together with the channel's position. From then on the host is
//! responsible for the messages.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::counters::bump;
use super::{
    Result, Store, StoreError, attachments, channel_states, choices, held_and_given_up, id, int, outbox,
    parse, turns,
};
use crate::domain::message::{
    Addressee, Admitted, Attachment, Command, Inbound, OfferedFile, ReplyTo, Role, Sender,
};
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChannelName, ChatId, ChatKind, GroupName, Lane, MessageSeq, SenderId, WallMs};
use crate::policy::admission::REFUSED_FOR;
use crate::turns::{Earlier, Event, Placement, role_of};

/// How many chats that are not admitted the host remembers. It forgets the one with the oldest message first.
const STRANGERS: i64 = 64;
/// Nobody can fill the owner's chat with notices: after so many new chats in this time, only `lazaret groups list`
/// shows the others.
const ASKS: i64 = 5;
const ASKS_WITHIN: Duration = Duration::from_secs(3600);

/// One batch of a channel, after admission.
#[derive(Debug)]
pub struct Intake {
    pub channel: ChannelName,
    /// The platform's id of the account that read it; empty if the channel has none.
    pub account: String,
    /// How far the channel has read. It is stored in the same transaction as the messages.
    pub position: Option<String>,
    pub admitted: Vec<Admitted>,
    /// Senders that are not admitted.
    pub strangers: Vec<StrangerSeen>,
    /// What the channel left out, by name.
    pub counts: BTreeMap<String, u64>,
    pub now: WallMs,
}

/// A message from a chat that is not admitted. Only the content of the first one for the agent is stored.
#[derive(Debug, Clone)]
pub struct StrangerSeen {
    pub chat: ChatId,
    pub kind: ChatKind,
    pub title: String,
    pub sender: SenderId,
    pub sender_name: String,
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

/// A stored message and its placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub seq: MessageSeq,
    pub lane: Lane,
    pub chat: ChatId,
    pub placement: Placement,
}

/// A command without a stored outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRow {
    pub seq: MessageSeq,
    pub group: GroupName,
    pub chat: ChatId,
    pub command: Command,
}

impl Store {
    /// Transaction 1: stores a batch.
    pub async fn accept(&self, intake: Intake) -> Result<Vec<Accepted>> {
        let accepted = self
            .write(move |c| {
                failpoint!("store.tx1.begin", super::injected);
                let Intake { channel, account, position, mut admitted, mut strangers, counts, now } = intake;
                if channel_states::is_foreign(c, channel, &account)? {
                    let kept = strangers.iter_mut().filter_map(|s| Some(&mut s.kept.as_mut()?.message_id));
                    for message_id in admitted.iter_mut().map(|m| &mut m.inbound.message_id).chain(kept) {
                        *message_id = format!("{account}:{message_id}");
                    }
                }
                let accepted = admitted.iter().map(|m| place(c, m, now)).collect::<Result<Vec<_>>>()?;
                for (what, times) in counts {
                    bump(c, &what, int(times))?;
                }
                for stranger in &strangers {
                    count_stranger(c, stranger, now)?;
                }
                if let Some(position) = position {
                    channel_states::set_position(c, channel, &account, &position, now)?;
                }
                failpoint!("store.tx1.before_commit");
                Ok(accepted)
            })
            .await?;
        failpoint!("store.tx1.committed");
        Ok(accepted)
    }

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

    /// Commands without a stored outcome. At boot the host performs all of them.
    pub async fn open_commands(&self) -> Result<Vec<CommandRow>> {
        self.read(|c| {
            let sql = "SELECT m.seq, h.grp, m.chat, m.text FROM message m INDEXED BY message_order
                       JOIN chat h ON h.id = m.chat
                       WHERE m.role = 'command' AND m.state = 'waiting' ORDER BY m.seq";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| {
                Ok((
                    r.get::<_, i64>(0)?,
                    r.get::<_, String>(1)?,
                    r.get::<_, String>(2)?,
                    r.get::<_, String>(3)?,
                ))
            })?;
            let mut commands = Vec::new();
            for row in rows {
                let (seq, group, chat, text) = row?;
                if let Some(command) = Command::of(&text) {
                    let (group, chat) = (parse("chat.grp", &group)?, parse("message.chat", &chat)?);
                    commands.push(CommandRow { seq: MessageSeq(id(seq)), group, chat, command });
                }
            }
            Ok(commands)
        })
        .await
    }

    /// Performs a stored `/new` without an outcome. Only an earlier release could leave one.
    pub async fn new_session(&self, order: CommandRow, now: WallMs) -> Result<()> {
        self.write(move |c| {
            let sql = "SELECT count(*) FROM message WHERE seq = ?1 AND state = 'waiting'";
            if c.query_row(sql, [int(order.seq.0)], |r| r.get::<_, i64>(0))? == 0 {
                return Ok(());
            }
            let role = Role::Command(Command::New);
            let event = Event::Message { seq: order.seq, chat: &order.chat, role, earlier: &[] };
            turns::happen(c, &Lane::conversation(order.group.clone()), &event, now).map(drop)
        })
        .await
    }

    /// Stores a command's outcome, so that no host performs it again.
    pub async fn command_done(&self, seq: MessageSeq, outcome: String) -> Result<()> {
        self.write(move |c| done(c, seq, &outcome)).await
    }
}

/// Stores a command's outcome.
pub(super) fn done(c: &Connection, seq: MessageSeq, outcome: &str) -> Result<()> {
    let sql = "UPDATE message SET state = 'done', outcome = ?2 WHERE seq = ?1 AND role = 'command'";
    c.execute(sql, params![int(seq.0), outcome])?;
    Ok(())
}

/// Stores a message and decides its placement.
pub(super) fn place(c: &Connection, m: &Admitted, now: WallMs) -> Result<Accepted> {
    let answer = answer_by_reply(c, m, now)?;
    let m = answer.as_ref().unwrap_or(m);
    let lane = Lane::conversation(m.group.clone());
    let chat = m.inbound.chat.clone();
    let press = m.inbound.press.as_ref();
    if let Some(seq) = press.map(|press| choices::chosen(c, press)).transpose()?.flatten() {
        return Ok(Accepted { seq, lane, chat, placement: Placement::Duplicate });
    }
    let earlier = if m.inbound.version > 0 { earlier(c, m)? } else { Vec::new() };
    let role = role_of(m.role, m.inbound.version, &earlier);
    let Some(seq) = insert(c, m, role, now)? else {
        let sql = "SELECT seq FROM message WHERE chat = ?1 AND message_id = ?2 AND version = ?3";
        let seq: i64 =
            c.query_row(sql, params![chat.as_str(), m.inbound.message_id, m.inbound.version], |r| r.get(0))?;
        return Ok(Accepted { seq: MessageSeq(id(seq)), lane, chat, placement: Placement::Duplicate });
    };
    press.map_or(Ok(()), |press| choices::choose(c, press, seq))?;
    held_and_given_up::reached(c, &chat)?;
    let sql = "UPDATE chat SET title = ?2 WHERE id = ?1 AND title <> ?2";
    c.prepare_cached(sql)?.execute([chat.as_str(), &m.inbound.title])?;
    let event = Event::Message { seq, chat: &chat, role, earlier: &earlier };
    let changes = turns::happen(c, &lane, &event, now)?;
    Ok(Accepted { seq, lane, chat, placement: Placement::of(role, &changes) })
}

/// A reply to the text of a question answers it, as if the person had written `/answer` with its code.
fn answer_by_reply(c: &Connection, m: &Admitted, now: WallMs) -> Result<Option<Admitted>> {
    let replied = m.inbound.reply_to.as_ref().and_then(|reply| reply.message.as_ref());
    let words = m.role == Role::Wake && m.inbound.version == 0 && m.attachments.is_empty();
    let Some(replied) = replied.filter(|_| words) else { return Ok(None) };
    let Some(code) = choices::asked_by(c, &m.inbound.chat, replied, now)? else { return Ok(None) };
    let mut answer = m.clone();
    answer.role = Role::Command(Command::Answer);
    answer.inbound.text = format!("/{} {code} {}", Command::Answer.word(), m.inbound.text);
    Ok(Some(answer))
}

/// Earlier versions of a message that have no outcome.
fn earlier(c: &Connection, m: &Admitted) -> Result<Vec<Earlier>> {
    let sql =
        "SELECT seq, role = 'wake', EXISTS (SELECT 1 FROM given g WHERE g.seq = message.seq) FROM message
               WHERE chat = ?1 AND message_id = ?2 AND version < ?3 AND state <> 'done'";
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows
        .query_map(params![m.inbound.chat.as_str(), m.inbound.message_id, m.inbound.version], |r| {
            Ok(Earlier { seq: MessageSeq(id(r.get(0)?)), wakes: r.get(1)?, given: r.get(2)? })
        })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn insert(c: &Connection, m: &Admitted, role: Role, now: WallMs) -> Result<Option<MessageSeq>> {
    let json = |e: serde_json::Error| StoreError::Rule(format!("a message cannot be written as JSON: {e}"));
    let reply_to = m.inbound.reply_to.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
    let attachments = attachments::as_json(&m.attachments)?;
    let i = &m.inbound;
    let sql = "INSERT INTO message(chat, message_id, version, role, state, sender, sender_name, owner, text,
                                   reply_to, attachments, sent_at, stored_at, origin)
               VALUES (?1, ?2, ?3, ?4, 'waiting', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
               ON CONFLICT(chat, message_id, version) DO NOTHING RETURNING seq";
    let seq: Option<i64> = c
        .prepare_cached(sql)?
        .query_row(
            params![
                i.chat.as_str(),
                i.message_id,
                i.version,
                role.as_str(),
                i.sender.id.as_str(),
                i.sender.name,
                m.owner,
                i.text,
                reply_to,
                attachments,
                i.at.0,
                now.0,
                i.origin
            ],
            |r| r.get(0),
        )
        .optional()?;
    Ok(seq.map(|seq| MessageSeq(id(seq))))
}

/// Counts a message of a chat that is not admitted. A chat that is new asks to be admitted. One that was refused is
/// only counted, until it is new again after [`REFUSED_FOR`].
fn count_stranger(c: &Connection, s: &StrangerSeen, now: WallMs) -> Result<()> {
    bump(c, "dropped_unregistered", 1)?;
    let json = |e: serde_json::Error| StoreError::Rule(format!("a message cannot be written as JSON: {e}"));
    let kept = s.kept.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
    let kind = s.kind.as_str();
    let (chat, sender) = (s.chat.as_str(), s.sender.as_str());
    let sql = "DELETE FROM stranger WHERE chat = ?1 AND refused_at < ?2";
    c.execute(sql, params![chat, now.0 - millis(REFUSED_FOR)])?;
    let sql = "UPDATE stranger SET messages = messages + 1, last_at = ?2, title = ?3,
                 first = CASE WHEN refused_at IS NULL THEN coalesce(first, ?4) END WHERE chat = ?1";
    if c.execute(sql, params![chat, now.0, s.title, kept])? > 0 {
        return Ok(());
    }
    let sql = "INSERT INTO stranger(chat, code, kind, title, sender, sender_name, first_at, last_at, messages, first)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 1, ?8)";
    c.execute(sql, params![chat, s.code, kind, s.title, sender, s.sender_name, now.0, kept])?;
    let sql = "DELETE FROM stranger WHERE chat IN (SELECT chat FROM stranger ORDER BY last_at DESC LIMIT -1 OFFSET ?1)";
    c.execute(sql, [STRANGERS])?;
    let sql = "SELECT count(*) FROM stranger WHERE first_at > ?1";
    let asked: i64 = c.query_row(sql, [now.0 - millis(ASKS_WITHIN)], |r| r.get(0))?;
    let told = asked <= ASKS;
    s.asks.iter().filter(|_| told).try_for_each(|asks| outbox::say(c, None, asks, now))
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}
