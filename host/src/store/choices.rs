//! The choices below texts, and the presses on them. A choice counts once: transaction 1 stores the first press as the
//! person's command, and drops the others. A reply to a question becomes a command, too.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store, StoreError, id, int, parse};
use crate::domain::message::Press;
use crate::domain::outbound::{ChoiceToken, Choices};
use crate::domain::{ChatId, MessageSeq, WallMs};
use crate::policy::presses::{Decided, Offer};

impl Store {
    /// The choice that a press names, if it stands in this chat or in a topic of it: a platform may not tell the topic
    /// of an old message.
    pub async fn offer(&self, press: Press, chat: ChatId) -> Result<Option<Offer>> {
        self.read(move |c| {
            let Ok(token) = press.token.parse::<ChoiceToken>() else { return Ok(None) };
            let sql = "SELECT o.chat, o.choices, m.text, m.sender_name FROM outbox o
                       LEFT JOIN message m ON m.seq = o.chosen WHERE o.ours = ?1 AND o.choices IS NOT NULL";
            let row = c.query_row(sql, [&token.part], |r| {
                let chosen = r.get::<_, Option<String>>(2)?.zip(r.get::<_, Option<String>>(3)?);
                Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, chosen))
            });
            let Some((shown_in, choices, chosen)) = row.optional()? else { return Ok(None) };
            let here = shown_in.strip_prefix(chat.as_str());
            if !here.is_some_and(|topic| topic.is_empty() || topic.starts_with('/')) {
                return Ok(None);
            }
            let Choices { list, for_owners, .. } = read(&choices)?;
            let Some(pressed) = list.get(token.number) else { return Ok(None) };
            let decided = chosen.map(|(command, by)| {
                let label = list.iter().find(|choice| choice.command == command).map(|c| c.label.clone());
                Decided { label: label.unwrap_or(command), by }
            });
            let command = pressed.command.clone();
            Ok(Some(Offer { chat: parse("outbox.chat", &shown_in)?, command, for_owners, decided }))
        })
        .await
    }
}

/// The code of the question that this message of the bot asks in the chat, if it can still be answered.
pub(super) fn asked_by(c: &Connection, chat: &ChatId, receipt: &str, now: WallMs) -> Result<Option<String>> {
    let sql = "SELECT q.code FROM question q INDEXED BY question_code
               CROSS JOIN outbox o ON o.turn = q.turn AND o.key IN (q.request, 'notice:' || q.request)
               WHERE q.state IN ('open', 'pending') AND q.chat = ?1 AND q.expires_at > ?3 AND o.receipt = ?2";
    let mut rows = c.prepare_cached(sql)?;
    Ok(rows.query_row(params![chat.as_str(), receipt, now.0], |r| r.get(0)).optional()?)
}

/// The press that decided the text which a press is about.
pub(super) fn chosen(c: &Connection, press: &Press) -> Result<Option<MessageSeq>> {
    let Ok(token) = press.token.parse::<ChoiceToken>() else { return Ok(None) };
    let sql = "SELECT chosen FROM outbox WHERE ours = ?1";
    let chosen = c.query_row(sql, [token.part], |r| r.get::<_, Option<i64>>(0)).optional()?;
    Ok(chosen.flatten().map(|seq| MessageSeq(id(seq))))
}

/// Stores that a press, which is now this message, has decided.
pub(super) fn choose(c: &Connection, press: &Press, seq: MessageSeq) -> Result<()> {
    if let Ok(token) = press.token.parse::<ChoiceToken>() {
        let sql = "UPDATE outbox SET chosen = ?2 WHERE ours = ?1 AND chosen IS NULL";
        c.execute(sql, params![token.part, int(seq.0)])?;
    }
    Ok(())
}

pub(super) fn read(json: &str) -> Result<Choices> {
    serde_json::from_str(json)
        .map_err(|e| StoreError::Row { what: "outbox.choices".into(), why: e.to_string() })
}

pub(super) fn as_json(choices: &Choices) -> Result<String> {
    serde_json::to_string(choices)
        .map_err(|e| StoreError::Rule(format!("choices cannot be written as JSON: {e}")))
}
