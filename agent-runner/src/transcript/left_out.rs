//! Which entries a request leaves out or shortens: because a provider refused the conversation with them, or because
//! the open turn alone outgrew the context window.

use ipc_schema::TurnId;

use super::{Body, Entry, LeftOut, Shortened};

/// What the transcript says to leave out, and what an attempt tries to leave out.
#[derive(Debug, Clone, Default)]
pub struct Omissions {
    refused: Vec<(TurnId, LeftOut)>,
    shortened: Vec<(TurnId, Shortened)>,
}

impl Omissions {
    pub fn of(entries: &[Entry]) -> Self {
        let mut found = Self::default();
        for entry in entries {
            match &entry.body {
                Body::LeftOut(left) => found.refused.push((entry.turn, left.clone())),
                Body::Shortened(shortened) => found.shortened.push((entry.turn, shortened.clone())),
                _ => {}
            }
        }
        found
    }

    /// With this one too, recorded in `turn`.
    pub fn and(&self, turn: TurnId, left: &LeftOut) -> Self {
        let mut more = self.clone();
        more.refused.push((turn, left.clone()));
        more
    }

    /// With this one too, recorded in `turn`.
    pub fn and_shortened(&self, turn: TurnId, shortened: &Shortened) -> Self {
        let mut more = self.clone();
        more.shortened.push((turn, shortened.clone()));
        more
    }

    /// Whether an entry is left out. What the turn is about stays: people's messages, a task's fire and its gate, and
    /// the runner's notes.
    pub fn omits(&self, entry: &Entry) -> bool {
        let waits = matches!(entry.body, Body::Input(_) | Body::Gate(_) | Body::Note(_));
        let refused = self.refused.iter().any(|(turn, LeftOut { through, from, .. })| {
            from.is_some_and(|from| (from..=*through).contains(&entry.entry))
                && !(waits && entry.turn == *turn)
        });
        refused || !waits && self.summary_of(entry).is_some()
    }

    pub fn omits_thoughts(&self, entry: &Entry) -> bool {
        self.refused.iter().any(|(_, left)| entry.entry <= left.through && !left.only_files)
    }

    /// Whether an entry is left out because its turn outgrew the window.
    pub fn is_summed_up(&self, entry: &Entry) -> bool {
        self.summary_of(entry).is_some()
    }

    /// The text that stands in the place of this entry: the newest summary of its turn, at its last entry.
    pub fn summary_at(&self, entry: &Entry) -> Option<&str> {
        let newest = self.summary_of(entry).filter(|newest| newest.through == entry.entry)?;
        newest.summary.as_deref()
    }

    fn summary_of(&self, entry: &Entry) -> Option<&Shortened> {
        let newest = self.shortened.iter().rev().find(|(turn, s)| *turn == entry.turn && s.summary.is_some());
        newest.map(|(_, shortened)| shortened).filter(|shortened| entry.entry <= shortened.through)
    }

    /// The most characters of a tool's result in this entry, and where the whole of it is.
    pub fn result_max(&self, entry: &Entry) -> Option<(usize, &str)> {
        let of_it = self.shortened.iter().filter(|(turn, s)| *turn == entry.turn && entry.entry <= s.through);
        of_it.map(|(_, shortened)| (shortened.results, &*shortened.archive)).min()
    }

    /// Whether the entry's pictures and documents are left out.
    pub fn omits_files(&self, entry: &Entry) -> bool {
        self.refused.iter().any(|(_, left)| entry.entry <= left.through)
    }
}
