//! Files of messages. `run` fetches them before a letter names them, and records here what came of each.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store, StoreError, int};
use crate::domain::message::{Attachment, StoredMessage};
use crate::domain::{ChatId, MessageSeq};

/// A file that must be fetched before a letter can name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub seq: MessageSeq,
    /// Its index among the message's files.
    pub at: usize,
    /// The chat of the message.
    pub chat: ChatId,
    /// Whether its message is for the agent.
    pub wakes: bool,
    /// The file, with its handle.
    pub file: Attachment,
}

impl Store {
    /// Records what came of fetching a file. Does nothing if the message is gone or has fewer files.
    pub async fn fetched(&self, seq: MessageSeq, at: usize, file: Attachment) -> Result<()> {
        self.write(move |c| {
            let Some(mut files) = of_message(c, seq)? else { return Ok(()) };
            let Some(place) = files.get_mut(at) else { return Ok(()) };
            *place = file;
            let text = as_json(&files)?;
            c.execute("UPDATE message SET attachments = ?2 WHERE seq = ?1", params![int(seq.0), text])?;
            Ok(())
        })
        .await
    }
}

/// The files of these messages that must be fetched: first those of messages that wake the agent, then the newest.
pub(super) fn waiting(messages: &[StoredMessage]) -> Vec<Waiting> {
    let of_message = |m: &StoredMessage| {
        let (seq, chat, wakes) = (m.seq, m.chat.clone(), m.wakes);
        let files = m.attachments.clone().into_iter().enumerate().filter(|(_, file)| file.handle.is_some());
        files.map(move |(at, file)| Waiting { seq, at, chat: chat.clone(), wakes, file }).collect::<Vec<_>>()
    };
    let mut all: Vec<Waiting> = messages.iter().flat_map(of_message).collect();
    all.sort_by_key(|w| (!w.wakes, std::cmp::Reverse(w.seq), w.at));
    all
}

/// Cuts the list before the first waking message that waits for a file, if another waking message comes before it: a
/// later letter carries the rest. The messages are in order.
pub(super) fn leave_later(messages: &mut Vec<StoredMessage>) {
    let waits = |m: &StoredMessage| m.wakes && m.attachments.iter().any(|file| file.handle.is_some());
    let first = messages.iter().position(waits).unwrap_or(messages.len());
    if messages.iter().take(first).any(|m| m.wakes) {
        messages.truncate(first);
    }
}

/// The attachments as the column holds them.
pub(super) fn as_json(files: &[Attachment]) -> Result<String> {
    serde_json::to_string(files)
        .map_err(|e| StoreError::Rule(format!("files cannot be written as JSON: {e}")))
}

fn of_message(c: &Connection, seq: MessageSeq) -> Result<Option<Vec<Attachment>>> {
    let sql = "SELECT attachments FROM message WHERE seq = ?1";
    let text: Option<String> = c.query_row(sql, [int(seq.0)], |r| r.get(0)).optional()?;
    let wrong =
        |e: serde_json::Error| StoreError::Row { what: format!("message {}", seq.0), why: e.to_string() };
    text.map(|text| serde_json::from_str(&text).map_err(wrong)).transpose()
}
