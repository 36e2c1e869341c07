//! What was said in chats, for the history index and for its answers. The index holds no text: each answer is read
//! here, so a row that is gone, or that another group owns now, is never shown.
//!
//! **A group's own**: a message or reply of one of its turns, whatever became of the chat; and what belongs to no turn,
//! such as talk in a room that woke nobody, if it came since the chat's present admission to the group. What a chat
//! said before it was admitted elsewhere is nobody's.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Result, Store, id, int};
use crate::domain::message::Command;
use crate::domain::{ChatId, GroupName, MessageSeq, TurnId, WallMs};

/// Rows that one read returns for the index.
const BATCH: usize = 500;

/// A message or a part of a reply, as one number: the row's id, doubled, and 1 added for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaidKey(pub(super) i64);

/// Where messages and replies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Message,
    Reply,
}

impl Table {
    pub(super) const BOTH: [Self; 2] = [Self::Message, Self::Reply];

    pub(super) fn key(self, row: i64) -> SaidKey {
        SaidKey(row.saturating_mul(2).saturating_add(i64::from(self == Self::Reply)))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Reply => "outbox",
        }
    }
}

impl SaidKey {
    fn row(self) -> i64 {
        self.0 >> 1
    }

    fn table(self) -> Table {
        if self.0 & 1 == 0 { Table::Message } else { Table::Reply }
    }
}

/// In which direction the index goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    After(i64),
    Before(i64),
}

/// A row for the index.
#[derive(Debug)]
pub struct ToIndex {
    pub(super) row: i64,
    pub(super) chat: String,
    /// The group of its turn.
    pub(super) group: Option<String>,
    pub(super) at: i64,
    pub(super) stored_at: i64,
    /// `None` for what is not searched: a command, a notice, a version that was edited since.
    pub(super) text: Option<String>,
    /// The rows of its earlier versions.
    pub(super) earlier: Vec<i64>,
}

/// A chat of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnChat {
    pub chat: ChatId,
    pub title: String,
    pub admitted_at: WallMs,
}

/// A message or a part of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// `None` for a reply.
    pub by: Option<SaidBy>,
    pub chat: String,
    /// The chat's title.
    pub title: String,
    pub at: WallMs,
    pub text: String,
    /// Names of the files that came with it.
    pub files: Vec<String>,
    /// The message that a reply answers.
    pub answers: Option<MessageSeq>,
    /// Whether the host has given up sending it.
    pub undelivered: bool,
}

/// Who wrote a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaidBy {
    pub seq: MessageSeq,
    pub sender: String,
    pub name: String,
    /// Whose words they are, if the sender passed them on.
    pub origin: Option<String>,
}

impl Store {
    /// The chats that are admitted to a group.
    pub async fn chats_of(&self, group: &GroupName) -> Result<Vec<OwnChat>> {
        let group = group.clone();
        self.read(move |c| {
            let sql =
                "SELECT id, title, admitted_at FROM chat WHERE grp = ?1 AND admitted_at > 0 ORDER BY admitted_at";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([group.as_str()], |r| {
                Ok((r.get::<_, String>(0)?, r.get(1)?, WallMs(r.get(2)?)))
            })?;
            rows.map(|row| {
                let (chat, title, admitted_at) = row?;
                Ok(OwnChat { chat: super::parse("chat.id", &chat)?, title, admitted_at })
            })
            .collect()
        })
        .await
    }

    /// Some rows for the index.
    pub(super) async fn said_from(&self, table: Table, from: From) -> Result<Vec<ToIndex>> {
        self.read(move |c| match table {
            Table::Message => messages(c, from),
            Table::Reply => replies(c, from),
        })
        .await
    }

    /// The chat of a message or reply now: a platform may have given it another id. `None` if the row is gone.
    pub(super) async fn chat_of_said(&self, key: SaidKey) -> Result<Option<String>> {
        self.read(move |c| {
            let sql = match key.table() {
                Table::Message => "SELECT chat FROM message WHERE seq = ?1",
                Table::Reply => "SELECT chat FROM outbox WHERE id = ?1",
            };
            Ok(c.query_row(sql, [key.row()], |r| r.get(0)).optional()?)
        })
        .await
    }

    /// Those of the messages and replies that are the group's own, in the given order, without those of the turn `but`
    /// and without messages that were edited since.
    pub async fn said(&self, group: &GroupName, keys: Vec<SaidKey>, but: TurnId) -> Result<Vec<Said>> {
        let group = group.clone();
        self.read(move |c| {
            let mut said = Vec::new();
            for key in keys {
                let of_row = match key.table() {
                    Table::Message => one(c, MESSAGE, key, &group, but, said_message)?,
                    Table::Reply => one(c, REPLY, key, &group, but, said_reply)?,
                };
                said.extend(of_row);
            }
            Ok(said)
        })
        .await
    }
}

const MESSAGE: &str =
    "SELECT m.seq, m.sender, m.sender_name, m.origin, m.chat, h.title, m.sent_at, m.text, m.attachments
     FROM message m JOIN chat h ON h.id = m.chat LEFT JOIN turn t ON t.id = m.turn
     WHERE m.seq = ?1 AND (m.role <> 'command' OR m.text LIKE '/answer%') AND m.turn IS NOT ?3
       AND coalesce(t.grp, iif(m.stored_at >= h.admitted_at AND h.admitted_at > 0, h.grp, NULL)) = ?2
       AND NOT EXISTS (SELECT 1 FROM message n
                       WHERE n.chat = m.chat AND n.message_id = m.message_id AND n.version > m.version)";

const REPLY: &str =
    "SELECT o.answers, o.state IN ('failed', 'expired'), o.chat, coalesce(h.title, ''), o.created_at, o.text,
            o.file_name
     FROM outbox o LEFT JOIN chat h ON h.id = o.chat LEFT JOIN turn t ON t.id = o.turn
     WHERE o.id = ?1 AND o.voice = 'reply' AND o.turn IS NOT ?3
       AND coalesce(t.grp, iif(o.created_at >= h.admitted_at AND h.admitted_at > 0, h.grp, NULL)) = ?2";

fn one(
    c: &Connection,
    sql: &str,
    key: SaidKey,
    group: &GroupName,
    but: TurnId,
    read: fn(&Row<'_>) -> rusqlite::Result<Said>,
) -> Result<Option<Said>> {
    let row = params![key.row(), group.as_str(), int(but.0)];
    Ok(c.prepare_cached(sql)?.query_row(row, read).optional()?)
}

fn said_message(r: &Row<'_>) -> rusqlite::Result<Said> {
    let by = SaidBy { seq: MessageSeq(id(r.get(0)?)), sender: r.get(1)?, name: r.get(2)?, origin: r.get(3)? };
    Ok(Said {
        by: Some(by),
        chat: r.get(4)?,
        title: r.get(5)?,
        at: WallMs(r.get(6)?),
        text: own_words(r.get(7)?),
        files: names(&r.get::<_, String>(8)?),
        answers: None,
        undelivered: false,
    })
}

fn said_reply(r: &Row<'_>) -> rusqlite::Result<Said> {
    Ok(Said {
        by: None,
        answers: r.get::<_, Option<i64>>(0)?.map(|seq| MessageSeq(id(seq))),
        undelivered: r.get(1)?,
        chat: r.get(2)?,
        title: r.get(3)?,
        at: WallMs(r.get(4)?),
        text: r.get(5)?,
        files: r.get::<_, Option<String>>(6)?.into_iter().collect(),
    })
}

/// What a person said: of an answer to a question, the words behind `/answer 7F`.
fn own_words(text: String) -> String {
    match Command::of(&text) {
        Some(Command::Answer) => text.splitn(3, char::is_whitespace).nth(2).unwrap_or_default().to_owned(),
        _ => text,
    }
}

/// The names in a message's `attachments`.
fn names(attachments: &str) -> Vec<String> {
    let attachments: Vec<crate::domain::message::Attachment> =
        serde_json::from_str(attachments).unwrap_or_default();
    attachments.into_iter().map(|attachment| attachment.name).collect()
}

fn messages(c: &Connection, from: From) -> Result<Vec<ToIndex>> {
    const FIELDS: &str = "SELECT m.seq, m.chat, t.grp, m.sent_at, m.stored_at, m.text, m.attachments,
            (m.role <> 'command' OR m.text LIKE '/answer%') AND NOT EXISTS (SELECT 1 FROM message n
                WHERE n.chat = m.chat AND n.message_id = m.message_id AND n.version > m.version),
            m.message_id, m.version
        FROM message m LEFT JOIN turn t ON t.id = m.turn";
    let (end, row) = match from {
        From::After(row) => ("WHERE m.seq > ?1 ORDER BY m.seq LIMIT ?2", row),
        From::Before(row) => ("WHERE m.seq < ?1 ORDER BY m.seq DESC LIMIT ?2", row),
    };
    let mut rows = c.prepare_cached(&format!("{FIELDS} {end}"))?;
    let rows = rows.query_map(params![row, BATCH as i64], |r| {
        let files = names(&r.get::<_, String>(6)?);
        let text = r.get::<_, bool>(7)?.then_some(own_words(r.get(5)?));
        let to_index = ToIndex {
            row: r.get(0)?,
            chat: r.get(1)?,
            group: r.get(2)?,
            at: r.get(3)?,
            stored_at: r.get(4)?,
            text: text.map(|text| files.into_iter().fold(text, |text, name| text + " " + &name)),
            earlier: Vec::new(),
        };
        Ok((to_index, r.get::<_, String>(8)?, r.get::<_, i64>(9)?))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (mut message, message_id, version) = row?;
        if version > 0 {
            let sql = "SELECT seq FROM message WHERE chat = ?1 AND message_id = ?2 AND version < ?3";
            let mut earlier = c.prepare_cached(sql)?;
            let earlier = earlier.query_map(params![message.chat, message_id, version], |r| r.get(0))?;
            message.earlier = earlier.collect::<rusqlite::Result<_>>()?;
        }
        found.push(message);
    }
    Ok(found)
}

fn replies(c: &Connection, from: From) -> Result<Vec<ToIndex>> {
    const FIELDS: &str =
        "SELECT o.id, o.chat, t.grp, o.created_at, iif(o.voice = 'reply', o.text, NULL), o.file_name
        FROM outbox o LEFT JOIN turn t ON t.id = o.turn";
    let (end, row) = match from {
        From::After(row) => ("WHERE o.id > ?1 ORDER BY o.id LIMIT ?2", row),
        From::Before(row) => ("WHERE o.id < ?1 ORDER BY o.id DESC LIMIT ?2", row),
    };
    let mut rows = c.prepare_cached(&format!("{FIELDS} {end}"))?;
    let rows = rows.query_map(params![row, BATCH as i64], |r| {
        let file: Option<String> = r.get(5)?;
        let text: Option<String> = r.get(4)?;
        Ok(ToIndex {
            row: r.get(0)?,
            chat: r.get(1)?,
            group: r.get(2)?,
            at: r.get(3)?,
            stored_at: r.get(3)?,
            text: text.map(|text| file.into_iter().fold(text, |text, name| text + " " + &name)),
            earlier: Vec::new(),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
