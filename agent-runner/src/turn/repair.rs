//! Repairs the transcript after a run that ended early, and repeats letters that the host may not have.
//! [`crate::run_loop`] calls it once per run.

use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::Outcome;
use ipc_schema::requests::Permission;
use ipc_schema::{LetterId, TurnId};

use super::decide::{self, Step, ToolUse};
use super::{Agent, TurnProgress};
use crate::fatal::Fatal;
use crate::model::Model;
use crate::tools::{self, Call, ask_person};
use crate::transcript::{Body, ToolResult};

impl<M: Model> Agent<M> {
    /// Completes the transcript's last turn where the last run left it, and returns the turn if the host still holds
    /// it open. Called before `ready`.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn repair(&mut self) -> Result<Option<TurnId>, Fatal> {
        let Some(last) = self.transcript.last_turn() else { return Ok(None) };
        let has_end = matches!(decide::next(&self.transcript, last), Step::Done(_));
        let open = self.begin.open.as_ref().filter(|open| open.turn == last && !self.mailbox.has_ended(last));
        if let Some(open) = open {
            for id in open.consumed.clone() {
                self.mailbox.outbox.consumed(id);
            }
            if !has_end {
                self.answer_lost_calls(last, |agent, call| {
                    !tools::is_by_letter(&call.name) && !agent.transcript.waits_for_permission(last, &call.id)
                })?;
            }
            return Ok(Some(last));
        }
        // The host has closed the turn, so nothing of it is repeated.
        if !has_end {
            self.answer_lost_calls(last, |_, _| true)?;
            self.end(last, Outcome::Interrupted, String::new())?;
        }
        Ok(None)
    }

    /// Writes results for calls that the last run left open. Calls run one after another and each result is on disk
    /// before the next call starts, so only the first open call can have started.
    fn answer_lost_calls(
        &mut self,
        turn: TurnId,
        which: impl Fn(&Self, &ToolUse) -> bool,
    ) -> Result<(), Fatal> {
        let lost = decide::unanswered_in(&self.transcript, turn).into_iter().enumerate();
        let results: Vec<_> = lost
            .filter(|(_, call)| which(self, call))
            .map(|(index, call)| ToolResult {
                content: if call.name == ask_person::NAME {
                    ask_person::PENDING.into()
                } else if self.transcript.waits_for_permission(turn, &call.id) {
                    let why = Permission::Pending.refusal(&call.name).unwrap_or_default();
                    format!("not run: {why}")
                } else if index == 0 {
                    "interrupted; it may have run. Look before you repeat it.".into()
                } else {
                    "not run: the container ended before; call it again if it is still needed".into()
                },
                is_error: call.name != ask_person::NAME,
                shown: None,
                tool_use_id: call.id,
            })
            .collect();
        if results.is_empty() { Ok(()) } else { self.transcript.append_results(turn, results) }
    }

    /// Writes the letters of the open turn again that the host has not consumed. Called after `ready`.
    ///
    /// `turn_done` is not among them: its `ack` says which messages it answers, and the host writes those again
    /// first.
    ///
    /// # Errors
    /// When letters or entries cannot be written.
    pub async fn repeat(&mut self, turn: TurnId) -> Result<(), Fatal> {
        for (entry, block, message) in self.sent_messages(turn) {
            self.say_message(turn, entry, block, &message).await?;
        }
        let mut progress = TurnProgress::new(turn);
        while let Step::Tool(call) = decide::next(&self.transcript, turn)
            && call.name == tools::SEND_MESSAGE
            && self.use_tool(&mut progress, call).await?.is_none()
        {}
        for call in decide::unanswered_in(&self.transcript, turn) {
            let asked = self.transcript.request_of(turn, &call.id).filter(|asked| !asked.granted);
            if let (Some(request), Ok(id)) =
                (asked.map(|asked| asked.request.clone()), LetterId::of_request(turn, &call.id))
            {
                self.mailbox.outbox.ask(turn, id, FromAgent::Request(request)).await?;
            }
        }
        Ok(())
    }

    /// The interim replies of a turn that the transcript records as sent.
    fn sent_messages(&self, turn: TurnId) -> Vec<(u64, u32, tools::SendMessage)> {
        let mut sent = Vec::new();
        for entry in self.transcript.of_turn(turn) {
            if let Body::LeftOut(left) = &entry.body {
                sent.push((entry.entry, 0, tools::SendMessage { text: left.told.clone() }));
            }
            if let Body::Order(done) = &entry.body
                && done.interim
            {
                sent.push((entry.entry, 0, tools::SendMessage { text: done.text.clone() }));
            }
            let Body::Assistant(answer) = &entry.body else { continue };
            for (block, number) in answer.blocks.iter().zip(0u32..) {
                let view = block.view();
                let (Some(id), Some(name), Some(input)) = (view.id, view.name, view.input) else { continue };
                let done = self.transcript.result_of(turn, &id).is_some_and(|result| !result.is_error);
                if name == tools::SEND_MESSAGE
                    && done
                    && let Ok(Call::SendMessage(message)) = Call::parse(&name, input.get())
                {
                    sent.push((entry.entry, number, message));
                }
            }
        }
        sent
    }
}
