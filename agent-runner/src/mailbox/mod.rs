//! Letters in both directions. It sorts the host's letters by what they are for, and knows which ones are
//! acknowledged when. [`crate::run_loop`] and [`crate::turn`] use it.
//!
//! A letter is acknowledged only when the transcript holds its content or when it has none to keep.

pub mod inbox;
pub mod outbox;

use std::collections::{HashMap, HashSet, VecDeque};

use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::{Fire, Input, InterruptWhy, Verdict};
use ipc_schema::{LetterId, ToAgentLetter, TurnId};

use crate::fatal::Fatal;
use crate::mailbox::inbox::{Arrival, Inbox};
use crate::mailbox::outbox::Outbox;

/// An `input` letter that no turn has taken yet.
#[derive(Debug, Clone, PartialEq)]
pub struct InputLetter {
    /// To acknowledge once the messages are in the transcript.
    pub n: u64,
    pub turn: TurnId,
    pub input: Input,
}

/// The letters that arrived and are not handled yet, and the outbox.
#[derive(Debug)]
pub struct Mailbox {
    inbox: Inbox,
    pub outbox: Outbox,
    inputs: VecDeque<InputLetter>,
    verdicts: HashMap<LetterId, (u64, Verdict)>,
    interrupts: HashMap<TurnId, (Vec<u64>, InterruptWhy)>,
    ended: HashSet<TurnId>,
    closing: bool,
}

impl Mailbox {
    /// `closed` turns count as ended: later letters of theirs are acknowledged and dropped.
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

    /// Waits for one letter and sorts it in. Cancel safe.
    ///
    /// # Errors
    /// What [`Inbox::next`] says.
    pub async fn receive(&mut self) -> Result<(), Fatal> {
        match self.inbox.next().await? {
            Arrival::PassedOver { n } => self.outbox.acknowledge(n),
            Arrival::Letter(letter) => self.sort(*letter),
        }
        Ok(())
    }

    /// Sorts in the letters that are there now, without waiting.
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

    /// Whether `_close` arrived: the runner must begin nothing more.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Why this turn must stop now, if an interrupt arrived.
    pub fn interrupted(&self, turn: TurnId) -> Option<InterruptWhy> {
        self.interrupts.get(&turn).map(|(_, why)| *why)
    }

    pub fn waiting_turn(&self) -> Option<TurnId> {
        self.inputs.front().map(|letter| letter.turn)
    }

    /// The task's fire in the waiting inputs of a turn.
    pub fn waiting_fire(&self, turn: TurnId) -> Option<&Fire> {
        self.inputs.iter().filter(|letter| letter.turn == turn).find_map(|letter| letter.input.fire.as_ref())
    }

    /// Takes the inputs of one turn, follow-ups included.
    pub fn take_inputs(&mut self, turn: TurnId) -> Vec<InputLetter> {
        let (taken, left) = self.inputs.drain(..).partition(|letter| letter.turn == turn);
        self.inputs = left;
        taken.into()
    }

    /// Acknowledges the inputs of `turn` whose messages are all in the transcript, and leaves the others.
    pub fn acknowledge_repeats(&mut self, turn: TurnId, held: impl Fn(&Input) -> bool) {
        let outbox = &mut self.outbox;
        self.inputs.retain(|letter| {
            let nothing_new = letter.turn == turn && held(&letter.input);
            if nothing_new {
                outbox.acknowledge(letter.n);
            }
            !nothing_new
        });
    }

    /// Takes the verdict on a request, with its letter's number. The caller acknowledges it once the transcript holds
    /// the answer.
    pub fn take_verdict(&mut self, request: &LetterId) -> Option<(u64, Verdict)> {
        self.verdicts.remove(request)
    }

    /// Called when the transcript holds the turn's end, before `turn_done` is written: acknowledges the turn's
    /// interrupts. Late inputs stay unacknowledged, so that the `ack` of `turn_done` makes the host move them to the
    /// next turn.
    pub fn ending(&mut self, turn: TurnId) {
        if let Some((letters, _)) = self.interrupts.remove(&turn) {
            letters.into_iter().for_each(|n| self.outbox.acknowledge(n));
        }
    }

    /// Called after `turn_done` is written: acknowledges what is left of this turn, and whatever still arrives for
    /// it.
    pub fn ended(&mut self, turn: TurnId) {
        self.ending(turn);
        self.ended.insert(turn);
        for late in self.take_inputs(turn) {
            self.outbox.acknowledge(late.n);
        }
        let outbox = &mut self.outbox;
        self.verdicts.retain(|request, (n, _)| {
            let late = request.belongs_to(turn);
            if late {
                outbox.acknowledge(*n);
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
            (_, Some(turn)) if self.ended.contains(&turn) => self.outbox.acknowledge(n),
            (ToAgent::Input(input), Some(turn)) => self.inputs.push_back(InputLetter { n, turn, input }),
            (ToAgent::Interrupt(interrupt), Some(turn)) => {
                let (letters, why) = self.interrupts.entry(turn).or_insert((Vec::new(), interrupt.why));
                letters.push(n);
                *why = interrupt.why;
            }
            (ToAgent::Response(response), _) => {
                // A second verdict on one request repeats the first.
                if let Some((earlier, _)) = self.verdicts.insert(response.request, (n, response.verdict)) {
                    self.outbox.acknowledge(earlier);
                }
            }
            (body @ (ToAgent::Begin(_) | ToAgent::Input(_) | ToAgent::Interrupt(_)), _) => {
                tracing::warn!(n, kind = body.kind(), "ignoring a letter without a turn");
                self.outbox.acknowledge(n);
            }
        }
    }
}
