//! Decides the whole life of a turn: when it opens, what joins it, what it gives back, when it waits, resumes, is
//! retried and ends, and which turn opens next.
//!
//! `store` loads a [`View`] of a lane, calls [`decide`] with the [`Event`], and applies the [`Change`]s in the same
//! transaction. This module reads no clock and no row.
//!
//! There are two deciders. The other one is `dispatch`, which decides which container starts, waits, stops and dies.
//! This module only decides that a turn wants a run or that it waits.
//!
//! These rules hold after every event (`proptest_model.rs` tests them):
//! - A lane has at most one open turn, and every message of a turn is from the turn's chat.
//! - A lane with messages for the agent has an open turn, so that an agent reads them.
//! - A message ends as answered, with a notice that says why not, or in a later turn.
//! - An open turn wants a run, has one, or waits for a person. A turn that waits has an open question.

mod after_run;
mod end_and_notice;
#[cfg(test)]
mod proptest_model;
mod question_answer;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod test_store;

use std::time::Duration;

use ipc_schema::letters::to_agent::InterruptWhy;
use ipc_schema::requests::Answer;

use crate::domain::ending::TurnEnd;
use crate::domain::message::{Command, Role};
use crate::domain::outbound::{OutgoingText, Voice};
use crate::domain::task::FireOutcome;
use crate::domain::{ChatId, Ending, FireId, LetterId, MessageSeq, RunId, TurnId, WallMs};
use crate::text::{self, Reader};
#[cfg(test)]
pub use after_run::ATTEMPTS;
use after_run::AfterRun;
use end_and_notice::fire_outcome;
pub use end_and_notice::{TurnDone, turn_done};
pub use question_answer::{AnswerCommand, Answering, Question, code_of, take_answer, verdict_on};

/// How many turns give a message to boxes that acknowledge none of the turn's messages. After that the chat gets a
/// notice.
pub const RETURNS: u32 = 3;

/// What causes a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The messages for the agent that wait in the turn's chat. The turn takes all of them.
    Messages,
    /// A fire of a scheduled task.
    Task(FireId),
}

/// The fire that caused a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CausingFire {
    pub fire: FireId,
    /// The name of the task.
    pub task: String,
    /// It runs after its time, because the host was away.
    pub late: bool,
    /// Its answer is only kept in the history.
    pub silent: bool,
    /// Why the fire before it failed, if it did. The chat is not told the same twice.
    pub failed_before: Option<String>,
}

/// What an open turn waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A person's answer to the agent's question.
    Answer {
        /// The request with which the agent asked.
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

/// How far a message has come on its way to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// No letter has carried it yet.
    Ungiven,
    /// A letter carried it, and no run acknowledged that letter.
    Given,
    /// A run acknowledged the letter that carried it.
    Acknowledged,
}

/// A message of the open turn without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnMessage {
    pub seq: MessageSeq,
    /// What any run has read. For [`Event::Done`] only the run that ends the turn counts, up to the letter that it
    /// acknowledges.
    pub reading: Reading,
    /// How often it was given back because a box acknowledged no message of its turn.
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
    /// The number of the next (or current) attempt, from 1.
    pub attempt: u32,
    pub opened_at: WallMs,
    pub waits: Vec<Wait>,
    /// The fire that caused it, if no message did.
    pub fire: Option<CausingFire>,
    /// Whether the lane has a run that has not ended.
    pub has_run: bool,
}

impl OpenTurn {
    /// When the first wait ends. `None` unless the turn is suspended, which means that it waits without a box.
    pub fn suspended_until(&self) -> Option<WallMs> {
        if self.has_run { None } else { self.waits.iter().map(Wait::until).min() }
    }
}

/// The facts about a lane that a decision needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The id for the next turn.
    pub next_turn: TurnId,
    pub open: Option<OpenTurn>,
    /// Who reads the notices of the lane's turns.
    pub reader: Reader,
    /// The facts that [`Event::needs`] names.
    pub details: Details,
}

/// The parts of a [`View`] that only some events need. `store` leaves the others empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The open turn's messages without an outcome, in order.
    pub messages: Vec<TurnMessage>,
    /// The first message that the open turn took in. For the turn of a fire: the newest message when it opened.
    pub first: Option<MessageSeq>,
    /// Whether the open turn's chat has moved to another group.
    pub moved: bool,
    /// Whether the open turn's chat is direct and has got no reply, no notice and no reaction of the turn.
    pub silent: bool,
    /// The oldest message for the agent that waits in any chat of the lane, and its chat.
    pub waiting: Option<(MessageSeq, ChatId)>,
    /// The oldest fire that waits for the lane, and the chat of its task.
    pub waiting_fire: Option<(FireId, ChatId)>,
    /// The number of the group's session.
    pub session: u64,
    /// How many boxes of the open turn never became ready.
    pub failed_starts: u32,
    /// The newest `/stop` in any chat of the lane, and when the store got it.
    pub last_stop: Option<(MessageSeq, WallMs)>,
}

/// A part of [`Details`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `messages`, `first` and `moved`.
    Messages,
    /// `silent`.
    Silent,
    /// `waiting` and `waiting_fire`.
    Waiting,
    /// `session`.
    Session,
    /// `failed_starts`.
    FailedStarts,
    /// `last_stop`.
    LastStop,
}

impl View {
    /// Whether a `/stop` applies to the open turn. It does if the turn holds a message from before the `/stop`. Needs
    /// the messages.
    pub fn is_meant_by(&self, order: MessageSeq) -> bool {
        self.open.is_some() && self.details.first.is_some_and(|first| first < order)
    }
}

/// An earlier version of an edited message, without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    pub seq: MessageSeq,
    /// Whether it is for the agent.
    pub wakes: bool,
    pub given: bool,
}

/// The role of an edit, or of a new message (`version` 0). An edit wakes the agent only while the original has no
/// answer. An edit of an answered message, or of one that the host has not seen, is context, so that no stale reply
/// follows it.
pub fn role_of(role: Role, version: i64, earlier: &[Earlier]) -> Role {
    let answered = version > 0 && !earlier.iter().any(|version| version.wakes);
    if role == Role::Wake && answered { Role::Context } else { role }
}

/// What happened to a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The store has a new message, which waits.
    Message {
        seq: MessageSeq,
        chat: &'a ChatId,
        /// Its role, from [`role_of`].
        role: Role,
        earlier: &'a [Earlier],
    },
    /// A fire of a task is due in the lane.
    Fire {
        fire: FireId,
        /// The chat of the task.
        chat: &'a ChatId,
    },
    /// A letter to the lane's box carries messages of the open turn.
    Given,
    TimePassed {
        now: WallMs,
    },
    /// The host told a working box about a `/stop`.
    Stop {
        order: MessageSeq,
    },
    /// The host ends the open turn without a report from a box.
    Interrupt {
        why: InterruptWhy,
        /// A person's `/stop`. It does not apply to messages after it.
        order: Option<MessageSeq>,
    },
    /// The box reports that the open turn is done.
    Done {
        run: &'a RunId,
        /// The highest letter that the box has acknowledged.
        ack: u64,
        end: &'a TurnEnd,
        /// The last reply, and a notice where the host has to explain.
        texts: &'a [OutgoingText],
        /// The notice for a direct chat, if the whole turn has said nothing.
        if_silent: Option<&'a OutgoingText>,
    },
    /// The box reports that the open turn is done, in a letter with the id of another letter.
    EndRefused {
        run: &'a RunId,
        /// The highest letter that the box has acknowledged before.
        ack: u64,
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
    /// The details that the decision needs besides the open turn.
    pub fn needs(&self, open: Option<&OpenTurn>) -> &'static [Need] {
        match self {
            Self::Message { role: Role::Wake | Role::First, .. }
                if open.is_some_and(|o| o.suspended_until().is_some()) =>
            {
                &[Need::Messages]
            }
            Self::Message { role: Role::Command(Command::New), .. } => &[Need::Session],
            Self::Message { role: Role::Context, earlier, .. } if open.is_some() && !earlier.is_empty() => {
                &[Need::Messages, Need::Waiting]
            }
            Self::Fire { .. } if open.is_some_and(|o| o.suspended_until().is_some()) => &[Need::Messages],
            Self::Message { .. } | Self::Fire { .. } | Self::Given | Self::TimePassed { .. } => &[],
            Self::Stop { .. } => &[Need::Messages],
            Self::Interrupt { .. } => &[Need::Messages, Need::Waiting],
            Self::Done { .. } => &[Need::Messages, Need::Silent, Need::Waiting],
            Self::EndRefused { .. } => &[Need::Messages, Need::Waiting],
            Self::RunEnded { ending: Ending::NeverStarted { .. }, .. } => {
                &[Need::Messages, Need::Waiting, Need::LastStop, Need::FailedStarts]
            }
            Self::RunEnded { .. } => &[Need::Messages, Need::Waiting, Need::LastStop],
            Self::Started => &[Need::Waiting],
        }
    }
}

/// How a question ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionEnd {
    pub turn: TurnId,
    /// Its request. The answer becomes the request's verdict.
    pub request: LetterId,
    /// The answer for the agent.
    pub answer: Answer,
}

/// Changes for the store, in this order and in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Open {
        turn: TurnId,
        chat: ChatId,
        /// Which messages it takes in.
        cause: Cause,
    },
    /// The message joins the open turn.
    Join { message: MessageSeq, turn: TurnId },
    /// The messages leave the turn and wait again.
    GiveBack { messages: Vec<MessageSeq> },
    /// Counts that the messages were given back because a box acknowledged none of the turn.
    CountReturn { messages: Vec<MessageSeq> },
    /// Marks messages as not given. The run ignores further letters of a turn that it has ended, so it has not read
    /// what they carried.
    Ungive {
        run: RunId,
        /// The last letter that the run has read.
        ack: u64,
    },
    /// The message gets its outcome.
    Finish {
        message: MessageSeq,
        /// What `trace` shows.
        outcome: String,
    },
    /// A newer version replaces the message.
    Replace { message: MessageSeq, by: MessageSeq },
    /// Counts failed attempts of the turn.
    CountAttempts { turn: TurnId, cost: u32 },
    /// The open turn wants a run.
    Resume { turn: TurnId, wait: Duration },
    /// The open turn waits for a person.
    Suspend {
        /// The latest end of the wait.
        until: WallMs,
    },
    /// Closes the turn. Messages that were not given back count as answered. Open questions of the turn are over. The
    /// context before the turn's newest message ends with it.
    End { turn: TurnId, end: TurnEnd },
    /// The fire gets its outcome.
    EndFire { fire: FireId, outcome: FireOutcome },
    /// Keeps the answer of a silent task's fire, which nobody is sent, or why a fire failed.
    KeepAnswer { fire: FireId, text: String },
    /// Ends an open question.
    EndQuestion(QuestionEnd),
    /// An owner always allows the group this call.
    AllowAlways {
        tool: String,
        /// For `run_command`: exactly this one.
        command: Option<String>,
        by: String,
    },
    /// Closes a question for further answers, because a late answer has become a message of its own.
    TakeLateAnswer { question: i64 },
    /// Queues a reply or a notice.
    Say {
        /// `None` for what belongs to no turn.
        turn: Option<TurnId>,
        outgoing: OutgoingText,
    },
    /// The group's conversation uses the session with this number from now on. It gets no context from before `order`.
    BeginSession { number: u64, order: MessageSeq },
}

/// Where a message was placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// It opened this turn.
    NewTurn(TurnId),
    /// It joined the open turn of its chat.
    FollowUp(TurnId),
    /// The lane's open turn is of another chat. The message waits for the next turn.
    Waiting,
    /// It is kept as context for the next message that is for the agent.
    Context,
    /// It is for the host.
    Command(Command),
    /// The channel has delivered it before.
    Duplicate,
}

impl Placement {
    /// The placement that follows from a decision about a message.
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
            Role::Wake | Role::First => wakes().unwrap_or(Self::Waiting),
        }
    }
}

/// What a lane does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    Idle,
    /// This turn wants a run after this wait.
    Next(TurnId, Duration),
    /// The turn is suspended until its question is answered, or until this time.
    Suspended(WallMs),
}

impl Collected {
    /// The lane's next step, from a decision.
    pub fn of(changes: &[Change]) -> Self {
        let next = changes.iter().find_map(|change| match change {
            Change::Open { turn, .. } => Some(Self::Next(*turn, Duration::ZERO)),
            Change::Resume { turn, wait } => Some(Self::Next(*turn, *wait)),
            Change::Suspend { until } => Some(Self::Suspended(*until)),
            _ => None,
        });
        next.unwrap_or(Self::Idle)
    }

    pub fn next(self) -> Option<TurnId> {
        match self {
            Self::Next(turn, _) => Some(turn),
            Self::Idle | Self::Suspended(_) => None,
        }
    }
}

/// Decides which changes follow from an event.
pub fn decide(view: &View, event: &Event<'_>) -> Vec<Change> {
    let mut decision = Decision { view, changes: Vec::new(), back: None };
    match (event, &view.open) {
        (Event::Message { seq, chat, role, earlier }, _) => decision.message(*seq, chat, *role, earlier),
        (Event::Fire { fire, chat }, open) => decision.fire(*fire, chat, open.as_ref()),
        (Event::Given, Some(open)) => decision.end_questions(open, &Answer::Pending, |_| true),
        (Event::TimePassed { now }, Some(open)) => {
            decision.end_questions(open, &Answer::Expired, |wait| wait.until() <= *now);
        }
        (Event::Stop { order }, Some(_)) => decision.stop(*order),
        (Event::Interrupt { why, order }, Some(open)) => decision.interrupt(open, *why, *order),
        (Event::Done { run, ack, end, texts, if_silent }, Some(open)) => {
            decision.say_last(open, end, texts, *if_silent);
            decision.done(open, run, *ack, end);
        }
        (Event::EndRefused { run, ack }, Some(open)) => {
            let (end, notice) = end_and_notice::refused();
            decision.say_why(open, &end, OutgoingText::notice(&open.chat, "end", notice));
            decision.done(open, run, *ack, &end);
        }
        (Event::RunEnded { ending, now }, Some(open)) => decision.run_ended(open, ending, *now),
        (Event::RunEnded { .. } | Event::Started, None) => decision.open_next(),
        (Event::Started, Some(_)) => {}
        // The event concerns a turn that has ended meanwhile.
        (
            Event::Given
            | Event::TimePassed { .. }
            | Event::Stop { .. }
            | Event::Interrupt { .. }
            | Event::Done { .. }
            | Event::EndRefused { .. },
            None,
        ) => {}
    }
    decision.changes
}

/// A decision in progress.
struct Decision<'a> {
    view: &'a View,
    changes: Vec<Change>,
    /// The oldest message that was given back.
    back: Option<MessageSeq>,
}

impl Decision<'_> {
    fn message(&mut self, seq: MessageSeq, chat: &ChatId, role: Role, earlier: &[Earlier]) {
        // The agent does not need an earlier version that it has never seen.
        let replaced: Vec<MessageSeq> = earlier.iter().filter(|e| !e.given).map(|e| e.seq).collect();
        self.changes.extend(replaced.iter().map(|message| Change::Replace { message: *message, by: seq }));
        match (role, &self.view.open) {
            (Role::Context, Some(open)) => self.withdraw(open, &replaced),
            (Role::Context, None) => {}
            (Role::Command(Command::New), _) => self.new_session(seq, chat),
            (Role::Command(_), _) => {}
            (Role::Wake | Role::First, None) => self.open(chat.clone(), Cause::Messages),
            (Role::Wake | Role::First, Some(open)) if open.suspended_until().is_some() => {
                let unread = self.unread(|m| !replaced.contains(&m.seq));
                self.end_suspended(open, unread);
                self.open(chat.clone(), Cause::Messages);
            }
            (Role::Wake, Some(open)) if open.chat == *chat => {
                self.changes.push(Change::Join { message: seq, turn: open.turn });
            }
            (Role::Wake | Role::First, Some(_)) => {}
        }
    }

    /// A fire waits for the end of the lane's turn, but not for a person's answer.
    fn fire(&mut self, fire: FireId, chat: &ChatId, open: Option<&OpenTurn>) {
        match open {
            None => self.open(chat.clone(), Cause::Task(fire)),
            Some(open) if open.suspended_until().is_some() => {
                // Messages that the suspended turn has not answered come first.
                let unread = self.unread(|_| true);
                let messages_wait = !unread.is_empty();
                self.end_suspended(open, unread);
                match messages_wait {
                    true => self.open_next(),
                    false => self.open(chat.clone(), Cause::Task(fire)),
                }
            }
            Some(_) => {}
        }
    }

    /// Ends a turn whose last message was edited into one that is not for the agent: no box would get an input of it.
    fn withdraw(&mut self, open: &OpenTurn, replaced: &[MessageSeq]) {
        let messages = &self.view.details.messages;
        let only = open.fire.is_none() && !messages.is_empty();
        if only && messages.iter().all(|m| replaced.contains(&m.seq)) {
            self.end(open, TurnEnd { state: "done", why: "withdrawn".to_owned() });
            self.open_next();
        }
    }

    /// This happens in the transaction that stores the command. Otherwise a message after the command could reach the
    /// old session.
    fn new_session(&mut self, order: MessageSeq, chat: &ChatId) {
        let number = self.view.details.session + 1;
        let notice = OutgoingText::notice(chat, &format!("new:{order}"), text::new_session(number));
        self.changes.extend([
            Change::BeginSession { number, order },
            Change::Finish { message: order, outcome: format!("session {number}") },
            Change::Say { turn: None, outgoing: OutgoingText { answers: Some(order), ..notice } },
        ]);
    }

    fn stop(&mut self, order: MessageSeq) {
        let messages = &self.view.details.messages;
        // If no box has got anything of the turn, [`Event::Interrupt`] ends the whole turn.
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

    /// A turn without messages from before `order` goes on, because the person did not mean it.
    fn interrupt(&mut self, open: &OpenTurn, why: InterruptWhy, order: Option<MessageSeq>) {
        if let Some(order) = order {
            if !self.view.is_meant_by(order) {
                return self.changes.push(Change::Resume { turn: open.turn, wait: Duration::ZERO });
            }
            let later = self.view.details.messages.iter().filter(|m| m.seq > order).map(|m| m.seq).collect();
            self.give_back(later);
        }
        let (end, notice) = end_and_notice::interrupted(why);
        self.end_with_notice(open, end, notice);
    }

    /// In a room an agent may choose not to reply. In a direct chat the person learns that no reply will follow.
    fn say_last(
        &mut self,
        open: &OpenTurn,
        end: &TurnEnd,
        texts: &[OutgoingText],
        if_silent: Option<&OutgoingText>,
    ) {
        // Nobody waits for the reply of a fire, unless a person's message joined its turn.
        let fire = open.fire.as_ref().filter(|_| self.view.details.messages.is_empty());
        let if_silent = if_silent.filter(|_| fire.is_none() && self.view.details.silent && texts.is_empty());
        let answers = self.view.details.messages.iter().rev().find(|m| !m.unread()).map(|m| m.seq);
        for outgoing in texts.iter().chain(if_silent) {
            match (fire, outgoing.voice) {
                (Some(fire), Voice::Reply) if fire.silent => self.keep(fire.fire, outgoing),
                (_, Voice::Notice) => self.say_why(open, end, outgoing.clone()),
                _ => self.say(open, OutgoingText { answers, ..outgoing.clone() }),
            }
        }
    }

    fn done(&mut self, open: &OpenTurn, run: &RunId, ack: u64, end: &TurnEnd) {
        let details = &self.view.details;
        // A letter can cross with the end of the turn, and in a burst many do. The next turn then reads their messages.
        // The limit is for a box that never reads: without it the messages would open one turn after another. A turn
        // in which the box read something is none of these, and there are no more such turns than messages.
        let has_read = details.messages.iter().any(|m| m.reading == Reading::Acknowledged);
        let returns = |m: &TurnMessage| !has_read && m.reading == Reading::Given;
        let kept = |m: &TurnMessage| m.returned + u32::from(returns(m)) < RETURNS;
        let returns: Vec<MessageSeq> =
            details.messages.iter().filter(|m| returns(m)).map(|m| m.seq).collect();
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
        let after =
            |ending| after_run::after_run(self.view.reader, ending, open.attempt, details.failed_starts, age);
        let (ending, after) = match after(ending) {
            // The box ended before it heard of the `/stop`.
            AfterRun::Again { .. } if self.was_stopped(open) => (&Ending::Stopped, after(&Ending::Stopped)),
            after => (ending, after),
        };
        let (cost, wait, tell) = match after {
            AfterRun::Again { cost, wait, tell } => (cost, wait, tell),
            AfterRun::GiveUp { end, tell } => {
                let order = details.last_stop.map_or(MessageSeq(0), |(order, _)| order);
                let begun = details.messages.iter().any(|m| m.reading != Reading::Ungiven);
                let back = |m: &&TurnMessage| match ending {
                    // Messages after the `/stop` are not part of the stopped work, also if the box has read them.
                    Ending::Stopped => m.seq > order,
                    // No box was there to get them.
                    Ending::NeverStarted { .. } => false,
                    // They waited for the end of the turn, and no box has tried them.
                    _ => begun && m.reading == Reading::Ungiven,
                };
                self.give_back(details.messages.iter().filter(back).map(|m| m.seq).collect());
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
            // A person wrote while the box was closing. The new messages take precedence over the question.
            self.end_questions(open, &Answer::Pending, |_| true);
            self.changes.push(Change::Resume { turn: open.turn, wait });
        } else if details.waiting.is_some() || details.waiting_fire.is_some() {
            // A person wrote in another chat of the group, or a fire is due. Neither waits for the answer.
            self.end_suspended(open, Vec::new());
            self.open_next();
        } else {
            self.changes.push(Change::Suspend { until });
        }
    }

    /// Whether a person has ordered to stop the open turn. A `/stop` from before the turn opened meant the turn before
    /// it, even if a message of this turn is older: that message waited in another chat.
    fn was_stopped(&self, open: &OpenTurn) -> bool {
        let stop = self.view.details.last_stop;
        stop.is_some_and(|(order, at)| at > open.opened_at && self.view.is_meant_by(order))
    }

    /// Ends a suspended turn because a person wrote something else. The question stays answerable, and the answer then
    /// becomes a message of its own.
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
        self.say_why(open, &end, OutgoingText::notice(&open.chat, "end", notice));
        self.end(open, end);
        self.open_next();
    }

    /// Says how a turn ended. The history of a task has it for each fire that failed. The chat of a task that fails in
    /// the same way each minute is told once.
    fn say_why(&mut self, open: &OpenTurn, end: &TurnEnd, notice: OutgoingText) {
        let fire = open.fire.as_ref().filter(|_| end.state == "failed");
        if let Some(fire) = fire {
            self.keep(fire.fire, &notice);
        }
        let told = fire.is_some_and(|fire| fire.failed_before.as_ref() == Some(&end.why));
        if !told || !self.view.details.messages.is_empty() {
            self.say(open, notice);
        }
    }

    fn keep(&mut self, fire: FireId, outgoing: &OutgoingText) {
        let parts: Vec<&str> = outgoing.parts.iter().map(|part| part.text.as_str()).collect();
        self.changes.push(Change::KeepAnswer { fire, text: parts.join("\n") });
    }

    fn end(&mut self, open: &OpenTurn, end: TurnEnd) {
        if let Some(fire) = &open.fire {
            let outcome = fire_outcome(&end, fire.late);
            self.changes.push(Change::EndFire { fire: fire.fire, outcome });
        }
        self.changes.push(Change::End { turn: open.turn, end });
    }

    /// A notice about the work of a task names the task, because nobody in the chat may remember it.
    fn say(&mut self, open: &OpenTurn, mut outgoing: OutgoingText) {
        if let Some(fire) = &open.fire
            && outgoing.voice == Voice::Notice
        {
            for part in &mut outgoing.parts {
                part.text = text::about_task(&fire.task, &part.text);
            }
        }
        self.changes.push(Change::Say { turn: Some(open.turn), outgoing });
    }

    fn unread(&self, which: impl Fn(&TurnMessage) -> bool) -> Vec<MessageSeq> {
        let messages = self.view.details.messages.iter();
        messages.filter(|m| m.unread() && which(m)).map(|m| m.seq).collect()
    }

    fn give_back(&mut self, messages: Vec<MessageSeq>) {
        let Some(oldest) = messages.iter().min() else { return };
        // The messages of a chat that has moved wait for the lane of the other group.
        self.back = (!self.view.details.moved).then_some(*oldest);
        self.changes.push(Change::GiveBack { messages });
    }

    fn open(&mut self, chat: ChatId, cause: Cause) {
        self.changes.push(Change::Open { turn: self.view.next_turn, chat, cause });
    }

    /// Opens a turn for the oldest message for the agent that waits in any chat of the lane. A person goes before a
    /// task.
    fn open_next(&mut self) {
        let back = self.back.zip(self.view.open.as_ref().map(|open| open.chat.clone()));
        let oldest =
            [self.view.details.waiting.clone(), back].into_iter().flatten().min_by_key(|(seq, _)| *seq);
        match (oldest, self.view.details.waiting_fire.clone()) {
            (Some((_, chat)), _) => self.open(chat, Cause::Messages),
            (None, Some((fire, chat))) => self.open(chat, Cause::Task(fire)),
            (None, None) => {}
        }
    }
}
