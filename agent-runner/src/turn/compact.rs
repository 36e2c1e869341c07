//! Shortening the conversation between two calls of the model.

use ipc_schema::directory_layout::box_path;
use ipc_schema::letters::from_agent::Activity;

use super::{Agent, Called, Course};
use crate::compaction_plan::{self, Aim};
use crate::error::Fatal;
use crate::model::{Model, request};
use crate::transcript::{Body, Entry, Summary};

/// Messages that a summary remembers having seen.
const HELD_MAX: usize = 1_000;

impl<M: Model> Agent<M> {
    /// Whether the last call read so much of the window that the conversation should be shortened.
    pub(super) fn is_full(&self, course: &Course) -> bool {
        let acted_on =
            self.transcript.entries().iter().fold(course.weighed, |newest, entry| match &entry.body {
                Body::Summary(summary) => newest.max(summary.made_at),
                _ => newest,
            });
        let last = self.transcript.entries().iter().rev().find_map(|entry| match &entry.body {
            Body::Assistant(answer) => Some((entry.entry, answer.usage.read())),
            _ => None,
        });
        let limit =
            u64::from(self.begin.model.window) * u64::from(self.begin.limits.compaction_percent) / 100;
        last.is_some_and(|(entry, read)| entry > acted_on && read > limit)
    }

    /// Replaces older turns by a summary. When the summary cannot be had, they go without one: a conversation that
    /// stays too long would never be answered again. An interrupt or `_close` leaves everything as it is.
    pub(super) async fn shorten(&mut self, course: &mut Course, aim: Aim) -> Result<(), Fatal> {
        course.weighed = self.transcript.last_entry();
        let count =
            compaction_plan::plan(self.transcript.entries(), course.turn, self.begin.model.window, aim);
        let Some(replaced) = self.transcript.entries().get(..count).filter(|entries| !entries.is_empty())
        else {
            return Ok(());
        };
        let replaced = replaced.to_vec();
        let Some(summary) = self.summarise(course, &replaced).await? else { return Ok(()) };
        let (Some(first), Some(last)) = (replaced.first(), replaced.last()) else { return Ok(()) };
        let name = format!("{}-{}-{}.md", self.begin.session, first.entry, last.entry);
        self.transcript.archive(&name, &compaction_plan::archive(&replaced))?;
        failpoint!("runner.compact.archived");
        let archive = format!("{}/archive/{name}", box_path::SESSION);
        let mut held: Vec<_> = replaced.iter().flat_map(Entry::held).collect();
        held.sort_unstable();
        held.drain(..held.len().saturating_sub(HELD_MAX));
        let text = compaction_plan::stand_in(summary.as_deref(), &archive);
        let made_at = self.transcript.last_entry();
        tracing::info!(count, archive, "the conversation is shortened");
        self.transcript.shorten(count, Summary { text, archive, made_at, held })
    }

    /// Some summary, or some nothing when the model gave none; none when the turn is to stop instead.
    async fn summarise(
        &mut self,
        course: &Course,
        entries: &[Entry],
    ) -> Result<Option<Option<String>>, Fatal> {
        let mut summary = None;
        for piece in compaction_plan::pieces(entries, self.begin.model.window) {
            let question = compaction_plan::question(summary.as_deref(), &piece);
            let Ok(body) =
                request::plain_request(&self.begin.model, compaction_plan::INSTRUCTIONS, &question)
            else {
                break;
            };
            let text = match self.call(course.turn, Activity::Compacting, body).await? {
                Called::Answer(answer) => answer.blocks.iter().filter_map(|block| block.text()).collect(),
                Called::Failed(failure) => {
                    tracing::warn!(%failure, "no summary could be made");
                    String::new()
                }
                Called::Interrupted | Called::Closing => return Ok(None),
            };
            if text.trim().is_empty() {
                return Ok(Some(earlier_summary(entries).or(summary)));
            }
            summary = Some(text);
        }
        Ok(Some(summary))
    }
}

/// What an earlier shortening said, to be kept when no new summary can be made.
fn earlier_summary(entries: &[Entry]) -> Option<String> {
    entries.iter().find_map(|entry| match &entry.body {
        Body::Summary(summary) => Some(summary.text.clone()),
        _ => None,
    })
}
