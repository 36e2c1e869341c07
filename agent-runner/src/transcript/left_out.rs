//! Which entries a request leaves out, because a provider refused the conversation with them.

use ipc_schema::TurnId;

use super::{Body, Entry, LeftOut};

/// What the transcript says to leave out, and what an attempt tries to leave out.
#[derive(Debug, Clone, Default)]
pub struct Omissions(Vec<(TurnId, LeftOut)>);

impl Omissions {
    pub fn of(entries: &[Entry]) -> Self {
        let recorded = entries.iter().filter_map(|entry| match &entry.body {
            Body::LeftOut(left) => Some((entry.turn, left.clone())),
            _ => None,
        });
        Self(recorded.collect())
    }

    /// With this one too, recorded in `turn`.
    pub fn and(&self, turn: TurnId, left: &LeftOut) -> Self {
        Self(self.0.iter().cloned().chain([(turn, left.clone())]).collect())
    }

    /// Whether an entry is left out. What the turn of the refusal is about stays: people's messages, a task's fire and
    /// its gate, and the runner's notes.
    pub fn omits(&self, entry: &Entry) -> bool {
        let waits = matches!(entry.body, Body::Input(_) | Body::Gate(_) | Body::Note(_));
        self.0.iter().any(|(turn, LeftOut { through, from, .. })| {
            from.is_some_and(|from| (from..=*through).contains(&entry.entry))
                && !(waits && entry.turn == *turn)
        })
    }

    pub fn omits_thoughts(&self, entry: &Entry) -> bool {
        self.0.iter().any(|(_, left)| entry.entry <= left.through && !left.only_files)
    }

    /// Whether the entry's pictures and documents are left out.
    pub fn omits_files(&self, entry: &Entry) -> bool {
        self.0.iter().any(|(_, left)| entry.entry <= left.through)
    }
}
