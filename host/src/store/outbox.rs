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

    /// How much an open turn has sent to its chat; `None` if the turn has ended. A snapshot is enough for the limit: a
    /// run handles one letter at a time.
    pub async fn said_in_turn(&self, turn: TurnId) -> Result<Option<u32>> {
        self.read(move |c| if is_open(c, turn)? { said(c, turn).map(Some) } else { Ok(None) }).await
    }
}

/// Whether the turn may send something.
pub(super) fn is_open(c: &Connection, turn: TurnId) -> Result<bool> {
    let sql = "SELECT count(*) FROM turn WHERE id = ?1 AND state = 'open'";
    Ok(c.prepare_cached(sql)?.query_row([int(turn.0)], |r| r.get::<_, i64>(0))? > 0)
}

/// How much a turn has sent to its chat before its end: parts of replies, files, questions, reactions and reminders.
/// The host's own notices do not count.
pub(super) fn said(c: &Connection, turn: TurnId) -> Result<u32> {
    let sql =
        "SELECT (SELECT count(*) FROM outbox WHERE turn = ?1 AND (voice = 'reply' OR choices IS NOT NULL))
                    + (SELECT count(*) FROM request
                       WHERE turn = ?1 AND kind = 'react' AND json_extract(verdict, '$.outcome') = 'ok')
                    + (SELECT count(*) FROM task WHERE made_in >= ?2 AND made_in < ?3 AND remind = 1)";
    let made_in = (format!("{turn} "), format!("{turn}!"));
    Ok(c.prepare_cached(sql)?.query_row(params![int(turn.0), made_in.0, made_in.1], |r| r.get(0))?)
}

/// Takes the questions of an ended turn out of the queue, as far as nobody has seen them.
pub(super) fn withdraw_questions(c: &Connection, turn: TurnId) -> Result<()> {
    let sql = "UPDATE outbox SET state = 'expired', error = 'its turn has ended' WHERE turn = ?1
                 AND state IN ('ready', 'deferred') AND sent_at IS NULL AND placeholder IS NULL
                 AND key IN (SELECT request FROM question WHERE turn = ?1
                             UNION ALL SELECT 'notice:' || request FROM question WHERE turn = ?1)";
    c.prepare_cached(sql)?.execute([int(turn.0)])?;
    Ok(())
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
