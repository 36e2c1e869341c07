//! What a new run owes to the one before it.

use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::Outcome;
use ipc_schema::{LetterId, TurnId};

use super::decide::{self, Step};
use super::tool_use::PENDING;
use super::{Agent, Course};
use crate::error::Fatal;
use crate::model::Model;
use crate::tools::{self, Call};
use crate::transcript::{Body, ToolResult};

impl<M: Model> Agent<M> {
    /// Brings the transcript's last turn in order and returns it, if the host still holds it open. To be called
    /// before `ready`.
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
                self.answer_lost_calls(last, |call| !tools::is_by_letter(call))?;
            }
            return Ok(Some(last));
        }
        // The host has closed it, whatever the transcript thinks: nothing of it is repeated.
        if !has_end {
            self.answer_lost_calls(last, |_| true)?;
            self.end(last, Outcome::Interrupted, String::new())?;
        }
        Ok(None)
    }

    /// Calls ran one after another and each result was written before the next call began: so of the calls without
    /// a result only the first can have begun.
    fn answer_lost_calls(&mut self, turn: TurnId, which: impl Fn(&str) -> bool) -> Result<(), Fatal> {
        let lost = decide::unanswered_in(&self.transcript, turn).into_iter().enumerate();
        let results: Vec<_> = lost
            .filter(|(_, call)| which(&call.name))
            .map(|(index, call)| ToolResult {
                tool_use_id: call.id,
                content: if call.name == tools::ASK_PERSON {
                    PENDING.into()
                } else if index == 0 {
                    "interrupted; it may have run. Look before you repeat it.".into()
                } else {
                    "not run: the container ended before; call it again if it is still needed".into()
                },
                is_error: call.name != tools::ASK_PERSON,
            })
            .collect();
        if results.is_empty() { Ok(()) } else { self.transcript.append_results(turn, results) }
    }

    /// Writes the letters of the open turn again that the host has not consumed. To be called after `ready`.
    ///
    /// The end is not among them: `turn_done` tells by its ack which messages it answers, and the host gives them
    /// again first.
    ///
    /// # Errors
    /// When letters or entries cannot be written.
    pub async fn repeat(&mut self, turn: TurnId) -> Result<(), Fatal> {
        for (entry, block, message) in self.sent_messages(turn) {
            self.say_message(turn, entry, block, &message).await?;
        }
        let mut course = Course::new(turn);
        while let Step::Tool(call) = decide::next(&self.transcript, turn)
            && call.name == tools::SEND_MESSAGE
            && self.use_tool(&mut course, call).await?.is_none()
        {}
        for call in decide::unanswered_in(&self.transcript, turn) {
            let asked = self.transcript.asked_by(turn, &call.id).map(|asked| asked.request.clone());
            if let (Some(request), Ok(id)) = (asked, LetterId::of_request(turn, &call.id)) {
                self.mailbox.outbox.ask(turn, id, FromAgent::Request(request)).await?;
            }
        }
        Ok(())
    }

    /// Interim replies of a turn whose result says that they were sent.
    fn sent_messages(&self, turn: TurnId) -> Vec<(u64, u32, tools::SendMessage)> {
        let mut sent = Vec::new();
        for entry in self.transcript.of_turn(turn) {
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
