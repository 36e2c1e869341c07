//! The outbox: nothing is sent that is not a row here.

use rusqlite::{Connection, params};

use super::{Result, Store, choices, int};
use crate::domain::outbound::{OutgoingText, PartText};
use crate::domain::{TurnId, WallMs};

/// Rows that are not at an end, as the index `outbox_due` has them.
pub(super) const DUE: &str = "state IN ('ready', 'sending', 'deferred', 'uncertain')";

impl Store {
    /// Queues something to be said.
    pub async fn say(&self, turn: Option<TurnId>, outgoing: OutgoingText, now: WallMs) -> Result<()> {
        self.write(move |c| say(c, turn, &outgoing, now)).await
    }
}

/// Queues something to be said. What was said under its key before is not said again.
pub(super) fn say(c: &Connection, turn: Option<TurnId>, outgoing: &OutgoingText, now: WallMs) -> Result<()> {
    let sql =
        "INSERT INTO outbox(ours, chat, voice, turn, key, part, answers, text, state, not_before, created_at,
                                  lives_from, markup, file, file_name, file_bytes, choices)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'ready', 0, ?9, ?9, ?10, ?11, ?12, ?13, ?14)
               ON CONFLICT DO NOTHING";
    let choices = outgoing.choices.as_ref().map(choices::as_json).transpose()?;
    for (part, PartText { text, markup, file }) in outgoing.parts.iter().enumerate() {
        let choices = choices.as_ref().filter(|_| part + 1 == outgoing.parts.len());
        let part = i64::try_from(part).unwrap_or(i64::MAX);
        let turn = turn.map(|t| int(t.0));
        let answers = outgoing.answers.map(|m| int(m.0));
        let (chat, voice) = (outgoing.chat.as_str(), outgoing.voice.as_str());
        let ours = our_id(chat, turn, &outgoing.key, part, now);
        let (sha256, name, bytes) = file
            .as_deref()
            .map_or((None, None, None), |file| (Some(&file.sha256), Some(&file.name), Some(int(file.bytes))));
        let facts = params![
            ours,
            chat,
            voice,
            turn,
            outgoing.key,
            part,
            answers,
            text,
            now.0,
            markup,
            sha256,
            name,
            bytes,
            choices
        ];
        c.execute(sql, facts)?;
    }
    Ok(())
}

/// Our own id of a part: made of what the part is, not of its row, whose number a restored copy gives again.
fn our_id(chat: &str, turn: Option<i64>, key: &str, part: i64, at: WallMs) -> String {
    let facts = format!("{chat}\n{}\n{key}\n{part}\n{}", turn.unwrap_or(0), at.0);
    ipc_schema::sha256_hex(facts.as_bytes()).chars().take(32).collect()
}
