//! Who had which name first. Names are compared by how they look, over the whole life of a group; an owner's name is
//! the owner's in every group. Rights never depend on a name: this is for those who read them.

use rusqlite::{Connection, OptionalExtension, params};

use super::Result;
use crate::domain::GroupName;
use crate::domain::message::{Admitted, NameOf, StoredMessage};
use crate::text;

/// How far back a quoted message is looked for among the parts that the host has sent.
const PARTS: i64 = 500;

/// Keeps the name of a message's sender.
pub(super) fn seen(c: &Connection, m: &Admitted) -> Result<()> {
    let look = text::look(&m.inbound.sender.name);
    if look.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO name(look, grp, sender, owner) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT(look, grp) DO UPDATE SET sender = excluded.sender, owner = 1
               WHERE excluded.owner AND NOT owner";
    c.prepare_cached(sql)?.execute(params![look, m.group.as_str(), m.inbound.sender.id.as_str(), m.owner])?;
    Ok(())
}

/// Whether somebody else had this name first, or is an owner with it. `sender` is empty where nobody is known to have
/// it.
fn is_of_another(c: &Connection, group: &GroupName, sender: &str, name: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM name WHERE look = ?1 AND sender <> ?2 AND (owner OR grp = ?3))";
    let look = text::look(name);
    Ok(c.prepare_cached(sql)?.query_row(params![look, sender, group.as_str()], |r| r.get(0))?)
}

/// Says of a message whose names its sender and the message that it answers have.
pub(super) fn tell(c: &Connection, group: &GroupName, m: &mut StoredMessage) -> Result<()> {
    let of = |another: bool| if another { NameOf::Another } else { NameOf::Own };
    m.name = of(!m.owner && is_of_another(c, group, &m.sender_id, &m.sender_name)?);
    let Some(reply) = &m.reply_to else { return Ok(()) };
    let Some(quoted) = &reply.message else {
        m.quoted_name = NameOf::Unknown;
        return Ok(());
    };
    let sql =
        "SELECT sender, owner FROM message WHERE chat = ?1 AND message_id = ?2 ORDER BY version LIMIT 1";
    let chat = m.chat.as_str();
    let row = c.prepare_cached(sql)?.query_row(params![chat, quoted], |r| Ok((r.get(0)?, r.get(1)?)));
    let row: Option<(String, bool)> = row.optional()?;
    m.quoted_name = match row {
        Some((sender, owner)) => of(!owner && is_of_another(c, group, &sender, &reply.from)?),
        None if is_ours(c, chat, quoted)? => NameOf::Own,
        None => NameOf::Unknown,
    };
    Ok(())
}

/// Whether the host has sent this message lately.
fn is_ours(c: &Connection, chat: &str, receipt: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM (SELECT chat, receipt FROM outbox ORDER BY id DESC LIMIT ?3)
                              WHERE chat = ?1 AND receipt = ?2)";
    Ok(c.prepare_cached(sql)?.query_row(params![chat, receipt, PARTS], |r| r.get(0))?)
}
