//! Transaction 1: stores the admitted messages together with the channel's position. From then on the host is
//! responsible for the messages.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::counters::bump;
use super::strangers::{self, StrangerSeen};
use super::{
    Result, Store, StoreError, attachments, channel_states, choices, held_and_given_up, id, int, names,
    outbox, parse, sender_rules, turns,
};
use crate::domain::message::{Admitted, Command, Role};
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChannelName, ChatId, GroupName, Lane, MessageSeq, SenderId, WallMs};
use crate::turns::{Earlier, Event, Placement, role_of};

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
    /// Whose own chats stay among the strangers.
    pub owners: Vec<SenderId>,
    /// What the channel left out, by name.
    pub counts: BTreeMap<String, u64>,
    pub now: WallMs,
}

/// A stored message and its placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub seq: MessageSeq,
    pub lane: Lane,
    pub chat: ChatId,
    pub placement: Placement,
    /// A rule of the group made context of it, and the chat may have been told.
    pub refused: bool,
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
                let Intake { channel, account, position, mut admitted, mut strangers, owners, counts, now } =
                    intake;
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
                    strangers::count(c, stranger, &owners, now)?;
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
        return Ok(Accepted { seq, lane, chat, placement: Placement::Duplicate, refused: false });
    }
    let earlier = if m.inbound.version > 0 { earlier(c, m)? } else { Vec::new() };
    let role = role_of(m.role, m.inbound.version, &earlier);
    let (role, refusal) = sender_rules::permitted(c, m, &lane, role, now)?;
    let Some(seq) = insert(c, m, role, now)? else {
        let sql = "SELECT seq FROM message WHERE chat = ?1 AND message_id = ?2 AND version = ?3";
        let seq: i64 =
            c.query_row(sql, params![chat.as_str(), m.inbound.message_id, m.inbound.version], |r| r.get(0))?;
        let (seq, placement) = (MessageSeq(id(seq)), Placement::Duplicate);
        return Ok(Accepted { seq, lane, chat, placement, refused: false });
    };
    press.map_or(Ok(()), |press| choices::choose(c, press, seq))?;
    held_and_given_up::reached(c, &chat)?;
    names::seen(c, m)?;
    refusal.as_ref().map_or(Ok(()), |told| {
        outbox::say(c, None, &OutgoingText { answers: Some(seq), ..told.clone() }, now)
    })?;
    let sql = "UPDATE chat SET title = ?2 WHERE id = ?1 AND title <> ?2";
    c.prepare_cached(sql)?.execute([chat.as_str(), &m.inbound.title])?;
    let event = Event::Message { seq, chat: &chat, role, earlier: &earlier };
    let changes = turns::happen(c, &lane, &event, now)?;
    Ok(Accepted { seq, lane, chat, placement: Placement::of(role, &changes), refused: refusal.is_some() })
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
