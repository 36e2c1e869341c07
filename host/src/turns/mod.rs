//! The life of a turn. Every step of it is decided here: opening, joining, giving back, suspending, resuming, retrying,
//! ending, and opening the next one.
//!
//! `store` loads a [`View`] of a lane, calls [`decide`] with the [`Event`], and applies the [`Change`]s in the same
//! transaction. This room reads no clock and no row.
//!
//! There are two deciders. The other one is `dispatch`: it decides which container starts, waits, stops and dies. This
//! room never does; it says that a turn wants a run, or that it waits.
//!
//! What holds after every event (`proptest_model.rs` checks it):
//! - a lane has at most one open turn, and every message of a turn is from the turn's chat;
//! - a lane with messages for the agent has an open turn, so that somebody reads them;
//! - a message ends as answered, or in a notice that says why not, or in a later turn;
//! - an open turn wants a run, has one, or waits for a person; a turn that waits has an open question.

mod answer_command;
mod ending;
#[cfg(test)]
mod proptest_model;
mod retry;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod test_rows;

use std::time::Duration;

use ipc_schema::letters::to_agent::InterruptWhy;
use ipc_schema::requests::Answer;

use crate::domain::ending::TurnEnd;
use crate::domain::message::{Command, Role};
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChatId, Ending, LetterId, MessageSeq, RunId, TurnId, WallMs};
use crate::text;
pub use answer_command::{AnswerCommand, Answering, Question, code_of, take_answer};
pub use ending::{TurnDone, turn_done};
use retry::AfterRun;

/// A box that does not acknowledge a message gets it again in the next turn, this often in all.
const RETURNS: u32 = 3;

/// What causes a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The messages for the agent that wait in its chat. The turn takes in all of them.
    Messages,
}

/// What an open turn waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A person's answer to a question of the agent.
    Answer {
        /// The request that asked.
        request: LetterId,
        /// When the question expires.
        until: WallMs,
    },
}

impl Wait {
    fn until(&self) -> WallMs {
        let Self::Answer { until, .. } = self;
        *until
    }
}

/// How far an agent has come with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// No letter has carried it.
    Ungiven,
    /// A letter carried it, and no run acknowledged that letter.
    Given,
    /// A run acknowledged the letter that carried it.
    Acknowledged,
}

/// A message of the open turn that has no outcome yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnMessage {
    pub seq: MessageSeq,
    /// By any run; for [`Event::Done`] by the run that ends the turn, up to the letter that it acknowledges.
    pub reading: Reading,
    /// How often it came back from a box that did not acknowledge it.
    pub returned: u32,
}

impl TurnMessage {
    fn unread(&self) -> bool {
        self.reading != Reading::Acknowledged
    }
}

/// A lane's open turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTurn {
    pub turn: TurnId,
    pub chat: ChatId,
    /// Which attempt the next (or running) run is, from 1.
    pub attempt: u32,
    /// When it was opened.
    pub opened_at: WallMs,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// Whether the lane has a run that has not ended.
    pub has_run: bool,
}

impl OpenTurn {
    /// When its first wait is over, if it is suspended: it waits, and no box waits with it.
    pub fn suspended_until(&self) -> Option<WallMs> {
        if self.has_run { None } else { self.waits.iter().map(Wait::until).min() }
    }
}

/// What a decision knows of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The id that the next turn gets.
    pub next_turn: TurnId,
    pub open: Option<OpenTurn>,
    /// What [`Event::needs`] asked for.
    pub details: Details,
}

/// The parts of a [`View`] that only some events need. What was not asked for stays empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The open turn's messages that have no outcome yet, in order.
    pub messages: Vec<TurnMessage>,
    /// The first message that the open turn ever took in.
    pub first: Option<MessageSeq>,
    /// Whether the open turn's chat has moved to another group.
    pub moved: bool,
    /// Set when the open turn's chat is direct and nothing was said there for the turn.
    pub silent: bool,
    /// The oldest message for the agent that waits in any chat of the lane, and its chat.
    pub waiting: Option<(MessageSeq, ChatId)>,
    /// The number of the group's session.
    pub session: u64,
    /// How many boxes of the open turn never came up.
    pub failed_starts: u32,
    /// The newest `/stop` in any chat of the lane.
    pub last_stop: Option<MessageSeq>,
}

/// A part of [`Details`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `messages`, `first` and `moved`.
    Messages,
    /// `silent`.
    Silent,
    /// `waiting`.
    Waiting,
    /// `session`.
    Session,
    /// `failed_starts`.
    FailedStarts,
    /// `last_stop`.
    LastStop,
}

impl View {
    /// Whether a `/stop` means the open turn: the turn holds something that was written before it. Needs the messages.
    pub fn is_meant_by(&self, order: MessageSeq) -> bool {
        self.open.is_some() && self.details.first.is_some_and(|first| first < order)
    }
}

/// An earlier version of a message that was edited, without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    pub seq: MessageSeq,
    /// Whether it is for the agent.
    pub wakes: bool,
    /// Whether a letter has carried it.
    pub given: bool,
}

/// The role of an edit, or of a new message (`version` 0). An edit speaks for the original only while that is
/// unanswered. An edit of something answered, or never seen, is context, so that no stale reply follows it.
pub fn role_of(role: Role, version: i64, earlier: &[Earlier]) -> Role {
    let answered = version > 0 && !earlier.iter().any(|version| version.wakes);
    if role == Role::Wake && answered { Role::Context } else { role }
}

/// What happened to a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message was stored, and waits.
    Message {
        seq: MessageSeq,
        chat: &'a ChatId,
        /// What it does, by [`role_of`].
        role: Role,
        /// Earlier versions of it.
        earlier: &'a [Earlier],
    },
    /// A letter to the lane's box carries messages of the open turn.
    Given,
    TimePassed {
        now: WallMs,
    },
    /// A box that works is told of a `/stop`.
    Stop {
        order: MessageSeq,
    },
    /// The open turn is to end without a word of a box.
    Interrupt {
        why: InterruptWhy,
        /// A person's order, which means nothing that was written after it.
        order: Option<MessageSeq>,
    },
    /// The box says that the open turn is done.
    Done {
        run: &'a RunId,
        /// What it has acknowledged.
        ack: u64,
        /// How the turn ends.
        end: &'a TurnEnd,
        /// The last reply, and a notice where the host has to explain.
        texts: &'a [OutgoingText],
        /// Said in a direct chat when the whole turn has said nothing.
        if_silent: Option<&'a OutgoingText>,
    },
    /// The lane's run has ended.
    RunEnded {
        ending: &'a Ending,
        now: WallMs,
    },
    /// The host has started.
    Started,
}

impl Event<'_> {
    /// What the decision must know beside the open turn.
    pub fn needs(&self, open: Option<&OpenTurn>) -> &'static [Need] {
        match self {
            Self::Message { role: Role::Wake, .. } if open.is_some_and(|o| o.suspended_until().is_some()) => {
                &[Need::Messages]
            }
            Self::Message { role: Role::Command(Command::New), .. } => &[Need::Session],
            Self::Message { .. } | Self::Given | Self::TimePassed { .. } => &[],
            Self::Stop { .. } => &[Need::Messages],
            Self::Interrupt { .. } => &[Need::Messages, Need::Waiting],
            Self::Done { .. } => &[Need::Messages, Need::Silent, Need::Waiting],
            Self::RunEnded { ending: Ending::NeverStarted { .. }, .. } => {
                &[Need::Messages, Need::Waiting, Need::FailedStarts]
            }
            Self::RunEnded { ending: Ending::Stopped, .. } => {
                &[Need::Messages, Need::Waiting, Need::LastStop]
            }
            Self::RunEnded { .. } => &[Need::Messages, Need::Waiting],
            Self::Started => &[Need::Waiting],
        }
    }
}

/// How a question ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionEnd {
    pub turn: TurnId,
    /// Its request, which gets the answer as its verdict.
    pub request: LetterId,
    /// What the agent is told.
    pub answer: Answer,
}

/// What is to be done, in this order and in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Open {
        turn: TurnId,
        chat: ChatId,
        /// What it takes in.
        cause: Cause,
    },
    /// The message belongs to the open turn.
    Join { message: MessageSeq, turn: TurnId },
    /// The messages wait again.
    GiveBack { messages: Vec<MessageSeq> },
    /// The messages came back from a box that did not acknowledge them: count it.
    CountReturn { messages: Vec<MessageSeq> },
    /// The run ignores letters of a turn that it has ended: what they carried was not given.
    Ungive {
        run: RunId,
        /// The last letter that it has read.
        ack: u64,
    },
    /// The message has its outcome.
    Finish {
        message: MessageSeq,
        /// What `trace` shows.
        outcome: String,
    },
    /// A newer version stands for the message.
    Replace { message: MessageSeq, by: MessageSeq },
    /// The turn has used up attempts.
    CountAttempts { turn: TurnId, cost: u32 },
    /// The open turn wants a run.
    Resume { turn: TurnId, wait: Duration },
    /// The open turn waits for a person.
    Suspend {
        /// At most until then.
        until: WallMs,
    },
    /// Close the turn. Its messages that were not given back are answered, its open questions are over, and the
    /// context before its newest message goes with it.
    End { turn: TurnId, end: TurnEnd },
    /// End a question that is open.
    EndQuestion(QuestionEnd),
    /// Nobody can answer the question any more: its answer came late, as a message of its own.
    TakeLateAnswer { question: i64 },
    /// Queue something to be said.
    Say {
        /// The turn it belongs to.
        turn: Option<TurnId>,
        outgoing: OutgoingText,
    },
    /// The group's conversation continues the session of this number from now on.
    BeginSession { number: u64 },
}

/// Where a message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// It opened this turn.
    NewTurn(TurnId),
    /// It joined the open turn of its chat.
    FollowUp(TurnId),
    /// Its lane works for another chat; it is the next turn.
    Waiting,
    /// It is kept for the next message that is for the agent.
    Context,
    /// It is for the host.
    Command(Command),
    /// The channel handed it over before.
    Duplicate,
}

impl Placement {
    /// What a decision about a message means for it.
    pub fn of(role: Role, changes: &[Change]) -> Self {
        let wakes = || {
            changes.iter().find_map(|change| match change {
                Change::Open { turn, .. } => Some(Self::NewTurn(*turn)),
                Change::Join { turn, .. } => Some(Self::FollowUp(*turn)),
                _ => None,
            })
        };
        match role {
            Role::Context => Self::Context,
            Role::Command(command) => Self::Command(command),
            Role::Wake => wakes().unwrap_or(Self::Waiting),
        }
    }
}

/// What a lane does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    Idle,
    /// This turn wants a run after that wait.
    Next(TurnId, Duration),
    /// The turn is suspended until its question is answered, or this time.
    Suspended(WallMs),
}

impl Collected {
    /// What a decision means for the lane.
    pub fn of(changes: &[Change]) -> Self {
        let next = changes.iter().find_map(|change| match change {
            Change::Open { turn, .. } => Some(Self::Next(*turn, Duration::ZERO)),
            Change::Resume { turn, wait } => Some(Self::Next(*turn, *wait)),
            Change::Suspend { until } => Some(Self::Suspended(*until)),
            _ => None,
        });
        next.unwrap_or(Self::Idle)
    }

    /// The turn that wants a run.
    pub fn next(self) -> Option<TurnId> {
        match self {
            Self::Next(turn, _) => Some(turn),
            Self::Idle | Self::Suspended(_) => None,
        }
    }
}

/// Decides what an event does to a lane.
pub fn decide(view: &View, event: &Event<'_>) -> Vec<Change> {
    let mut decision = Decision { view, changes: Vec::new(), back: None };
    match (event, &view.open) {
        (Event::Message { seq, chat, role, earlier }, _) => decision.message(*seq, chat, *role, earlier),
        (Event::Given, Some(open)) => decision.end_questions(open, &Answer::Pending, |_| true),
        (Event::TimePassed { now }, Some(open)) => {
            decision.end_questions(open, &Answer::Expired, |wait| wait.until() <= *now);
        }
        (Event::Stop { order }, Some(_)) => decision.stop(*order),
        (Event::Interrupt { why, order }, Some(open)) => decision.interrupt(open, *why, *order),
        (Event::Done { run, ack, end, texts, if_silent }, Some(open)) => {
            decision.say_last(open, texts, *if_silent);
            decision.done(open, run, *ack, end);
        }
        (Event::RunEnded { ending, now }, Some(open)) => decision.run_ended(open, ending, *now),
        (Event::RunEnded { .. } | Event::Started, None) => decision.open_next(),
        (Event::Started, Some(_)) => {}
        // The turn that it concerns has ended meanwhile.
        (
            Event::Given
            | Event::TimePassed { .. }
            | Event::Stop { .. }
            | Event::Interrupt { .. }
            | Event::Done { .. },
            None,
        ) => {}
    }
    decision.changes
}

/// A decision on its way.
struct Decision<'a> {
    view: &'a View,
    changes: Vec<Change>,
    /// The oldest message that was given back.
    back: Option<MessageSeq>,
}

impl Decision<'_> {
    fn message(&mut self, seq: MessageSeq, chat: &ChatId, role: Role, earlier: &[Earlier]) {
        // An earlier version that no agent has seen is not worth telling it.
        let replaced: Vec<MessageSeq> = earlier.iter().filter(|e| !e.given).map(|e| e.seq).collect();
        self.changes.extend(replaced.iter().map(|message| Change::Replace { message: *message, by: seq }));
        match (role, &self.view.open) {
            (Role::Context, _) => {}
            (Role::Command(Command::New), _) => self.new_session(seq, chat),
            (Role::Command(_), _) => {}
            (Role::Wake, None) => self.open(chat.clone()),
            (Role::Wake, Some(open)) if open.suspended_until().is_some() => {
                let unread = self.unread(|m| !replaced.contains(&m.seq));
                self.end_suspended(open, unread);
                self.open(chat.clone());
            }
            (Role::Wake, Some(open)) if open.chat == *chat => {
                self.changes.push(Change::Join { message: seq, turn: open.turn });
            }
            (Role::Wake, Some(_)) => {}
        }
    }

    /// In the transaction that stores the order, so that no message after it reaches the session before it.
    fn new_session(&mut self, order: MessageSeq, chat: &ChatId) {
        let number = self.view.details.session + 1;
        let notice = OutgoingText::notice(chat, &format!("new:{order}"), text::new_session(number));
        self.changes.extend([
            Change::BeginSession { number },
            Change::Finish { message: order, outcome: format!("session {number}") },
            Change::Say { turn: None, outgoing: OutgoingText { answers: Some(order), ..notice } },
        ]);
    }

    fn stop(&mut self, order: MessageSeq) {
        let messages = &self.view.details.messages;
        // A turn that no box was given anything of is ended as a whole.
        let begun = messages.iter().any(|m| m.reading != Reading::Ungiven);
        if !begun || !self.view.is_meant_by(order) {
            return;
        }
        let stopped = messages.iter().filter(|m| m.reading == Reading::Ungiven && m.seq < order);
        self.changes.extend(stopped.map(|m| Change::Finish {
            message: m.seq,
            outcome: "stopped before an agent read it".to_owned(),
        }));
    }

    /// A turn that holds nothing of before `order` is not what was meant, and goes on.
    fn interrupt(&mut self, open: &OpenTurn, why: InterruptWhy, order: Option<MessageSeq>) {
        if let Some(order) = order {
            if !self.view.is_meant_by(order) {
                return self.changes.push(Change::Resume { turn: open.turn, wait: Duration::ZERO });
            }
            let later = self.view.details.messages.iter().filter(|m| m.seq > order).map(|m| m.seq).collect();
            self.give_back(later);
        }
        let (end, notice) = ending::interrupted(why);
        self.end_with_notice(open, end, notice);
    }

    /// In a room an agent may rightly hold its tongue; a person who asked alone is told that nothing will follow.
    fn say_last(&mut self, open: &OpenTurn, texts: &[OutgoingText], if_silent: Option<&OutgoingText>) {
        let if_silent = if_silent.filter(|_| self.view.details.silent && texts.is_empty());
        for outgoing in texts.iter().chain(if_silent) {
            self.say(open, outgoing.clone());
        }
    }

    fn done(&mut self, open: &OpenTurn, run: &RunId, ack: u64, end: &TurnEnd) {
        let details = &self.view.details;
        // A letter that crosses with the turn's end comes back once, and the next turn reads it. What comes back time
        // and again is a box that reads nothing: without a limit it would have a turn after the other.
        let returns: Vec<MessageSeq> =
            details.messages.iter().filter(|m| m.reading == Reading::Given).map(|m| m.seq).collect();
        let kept = |m: &TurnMessage| m.returned + u32::from(m.reading == Reading::Given) < RETURNS;
        let unread = details.messages.iter().filter(|m| m.unread()).count();
        let back = self.unread(kept);
        let lost = u64::try_from(unread - back.len()).unwrap_or(u64::MAX);
        if lost > 0 {
            self.say(open, OutgoingText::notice(&open.chat, "unread", text::unread(lost)));
        }
        if !returns.is_empty() {
            self.changes.push(Change::CountReturn { messages: returns });
        }
        self.give_back(back);
        self.changes.push(Change::Ungive { run: run.clone(), ack });
        self.end(open, end.clone());
        self.open_next();
    }

    fn run_ended(&mut self, open: &OpenTurn, ending: &Ending, now: WallMs) {
        let details = &self.view.details;
        let age = now.since(open.opened_at);
        let (cost, wait, tell) = match retry::after_run(ending, open.attempt, details.failed_starts, age) {
            AfterRun::Again { cost, wait, tell } => (cost, wait, tell),
            AfterRun::GiveUp { end, tell } => {
                if *ending == Ending::Stopped {
                    // The box did not obey `/stop` and was killed: what was written after the order was not meant.
                    let order = details.last_stop.unwrap_or(MessageSeq(0));
                    let later = self.unread(|m| m.seq > order);
                    self.give_back(later);
                }
                return self.end_with_notice(open, end, tell);
            }
        };
        if cost > 0 {
            self.changes.push(Change::CountAttempts { turn: open.turn, cost });
        }
        if let Some(text) = tell {
            self.say(open, OutgoingText::notice(&open.chat, "start", text));
        }
        let Some(until) = open.suspended_until() else {
            return self.changes.push(Change::Resume { turn: open.turn, wait });
        };
        if details.messages.iter().any(TurnMessage::unread) {
            // Somebody wrote while the box was closing: that goes before what they were asked.
            self.end_questions(open, &Answer::Pending, |_| true);
            self.changes.push(Change::Resume { turn: open.turn, wait });
        } else if details.waiting.is_some() {
            // Somebody wrote in another chat of the group: that does not wait for the answer.
            self.end_suspended(open, Vec::new());
            self.open_next();
        } else {
            self.changes.push(Change::Suspend { until });
        }
    }

    /// Somebody wrote something else instead of an answer. The question can still be answered; the answer is then a
    /// message of its own.
    fn end_suspended(&mut self, open: &OpenTurn, unread: Vec<MessageSeq>) {
        self.end_questions(open, &Answer::Pending, |_| true);
        self.give_back(unread);
        self.end(open, TurnEnd { state: "done", why: "pending".to_owned() });
    }

    fn end_questions(&mut self, open: &OpenTurn, answer: &Answer, which: impl Fn(&Wait) -> bool) {
        for wait in open.waits.iter().filter(|wait| which(wait)) {
            let Wait::Answer { request, .. } = wait;
            let (turn, request, answer) = (open.turn, request.clone(), answer.clone());
            self.changes.push(Change::EndQuestion(QuestionEnd { turn, request, answer }));
        }
    }

    fn end_with_notice(&mut self, open: &OpenTurn, end: TurnEnd, notice: String) {
        self.say(open, OutgoingText::notice(&open.chat, "end", notice));
        self.end(open, end);
        self.open_next();
    }

    fn end(&mut self, open: &OpenTurn, end: TurnEnd) {
        self.changes.push(Change::End { turn: open.turn, end });
    }

    fn say(&mut self, open: &OpenTurn, outgoing: OutgoingText) {
        self.changes.push(Change::Say { turn: Some(open.turn), outgoing });
    }

    fn unread(&self, which: impl Fn(&TurnMessage) -> bool) -> Vec<MessageSeq> {
        let messages = self.view.details.messages.iter();
        messages.filter(|m| m.unread() && which(m)).map(|m| m.seq).collect()
    }

    fn give_back(&mut self, messages: Vec<MessageSeq>) {
        let Some(oldest) = messages.iter().min() else { return };
        // A chat that moved takes its messages along: they wait for the other group's lane.
        self.back = (!self.view.details.moved).then_some(*oldest);
        self.changes.push(Change::GiveBack { messages });
    }

    fn open(&mut self, chat: ChatId) {
        self.changes.push(Change::Open { turn: self.view.next_turn, chat, cause: Cause::Messages });
    }

    /// Opens the turn of the oldest message for the agent that waits in any chat of the lane.
    fn open_next(&mut self) {
        let back = self.back.zip(self.view.open.as_ref().map(|open| open.chat.clone()));
        let oldest =
            [self.view.details.waiting.clone(), back].into_iter().flatten().min_by_key(|(seq, _)| *seq);
        if let Some((_, chat)) = oldest {
            self.open(chat);
        }
    }
}
