//! Groups, their chats and sessions, owners, and the audit trail of changed rights.

use rusqlite::{Connection, OptionalExtension, params};

use super::counters::bump;
use super::inbox::{self, Accepted};
use super::{Result, Store, StoreError, audit, id, int, outbox, parse};
use crate::domain::message;
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChatId, ChatKind, GroupName, MessageSeq, SenderId, WallMs};

/// Box users start here: above Debian's login and system users (Debian Policy 9.2.2), below the ranges that
/// /etc/subuid hands out from 100000.
pub(super) const FIRST_UID: i64 = 70_001;
pub(super) const LAST_UID: i64 = 99_999;

/// What the store keeps of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    pub uid: u32,
    /// The session that the conversation continues; `/new` counts it up.
    pub session: u64,
}

impl Store {
    /// Makes sure that a group exists, giving it a user of its own, and returns its state.
    ///
    /// # Errors
    /// [`StoreError::Rule`] when 29,999 groups have used up the users.
    pub async fn group(&self, name: &GroupName, now: WallMs) -> Result<GroupState> {
        let name = name.clone();
        self.write(move |c| ensure_group(c, &name, now)).await
    }

    /// Admits a chat to a group; a chat that is admitted already moves there. It is no stranger any more.
    pub async fn admit_chat(&self, admission: Admission) -> Result<()> {
        self.write(move |c| admit(c, &admission)).await
    }

    /// Admits the stranger who was shown `code`. Returns the chat, or nothing for an unknown code. The first chat
    /// that is admitted to `main` makes its person the owner. Takes in the first message of the chat.
    pub async fn admit_code(
        &self,
        code: String,
        group: GroupName,
        by: String,
        first: Option<message::Admitted>,
        now: WallMs,
    ) -> Result<Option<Admitted>> {
        self.write(move |c| {
            let admitted = admit_stranger(c, &code, &group, &by, now)?;
            if let Some(first) = first.filter(|_| admitted.is_some()) {
                inbox::place(c, &first, now)?;
            }
            Ok(admitted)
        })
        .await
    }

    /// Admits a stranger as a person orders in a chat, takes in the first message of the chat, answers the order and
    /// stores its outcome, all in one transaction. Returns what became of the first message, or nothing for an unknown
    /// code. Then nothing is changed.
    pub async fn admit_and_answer(
        &self,
        order: AdmissionOrder,
        now: WallMs,
    ) -> Result<Option<Option<Accepted>>> {
        self.write(move |c| {
            let AdmissionOrder { order, code, group, by, first, told } = order;
            let Some(Admitted { chat, .. }) = admit_stranger(c, &code, &group, &by, now)? else {
                return Ok(None);
            };
            outbox::say(c, None, &told, now)?;
            inbox::done(c, order, &format!("admitted {chat}"))?;
            Ok(Some(first.as_ref().map(|message| inbox::place(c, message, now)).transpose()?))
        })
        .await
    }

    /// Refuses the stranger who was shown `code`, and drops the message that was kept of it. Returns the chat, or
    /// nothing for an unknown code.
    pub async fn refuse_code(&self, code: String, by: String, now: WallMs) -> Result<Option<ChatId>> {
        self.write(move |c| {
            let sql = "UPDATE stranger SET refused_at = ?2, first = NULL WHERE code = ?1 RETURNING chat";
            let chat = c.query_row(sql, params![code, now.0], |r| r.get::<_, String>(0)).optional()?;
            let Some(chat) = chat else { return Ok(None) };
            audit(c, now, &by, "refuse", &chat)?;
            Ok(Some(parse("stranger.chat", &chat)?))
        })
        .await
    }

    /// The text of a command without an outcome, whether an owner wrote it, who, and when it was stored.
    pub async fn order_text(&self, order: MessageSeq) -> Result<Option<(String, bool, String, WallMs)>> {
        self.read(move |c| {
            let sql =
                "SELECT text, owner, sender, stored_at FROM message WHERE seq = ?1 AND state = 'waiting'";
            Ok(c.query_row(sql, [int(order.0)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, WallMs(r.get(3)?))))
                .optional()?)
        })
        .await
    }

    /// Ends a chat's admission: it is a stranger again. Its messages and turns stay. Returns its group, or nothing if
    /// it was not admitted.
    pub async fn revoke_chat(&self, chat: ChatId, by: String, now: WallMs) -> Result<Option<GroupName>> {
        self.write(move |c| {
            let sql = "UPDATE chat SET admitted_at = 0 WHERE id = ?1 AND admitted_at > 0 RETURNING grp";
            let group = c.query_row(sql, [chat.as_str()], |r| r.get::<_, String>(0)).optional()?;
            let Some(group) = group else { return Ok(None) };
            audit(c, now, &by, "revoke", &format!("{chat} -> {group}"))?;
            Ok(Some(parse("chat.grp", &group)?))
        })
        .await
    }

    /// The direct chats of `main`, whose people operate the install.
    pub async fn direct_chats_of_main(&self) -> Result<Vec<ChatId>> {
        self.read(direct_chats_of_main).await
    }

    /// Every admitted chat and its group.
    pub async fn chats(&self) -> Result<Vec<(ChatId, GroupName, String)>> {
        self.read(|c| {
            let mut rows =
                c.prepare("SELECT id, grp, title FROM chat WHERE admitted_at > 0 ORDER BY grp, id")?;
            let rows =
                rows.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get(2)?)))?;
            rows.map(|row| {
                let (chat, group, title) = row?;
                Ok((parse("chat.id", &chat)?, parse("chat.grp", &group)?, title))
            })
            .collect()
        })
        .await
    }

    /// The group that a chat was admitted to.
    pub async fn group_of(&self, chat: &ChatId) -> Result<Option<GroupName>> {
        let chat = chat.to_string();
        self.read(move |c| {
            let sql = "SELECT grp FROM chat WHERE id = ?1 AND admitted_at > 0";
            let group = c.query_row(sql, [chat], |r| r.get::<_, String>(0)).optional()?;
            group.map(|g| parse("chat.grp", &g)).transpose()
        })
        .await
    }

    /// Owners who were paired (those of `lazaret.toml` come on top).
    pub async fn owners(&self) -> Result<Vec<SenderId>> {
        self.read(|c| {
            let mut rows = c.prepare("SELECT sender FROM owner")?;
            let rows = rows.query_map([], |r| r.get::<_, String>(0))?;
            rows.map(|row| parse("owner.sender", &row?)).collect()
        })
        .await
    }

    /// Makes a person an owner. Returns false if they were one.
    pub async fn add_owner(&self, owner: SenderId, now: WallMs) -> Result<bool> {
        self.write(move |c| {
            let new =
                c.execute("INSERT OR IGNORE INTO owner VALUES (?1, ?2)", params![owner.as_str(), now.0])? > 0;
            if new {
                audit(c, now, "terminal", "owner", owner.as_str())?;
            }
            Ok(new)
        })
        .await
    }

    /// Ends a person's ownership. Returns false if they were no owner.
    pub async fn remove_owner(&self, owner: SenderId, now: WallMs) -> Result<bool> {
        self.write(move |c| {
            let gone = c.execute("DELETE FROM owner WHERE sender = ?1", [owner.as_str()])? > 0;
            if gone {
                audit(c, now, "terminal", "owner removed", owner.as_str())?;
            }
            Ok(gone)
        })
        .await
    }

    /// Writes an audit row.
    pub async fn audit(&self, now: WallMs, who: String, what: &'static str, detail: String) -> Result<()> {
        self.write(move |c| audit(c, now, &who, what, &detail)).await
    }
}

/// A chat's way into a group.
#[derive(Debug, Clone)]
pub struct Admission {
    pub chat: ChatId,
    /// Its group, which must exist.
    pub group: GroupName,
    /// What sort of chat it is.
    pub kind: ChatKind,
    pub title: String,
    /// Who admitted it: `terminal`, `group.toml`, …
    pub by: String,
    pub now: WallMs,
}

/// An admission that a person orders in a chat.
#[derive(Debug, Clone)]
pub struct AdmissionOrder {
    /// The message with the order.
    pub order: MessageSeq,
    pub code: String,
    pub group: GroupName,
    /// Who orders it.
    pub by: String,
    /// The first message of the chat, if the agent answers it.
    pub first: Option<message::Admitted>,
    /// The answer to the order.
    pub told: OutgoingText,
}

/// What an admission by code did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub chat: ChatId,
    /// Set when this made someone the owner.
    pub owner: Option<SenderId>,
}

fn admit_stranger(
    c: &Connection,
    code: &str,
    group: &GroupName,
    by: &str,
    now: WallMs,
) -> Result<Option<Admitted>> {
    let sql = "SELECT chat, kind, title, sender FROM stranger WHERE code = ?1 COLLATE NOCASE";
    type Row = (String, String, String, String);
    let row: Option<Row> =
        c.query_row(sql, [code], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).optional()?;
    let Some((chat, kind, title, sender)) = row else { return Ok(None) };
    let (chat, sender): (ChatId, SenderId) =
        (parse("stranger.chat", &chat)?, parse("stranger.sender", &sender)?);
    let kind = chat_kind(&kind)?;
    ensure_group(c, group, now)?;
    let (group, by) = (group.clone(), by.to_owned());
    let is_main = group.is_main();
    admit(c, &Admission { chat: chat.clone(), group, kind, title, by, now })?;
    let owners: i64 = c.query_row("SELECT count(*) FROM owner", [], |r| r.get(0))?;
    let owner = (is_main && kind == ChatKind::Direct && owners == 0).then_some(sender);
    if let Some(owner) = &owner {
        c.execute("INSERT OR IGNORE INTO owner VALUES (?1, ?2)", params![owner.as_str(), now.0])?;
        audit(c, now, "terminal", "owner", owner.as_str())?;
    }
    Ok(Some(Admitted { chat, owner }))
}

fn chat_kind(text: &str) -> Result<ChatKind> {
    match text {
        "direct" => Ok(ChatKind::Direct),
        "room" => Ok(ChatKind::Room),
        other => Err(StoreError::Row { what: "chat.kind".into(), why: other.to_owned() }),
    }
}

/// The kind and title of an admitted chat.
/// As [`Store::direct_chats_of_main`], inside a transaction.
pub(super) fn direct_chats_of_main(c: &Connection) -> Result<Vec<ChatId>> {
    let sql = "SELECT id FROM chat WHERE grp = 'main' AND kind = 'direct' AND admitted_at > 0";
    let mut rows = c.prepare(sql)?;
    let rows = rows.query_map([], |r| r.get::<_, String>(0))?;
    rows.map(|row| parse("chat.id", &row?)).collect()
}

pub(super) fn chat_facts(c: &Connection, chat: &ChatId) -> Result<(ChatKind, String)> {
    let sql = "SELECT kind, title FROM chat WHERE id = ?1";
    let (kind, title): (String, String) =
        c.query_row(sql, [chat.as_str()], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok((chat_kind(&kind)?, title))
}

fn ensure_group(c: &Connection, name: &GroupName, now: WallMs) -> Result<GroupState> {
    let read = |c: &Connection| {
        let sql = "SELECT uid, session FROM grp WHERE name = ?1";
        c.query_row(sql, [name.as_str()], |r| Ok((r.get::<_, u32>(0)?, r.get::<_, i64>(1)?))).optional()
    };
    if let Some((uid, session)) = read(c)? {
        return Ok(GroupState { uid, session: id(session) });
    }
    // A counter, not max(uid) + 1: the user of a group that went must not be given to another.
    let next = bump(c, "uid", 1)? + FIRST_UID - 1;
    if next > LAST_UID {
        return Err(StoreError::Rule(format!("no box user is left (of {FIRST_UID} to {LAST_UID})")));
    }
    let sql = "INSERT INTO grp(name, uid, created_at) VALUES (?1, ?2, ?3)";
    c.execute(sql, params![name.as_str(), next, now.0])?;
    let uid = u32::try_from(next).unwrap_or(u32::MAX);
    Ok(GroupState { uid, session: 1 })
}

fn admit(c: &Connection, admission: &Admission) -> Result<()> {
    let Admission { chat, group, kind, title, by, now } = admission;
    let sql =
        "INSERT INTO chat(id, grp, kind, title, admitted_at, admitted_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT(id) DO UPDATE SET grp = ?2, kind = ?3, title = ?4,
               admitted_at = ?5, admitted_by = ?6";
    c.execute(sql, params![chat.as_str(), group.as_str(), kind.as_str(), title, now.0, by])?;
    c.execute("DELETE FROM stranger WHERE chat = ?1", [chat.as_str()])?;
    audit(c, *now, by, "admit", &format!("{chat} -> {group}"))
}
