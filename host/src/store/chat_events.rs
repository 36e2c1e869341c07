//! What a platform tells of chats other than messages: a chat has another id, the bot was removed, the bot is back.

use rusqlite::{Connection, params};

use super::audit;
use super::groups::chat_facts;
use super::{Result, Store, held_and_given_up, parse};
use crate::domain::message::ChatEvent;
use crate::domain::{ChatId, ChatKind, WallMs};

/// An admitted chat that has another id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMoved {
    pub from: ChatId,
    pub to: ChatId,
    pub kind: ChatKind,
    pub title: String,
}

impl Store {
    /// Applies events, and returns the admitted chats that have moved. Applying an event again changes nothing.
    pub async fn chat_events(&self, events: Vec<ChatEvent>, now: WallMs) -> Result<Vec<ChatMoved>> {
        self.write(move |c| {
            let moved = events.iter().map(|event| apply(c, event, now));
            Ok(moved.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
        })
        .await
    }
}

fn apply(c: &Connection, event: &ChatEvent, now: WallMs) -> Result<Option<ChatMoved>> {
    match event {
        ChatEvent::Admitted { .. } => {}
        ChatEvent::Moved { from, to } => return moved(c, from, to, now),
        ChatEvent::Lost { chat, why } => held_and_given_up::lost(c, &with_topics(c, chat)?, why, now)?,
        ChatEvent::Back { chat } => {
            with_topics(c, chat)?.iter().try_for_each(|chat| held_and_given_up::reached(c, chat))?;
        }
    }
    Ok(None)
}

/// The admitted ones of a room and its topics.
fn with_topics(c: &Connection, room: &ChatId) -> Result<Vec<ChatId>> {
    let sql = "SELECT id FROM chat WHERE id = ?1 OR (id > ?1 || '/' AND id < ?1 || '0') ORDER BY id";
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows.query_map([room.as_str()], |r| r.get::<_, String>(0))?;
    rows.map(|chat| parse("chat.id", &chat?)).collect()
}

/// Tables that name a chat, and which of their rows are unfinished.
const UNFINISHED: [(&str, &str); 3] = [
    ("turn", "state = 'open'"),
    ("question", "state IN ('open', 'pending')"),
    ("outbox", "state IN ('ready', 'sending', 'deferred', 'uncertain')"),
];

/// Binds everything of a chat to its new id: its group, messages, turns, questions, and what waits to be sent.
///
/// A run under way knows the chat by its old id. What it says after the move is queued under that id, and its send
/// fails with the new one. Then the chat has moved, and what waits goes after it.
fn moved(c: &Connection, from: &ChatId, to: &ChatId, now: WallMs) -> Result<Option<ChatMoved>> {
    let ids = params![from.as_str(), to.as_str()];
    // The new chat may have asked for admission before this was known; a chat that waits for it moves, too.
    let sql = "INSERT INTO chat(id, grp, kind, title, admitted_at, admitted_by, heard)
               SELECT ?2, grp, kind, title, admitted_at, admitted_by, heard FROM chat WHERE id = ?1
               ON CONFLICT(id) DO NOTHING";
    let known = c.execute(sql, ids)? > 0;
    let admitted = known
        || c.query_row("SELECT EXISTS (SELECT 1 FROM chat WHERE id = ?1)", [to.as_str()], |r| r.get(0))?;
    if !admitted {
        c.execute("UPDATE OR IGNORE stranger SET chat = ?2 WHERE chat = ?1", ids)?;
        return Ok(None);
    }
    if !known {
        // Only a run that was under way at an earlier move can have added something under the old id. A platform may
        // tell of a move often, so this reads what is unfinished and not every row.
        for (table, state) in UNFINISHED {
            c.execute(&format!("UPDATE OR IGNORE {table} SET chat = ?2 WHERE chat = ?1 AND {state}"), ids)?;
        }
        return Ok(None);
    }
    // The new chat numbers its messages from the beginning, so the old numbers get the old chat in front.
    let sql = "UPDATE outbox SET receipt = ?1 || '#' || receipt WHERE chat = ?1 AND receipt IS NOT NULL";
    c.execute(sql, [from.as_str()])?;
    for (table, _) in UNFINISHED {
        c.execute(&format!("UPDATE OR IGNORE {table} SET chat = ?2 WHERE chat = ?1"), ids)?;
    }
    let sql = "UPDATE message SET chat = ?2, message_id = ?1 || '#' || message_id WHERE chat = ?1";
    c.execute(sql, ids)?;
    c.execute("DELETE FROM stranger WHERE chat IN (?1, ?2)", ids)?;
    c.execute("DELETE FROM unreachable WHERE chat IN (?1, ?2)", ids)?;
    c.execute("DELETE FROM chat WHERE id = ?1", [from.as_str()])?;
    audit(c, now, "platform", "chat moved", &format!("{from} -> {to}"))?;
    let (kind, title) = chat_facts(c, to)?;
    Ok(Some(ChatMoved { from: from.clone(), to: to.clone(), kind, title }))
}
