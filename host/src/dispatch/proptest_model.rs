//! Property test of dispatch against a small model of the world: a store that knows which lanes have an open turn,
//! runs that answer in any order or not at all, and a clock. It checks the rules in the module's documentation after
//! each step. At the end every lane that wanted a run must have had one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::group_settings::Priority;

const DRAIN: Duration = Duration::from_secs(30);
const GROUPS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The next step. A number selects one of the possible candidates.
#[derive(Debug, Clone)]
enum Step {
    /// A person writes in a group.
    Write(usize),
    /// A starting box becomes ready.
    Ready(usize),
    /// A working box finishes its turn. The model knows whether the box was fed.
    Finish(usize),
    /// A box ends, by itself or because it was told to.
    End(usize, bool),
    /// A run does not answer any more, because its worker hangs or is gone.
    Hang(usize),
    /// A working box has asked a person, who takes a long time.
    Ask(usize),
    Answer(usize),
    /// `/stop`.
    Stop(usize),
    /// `/new`.
    Renew(usize),
    Wait(u64),
    Drain(Unfinished),
    EndNow,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..GROUPS.len()).prop_map(Step::Write),
        5 => any::<usize>().prop_map(Step::Ready),
        5 => any::<usize>().prop_map(Step::Finish),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(n, crash)| Step::End(n, crash)),
        1 => any::<usize>().prop_map(Step::Hang),
        1 => any::<usize>().prop_map(Step::Ask),
        1 => (0..GROUPS.len()).prop_map(Step::Answer),
        1 => (0..GROUPS.len()).prop_map(Step::Stop),
        1 => (0..GROUPS.len()).prop_map(Step::Renew),
        3 => (0u64..400).prop_map(Step::Wait),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum BoxState {
    Starting,
    /// The box is ready. It works if it was fed an open turn.
    Up {
        fed: bool,
    },
    Told,
    /// Its run does not answer until the host gives it up.
    Hangs,
}

struct World {
    dispatch: Dispatch,
    settings: Settings,
    now: Duration,
    /// Lanes whose turn is open in the store.
    open: BTreeSet<Lane>,
    boxes: BTreeMap<RunNo, (Lane, BoxState)>,
    draining: bool,
    drained: u32,
    served: BTreeSet<Lane>,
    adopted: usize,
    /// Lanes whose turn has an open question.
    asking: BTreeSet<Lane>,
    suspended: BTreeSet<Lane>,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self {
            dispatch: Dispatch::new(settings),
            settings,
            now: Duration::ZERO,
            open: BTreeSet::new(),
            boxes: BTreeMap::new(),
            draining: false,
            drained: 0,
            served: BTreeSet::new(),
            adopted: 0,
            asking: BTreeSet::new(),
            suspended: BTreeSet::new(),
        }
    }

    fn facts(lane: &Lane) -> Facts {
        let priority = match lane.group.as_str() {
            "a" => Priority::High,
            "b" => Priority::Low,
            _ => Priority::Normal,
        };
        let idle_window = if lane.group.as_str() == "c" { Duration::ZERO } else { Duration::from_secs(300) };
        let turn_limit = Duration::from_secs(900);
        Facts { priority, idle_window, turn_limit, run_limit: Duration::from_secs(3600) }
    }

    fn happen(&mut self, event: Event) {
        let effects = self.dispatch.handle(self.now, event);
        for effect in effects {
            self.perform(effect);
        }
        self.check();
    }

    /// The run has obeyed every feed and reports that its turn is over.
    fn closed(&mut self, run: RunNo) {
        let fed = self.dispatch.by_run(run).map_or(0, |(_, record)| record.feeds);
        self.happen(Event::TurnClosed { run, next: false, fed });
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start { lane, run } => {
                assert!(!self.draining, "a box starts after the drain began");
                assert!(!self.boxes.values().any(|(other, _)| *other == lane), "two boxes of {lane}");
                self.boxes.insert(run, (lane, BoxState::Starting));
            }
            Effect::Feed { run } => {
                let (lane, state) = self.boxes.get_mut(&run).expect("a box that is fed exists");
                if *state == BoxState::Hangs {
                    return;
                }
                assert!(matches!(state, BoxState::Up { .. }), "{lane} is fed while {state:?}");
                let fed = self.open.contains(lane);
                *state = BoxState::Up { fed };
                if fed {
                    self.served.insert(lane.clone());
                } else {
                    // A run that finds nothing to write reports this.
                    self.closed(run);
                }
            }
            Effect::Close { run, .. } | Effect::Kill { run, .. } | Effect::Terminate { run } => {
                let state = &mut self.boxes.get_mut(&run).expect("a box that is ended exists").1;
                if *state != BoxState::Hangs {
                    *state = BoxState::Told;
                }
            }
            Effect::GiveUp { run, .. } => {
                self.boxes.get_mut(&run).expect("a box that is given up exists").1 = BoxState::Told;
            }
            Effect::EndTurn { lane, .. } => {
                let record = self.dispatch.lanes.get(&lane);
                let closing = record.is_some_and(|r| matches!(r.state, LaneState::Closing { .. }));
                // Only the store knows whether a turn waits behind a closing box.
                assert!(self.open.remove(&lane) || closing, "{lane} has no turn to end");
            }
            Effect::Adopt { lane, run } => {
                self.boxes.insert(run, (lane, BoxState::Up { fed: false }));
            }
            Effect::Leave { run } => {
                self.boxes.remove(&run).expect("a box that is left exists");
            }
            Effect::Interrupt { run, .. } => assert!(self.boxes.contains_key(&run)),
            Effect::Expire { lane } => {
                self.suspended.remove(&lane);
                let facts = Self::facts(&lane);
                self.happen(Event::Answered { lane, facts });
            }
            Effect::TellWaiting { .. } => {}
            Effect::Drained => {
                self.drained += 1;
                assert!(self.draining && self.boxes.is_empty(), "drained with {:?}", self.boxes);
            }
        }
    }

    fn check(&self) {
        let (working, boxes) = self.dispatch.load();
        assert!(working <= self.settings.working.max(self.adopted), "{working} work");
        assert!(boxes <= self.settings.boxes.max(self.adopted), "{boxes} boxes");
        assert!(self.drained <= 1, "drained {} times", self.drained);
        for (lane, record) in &self.dispatch.lanes {
            let waits_for_a_slot = matches!(record.state, LaneState::Queued { .. });
            assert!(
                waits_for_a_slot || record.due().is_some(),
                "{lane} has no deadline in {:?}",
                record.state
            );
        }
    }

    fn nth(&self, n: usize, wanted: impl Fn(&BoxState) -> bool) -> Option<RunNo> {
        let fitting: Vec<RunNo> =
            self.boxes.iter().filter(|(_, (_, s))| wanted(s)).map(|(run, _)| *run).collect();
        fitting.get(n.checked_rem(fitting.len())?).copied()
    }

    /// Begins with the boxes of an earlier host. Some of them have a turn.
    fn inherit(&mut self, left: &[(bool, bool)]) {
        for (group, (open, listening)) in left.iter().enumerate() {
            let lane = Lane::conversation(GROUPS[group].parse().unwrap());
            let found = if *listening { AdoptedState::Listening } else { AdoptedState::Working };
            if *open {
                self.open.insert(lane.clone());
            }
            let facts = Self::facts(&lane);
            self.happen(Event::Adopt { lane: lane.clone(), facts, found });
            if *open && *listening {
                self.happen(Event::Wake { lane, facts });
            }
        }
    }

    fn step(&mut self, step: Step) {
        let lane = |group: usize| Lane::conversation(GROUPS[group].parse().unwrap());
        match step {
            Step::Write(group) => {
                let lane = lane(group);
                if self.open.insert(lane.clone()) {
                    let facts = Self::facts(&lane);
                    self.happen(Event::Wake { lane, facts });
                } else {
                    let facts = Self::facts(&lane);
                    self.happen(Event::FollowUp { lane, facts });
                }
            }
            Step::Ready(n) => {
                if let Some(run) = self.nth(n, |s| *s == BoxState::Starting) {
                    self.boxes.get_mut(&run).unwrap().1 = BoxState::Up { fed: false };
                    self.happen(Event::Ready { run });
                }
            }
            Step::Finish(n) => {
                if let Some(run) = self.nth(n, |s| *s == BoxState::Up { fed: true }) {
                    let lane = self.boxes[&run].0.clone();
                    self.boxes.get_mut(&run).unwrap().1 = BoxState::Up { fed: false };
                    self.open.remove(&lane);
                    self.closed(run);
                }
            }
            Step::End(n, crash) => {
                let ends = |s: &BoxState| *s == BoxState::Told || (crash && *s != BoxState::Hangs);
                if let Some(run) = self.nth(n, ends) {
                    let (lane, _) = self.boxes.remove(&run).unwrap();
                    let wait = Duration::from_secs(if crash { 5 } else { 0 });
                    let facts = Self::facts(&lane);
                    let after = match (self.open.contains(&lane), self.asking.remove(&lane)) {
                        (true, true) => {
                            self.suspended.insert(lane.clone());
                            After::Suspended(Duration::from_secs(900), facts)
                        }
                        (true, false) => After::Wake(wait, facts),
                        (false, _) => After::Idle,
                    };
                    self.happen(Event::Ended { run, after, fed: u64::MAX });
                }
            }
            Step::Hang(n) => {
                if let Some(run) = self.nth(n, |_| true) {
                    self.boxes.get_mut(&run).unwrap().1 = BoxState::Hangs;
                }
            }
            Step::Ask(n) => {
                if let Some(run) = self.nth(n, |s| *s == BoxState::Up { fed: true }) {
                    self.asking.insert(self.boxes[&run].0.clone());
                    self.happen(Event::Suspend { run });
                }
            }
            Step::Answer(group) => {
                let lane = lane(group);
                // The question may be from a working box or from a suspended turn.
                if self.asking.remove(&lane) | self.suspended.remove(&lane) && self.open.contains(&lane) {
                    let facts = Self::facts(&lane);
                    self.happen(Event::Answered { lane, facts });
                }
            }
            Step::Stop(group) => self.happen(Event::Stop { lane: lane(group), order: None }),
            Step::Renew(group) => self.happen(Event::Renew { lane: lane(group) }),
            Step::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.happen(Event::Tick);
            }
            Step::Drain(unfinished) => {
                self.draining = true;
                self.happen(Event::Drain { unfinished });
            }
            Step::EndNow => {
                self.draining = true;
                self.happen(Event::EndNow);
            }
        }
    }

    /// Lets the world settle: every box obeys, every turn finishes, time passes.
    fn come_to_rest(&mut self) {
        for _ in 0..400 {
            for step in [Step::Ready(0), Step::Finish(0), Step::End(0, false), Step::Wait(30)] {
                self.step(step);
            }
        }
    }
}

proptest! {
    #[test]
    fn every_lane_that_wants_a_run_gets_one(
        working in 1usize..4, spare in 0usize..3, left in proptest::collection::vec(any::<(bool, bool)>(), 0..4),
        steps in proptest::collection::vec(step(), 0..120)
    ) {
        let mut world = World::new(Settings { working, boxes: working + spare, drain: DRAIN });
        world.adopted = left.len();
        world.inherit(&left);
        for step in steps {
            world.step(step);
        }
        world.come_to_rest();
        prop_assert!(world.open.is_empty(), "never served: {:?}", world.open);
        prop_assert!(world.boxes.is_empty(), "idle boxes stay: {:?}", world.boxes);
        prop_assert_eq!(world.dispatch.next_due(), None, "an idle host has no timer");
    }

    #[test]
    fn a_drain_ends_and_is_told_once(
        steps in proptest::collection::vec(step(), 0..60), more in proptest::collection::vec(step(), 0..40),
        now: bool, leave: bool
    ) {
        let mut world = World::new(Settings { working: 2, boxes: 3, drain: DRAIN });
        for step in steps {
            world.step(step);
        }
        world.step(Step::Drain(if leave { Unfinished::GoesOn } else { Unfinished::Closes }));
        if now {
            world.step(Step::EndNow);
        }
        for step in more {
            world.step(step);
        }
        world.come_to_rest();
        prop_assert_eq!(world.drained, 1);
        prop_assert!(world.boxes.is_empty());
    }
}
