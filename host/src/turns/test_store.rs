//! The rows of one lane in memory, for the scripts and the property test: the part of the store's data that a turn's
//! life depends on. It checks the rules after each change.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::domain::message::{Inbound, Sender};
use crate::domain::{ChatKind, Lane};

pub const ASKED_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Waiting,
    InTurn,
    Done,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub seq: MessageSeq,
    /// An edit has the same identity as its original.
    pub identity: u64,
    pub chat: ChatId,
    pub role: Role,
    pub state: State,
    pub turn: Option<TurnId>,
    pub returned: u32,
    /// The runs that got it, each with the number of the letter.
    pub letters: BTreeMap<usize, u64>,
    pub outcome: Option<String>,
    pub at: WallMs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Open,
    Pending,
    Over,
}

#[derive(Debug, Clone)]
pub struct AskedQuestion {
    pub turn: TurnId,
    pub chat: ChatId,
    pub request: LetterId,
    pub until: WallMs,
    pub state: Asked,
    pub answer: Option<Answer>,
}

#[derive(Debug, Clone, Default)]
pub struct Run {
    pub written: u64,
    pub ack: u64,
    pub ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FireState {
    Due,
    Open,
    Ended,
}

/// A fire of a task that works in this lane.
#[derive(Debug, Clone)]
pub struct Fire {
    pub fire: FireId,
    pub chat: ChatId,
    pub silent: bool,
    pub state: FireState,
    pub outcome: Option<FireOutcome>,
    /// The run that got it last.
    pub given: Option<usize>,
    pub kept: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Turn {
    pub turn: TurnId,
    pub chat: ChatId,
    pub fire: Option<FireId>,
    /// The newest message when it opened.
    pub after: MessageSeq,
    pub attempt: u32,
    pub opened_at: WallMs,
    pub end: Option<TurnEnd>,
}

#[derive(Debug, Clone)]
pub struct Rows {
    pub now: WallMs,
    pub messages: Vec<Message>,
    pub questions: Vec<AskedQuestion>,
    pub runs: Vec<Run>,
    pub turns: Vec<Turn>,
    pub fires: Vec<Fire>,
    pub said: Vec<(Option<TurnId>, String)>,
    pub session: u64,
    /// Whether dispatch knows that the open turn wants a run, since the last run.
    pub wants_run: bool,
    failed_starts: u32,
}

pub fn chat(name: &str) -> ChatId {
    format!("telegram:{name}").parse().unwrap()
}

pub fn crash() -> Ending {
    Ending::Crashed { code: Some(1), oom: false, why: "x".into() }
}

pub fn run_id(run: usize) -> RunId {
    format!("019ab000-0000-7000-8000-{run:012}").parse().unwrap()
}

impl Rows {
    pub fn new() -> Self {
        Self {
            now: WallMs(1_795_000_000_000),
            messages: Vec::new(),
            questions: Vec::new(),
            runs: Vec::new(),
            turns: Vec::new(),
            fires: Vec::new(),
            said: Vec::new(),
            session: 1,
            wants_run: false,
            failed_starts: 0,
        }
    }

    pub fn open(&self) -> Option<&Turn> {
        self.turns.iter().find(|turn| turn.end.is_none())
    }

    pub fn run(&mut self) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| !run.ended)
    }

    fn run_number(&self) -> Option<usize> {
        self.runs.iter().position(|run| !run.ended)
    }

    pub fn message(&self, seq: MessageSeq) -> &Message {
        self.messages.iter().find(|m| m.seq == seq).unwrap()
    }

    fn message_mut(&mut self, seq: MessageSeq) -> &mut Message {
        self.messages.iter_mut().find(|m| m.seq == seq).unwrap()
    }

    fn in_turn(&self, turn: TurnId) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |m| m.turn == Some(turn) && m.state == State::InTurn)
    }

    /// `by` limits it to one run, up to the given letter. Otherwise each run counts up to its acknowledgement.
    fn reading(&self, message: &Message, by: Option<(usize, u64)>) -> Reading {
        let acknowledged = |run: usize| by.map_or(self.runs[run].ack, |(_, ack)| ack);
        let of = message.letters.iter().filter(|(run, _)| by.is_none_or(|(only, _)| only == **run));
        let read = of.map(|(run, n)| *n <= acknowledged(*run)).max();
        match read {
            None => Reading::Ungiven,
            Some(false) => Reading::Given,
            Some(true) => Reading::Acknowledged,
        }
    }

    pub fn view(&self, event: &Event<'_>) -> View {
        let open = self.open().map(|open| OpenTurn {
            turn: open.turn,
            chat: open.chat.clone(),
            attempt: open.attempt,
            opened_at: open.opened_at,
            waits: self
                .questions
                .iter()
                .filter(|q| q.turn == open.turn && q.state == Asked::Open)
                .map(|q| Wait::Answer { request: q.request.clone(), until: q.until })
                .collect(),
            fire: open.fire.map(|fire| self.causing(fire)),
            has_run: self.run_number().is_some(),
        });
        let by = match event {
            Event::Done { ack, .. } | Event::EndRefused { ack, .. } => {
                self.run_number().map(|run| (run, *ack))
            }
            _ => None,
        };
        let mut details = Details::default();
        for need in event.needs(open.as_ref()) {
            match (need, &open) {
                (Need::Messages, Some(open)) => {
                    let of = |m: &Message| TurnMessage {
                        seq: m.seq,
                        reading: self.reading(m, by),
                        returned: m.returned,
                    };
                    details.messages = self.in_turn(open.turn).map(of).collect();
                    let first = self.messages.iter().find(|m| m.turn == Some(open.turn)).map(|m| m.seq);
                    let after = self.open().filter(|open| open.fire.is_some()).map(|open| open.after);
                    details.first = after.or(first);
                }
                (Need::Waiting, _) => {
                    let waits = |m: &&Message| m.role == Role::Wake && m.state == State::Waiting;
                    details.waiting = self.messages.iter().find(waits).map(|m| (m.seq, m.chat.clone()));
                    let due = self.fires.iter().find(|fire| fire.state == FireState::Due);
                    details.waiting_fire = due.map(|fire| (fire.fire, fire.chat.clone()));
                }
                (Need::LastStop, _) => {
                    let stop = |m: &&Message| m.role == Role::Command(Command::Stop);
                    details.last_stop = self.messages.iter().rev().find(stop).map(|m| (m.seq, m.at));
                }
                (Need::Silent, Some(open)) => {
                    details.silent = !self.said.iter().any(|(turn, _)| *turn == Some(open.turn));
                }
                (Need::Session, _) => details.session = self.session,
                (Need::FailedStarts, _) => details.failed_starts = self.failed_starts,
                (Need::Messages | Need::Silent, None) => {}
            }
        }
        let reader = crate::text::Reader::Operator;
        View { next_turn: TurnId(self.turns.len() as u64 + 1), open, reader, details }
    }

    pub fn happen(&mut self, event: &Event<'_>) -> Vec<Change> {
        let changes = decide(&self.view(event), event);
        for change in &changes {
            self.apply(change);
        }
        self.check();
        changes
    }

    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Open { turn, chat, cause } => {
                assert!(self.open().is_none(), "two turns are open");
                let fire = match cause {
                    Cause::Messages => {
                        for m in &mut self.messages {
                            if m.chat == chat && m.role == Role::Wake && m.state == State::Waiting {
                                (m.state, m.turn) = (State::InTurn, Some(turn));
                            }
                        }
                        None
                    }
                    Cause::Task(fire) => {
                        let row = self.fire_mut(fire);
                        assert_eq!(row.state, FireState::Due, "{fire} opens one turn");
                        row.state = FireState::Open;
                        Some(fire)
                    }
                };
                let after = MessageSeq(self.messages.len() as u64);
                self.turns.push(Turn { turn, chat, fire, after, attempt: 1, opened_at: self.now, end: None });
                (self.wants_run, self.failed_starts) = (true, 0);
            }
            Change::Join { message, turn } => {
                let message = self.message_mut(message);
                (message.state, message.turn) = (State::InTurn, Some(turn));
            }
            Change::GiveBack { messages } => {
                for seq in messages {
                    let message = self.message_mut(seq);
                    assert_eq!(message.state, State::InTurn, "{seq} is given back");
                    (message.state, message.turn) = (State::Waiting, None);
                }
            }
            Change::CountReturn { messages } => {
                messages.iter().for_each(|seq| self.message_mut(*seq).returned += 1);
            }
            Change::Ungive { run, ack } => {
                let live = self.run_number().unwrap();
                assert_eq!(run, run_id(live));
                self.messages.iter_mut().for_each(|m| m.letters.retain(|run, n| *run != live || *n <= ack));
            }
            Change::Finish { message, outcome } => {
                let message = self.message_mut(message);
                assert_ne!(message.state, State::Done, "{} has an outcome", message.seq);
                (message.state, message.outcome) = (State::Done, Some(outcome));
            }
            Change::Replace { message, by } => {
                let message = self.message_mut(message);
                (message.state, message.turn) = (State::Done, None);
                message.outcome = Some(format!("replaced by {by}"));
            }
            Change::CountAttempts { turn, cost } => {
                self.turns.iter_mut().find(|t| t.turn == turn).unwrap().attempt += cost;
            }
            Change::Resume { turn, .. } => {
                assert_eq!(self.open().map(|open| open.turn), Some(turn));
                self.wants_run = true;
            }
            Change::Suspend { .. } => assert!(self.run_number().is_none()),
            Change::End { turn, end } => self.end(turn, end),
            Change::EndQuestion(QuestionEnd { turn, request, answer }) => {
                let asked =
                    self.questions.iter_mut().find(|q| q.turn == turn && q.request == request).unwrap();
                assert_eq!(asked.state, Asked::Open, "a question ends once");
                asked.state = if answer == Answer::Pending { Asked::Pending } else { Asked::Over };
                asked.answer = Some(answer);
            }
            Change::EndFire { fire, outcome } => {
                let row = self.fire_mut(fire);
                assert_eq!((row.state, &row.outcome), (FireState::Open, &None), "{fire} ends once");
                (row.state, row.outcome) = (FireState::Ended, Some(outcome));
            }
            Change::KeepAnswer { fire, text } => self.fire_mut(fire).kept = Some(text),
            Change::AllowAlways { .. } => {}
            Change::TakeLateAnswer { question } => {
                self.questions[usize::try_from(question).unwrap()].state = Asked::Over;
            }
            Change::Say { turn, outgoing } => {
                let said = (turn, outgoing.key);
                if !self.said.contains(&said) {
                    self.said.push(said);
                }
            }
            Change::BeginSession { number, .. } => {
                assert_eq!(number, self.session + 1);
                self.session = number;
            }
        }
    }

    /// A message may end with its turn only if an agent has read it or a notice says why not.
    fn end(&mut self, turn: TurnId, end: TurnEnd) {
        let told = ["notice:end", "notice:unread"];
        let told = told.iter().any(|key| self.said.contains(&(Some(turn), (*key).to_owned())));
        for message in self.in_turn(turn) {
            let read = self.reading(message, None) == Reading::Acknowledged;
            assert!(read || told, "{} ends with {turn} and nobody hears of it", message.seq);
        }
        for message in self.messages.iter_mut().filter(|m| m.turn == Some(turn)) {
            message.state = State::Done;
        }
        for asked in self.questions.iter_mut().filter(|q| q.turn == turn && q.state == Asked::Open) {
            asked.state = Asked::Over;
        }
        let row = self.turns.iter_mut().find(|t| t.turn == turn).unwrap();
        assert_eq!(row.end, None, "{turn} ends once");
        row.end = Some(end);
        let fire = row.fire;
        self.wants_run = false;
        if let Some(fire) = fire {
            assert_eq!(self.fire_mut(fire).state, FireState::Ended, "{fire} ends with its turn");
        }
    }

    /// Checks the rules in the module's documentation.
    fn check(&self) {
        let open = self.open();
        for m in self.messages.iter().filter(|m| m.role == Role::Wake) {
            match m.state {
                State::InTurn => {
                    let open = open.unwrap_or_else(|| panic!("{} is in no open turn", m.seq));
                    assert_eq!((m.turn, &m.chat), (Some(open.turn), &open.chat), "{}", m.seq);
                }
                State::Waiting => assert!(open.is_some(), "{} waits for nobody", m.seq),
                State::Done => {}
            }
        }
        let due = self.fires.iter().any(|fire| fire.state == FireState::Due);
        assert!(!due || open.is_some(), "a fire waits for nobody");
        if let Some(open) = open {
            let waits = self.questions.iter().any(|q| q.turn == open.turn && q.state == Asked::Open);
            assert!(self.wants_run || self.run_number().is_some() || waits, "{} waits for ever", open.turn);
        }
    }

    fn fire_mut(&mut self, fire: FireId) -> &mut Fire {
        self.fires.iter_mut().find(|row| row.fire == fire).unwrap()
    }

    fn causing(&self, fire: FireId) -> CausingFire {
        let row = self.fires.iter().find(|row| row.fire == fire).unwrap();
        let before =
            self.fires.iter().rev().filter(|row| row.fire < fire).find_map(|row| row.outcome.as_ref());
        let failed_before = before.and_then(FireOutcome::why).map(str::to_owned);
        CausingFire { fire, task: "news".into(), late: false, silent: row.silent, failed_before }
    }

    // What people, boxes, tasks and the host do.

    /// A task's time has come.
    pub fn fires(&mut self, in_chat: &str, silent: bool) -> FireId {
        self.now = self.now.plus(Duration::from_millis(1));
        let fire = FireId(self.fires.len() as u64 + 1);
        let (chat, state) = (chat(in_chat), FireState::Due);
        self.fires.push(Fire {
            fire,
            chat: chat.clone(),
            silent,
            state,
            outcome: None,
            given: None,
            kept: None,
        });
        self.happen(&Event::Fire { fire, chat: &chat });
        fire
    }

    pub fn writes_as(
        &mut self,
        in_chat: &str,
        role: Role,
        original: Option<MessageSeq>,
    ) -> (MessageSeq, Placement) {
        self.now = self.now.plus(Duration::from_millis(1));
        let seq = MessageSeq(self.messages.len() as u64 + 1);
        let identity = original.map_or(seq.0, |original| self.message(original).identity);
        let earlier: Vec<Earlier> = self
            .messages
            .iter()
            .filter(|m| m.identity == identity && m.state != State::Done)
            .map(|m| Earlier { seq: m.seq, wakes: m.role == Role::Wake, given: !m.letters.is_empty() })
            .collect();
        let role = role_of(role, i64::from(original.is_some()), &earlier);
        let chat = chat(in_chat);
        self.messages.push(Message {
            seq,
            identity,
            chat: chat.clone(),
            // The store keeps both roles as `wake`.
            role: if role == Role::First { Role::Wake } else { role },
            state: State::Waiting,
            turn: None,
            returned: 0,
            letters: BTreeMap::new(),
            outcome: None,
            at: self.now,
        });
        let changes = self.happen(&Event::Message { seq, chat: &chat, role, earlier: &earlier });
        (seq, Placement::of(role, &changes))
    }

    pub fn writes(&mut self, in_chat: &str) -> Placement {
        self.writes_as(in_chat, Role::Wake, None).1
    }

    pub fn orders(&mut self, in_chat: &str, command: Command) -> MessageSeq {
        self.writes_as(in_chat, Role::Command(command), None).0
    }

    pub fn starts(&mut self) {
        assert!(self.run_number().is_none());
        self.runs.push(Run { written: 1, ..Run::default() });
        self.wants_run = false;
    }

    /// Gives the box the new messages of the open turn, and the fire that caused it. Returns their number.
    pub fn feeds(&mut self) -> usize {
        self.feeds_at_most(usize::MAX)
    }

    /// The same, with so many messages at most in the letter.
    pub fn feeds_at_most(&mut self, most: usize) -> usize {
        let (Some(run), Some(open)) = (self.run_number(), self.open().map(|open| open.turn)) else {
            return 0;
        };
        let n = self.runs[run].written + 1;
        let mut given = 0;
        for m in &mut self.messages {
            let new = m.turn == Some(open) && m.state == State::InTurn && !m.letters.contains_key(&run);
            if new && given < most {
                m.letters.insert(run, n);
                given += 1;
            }
        }
        let of_turn = self.open().and_then(|open| open.fire);
        if let Some(fire) = of_turn.map(|fire| self.fire_mut(fire)).filter(|fire| fire.given != Some(run)) {
            fire.given = Some(run);
            given += 1;
        }
        if given > 0 {
            self.runs[run].written = n;
            self.happen(&Event::Given);
        }
        given
    }

    /// The box acknowledges every letter.
    pub fn reads(&mut self) {
        if let Some(run) = self.run() {
            run.ack = run.written;
        }
    }

    pub fn done(&mut self) -> Collected {
        self.done_saying(&[])
    }

    pub fn done_saying(&mut self, texts: &[OutgoingText]) -> Collected {
        self.done_as("done", "finished", texts)
    }

    pub fn done_as(&mut self, state: &'static str, why: &str, texts: &[OutgoingText]) -> Collected {
        let run = self.run_number().unwrap();
        let end = TurnEnd { state, why: why.to_owned() };
        let ack = self.runs[run].ack;
        let (run, texts) = (run_id(run), texts);
        let silent = OutgoingText::notice(&chat("a"), "silent", String::new());
        let event = Event::Done { run: &run, ack, end: &end, texts, if_silent: Some(&silent) };
        Collected::of(&self.happen(&event))
    }

    pub fn ends(&mut self, ending: &Ending) -> Collected {
        if let Some(run) = self.run() {
            run.ended = true;
        }
        self.failed_starts += u32::from(matches!(ending, Ending::NeverStarted { .. }));
        Collected::of(&self.happen(&Event::RunEnded { ending, now: self.now }))
    }

    pub fn asks(&mut self) {
        let Some(open) = self.open() else { return };
        let (turn, chat) = (open.turn, open.chat.clone());
        let request = format!("{turn}:toolu_{}", self.questions.len()).parse().unwrap();
        let until = self.now.plus(ASKED_FOR);
        self.questions.push(AskedQuestion { turn, chat, request, until, state: Asked::Open, answer: None });
    }

    /// Answers an open question. Returns where a late answer was placed.
    pub fn answers(&mut self, question: usize) -> Option<Placement> {
        let asked = self.questions.get(question).filter(|q| q.state != Asked::Over)?.clone();
        let place = asked.chat.local().to_owned();
        let seq = self.orders(&place, Command::Answer);
        let sender = Sender { id: "telegram:5".parse().unwrap(), name: "Ann".into(), is_bot: false };
        let command = AnswerCommand {
            seq,
            chat: asked.chat,
            kind: ChatKind::Room,
            title: String::new(),
            line: "/answer 7F yes".into(),
            sender,
            owner: false,
        };
        let question = Question {
            id: i64::try_from(question).unwrap(),
            turn: asked.turn,
            request: asked.request,
            lane: Lane::conversation("family".parse().unwrap()),
            open: asked.state == Asked::Open,
            expires_at: asked.until,
            text: "Milk?".into(),
            choices: Vec::new(),
            permission: None,
        };
        match take_answer(command, question, self.now) {
            Answering::Unknown | Answering::OwnersOnly | Answering::Over => None,
            Answering::InTime(changes) => {
                // The host tells dispatch that the lane goes on.
                self.wants_run = true;
                changes.iter().for_each(|change| self.apply(change));
                self.check();
                None
            }
            Answering::Late(changes, message) => {
                changes.iter().for_each(|change| self.apply(change));
                let Inbound { chat, text, .. } = message.inbound;
                assert_eq!(text, "yes");
                Some(self.writes_as(chat.local(), message.role, None).1)
            }
        }
    }

    /// Lets time pass and ends expired questions.
    pub fn waits(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        let ends = |q: &AskedQuestion| q.state == Asked::Open && q.until <= self.now;
        if self.questions.iter().any(ends) {
            self.wants_run = true;
        }
        self.happen(&Event::TimePassed { now: self.now });
    }

    /// Performs `/stop` as `supervisor` and `run` do: the host tells a box that reads, and otherwise it ends the turn.
    pub fn stops(&mut self, order: MessageSeq) -> Collected {
        let read = self.run_number().is_some_and(|run| self.runs[run].written > 1);
        if read {
            self.happen(&Event::Stop { order });
            return Collected::Idle;
        }
        let event = Event::Interrupt { why: InterruptWhy::Stop, order: Some(order) };
        Collected::of(&self.happen(&event))
    }
}
