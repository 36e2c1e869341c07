//! Both directions of letters, sorted: what waits for whom, and what is settled when.

pub mod inbox;
pub mod outbox;

use std::collections::{HashMap, HashSet, VecDeque};

use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::{Input, InterruptWhy, Verdict};
use ipc_schema::{LetterId, ToAgentLetter, TurnId};

use crate::error::Fatal;
use crate::mailbox::inbox::{Arrival, Inbox};
use crate::mailbox::outbox::Outbox;

/// An input with the letter's number and turn.
#[derive(Debug, Clone, PartialEq)]
pub struct InputLetter {
    /// Its number, to settle once its messages are in the transcript.
    pub n: u64,
    /// The turn it belongs to.
    pub turn: TurnId,
    pub input: Input,
}

/// Letters that came and are not yet dealt with, and the way out.
#[derive(Debug)]
pub struct Mailbox {
    inbox: Inbox,
    /// Letters to the host.
    pub outbox: Outbox,
    inputs: VecDeque<InputLetter>,
    verdicts: HashMap<LetterId, (u64, Verdict)>,
    interrupts: HashMap<TurnId, (Vec<u64>, InterruptWhy)>,
    ended: HashSet<TurnId>,
    closing: bool,
}

impl Mailbox {
    /// Takes over both directories; `closed` turns count as ended.
    pub fn new(inbox: Inbox, outbox: Outbox, closed: impl IntoIterator<Item = TurnId>) -> Self {
        Self {
            inbox,
            outbox,
            inputs: VecDeque::new(),
            verdicts: HashMap::new(),
            interrupts: HashMap::new(),
            ended: closed.into_iter().collect(),
            closing: false,
        }
    }

    /// Waits for one letter and puts it where it belongs. Cancel safe.
    ///
    /// # Errors
    /// What [`Inbox::next`] says.
    pub async fn receive(&mut self) -> Result<(), Fatal> {
        match self.inbox.next().await? {
            Arrival::PassedOver { n } => self.outbox.settle(n),
            Arrival::Letter(letter) => self.sort(*letter),
        }
        Ok(())
    }

    /// Takes in what lies there now, without waiting.
    ///
    /// # Errors
    /// What [`Inbox::next`] says.
    pub async fn receive_all(&mut self) -> Result<(), Fatal> {
        loop {
            tokio::select! {
                biased;
                received = self.receive() => received?,
                () = std::future::ready(()) => return Ok(()),
            }
        }
    }

    /// Whether `_close` has come: begin nothing more.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Why this turn is to stop now, if it is.
    pub fn interrupted(&self, turn: TurnId) -> Option<InterruptWhy> {
        self.interrupts.get(&turn).map(|(_, why)| *why)
    }

    /// The turn of the oldest input that waits.
    pub fn waiting_turn(&self) -> Option<TurnId> {
        self.inputs.front().map(|letter| letter.turn)
    }

    /// Takes the inputs of one turn: its first, and what followed up so far.
    pub fn take_inputs(&mut self, turn: TurnId) -> Vec<InputLetter> {
        let (taken, left) = self.inputs.drain(..).partition(|letter| letter.turn == turn);
        self.inputs = left;
        taken.into()
    }

    /// Settles inputs of `turn` that hold nothing new, without taking the others.
    pub fn settle_held(&mut self, turn: TurnId, held: impl Fn(&Input) -> bool) {
        let outbox = &mut self.outbox;
        self.inputs.retain(|letter| {
            let nothing_new = letter.turn == turn && held(&letter.input);
            if nothing_new {
                outbox.settle(letter.n);
            }
            !nothing_new
        });
    }

    /// Takes the verdict on a request, with its letter's number. To settle it is the caller's part, once the
    /// transcript holds the answer.
    pub fn take_verdict(&mut self, request: &LetterId) -> Option<(u64, Verdict)> {
        self.verdicts.remove(request)
    }

    /// The transcript says that this turn has ended: its interrupts are settled *before* `turn_done` goes. Inputs
    /// that came too late are not: `turn_done` tells the host, by its ack, to make them the next turn.
    pub fn ending(&mut self, turn: TurnId) {
        if let Some((letters, _)) = self.interrupts.remove(&turn) {
            letters.into_iter().for_each(|n| self.outbox.settle(n));
        }
    }

    /// `turn_done` is written: whatever is left of this turn, and whatever still comes, counts as settled.
    pub fn ended(&mut self, turn: TurnId) {
        self.ending(turn);
        self.ended.insert(turn);
        for late in self.take_inputs(turn) {
            self.outbox.settle(late.n);
        }
        let outbox = &mut self.outbox;
        self.verdicts.retain(|request, (n, _)| {
            let late = request.belongs_to(turn);
            if late {
                outbox.settle(*n);
            }
            !late
        });
    }

    /// Whether `turn` has ended, here or before this run.
    pub fn has_ended(&self, turn: TurnId) -> bool {
        self.ended.contains(&turn)
    }

    fn sort(&mut self, letter: ToAgentLetter) {
        let ToAgentLetter { n, turn, body, .. } = letter;
        match (body, turn) {
            (ToAgent::Close(close), _) => {
                tracing::info!(reason = close.reason, "the host closes this run");
                failpoint!("runner.close.seen");
                self.closing = true;
            }
            (_, Some(turn)) if self.ended.contains(&turn) => self.outbox.settle(n),
            (ToAgent::Input(input), Some(turn)) => self.inputs.push_back(InputLetter { n, turn, input }),
            (ToAgent::Interrupt(interrupt), Some(turn)) => {
                let (letters, why) = self.interrupts.entry(turn).or_insert((Vec::new(), interrupt.why));
                letters.push(n);
                *why = interrupt.why;
            }
            (ToAgent::Response(response), _) => {
                // A second verdict on one request repeats the first.
                if let Some((earlier, _)) = self.verdicts.insert(response.request, (n, response.verdict)) {
                    self.outbox.settle(earlier);
                }
            }
            (body @ (ToAgent::Begin(_) | ToAgent::Input(_) | ToAgent::Interrupt(_)), _) => {
                tracing::warn!(n, kind = body.kind(), "a letter that names no turn is passed over");
                self.outbox.settle(n);
            }
        }
    }
}
