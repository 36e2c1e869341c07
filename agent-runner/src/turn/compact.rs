//! Performs compaction between two model calls: archives the oldest turns and replaces them by a summary, then shows
//! less of the open turn if that is not enough. [`crate::compaction_plan`] decides which.

use std::time::Duration;

use ipc_schema::letters::from_agent::{Activity, ErrorDetail};
use ipc_schema::names_and_paths::box_path;
use tokio::time::{Instant, timeout_at};

use super::{Agent, CallOutcome, TurnProgress};
use crate::compaction_plan::{self, CompactionTarget};
use crate::estimate::{self, Size};
use crate::fatal::Fatal;
use crate::model::{Model, request};
use crate::transcript::{Body, Entry, Omissions, Summary};

/// Message ids that a summary keeps, so that these messages are not appended again.
const HELD_MAX: usize = 1_000;
/// The time limit of a compaction. After it, the summaries that are left are made without the model.
const LIMIT: Duration = Duration::from_secs(180);
/// The part of the window that a summary may fill.
const SUMMARY_SHARE: u64 = 8;
/// A window that a refusal taught is not smaller than this.
const WINDOW_MIN: u32 = 1_000;

/// What became of a compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compacted {
    /// The path in the box of the newest archive.
    Done(String),
    Nothing,
    /// An interrupt or `_close` came first. Everything is as it was.
    Stopped,
}

impl<M: Model> Agent<M> {
    /// The model's context window: what a refusal taught, else what the settings say.
    pub(super) fn window(&self) -> u32 {
        self.learned_window.unwrap_or(u32::MAX).min(self.begin.model.window)
    }

    pub(super) fn limit(&self) -> u64 {
        let percent = self.begin.limits.compaction_percent;
        compaction_plan::limit(self.window(), self.begin.model.max_tokens, percent)
    }

    /// The provider's count over the estimate, if it has counted.
    pub(super) fn ratio(&self) -> Option<f64> {
        estimate::ratio(self.transcript.entries(), &self.begin.model.id())
    }

    /// The size of the next request, by the estimate alone.
    pub(super) fn size(&self, progress: &mut TurnProgress) -> Size {
        // A request that cannot be built is refused where it is built.
        let omissions = Omissions::of(self.transcript.entries());
        self.request(progress, &omissions)
            .map_or_else(|_| Size::default(), |body| estimate::of_request(&body))
    }

    /// The tokens of the next request as the provider will count them.
    pub(super) fn tokens(&self, progress: &mut TurnProgress) -> u64 {
        estimate::scaled(self.size(progress).total(), self.ratio())
    }

    /// Whether the next request would fill more of the context window than it may. The provider's count of the last
    /// request says so, or the estimate of the next one.
    pub(super) fn needs_compaction(&self, progress: &TurnProgress, size: Size) -> bool {
        if progress.size_acted_on == Some(self.transcript.last_entry()) {
            return false;
        }
        let entries = self.transcript.entries();
        let made_at =
            entries.iter().fold(progress.size_acted_on.unwrap_or(0), |newest, entry| match &entry.body {
                Body::Summary(summary) => newest.max(summary.made_at),
                Body::Shortened(_) => newest.max(entry.entry),
                _ => newest,
            });
        let counted = entries.iter().rev().find_map(|entry| match &entry.body {
            Body::Assistant(answer) => Some((entry.entry, answer.usage.read())),
            _ => None,
        });
        let limit = self.limit();
        counted.is_some_and(|(entry, read)| entry > made_at && read > limit)
            || estimate::scaled(size.total(), self.ratio()) > limit
    }

    /// Why no compaction can help: the fixed part of every request fills the window by itself. `None` if it does not.
    pub(super) fn fixed_part(&self, size: Size) -> Option<ErrorDetail> {
        // Before the provider has counted, the plain estimate decides, which is high enough by itself.
        let ratio = self.ratio().or(Some(1.0));
        let (fixed, limit) = (estimate::scaled(size.fixed(), ratio), self.limit());
        if fixed < limit {
            return None;
        }
        let text = |text: Option<&str>| estimate::scaled(text.map_or(0, estimate::of_text), ratio);
        let group = text(self.personality.text.as_deref());
        let everywhere = text(self.begin.claude_md_global.as_ref().map(|text| &*text.text));
        let tools = estimate::scaled(size.tools, ratio);
        let rest = fixed.saturating_sub(group + everywhere + tools);
        let reason = format!(
            "the fixed part of each request has about {fixed} tokens, and {limit} of the model's window of {} may be used: CLAUDE.md of this group {group}, CLAUDE.md of all groups {everywhere}, tools {tools}, instructions and memory {rest}. Shorten the largest, or choose a model with a larger window.",
            self.window()
        );
        Some(ErrorDetail { code: "model.fixed_part".into(), reason })
    }

    /// Learns from a refusal how much the model reads: what the provider states, else somewhat less than the request
    /// that it refused.
    pub(super) fn learn_window(&mut self, stated: Option<u32>, progress: &mut TurnProgress) {
        let window = self.window();
        let size = self.size(progress);
        let guess = || {
            let refused = estimate::scaled(size.total(), self.ratio()).min(window.into()) * 4 / 5;
            let fixed = estimate::scaled(size.fixed(), self.ratio()) * 2;
            u32::try_from(refused.max(fixed)).unwrap_or(window)
        };
        let learned = stated.filter(|stated| *stated < window).unwrap_or_else(guess).max(WINDOW_MIN);
        tracing::warn!(window, learned, stated, "the model reads less than its settings say");
        self.learned_window = Some(learned.min(window));
    }

    /// Replaces older turns by a summary, then shows less of the open turn if it is still too large.
    pub(super) async fn compact(
        &mut self,
        progress: &mut TurnProgress,
        aim: CompactionTarget,
    ) -> Result<Compacted, Fatal> {
        progress.size_acted_on = Some(self.transcript.last_entry());
        let deadline = Instant::now() + LIMIT;
        let older = self.replace_turns(progress, aim, deadline).await?;
        if older == Compacted::Stopped {
            return Ok(older);
        }
        let open = match self.tokens(progress) > self.limit() {
            true => self.shorten_turn(progress, deadline).await?,
            false => Compacted::Nothing,
        };
        progress.size_acted_on = Some(self.transcript.last_entry());
        // The provider's cache of the conversation is lost anyway. So the next request gets a new system prompt, which
        // shows the memories that the model has just saved.
        progress.system = None;
        Ok(if open == Compacted::Nothing { older } else { open })
    }

    async fn replace_turns(
        &mut self,
        progress: &TurnProgress,
        aim: CompactionTarget,
        deadline: Instant,
    ) -> Result<Compacted, Fatal> {
        let room = self.unscaled(u64::from(self.window()) / 4);
        let count = compaction_plan::plan(self.transcript.entries(), progress.turn, room, aim);
        let Some(replaced) = self.transcript.entries().get(..count).filter(|entries| !entries.is_empty())
        else {
            return Ok(Compacted::Nothing);
        };
        let replaced = replaced.to_vec();
        self.remember(progress, &replaced).await?;
        let earlier = compaction_plan::earlier_summary(&replaced).map(str::to_owned);
        let Some(summary) = self.summarise(progress, &replaced, earlier, deadline).await? else {
            return Ok(Compacted::Stopped);
        };
        let (Some(first), Some(last)) = (replaced.first(), replaced.last()) else {
            return Ok(Compacted::Nothing);
        };
        let name = format!("{}-{}-{}.md", self.begin.session, first.entry, last.entry);
        let archive = self.archive(&name, &replaced)?;
        let mut held: Vec<_> = replaced.iter().flat_map(Entry::held).collect();
        held.sort_unstable();
        held.drain(..held.len().saturating_sub(HELD_MAX));
        let text = compaction_plan::replacement_text(&summary, &archive);
        let made_at = self.transcript.last_entry();
        let compactions = 1 + compactions(&replaced);
        tracing::info!(count, archive, "compacted the conversation");
        let summary = Summary { text, archive: archive.clone(), made_at, held, compactions };
        self.transcript.shorten(count, summary)?;
        Ok(Compacted::Done(archive))
    }

    /// Cuts old tool results of the open turn, or replaces its older steps by a summary.
    async fn shorten_turn(
        &mut self,
        progress: &mut TurnProgress,
        deadline: Instant,
    ) -> Result<Compacted, Fatal> {
        let turn = progress.turn;
        let fixed = self.size(progress).fixed();
        let left = self.unscaled(self.limit()).saturating_sub(fixed);
        let Some(mut plan) = compaction_plan::shortening(self.transcript.entries(), turn, left * 3 / 4)
        else {
            return Ok(Compacted::Nothing);
        };
        let known = Omissions::of(self.transcript.entries());
        let of_turn = self.transcript.of_turn(turn);
        let concerned: Vec<_> = of_turn
            .filter(|entry| entry.entry <= plan.through && !known.omits(entry))
            .filter(|entry| matches!(entry.body, Body::Assistant(_) | Body::Results(_)))
            .cloned()
            .collect();
        let Some(first) = concerned.first() else { return Ok(Compacted::Nothing) };
        let name = format!("{}-{}-{}.md", self.begin.session, first.entry, plan.through);
        let summary = match plan.summary {
            None => None,
            Some(_) => {
                let earlier =
                    compaction_plan::earlier_steps(self.transcript.of_turn(turn)).map(str::to_owned);
                match self.summarise(progress, &concerned, earlier, deadline).await? {
                    Some(summary) => Some(summary),
                    None => return Ok(Compacted::Stopped),
                }
            }
        };
        plan.archive = self.archive(&name, &concerned)?;
        plan.summary = summary.map(|summary| compaction_plan::steps_text(&summary, &plan.archive));
        let archive = plan.archive.clone();
        tracing::info!(through = plan.through, archive, "shortened the open turn");
        self.transcript.append(turn, Body::Shortened(plan))?;
        Ok(Compacted::Done(archive))
    }

    fn archive(&mut self, name: &str, entries: &[Entry]) -> Result<String, Fatal> {
        self.transcript.archive(name, &compaction_plan::archive(entries))?;
        failpoint!("runner.compact.archived");
        Ok(format!("{}/archive/{name}", box_path::SESSION))
    }

    /// A number of the provider's tokens in tokens of the estimate.
    pub(super) fn unscaled(&self, tokens: u64) -> u64 {
        tokens * 1_000 / estimate::scaled(1_000, self.ratio()).max(1)
    }

    /// The summary of these entries, which carries on the `earlier` one. If the model makes none in time, it is made
    /// without the model: a conversation that stays too long would never be answered again. `None` when the turn must
    /// stop instead.
    async fn summarise(
        &mut self,
        progress: &TurnProgress,
        entries: &[Entry],
        earlier: Option<String>,
        deadline: Instant,
    ) -> Result<Option<String>, Fatal> {
        let most = self.unscaled(u64::from(self.window()) / SUMMARY_SHARE);
        // The model may read less than the settings say. So pieces that are too long for it are made smaller.
        let mut window = self.window();
        while window >= compaction_plan::WINDOW_MIN {
            let mut summary = earlier.clone();
            let mut too_long = false;
            let mut whole = true;
            // The earlier summary, the instructions and the answer need room too.
            let room = self.unscaled(u64::from(window) * 2 / 5);
            for piece in compaction_plan::chunks(entries, room) {
                let question = compaction_plan::question(summary.as_deref(), &piece);
                let Ok(body) =
                    request::plain_request(&self.begin.model, compaction_plan::INSTRUCTIONS, &question)
                else {
                    whole = false;
                    break;
                };
                let call = self.call(progress.turn, Activity::Compacting, body);
                let text: String = match timeout_at(deadline, call).await {
                    Err(_) => {
                        tracing::warn!("the summary takes too long");
                        String::new()
                    }
                    Ok(called) => match called? {
                        CallOutcome::Answer(answer) => {
                            answer.blocks.iter().filter_map(|block| block.text()).collect()
                        }
                        CallOutcome::Failed(failure) => {
                            tracing::warn!(%failure, window, "cannot make a summary");
                            too_long = failure.too_long;
                            String::new()
                        }
                        CallOutcome::Interrupted | CallOutcome::Closing => return Ok(None),
                    },
                };
                if text.trim().is_empty() {
                    whole = false;
                    break;
                }
                summary = Some(compaction_plan::fitting(text.trim(), most));
            }
            match summary {
                Some(summary) if whole => return Ok(Some(summary)),
                _ if too_long => window /= 4,
                _ => break,
            }
        }
        Ok(Some(compaction_plan::without_model(earlier.as_deref(), entries, most)))
    }
}

/// How often a session was compacted.
pub(super) fn compactions(entries: &[Entry]) -> u32 {
    let made = entries.iter().map(|entry| match &entry.body {
        Body::Summary(summary) => summary.compactions,
        _ => 0,
    });
    made.max().unwrap_or(0)
}
