//! Applies to a new message what its group allows the sender: how many turns, and whether `/stop` and `/new`. The
//! decisions are in `policy`. The counts are read from the turns themselves, so they outlive a restart.

use rusqlite::{Connection, OptionalExtension, params};

use super::turns::open_of_lane;
use super::{Result, int};
use crate::domain::message::{Admitted, Command, Role};
use crate::domain::outbound::OutgoingText;
use crate::domain::{Lane, WallMs};
use crate::policy::may_stop::{Orderer, may_stop};
use crate::policy::turn_rate::{WINDOW, reached};
use crate::text;

/// The role that the rules leave a message, and what its chat is told, once an hour, if they take something.
pub(super) fn permitted(
    c: &Connection,
    m: &Admitted,
    lane: &Lane,
    role: Role,
    now: WallMs,
) -> Result<(Role, Option<OutgoingText>)> {
    let (rules, sender) = (m.rules, m.inbound.sender.id.as_str());
    let (word, told) = match role {
        Role::Command(command @ (Command::Stop | Command::New)) => {
            let served = served(c, lane)?.is_some_and(|served| served == sender);
            if may_stop(rules.may_stop, Orderer { owner: m.owner, kind: m.inbound.kind, served }) {
                return Ok((role, None));
            }
            (format!("may-not:{}", command.word()), text::may_not_stop(rules.may_stop))
        }
        Role::First if began_nothing(c, m)? => return Ok((Role::Context, None)),
        Role::Wake | Role::First if !m.owner && m.inbound.version == 0 => {
            let (of_sender, of_chat) = recent(c, lane, m, now)?;
            match reached(rules.rate, of_sender, of_chat) {
                Some(limit) => (format!("turns:{}", limit.of(sender)), text::too_many_turns(limit)),
                None => return Ok((role, None)),
            }
        }
        role => return Ok((role, None)),
    };
    let hour = now.0.div_euclid(i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX));
    Ok((Role::Context, Some(OutgoingText::notice(&m.inbound.chat, &format!("{word}:{hour}"), told))))
}

/// Who wrote the message that began the open turn.
fn served(c: &Connection, lane: &Lane) -> Result<Option<String>> {
    let Some(open) = open_of_lane(c, lane)? else { return Ok(None) };
    let sql = format!("SELECT {BEGAN_BY}");
    Ok(c.prepare_cached(&sql)?.query_row([int(open.turn.0)], |r| r.get(0)).optional()?.flatten())
}

/// The sender of the first message of a turn (`?1`).
const BEGAN_BY: &str = "(SELECT sender FROM message INDEXED BY message_turn WHERE turn = ?1 AND role = 'wake'
                         ORDER BY seq LIMIT 1)";

/// Whether the words after a `/new` that was not carried out.
fn began_nothing(c: &Connection, m: &Admitted) -> Result<bool> {
    let Some(order) = m.inbound.message_id.strip_suffix(":first") else { return Ok(false) };
    let sql = "SELECT role = 'context' FROM message WHERE chat = ?1 AND message_id = ?2 AND version = 0";
    let refused = c.prepare_cached(sql)?.query_row(params![m.inbound.chat.as_str(), order], |r| r.get(0));
    Ok(refused.optional()?.unwrap_or(false))
}

/// How many turns of the last hour people have begun in the chat: the sender, and all of them.
fn recent(c: &Connection, lane: &Lane, m: &Admitted, now: WallMs) -> Result<(u32, u32)> {
    let since = now.0 - i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX);
    let sql = "SELECT id, chat, fire IS NULL, opened_at FROM turn INDEXED BY turn_lane WHERE lane = ?1 ORDER BY id DESC";
    let mut turns = c.prepare_cached(sql)?;
    let mut turns = turns.query([lane.to_string()])?;
    let mut began_by = c.prepare_cached(&format!("SELECT {BEGAN_BY}"))?;
    let (mut of_sender, mut of_chat) = (0, 0);
    // The newest first: no turn before the hour is looked at.
    while let Some(turn) = turns.next()? {
        if turn.get::<_, i64>(3)? <= since {
            break;
        }
        if turn.get::<_, String>(1)? != m.inbound.chat.as_str() || !turn.get::<_, bool>(2)? {
            continue;
        }
        of_chat += 1;
        let by: Option<String> = began_by.query_row([turn.get::<_, i64>(0)?], |r| r.get(0))?;
        of_sender += u32::from(by.as_deref() == Some(m.inbound.sender.id.as_str()));
    }
    Ok((of_sender, of_chat))
}
