//! The marks at messages that a turn has taken. A row exists while the platform may show the mark, so that a host that
//! dies leaves none behind.

use rusqlite::params;

use super::{Result, Store, int, parse};
use crate::domain::{ChannelName, ChatId, MessageSeq, TurnId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkState {
    /// The platform does not have it yet.
    Wanted,
    /// The platform has it, or may have it.
    Shown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenMark {
    pub chat: ChatId,
    /// The platform's id.
    pub message: String,
    pub state: MarkState,
    pub turn_is_open: bool,
}

impl Store {
    /// Notes that each message for the agent in this turn gets a mark. A message that has one keeps it. The first
    /// message of a new session has the id of its `/new` with `:first` behind it; the query removes that.
    pub async fn want_marks(&self, turn: TurnId) -> Result<()> {
        self.write(move |c| {
            let sql = "INSERT OR IGNORE INTO taken_mark(chat, message, turn, state)
                       SELECT chat, replace(message_id, ':first', ''), turn, 'wanted' FROM message WHERE turn = ?1 AND state = 'in_turn'";
            c.execute(sql, [int(turn.0)])?;
            Ok(())
        })
        .await
    }

    pub async fn taken_marks(&self, channel: ChannelName) -> Result<Vec<TakenMark>> {
        self.read(move |c| {
            let sql = "SELECT k.chat, k.message, k.state = 'shown', t.state = 'open' FROM taken_mark k
                       JOIN turn t ON t.id = k.turn WHERE k.chat LIKE ?1 || ':%'";
            let mut rows = c.prepare_cached(sql)?;
            let rows = rows.query_map([channel.as_str()], |r| {
                Ok((r.get::<_, String>(0)?, r.get(1)?, r.get::<_, bool>(2)?, r.get(3)?))
            })?;
            rows.map(|row| {
                let (chat, message, shown, turn_is_open) = row?;
                let state = if shown { MarkState::Shown } else { MarkState::Wanted };
                Ok(TakenMark { chat: parse("taken_mark.chat", &chat)?, message, state, turn_is_open })
            })
            .collect()
        })
        .await
    }

    /// Notes that a wanted mark is about to be shown. False if it is not wanted any more.
    pub async fn show_mark(&self, chat: ChatId, message: String) -> Result<bool> {
        self.write(move |c| {
            let sql =
                "UPDATE taken_mark SET state = 'shown' WHERE chat = ?1 AND message = ?2 AND state = 'wanted'";
            Ok(c.execute(sql, params![chat.as_str(), message])? > 0)
        })
        .await
    }

    /// Forgets a mark: it is gone, or something else has taken its place.
    pub async fn drop_mark(&self, chat: ChatId, message: String) -> Result<()> {
        self.write(move |c| {
            let sql = "DELETE FROM taken_mark WHERE chat = ?1 AND message = ?2";
            c.execute(sql, params![chat.as_str(), message])?;
            Ok(())
        })
        .await
    }

    /// A message of the chat to which an agent can react, with the platform's id: the one that it names, or the newest
    /// one that its turn holds.
    pub async fn reactable(
        &self,
        turn: TurnId,
        chat: ChatId,
        named: Option<MessageSeq>,
    ) -> Result<Option<(MessageSeq, String)>> {
        self.read(move |c| {
            let sql = "SELECT seq, replace(message_id, ':first', '') FROM message WHERE chat = ?1 AND seq =
                         coalesce(?2, (SELECT max(seq) FROM message WHERE turn = ?3 AND role = 'wake'))";
            let named = named.map(|seq| int(seq.0));
            let mut rows = c.prepare_cached(sql)?;
            let mut rows = rows.query(params![chat.as_str(), named, int(turn.0)])?;
            let row = rows.next()?;
            row.map(|r| Ok((MessageSeq(super::id(r.get(0)?)), r.get(1)?))).transpose()
        })
        .await
    }
}
