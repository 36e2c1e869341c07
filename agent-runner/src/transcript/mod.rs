//! The session's memory of itself: what came in, what the model said, what its tools answered, how turns ended.
//!
//! Every rule of repetition rests on it. An entry is on disk before a tool runs or a letter goes, so whatever the
//! host or the world has seen, a later run finds here; and the numbers of entries never change, so a letter that
//! is made again has the id that it had.

mod content_block;
mod entry;
mod jsonl_file;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;

use ipc_schema::letters::to_agent::Input;
use ipc_schema::{MessageSeq, TurnId};

pub use content_block::Block;
pub use entry::{Asked, Assistant, Body, End, Entry, Note, Results, Summary, ToolResult, Usage};
use jsonl_file::TranscriptFile;
#[cfg(any(test, fuzzing))]
pub use jsonl_file::fuzz;

use crate::error::Fatal;
use crate::local_time;

/// A session's transcript, in memory and on disk alike.
#[derive(Debug)]
pub struct Transcript {
    file: TranscriptFile,
    entries: Vec<Entry>,
    held: HashSet<MessageSeq>,
    last: u64,
}

impl Transcript {
    /// Reads `<dir>/<session>.jsonl`, or begins it.
    ///
    /// # Errors
    /// [`Fatal::SessionName`], [`Fatal::SessionUnreadable`] or [`Fatal::SessionUnwritable`].
    pub fn load(dir: PathBuf, session: &str) -> Result<Self, Fatal> {
        let (file, entries, last) = TranscriptFile::open(dir, session)?;
        let held = entries.iter().flat_map(Entry::held).collect();
        Ok(Self { file, entries, held, last })
    }

    /// Appends an entry; when this returns, it is on disk. Its number is returned.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn append(&mut self, turn: TurnId, body: Body) -> Result<u64, Fatal> {
        let entry = Entry { entry: self.last + 1, turn, at: local_time::stamp(), body };
        self.file.append(&entry)?;
        self.last = entry.entry;
        self.held.extend(entry.held());
        self.entries.push(entry);
        Ok(self.last)
    }

    /// Appends what is new in `input`: messages that no entry holds yet. False when there was nothing new.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn append_input(&mut self, turn: TurnId, mut input: Input) -> Result<bool, Fatal> {
        input.messages.retain(|message| !self.held.contains(&message.id));
        if input.messages.is_empty() {
            return Ok(false);
        }
        self.append(turn, Body::Input(input))?;
        Ok(true)
    }

    /// Appends results of tools.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn append_results(&mut self, turn: TurnId, blocks: Vec<ToolResult>) -> Result<(), Fatal> {
        self.append(turn, Body::Results(Results { blocks })).map(|_| ())
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries of one turn, oldest first.
    pub fn of_turn(&self, turn: TurnId) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.turn == turn && !matches!(entry.body, Body::Summary(_)))
    }

    /// The turn of the newest entry.
    pub fn last_turn(&self) -> Option<TurnId> {
        self.entries.last().filter(|entry| !matches!(entry.body, Body::Summary(_))).map(|entry| entry.turn)
    }

    /// Whether every message of `input` is in some entry.
    pub fn holds(&self, input: &Input) -> bool {
        input.messages.iter().all(|message| self.held.contains(&message.id))
    }

    /// The turn whose entry holds this message. None when it was never seen, or only a summary knows of it.
    pub fn turn_of(&self, message: MessageSeq) -> Option<TurnId> {
        self.entries.iter().rev().find_map(|entry| match &entry.body {
            Body::Input(input) if input.messages.iter().any(|m| m.id == message) => Some(entry.turn),
            _ => None,
        })
    }

    /// The result of a tool call in `turn`, if there is one.
    pub fn result_of(&self, turn: TurnId, tool_use_id: &str) -> Option<&ToolResult> {
        self.of_turn(turn).rev().find_map(|entry| match &entry.body {
            Body::Results(results) => results.blocks.iter().find(|r| r.tool_use_id == tool_use_id),
            _ => None,
        })
    }

    /// The request that a tool call of `turn` made, as it went to the host.
    pub fn asked_by(&self, turn: TurnId, tool_use_id: &str) -> Option<&Asked> {
        self.of_turn(turn).rev().find_map(|entry| match &entry.body {
            Body::Request(asked) if asked.tool_use_id == tool_use_id => Some(asked),
            _ => None,
        })
    }

    /// The number of the newest entry.
    pub fn last_entry(&self) -> u64 {
        self.last
    }

    /// Keeps `text` as `archive/<name>` beside the transcript.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn archive(&self, name: &str, text: &str) -> Result<(), Fatal> {
        self.file.archive(name, text)
    }

    /// Puts `summary` in the place of the first `count` entries.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`]; then nothing has changed.
    pub fn shorten(&mut self, count: usize, summary: Summary) -> Result<(), Fatal> {
        let Some(replaced) = count.checked_sub(1).and_then(|last| self.entries.get(last)) else {
            return Ok(());
        };
        let head = Entry {
            entry: replaced.entry,
            turn: replaced.turn,
            at: local_time::stamp(),
            body: Body::Summary(summary),
        };
        let kept = self.entries.iter().skip(count).cloned();
        let entries: Vec<_> = std::iter::once(head).chain(kept).collect();
        self.file.replace(&entries)?;
        self.held = entries.iter().flat_map(Entry::held).collect();
        self.entries = entries;
        Ok(())
    }
}
