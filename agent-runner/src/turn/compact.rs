//! Performs compaction between two model calls: archives the oldest turns and replaces them by a summary.
//! [`crate::compaction_plan`] decides which.

use ipc_schema::letters::from_agent::Activity;
use ipc_schema::names_and_paths::box_path;

use super::{Agent, CallOutcome, TurnProgress};
use crate::compaction_plan::{self, CompactionTarget};
use crate::fatal::Fatal;
use crate::model::{Model, request};
use crate::transcript::{Body, Entry, Summary};

/// Message ids that a summary keeps, so that these messages are not appended again.
const HELD_MAX: usize = 1_000;

impl<M: Model> Agent<M> {
    /// Whether the last call used so much of the context window that compaction is due.
    pub(super) fn needs_compaction(&self, progress: &TurnProgress) -> bool {
        let acted_on = self.transcript.entries().iter().fold(progress.size_acted_on, |newest, entry| {
            match &entry.body {
                Body::Summary(summary) => newest.max(summary.made_at),
                _ => newest,
            }
        });
        let last = self.transcript.entries().iter().rev().find_map(|entry| match &entry.body {
            Body::Assistant(answer) => Some((entry.entry, answer.usage.read())),
            _ => None,
        });
        let limit =
            u64::from(self.begin.model.window) * u64::from(self.begin.limits.compaction_percent) / 100;
        last.is_some_and(|(entry, read)| entry > acted_on && read > limit)
    }

    /// Replaces older turns by a summary. If no summary can be made, they are replaced without one: a conversation
    /// that stays too long would never be answered again. An interrupt or `_close` leaves everything as it is.
    pub(super) async fn compact(
        &mut self,
        progress: &mut TurnProgress,
        aim: CompactionTarget,
    ) -> Result<(), Fatal> {
        progress.size_acted_on = self.transcript.last_entry();
        let count =
            compaction_plan::plan(self.transcript.entries(), progress.turn, self.begin.model.window, aim);
        let Some(replaced) = self.transcript.entries().get(..count).filter(|entries| !entries.is_empty())
        else {
            return Ok(());
        };
        let replaced = replaced.to_vec();
        self.remember(progress, &replaced).await?;
        let Some(summary) = self.summarise(progress, &replaced).await? else { return Ok(()) };
        let (Some(first), Some(last)) = (replaced.first(), replaced.last()) else { return Ok(()) };
        let name = format!("{}-{}-{}.md", self.begin.session, first.entry, last.entry);
        self.transcript.archive(&name, &compaction_plan::archive(&replaced))?;
        failpoint!("runner.compact.archived");
        let archive = format!("{}/archive/{name}", box_path::SESSION);
        let mut held: Vec<_> = replaced.iter().flat_map(Entry::held).collect();
        held.sort_unstable();
        held.drain(..held.len().saturating_sub(HELD_MAX));
        let text = compaction_plan::replacement_text(summary.as_deref(), &archive);
        let made_at = self.transcript.last_entry();
        tracing::info!(count, archive, "compacted the conversation");
        self.transcript.shorten(count, Summary { text, archive, made_at, held })
    }

    /// `Some(summary)`, or `Some(None)` when the model gave none; `None` when the turn must stop instead.
    ///
    /// The model may read less than the settings say. So pieces that are too long for it are made smaller.
    async fn summarise(
        &mut self,
        progress: &TurnProgress,
        entries: &[Entry],
    ) -> Result<Option<Option<String>>, Fatal> {
        let mut window = self.begin.model.window;
        loop {
            let mut summary = None;
            let mut too_long = false;
            for piece in compaction_plan::chunks(entries, window) {
                let question = compaction_plan::question(summary.as_deref(), &piece);
                let Ok(body) =
                    request::plain_request(&self.begin.model, compaction_plan::INSTRUCTIONS, &question)
                else {
                    break;
                };
                let text: String = match self.call(progress.turn, Activity::Compacting, body).await? {
                    CallOutcome::Answer(answer) => {
                        answer.blocks.iter().filter_map(|block| block.text()).collect()
                    }
                    CallOutcome::Failed(failure) => {
                        tracing::warn!(%failure, window, "cannot make a summary");
                        too_long = failure.too_long;
                        String::new()
                    }
                    CallOutcome::Interrupted | CallOutcome::Closing => return Ok(None),
                };
                if text.trim().is_empty() {
                    summary = earlier_summary(entries).or(summary);
                    break;
                }
                summary = Some(text);
            }
            window /= 4;
            if !too_long || window < compaction_plan::WINDOW_MIN {
                return Ok(Some(summary));
            }
        }
    }
}

/// The summary of an earlier compaction, kept when no new one can be made.
fn earlier_summary(entries: &[Entry]) -> Option<String> {
    entries.iter().find_map(|entry| match &entry.body {
        Body::Summary(summary) => Some(summary.text.clone()),
        _ => None,
    })
}
