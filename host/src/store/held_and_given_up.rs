//! What was not delivered: told once, held for a person, or in a chat that cannot be reached.

use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::{DUE, say};
use super::{Result, Store, int, parse};
use crate::domain::outbound::{Part, Voice};
use crate::domain::{ChatId, GroupName, MessageSeq, WallMs};
use crate::policy::delivery_notices::{self, GivenUp, HeldCommand};

/// The shortest code of a held part.
const CODE: usize = 2;

/// A part that waits for a person's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What `/resend` and `/drop` name.
    pub code: String,
    pub chat: String,
    pub text: String,
}

/// A chat that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    pub chat: String,
    /// What the platform said.
    pub why: String,
    pub since: WallMs,
}

impl Store {
    /// Carries out `/resend CODE` or `/drop CODE`, order and answer in one transaction: an order that is handed over
    /// again does nothing. A group resolves what is held in its own chats, `main` everywhere. Returns the outcome;
    /// `None` when it was carried out before.
    pub async fn resolve_held(
        &self,
        order: MessageSeq,
        group: GroupName,
        chat: ChatId,
        command: HeldCommand,
        now: WallMs,
    ) -> Result<Option<String>> {
        self.write(move |c| {
            let sql =
                "SELECT text FROM message WHERE seq = ?1 AND role = 'command' AND state = 'waiting'";
            let text = c.query_row(sql, [int(order.0)], |r| r.get::<_, String>(0)).optional()?;
            let Some(text) = text else { return Ok(None) };
            let code = text.split_whitespace().nth(1).unwrap_or_default().to_ascii_uppercase();
            let sql = format!(
                "SELECT id FROM outbox WHERE {DUE} AND code = ?1
                   AND (?2 OR chat IN (SELECT id FROM chat WHERE grp = ?3))"
            );
            let row: Option<i64> = c
                .query_row(&sql, params![code, group.is_main(), group.as_str()], |r| r.get(0))
                .optional()?;
            match (row, command) {
                (None, _) => {}
                (Some(row), HeldCommand::Resend) => {
                    // A person wants it now, whatever its age.
                    let sql = "UPDATE outbox SET state = 'ready', code = NULL, not_before = 0, lives_from = ?2
                               WHERE id = ?1";
                    c.execute(sql, params![row, now.0])?;
                }
                (Some(row), HeldCommand::Drop) => {
                    let sql = "UPDATE outbox SET state = 'failed', code = NULL, error = 'dropped by a person' WHERE id = ?1";
                    c.execute(sql, [row])?;
                }
            }
            let (notice, answer) = delivery_notices::answer((order, &chat), command, &code, row.is_some());
            say(c, None, &notice, now)?;
            let sql = "UPDATE message SET state = 'done', outcome = ?2 WHERE seq = ?1";
            c.execute(sql, params![int(order.0), answer])?;
            Ok(Some(answer))
        })
        .await
    }
}

/// Keeps a part for a person's word, and asks for it. What is behind it in the chat goes on.
pub(super) fn hold(c: &Connection, part: &Part, why: &str, now: WallMs) -> Result<()> {
    // The row's own count, this attempt included: a part that was found cut off knows it, one that was claimed does
    // not.
    let sql = "SELECT attempts FROM outbox WHERE id = ?1";
    let attempt: u32 = c.query_row(sql, [part.id], |r| r.get(0))?;
    let code = free_code(c, part, attempt)?;
    let sql = "UPDATE outbox SET state = 'uncertain', code = ?2, error = ?3 WHERE id = ?1";
    c.execute(sql, params![part.id, code, why])?;
    say(c, part.turn, &delivery_notices::ask_about(part, attempt, &code), now)
}

/// Short, and no other held part's. It changes with each attempt, so that an old question does not name a new one.
fn free_code(c: &Connection, part: &Part, attempt: u32) -> Result<String> {
    let digest = format!("{}/{attempt}", part.idempotency_key);
    let digest = ipc_schema::sha256_hex(digest.as_bytes()).to_ascii_uppercase();
    for length in CODE..digest.len() {
        let code = digest.get(..length).unwrap_or(&digest);
        let sql = "SELECT count(*) FROM outbox WHERE code = ?1";
        if c.query_row(sql, [code], |r| r.get::<_, i64>(0))? == 0 {
            return Ok(code.to_owned());
        }
    }
    Ok(digest)
}

/// Ends a row as `failed` or `expired`. The later parts of its text end with it: nobody is sent a torn rest. The chat
/// is told, once per turn; where it cannot be reached, everything that waits for it ends, and the owner is told once.
pub(super) fn give_up(
    c: &Connection,
    part: &Part,
    end: GivenUp,
    why: &str,
    gone: bool,
    now: WallMs,
) -> Result<()> {
    let sql = "UPDATE outbox SET state = ?2, error = ?3, code = NULL WHERE id = ?1";
    c.execute(sql, params![part.id, end.state(), why])?;
    if gone {
        unreachable(c, &part.chat, why, now)?;
    } else if part.voice == Voice::Reply {
        let sql = format!(
            "UPDATE outbox SET state = ?3, error = 'an earlier part of this text was not delivered'
             WHERE chat = ?4 AND turn IS ?5 AND key = ?2 AND {DUE} AND code IS NULL
               AND part > (SELECT part FROM outbox WHERE id = ?1)"
        );
        let turn = part.turn.map(|t| int(t.0));
        c.execute(&sql, params![part.id, part.key, end.state(), part.chat.as_str(), turn])?;
        let sql = "SELECT part = 0 AND sent_at IS NULL, uncertain FROM outbox WHERE id = ?1";
        let (whole, doubts): (bool, i64) = c.query_row(sql, [part.id], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let notice = delivery_notices::given_up(part, end, why, whole, doubts > 0);
        say(c, part.turn, &notice, now)?;
    }
    Ok(())
}

/// Marks a chat; what waits for it fails now rather than one by one. Returns whether that is news.
fn mark(c: &Connection, chat: &ChatId, why: &str, now: WallMs) -> Result<bool> {
    let sql =
        format!("UPDATE outbox SET state = 'failed', error = ?2, code = NULL WHERE chat = ?1 AND {DUE}");
    c.execute(&sql, params![chat.as_str(), why])?;
    let sql = "INSERT INTO unreachable(chat, why, since) VALUES (?1, ?2, ?3)
               ON CONFLICT(chat) DO UPDATE SET why = ?2, since = ?3 WHERE why <> ?2";
    Ok(c.execute(sql, params![chat.as_str(), why, now.0])? > 0)
}

/// Marks a room that the bot was removed from, with its topics. `main` is told once.
pub(super) fn lost(c: &Connection, chats: &[ChatId], why: &str, now: WallMs) -> Result<()> {
    let mut news = None;
    for chat in chats {
        if mark(c, chat, why, now)? {
            news = news.or(Some(chat));
        }
    }
    news.map_or(Ok(()), |chat| tell_main(c, chat, why, now))
}

/// Marks a chat, and tells `main` once per chat and reason.
fn unreachable(c: &Connection, chat: &ChatId, why: &str, now: WallMs) -> Result<()> {
    if mark(c, chat, why, now)? { tell_main(c, chat, why, now) } else { Ok(()) }
}

fn tell_main(c: &Connection, chat: &ChatId, why: &str, now: WallMs) -> Result<()> {
    let sql = "SELECT title FROM chat WHERE id = ?1";
    let title: Option<String> = c.query_row(sql, [chat.as_str()], |r| r.get(0)).optional()?;
    let sql = "SELECT id FROM chat WHERE grp = ?1 AND id NOT IN (SELECT chat FROM unreachable)";
    let mut owners = c.prepare(sql)?;
    let owners = owners.query_map([GroupName::main().as_str()], |r| r.get::<_, String>(0))?;
    for owner in owners {
        let owner: ChatId = parse("chat.id", &owner?)?;
        let title = title.as_deref().unwrap_or_default();
        say(c, None, &delivery_notices::unreachable(&owner, title, chat, why, now), now)?;
    }
    Ok(())
}

/// Something came from this chat, or went there.
pub(super) fn reached(c: &Connection, chat: &ChatId) -> Result<()> {
    c.prepare_cached("DELETE FROM unreachable WHERE chat = ?1")?.execute([chat.as_str()])?;
    Ok(())
}

/// Parts that wait for a person, the oldest first.
pub(super) fn held(c: &Connection) -> Result<Vec<Held>> {
    let sql = format!(
        "SELECT code, chat, trim(text || coalesce(' [file ' || file_name || ']', '')) FROM outbox INDEXED BY outbox_held WHERE {DUE} AND code IS NOT NULL ORDER BY id"
    );
    let mut rows = c.prepare(&sql)?;
    let rows = rows.query_map([], |r| Ok(Held { code: r.get(0)?, chat: r.get(1)?, text: r.get(2)? }))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// Chats that cannot be reached.
pub(super) fn all_unreachable(c: &Connection) -> Result<Vec<Unreachable>> {
    let mut rows = c.prepare("SELECT chat, why, since FROM unreachable ORDER BY since, chat")?;
    let rows = rows
        .query_map([], |r| Ok(Unreachable { chat: r.get(0)?, why: r.get(1)?, since: WallMs(r.get(2)?) }))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}
