//! The session's transcript: the messages, the model's answers, tool results and how turns ended.
//!
//! An entry is on disk before a tool runs or a letter is written, so a later run finds here whatever the host or the
//! world has seen. Entry numbers never change, because letter ids are derived from them: a letter that is written
//! again has the same id.

mod content_block;
mod entry;
mod jsonl_file;
mod left_out;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;

use ipc_schema::letters::Request;
use ipc_schema::letters::from_agent::Lost;
use ipc_schema::letters::to_agent::{Fire, Input};
use ipc_schema::{LetterId, MessageSeq, TurnId};

pub use content_block::Block;
pub use entry::{
    Assistant, Body, End, Entry, FileKind, Gate, LeftOut, Note, OrderDone, RecordedRequest, Results,
    Shortened, ShownFile, Summary, ToolResult, Usage,
};
#[cfg(any(test, fuzzing))]
pub use jsonl_file::fuzz;
use jsonl_file::{Opened, TranscriptFile};
pub use left_out::Omissions;

use crate::fatal::Fatal;
use crate::local_time;

/// A session's transcript. Memory and disk hold the same.
#[derive(Debug)]
pub struct Transcript {
    file: TranscriptFile,
    entries: Vec<Entry>,
    held: HashSet<MessageSeq>,
    last: u64,
    lost: Option<Lost>,
}

impl Transcript {
    /// Reads `<dir>/<session>.jsonl`, or creates it. See [`TranscriptFile::open`].
    ///
    /// # Errors
    /// [`Fatal::SessionName`], [`Fatal::SessionUnreadable`] or [`Fatal::SessionUnwritable`].
    pub fn load(dir: PathBuf, session: &str) -> Result<Self, Fatal> {
        let Opened { file, entries, last, lost } = TranscriptFile::open(dir, session)?;
        let held = entries.iter().flat_map(Entry::held).collect();
        Ok(Self { file, entries, held, last, lost })
    }

    /// What of the file could not be used.
    pub fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// Gives no entry the number of an entry whose letter the host has. A transcript that begins anew does not hold
    /// these entries, and the host would take the new letter for a repeat.
    pub fn pass_over_numbers<'a>(&mut self, consumed: impl IntoIterator<Item = &'a LetterId>) {
        let numbers = consumed.into_iter().filter_map(LetterId::entry);
        let highest = numbers.filter(|number| *number < Entry::NUMBER_MAX).max();
        self.last = self.last.max(highest.unwrap_or(0));
    }

    /// Appends an entry and returns its number once it is on disk.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn append(&mut self, turn: TurnId, body: Body) -> Result<u64, Fatal> {
        let entry = Entry { entry: self.last + 1, turn, at: local_time::now_rfc3339(), body };
        self.file.append(&entry)?;
        self.last = entry.entry;
        self.held.extend(entry.held());
        self.entries.push(entry);
        Ok(self.last)
    }

    /// Appends the fire of `input`, unless the turn has it, and the messages that no entry holds yet. False when no
    /// message is new. An order is new in each turn, because only the turn that has it carries it out.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn append_input(&mut self, turn: TurnId, mut input: Input) -> Result<bool, Fatal> {
        let of_turn = |id| self.of_turn(turn).any(|entry| entry.held().any(|held| held == id));
        input.messages.retain(|message| match message.order {
            Some(_) => !of_turn(message.id),
            None => !self.held.contains(&message.id),
        });
        input.fire = input.fire.filter(|fire| !self.has_fire(turn, &fire.id));
        let new = !input.messages.is_empty();
        if new || input.fire.is_some() {
            self.append(turn, Body::Input(input))?;
        }
        Ok(new)
    }

    /// Whether `turn` has taken in this fire, or its gate has ended it.
    fn has_fire(&self, turn: TurnId, fire: &str) -> bool {
        self.of_turn(turn).any(|entry| match &entry.body {
            Body::Input(input) => input.fire.as_ref().is_some_and(|held| held.id == fire),
            Body::Gate(gate) => !gate.wake && gate.fire == fire,
            _ => false,
        })
    }

    /// Whether the gate script of the turn's fire said that there is nothing to do.
    pub fn is_gated(&self, turn: TurnId) -> bool {
        let says_no =
            |entry: &Entry| matches!(&entry.body, Body::Gate(gate) if !gate.wake && gate.error.is_none());
        self.of_turn(turn).any(says_no)
    }

    /// The fire that `turn` has taken in.
    pub fn fire_of(&self, turn: TurnId) -> Option<&Fire> {
        self.of_turn(turn).find_map(|entry| match &entry.body {
            Body::Input(input) => input.fire.as_ref(),
            _ => None,
        })
    }

    /// Whether the gate script of this fire has given its outcome in `turn`.
    pub fn has_gate(&self, turn: TurnId, fire: &str) -> bool {
        self.of_turn(turn).any(|entry| matches!(&entry.body, Body::Gate(gate) if gate.fire == fire))
    }

    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn append_results(&mut self, turn: TurnId, blocks: Vec<ToolResult>) -> Result<(), Fatal> {
        self.append(turn, Body::Results(Results { blocks })).map(|_| ())
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn of_turn(&self, turn: TurnId) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.turn == turn && !matches!(entry.body, Body::Summary(_)))
    }

    pub fn last_turn(&self) -> Option<TurnId> {
        self.entries.last().filter(|entry| !matches!(entry.body, Body::Summary(_))).map(|entry| entry.turn)
    }

    /// Whether the transcript holds every message of `input`, and `turn` its fire.
    pub fn holds(&self, turn: TurnId, input: &Input) -> bool {
        input.messages.iter().all(|message| self.held.contains(&message.id))
            && input.fire.as_ref().is_none_or(|fire| self.has_fire(turn, &fire.id))
    }

    /// The turn whose entry holds this message. `None` when no entry does, or only a summary remembers it.
    pub fn turn_of(&self, message: MessageSeq) -> Option<TurnId> {
        self.entries.iter().rev().find_map(|entry| match &entry.body {
            Body::Input(input) if input.messages.iter().any(|m| m.id == message) => Some(entry.turn),
            _ => None,
        })
    }

    /// Makes the ids of an answer's calls usable in `turn`: a call gets an id of its own if the provider gave none, one
    /// that a letter cannot carry, or one that an earlier call of the turn has.
    ///
    /// # Errors
    /// Never in practice: a call is a JSON object.
    pub fn own_call_ids(&self, turn: TurnId, answer: &mut Assistant) -> serde_json::Result<()> {
        let earlier = self.of_turn(turn).filter_map(|entry| match &entry.body {
            Body::Assistant(answer) => Some(answer.blocks.iter().filter(|block| block.is_tool_use())),
            _ => None,
        });
        let mut taken: HashSet<_> = earlier.flatten().filter_map(|block| block.view().id).collect();
        for (index, block) in answer.blocks.iter_mut().enumerate().filter(|(_, block)| block.is_tool_use()) {
            let id = block.view().id.unwrap_or_default();
            let usable = !id.is_empty() && LetterId::of_request(turn, &id).is_ok() && taken.insert(id);
            if !usable {
                *block = block.with_id(&format!("call-{}-{index}", self.last + 1))?;
            }
        }
        Ok(())
    }

    /// The result of a tool call in `turn`, if there is one.
    pub fn result_of(&self, turn: TurnId, tool_use_id: &str) -> Option<&ToolResult> {
        self.of_turn(turn).rev().find_map(|entry| match &entry.body {
            Body::Results(results) => results.blocks.iter().find(|r| r.tool_use_id == tool_use_id),
            _ => None,
        })
    }

    /// The request that a tool call of `turn` made, as it went to the host.
    pub fn request_of(&self, turn: TurnId, tool_use_id: &str) -> Option<&RecordedRequest> {
        self.of_turn(turn).rev().find_map(|entry| match &entry.body {
            Body::Request(asked) if asked.tool_use_id == tool_use_id => Some(asked),
            _ => None,
        })
    }

    /// Whether a tool call of `turn` waits for a permission. If so, it has not begun.
    pub fn waits_for_permission(&self, turn: TurnId, tool_use_id: &str) -> bool {
        let asked = self.request_of(turn, tool_use_id);
        asked.is_some_and(|asked| matches!(asked.request, Request::AskPermission(_)) && !asked.granted)
    }

    /// The highest entry number that was ever given.
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

    /// Replaces the first `count` entries by `summary`.
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
            at: local_time::now_rfc3339(),
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
