//! Property test of turns against a small model of a lane. People write, edit, give orders and answer. Tasks fire.
//! Boxes read or do not, ask, finish, close, crash or are killed. Hosts die. After every step `test_store.rs` checks
//! the rules in the module's documentation. At the end obedient boxes finish the remaining work, and no message may
//! remain.

use proptest::prelude::*;

use super::test_store::{Rows, State, crash};
use super::*;

const CHATS: [&str; 3] = ["a", "b", "c"];

/// The next step. A number selects one of the possible candidates.
#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    Edit(usize),
    /// An edit after which the message is not for the agent.
    Withdraw(usize),
    Context(usize),
    New,
    /// The store gets a `/stop`. [`Step::CarryOut`] performs it later.
    Stop(usize),
    /// The host performs the oldest `/stop` that waits.
    CarryOut,
    /// The host starts a box if dispatch knows that the turn wants one.
    Start,
    Feed,
    Read,
    Done,
    Ask,
    Answer(usize),
    /// A task's time has come.
    Fire(usize, bool),
    End(Ending),
    TimeIsUp,
    Wait(u64),
    /// A new host looks for messages without a turn.
    Boot,
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => Just(Ending::Finished),
        2 => Just(crash()),
        1 => Just(Ending::Killed),
        1 => Just(Ending::Stopped),
        1 => Just(Ending::TimedOut),
        1 => Just(Ending::Silent { seconds: 60 }),
        1 => Just(Ending::OverLimit { code: "ipc.flood", what: "wrote too much".into() }),
        1 => Just(Ending::NeverStarted { code: "image.missing".into(), why: "no image".into() }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..CHATS.len()).prop_map(Step::Write),
        2 => any::<usize>().prop_map(Step::Edit),
        2 => any::<usize>().prop_map(Step::Withdraw),
        1 => (0..CHATS.len()).prop_map(Step::Context),
        1 => Just(Step::New),
        2 => (0..CHATS.len()).prop_map(Step::Stop),
        2 => Just(Step::CarryOut),
        6 => Just(Step::Start),
        5 => Just(Step::Feed),
        4 => Just(Step::Read),
        3 => Just(Step::Done),
        3 => Just(Step::Ask),
        2 => any::<usize>().prop_map(Step::Answer),
        3 => (0..CHATS.len(), any::<bool>()).prop_map(|(chat, silent)| Step::Fire(chat, silent)),
        4 => ending().prop_map(Step::End),
        1 => Just(Step::TimeIsUp),
        2 => (0u64..90).prop_map(Step::Wait),
        1 => Just(Step::Boot),
    ]
}

/// The lane, and the `/stop` commands that the host has not performed.
struct World {
    lane: Rows,
    orders: Vec<MessageSeq>,
}

impl World {
    fn step(&mut self, step: Step) {
        let lane = &mut self.lane;
        match step {
            Step::Write(in_chat) => {
                let placed = lane.writes(CHATS[in_chat]);
                assert!(matches!(
                    placed,
                    Placement::NewTurn(_) | Placement::FollowUp(_) | Placement::Waiting
                ));
            }
            Step::Edit(n) => {
                let Some(original) = nth(&lane.messages, n, |m| m.role == Role::Wake) else { return };
                let (seq, in_chat) = (original.seq, original.chat.local().to_owned());
                lane.writes_as(&in_chat, Role::Wake, Some(seq));
            }
            Step::Withdraw(n) => {
                let Some(original) = nth(&lane.messages, n, |m| m.role == Role::Wake) else { return };
                let (seq, in_chat) = (original.seq, original.chat.local().to_owned());
                lane.writes_as(&in_chat, Role::Context, Some(seq));
            }
            Step::Context(in_chat) => {
                let (_, placed) = lane.writes_as(CHATS[in_chat], Role::Context, None);
                assert_eq!(placed, Placement::Context);
            }
            Step::New => drop(lane.orders(CHATS[0], Command::New)),
            Step::Stop(in_chat) => self.orders.push(lane.orders(CHATS[in_chat], Command::Stop)),
            Step::CarryOut => {
                if !self.orders.is_empty() {
                    carry_out(lane, self.orders.remove(0));
                }
            }
            Step::Start if lane.wants_run && lane.run().is_none() => lane.starts(),
            Step::Start => {}
            Step::Feed => drop(lane.feeds()),
            Step::Read => lane.reads(),
            Step::Done if is_at_work(lane) => drop(lane.done()),
            Step::Ask if is_at_work(lane) => lane.asks(),
            Step::Done | Step::Ask => {}
            Step::Answer(n) => {
                if let Some(n) = n.checked_rem(lane.questions.len()) {
                    lane.answers(n);
                }
            }
            Step::Fire(in_chat, silent) => drop(lane.fires(CHATS[in_chat], silent)),
            Step::End(ending) => {
                if lane.run().is_some() {
                    lane.ends(&ending);
                }
            }
            Step::TimeIsUp => {
                let (why, order) = (InterruptWhy::Time, None);
                drop(lane.happen(&Event::Interrupt { why, order }));
            }
            Step::Wait(seconds) => lane.waits(Duration::from_secs(seconds)),
            Step::Boot => drop(lane.happen(&Event::Started)),
        }
    }

    /// Every box obeys, and nobody writes.
    fn settle(&mut self) {
        for _ in 0..200 {
            for step in [Step::CarryOut, Step::Start, Step::Feed, Step::Read, Step::Done, Step::Wait(60)] {
                self.step(step);
            }
            if self.lane.open().is_none() {
                self.step(Step::End(Ending::Finished));
            }
        }
    }
}

/// A `/stop` must not end a message that was written after it.
fn carry_out(lane: &mut Rows, order: MessageSeq) {
    let later = |lane: &Rows| -> Vec<MessageSeq> {
        let alive =
            |m: &&test_store::Message| m.role == Role::Wake && m.seq > order && m.state != State::Done;
        lane.messages.iter().filter(alive).map(|m| m.seq).collect()
    };
    let before = later(lane);
    lane.stops(order);
    assert_eq!(later(lane), before, "{order} ends what was written after it");
}

fn is_at_work(lane: &mut Rows) -> bool {
    let written = lane.run().is_some_and(|run| run.written > 1);
    written && lane.open().is_some()
}

fn nth<T>(all: &[T], n: usize, wanted: impl Fn(&T) -> bool) -> Option<&T> {
    let fitting: Vec<&T> = all.iter().filter(|one| wanted(one)).collect();
    fitting.get(n.checked_rem(fitting.len())?).copied()
}

proptest! {
    #[test]
    fn no_message_is_lost_and_no_turn_waits_for_ever(steps in proptest::collection::vec(step(), 0..120)) {
        let mut world = World { lane: Rows::new(), orders: Vec::new() };
        for step in steps {
            world.step(step);
        }
        world.settle();
        let lane = &world.lane;
        prop_assert!(lane.open().is_none(), "{:?} is still open", lane.open());
        for m in lane.messages.iter().filter(|m| m.role == Role::Wake) {
            prop_assert_eq!(m.state, State::Done, "{} stays", m.seq);
        }
        for fire in &lane.fires {
            prop_assert!(fire.outcome.is_some(), "{} has no outcome", fire.fire);
        }
        for turn in &lane.turns {
            prop_assert!(turn.attempt <= 3, "{} had {} attempts", turn.turn, turn.attempt);
        }
    }

    /// A decision depends only on the details that it asks for.
    #[test]
    fn a_message_is_placed_without_a_look_at_the_rest_of_the_lane(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World { lane: Rows::new(), orders: Vec::new() };
        for step in steps {
            world.step(step);
        }
        let lane = &mut world.lane;
        let in_chat = test_store::chat("a");
        let event = Event::Message { seq: MessageSeq(999), chat: &in_chat, role: Role::Wake, earlier: &[] };
        let view = lane.view(&event);
        let suspended = view.open.as_ref().is_some_and(|open| open.suspended_until().is_some());
        prop_assert!(suspended || view.details == Details::default());
    }
}
