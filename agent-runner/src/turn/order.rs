//! Performs `/compact` and `/context` without calling the model for an answer.

use ipc_schema::MessageSeq;
use ipc_schema::letters::from_agent::Outcome;
use ipc_schema::letters::to_agent::Order;

use super::compact::{Compacted, compactions};
use super::interruptible::Watched;
use super::{Agent, TurnExit, TurnProgress, decide};
use crate::compaction_plan::CompactionTarget;
use crate::estimate;
use crate::fatal::Fatal;
use crate::model::Model;
use crate::tools::SendMessage;
use crate::transcript::{Body, OrderDone};

impl<M: Model> Agent<M> {
    /// Carries out an order and records the answer. In a turn with other work, the answer is a message of its own.
    pub(super) async fn obey(
        &mut self,
        progress: &mut TurnProgress,
        message: MessageSeq,
        order: Order,
    ) -> Result<Option<TurnExit>, Fatal> {
        let turn = progress.turn;
        self.mailbox.receive_all().await?;
        if self.mailbox.interrupted(turn).is_some() {
            self.end(turn, Outcome::Interrupted, String::new())?;
            return Ok(None);
        }
        if self.mailbox.closing() {
            return Ok(Some(TurnExit::Closing));
        }
        match self.gather(progress).await? {
            Watched::Done(()) => {}
            // It is handled at the next step.
            Watched::Interrupted(_) | Watched::Closing => return Ok(None),
        }
        let text = match order {
            Order::Context => self.context_told(progress),
            Order::Compact => {
                let before = self.tokens(progress);
                match self.compact(progress, CompactionTarget::OpenTurnOnly).await? {
                    // The interrupt or `_close` is handled at the next step.
                    Compacted::Stopped => return Ok(None),
                    Compacted::Nothing => {
                        format!("There is nothing to compact: the context has about {} tokens.", told(before))
                    }
                    Compacted::Done(archive) => format!(
                        "Compacted the conversation from about {} to {} tokens. The agent can still read the older part in {archive}.",
                        told(before),
                        told(self.tokens(progress))
                    ),
                }
            }
        };
        let interim = !decide::has_orders_only(&self.transcript, turn);
        let done = OrderDone { message, text: text.clone(), interim };
        let entry = self.transcript.append(turn, Body::Order(done))?;
        if interim {
            self.say_message(turn, entry, 0, &SendMessage { text }).await?;
        }
        Ok(None)
    }

    /// What fills the context window.
    fn context_told(&self, progress: &mut TurnProgress) -> String {
        let (size, ratio) = (self.size(progress), self.ratio());
        let scaled = |tokens| told(estimate::scaled(tokens, ratio));
        let text = |text: Option<&str>| text.map_or(0, estimate::of_text);
        let group = text(self.personality.text.as_deref());
        let everywhere = text(self.begin.claude_md_global.as_ref().map(|text| &*text.text));
        let entries = self.transcript.entries();
        let summary = entries.iter().find_map(|entry| match &entry.body {
            Body::Summary(summary) => Some(estimate::of_text(&summary.text)),
            _ => None,
        });
        let summary = summary.unwrap_or(0);
        let turns = entries
            .iter()
            .filter(|entry| entry.turn != progress.turn && !matches!(entry.body, Body::Summary(_)))
            .map(|entry| entry.turn)
            .collect::<std::collections::BTreeSet<_>>()
            .len();
        let (used, window) = (estimate::scaled(size.total(), ratio), u64::from(self.window()));
        format!(
            "The context has about {} of {} tokens ({} %). The runner compacts it when it has more than {} tokens.\n\
             - instructions and memory: {}\n\
             - personality: {}\n\
             - tools: {}\n\
             - summary of older turns: {}\n\
             - conversation: {}, in {turns} turns\n\
             Compactions in this session: {}. Model: {}.",
            told(used),
            told(window),
            used * 100 / window.max(1),
            told(self.limit()),
            scaled(size.system.saturating_sub(group + everywhere)),
            scaled(group + everywhere),
            scaled(size.tools),
            scaled(summary),
            scaled(size.conversation.saturating_sub(summary)),
            compactions(entries),
            self.begin.model.id().trim_start_matches('/'),
        )
    }
}

/// A number with its thousands set apart.
fn told(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([told(7), told(1_234), told(1_000_000)], ["7", "1,234", "1,000,000"]);
    }
}
