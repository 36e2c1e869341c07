//! Decides which container starts, stops, waits and dies. An [`Event`] and the time go in, [`Effect`]s come out, and
//! `supervisor` performs them. This room reads no clock, no store and no engine.
//!
//! There are two deciders. The other one is `turns`: it decides the life of a turn (what a message joins, what a crash
//! costs, what ends). This room knows of a turn only whether it is open, wants a run, or waits.
//!
//! These rules hold after every event (`proptest_model.rs` tests them):
//! - A lane has at most one run. At most [`Settings::working`] lanes start or work.
//! - At most [`Settings::boxes`] boxes live. A listening box closes for a lane that waits. Adopted boxes live already,
//!   however many the settings allow now; no box starts beside them.
//! - A lane that wants a run gets one, unless a person stops it or the host drains.
//! - No box starts after [`Event::Drain`].
//! - Every lane that is not idle has a deadline or waits for a lane that has one. A run that no longer answers is given
//!   up by [`Effect::GiveUp`].

mod lane;
#[cfg(test)]
mod proptest_model;
mod queue;
#[cfg(test)]
mod scripts;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ipc_schema::letters::to_agent::{CloseWhy, InterruptWhy};

use crate::domain::group_settings::Priority;
use crate::domain::{Ending, Lane, MessageSeq};
pub use lane::LaneState;

/// The box has this long after `_close` before the host sends SIGTERM.
const CLOSE_GRACE: Duration = Duration::from_secs(10);
/// After a drain's last `_close`, SIGTERM and SIGKILL, the host waits this much longer for the box to end.
const LAST_GRACE: Duration = Duration::from_secs(5);
/// The box has this long after the time limit's `interrupt` before SIGKILL.
const TIME_GRACE: Duration = Duration::from_secs(2);
/// The box has this long after `/stop`'s `interrupt` before SIGKILL: a box that obeys can be used again.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The chat is told, once, when it waits longer than this.
const TELL_WAIT: Duration = Duration::from_secs(60);
/// A start is given up after this. Each of its steps has a time limit of its own (a check of the image and a probe of
/// the posture take up to some minutes each), so only a fault of the host comes here.
const START_LIMIT: Duration = Duration::from_secs(15 * 60);
/// A run that was told by signal or killed is given up after this. Its last letters, and the clean-up of a large
/// directory, take minutes at most; an engine that is away must not hold the lane longer.
const END_LIMIT: Duration = Duration::from_secs(10 * 60);
/// An order to end questions is repeated after this, until it is answered.
const EXPIRE_AGAIN: Duration = Duration::from_secs(60);

/// A run's number in this process: it tells a late answer of an ended run from its successor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunNo(pub u64);

/// How much may happen at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Lanes that start or work.
    pub working: usize,
    /// Boxes that live, listening ones included.
    pub boxes: usize,
    /// How long turns may go on after the first signal.
    pub drain: Duration,
}

/// What dispatch must know of a lane; it comes with each wake, so that a changed group file holds from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Who waits for whom.
    pub priority: Priority,
    /// A listening box is closed after this; zero means one box per turn.
    pub idle_window: Duration,
    pub turn_limit: Duration,
    /// A run's time, looked at between turns.
    pub run_limit: Duration,
}

/// Where an earlier host's run stands, by its rows and its letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptedState {
    /// It has not said `ready`.
    Starting,
    /// It was given the lane's open turn.
    Working,
    /// It waits for a turn.
    Listening,
    /// It was told to close.
    Closing,
}

/// What a drain does with turns that are still at work when its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Their boxes go on, and the next host adopts them: a restart, an upgrade.
    GoesOn,
    /// Their boxes close after the tool in hand, and the next host resumes the turns in new ones.
    Closes,
}

/// What a lane does when its run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Idle,
    /// Its open turn wants a run, after a wait.
    Wake(Duration, Facts),
    /// Its open turn waits for a person, for this long at most.
    Suspended(Duration, Facts),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A lane has an open turn and wants a run.
    Wake {
        lane: Lane,
        /// What to know of it.
        facts: Facts,
    },
    /// An earlier host left the lane a box, and this host has opened its mailbox. Comes before every other event.
    Adopt {
        lane: Lane,
        /// What to know of it.
        facts: Facts,
        /// Where its run stands.
        found: AdoptedState,
    },
    /// More messages for the lane's open turn are stored.
    FollowUp {
        lane: Lane,
        /// What to know of it.
        facts: Facts,
    },
    /// The box said `ready`.
    Ready {
        run: RunNo,
    },
    /// `turn_done` is stored; `next` when the lane's next turn is open already.
    TurnClosed {
        run: RunNo,
        /// Whether more work waits.
        next: bool,
        /// How many `Feed`s the run had obeyed when it said so.
        fed: u64,
    },
    /// The box is gone and collected.
    Ended {
        run: RunNo,
        /// What its lane does next.
        after: After,
        /// How many `Feed`s it had obeyed.
        fed: u64,
    },
    /// What the turn asked a person has not been answered for longer than a box waits.
    Suspend {
        run: RunNo,
    },
    /// The lane's turn waits for a person, and for this long at most: found at boot, or when its time seemed over.
    Suspended {
        lane: Lane,
        /// The time that is left.
        left: Duration,
        /// What to know of it.
        facts: Facts,
    },
    /// A question of the lane's open turn has its answer, or nobody will give it any more.
    Answered {
        lane: Lane,
        /// What to know of it.
        facts: Facts,
    },
    /// A person said `/stop`.
    Stop {
        lane: Lane,
        /// The order itself, which ends nothing that was written after it. Absent when the box was told of it by an
        /// earlier host.
        order: Option<MessageSeq>,
    },
    /// The lane's next turn needs another box: `/new`, another image.
    Renew {
        lane: Lane,
    },
    Tick,
    /// The first signal: finish, start nothing.
    Drain {
        /// What becomes of turns that are not finished in time.
        unfinished: Unfinished,
    },
    /// The second signal: end now.
    EndNow,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make a box for the lane. Answered by `Ready` or `Ended`, always by `Ended` at last.
    Start { lane: Lane, run: RunNo },
    /// Go on with the box that an earlier host left. Answered as `Start` is.
    Adopt { lane: Lane, run: RunNo },
    /// Leave the box to the next host: it goes on by itself. Not answered.
    Leave { run: RunNo },
    /// Write what the open turn holds to the box.
    Feed { run: RunNo },
    /// Write `interrupt`.
    Interrupt {
        run: RunNo,
        why: InterruptWhy,
        /// A person's order, which means no turn that was begun after it.
        order: Option<MessageSeq>,
    },
    /// Write `_close`.
    Close { run: RunNo, why: CloseWhy },
    /// SIGTERM, five seconds, SIGKILL.
    Terminate { run: RunNo },
    Kill {
        run: RunNo,
        /// What its end is then called.
        ending: Ending,
    },
    /// The run's worker no longer answers: drop it, store the run's end and remove its box. Answered by `Ended`, and
    /// repeated until it is.
    GiveUp {
        lane: Lane,
        run: RunNo,
        /// What its end is called, unless it is stored already.
        ending: Ending,
    },
    /// Nobody has answered the question of the lane's suspended turn in time. Answered by `Answered` or `Suspended`,
    /// and repeated until it is.
    Expire { lane: Lane },
    /// End the open turn that no box works on, because a person said `/stop`.
    EndTurn {
        lane: Lane,
        /// The order, which ends nothing that was written after it.
        order: Option<MessageSeq>,
    },
    /// Tell the chat, once, that it waits for a free slot.
    TellWaiting { lane: Lane },
    /// Nothing runs any more, and nothing will.
    Drained,
}

impl fmt::Display for RunNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {}", self.0)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wake { lane, .. } => write!(f, "wake {lane}"),
            Self::Adopt { lane, .. } => write!(f, "adopt {lane}"),
            Self::FollowUp { lane, .. } => write!(f, "follow-up in {lane}"),
            Self::Ready { run } => write!(f, "{run} is ready"),
            Self::TurnClosed { run, next, .. } => write!(f, "{run} closed its turn, next={next}"),
            Self::Ended { run, .. } => write!(f, "{run} ended"),
            Self::Suspend { run } => write!(f, "{run} waits for a person"),
            Self::Suspended { lane, .. } => write!(f, "{lane} waits for a person"),
            Self::Answered { lane, .. } => write!(f, "{lane} has its answer"),
            Self::Stop { lane, .. } => write!(f, "stop {lane}"),
            Self::Renew { lane } => write!(f, "renew {lane}"),
            Self::Tick => f.write_str("tick"),
            Self::Drain { .. } => f.write_str("drain"),
            Self::EndNow => f.write_str("end now"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { lane, run } => write!(f, "start {run} of {lane}"),
            Self::Adopt { lane, run } => write!(f, "adopt {run} of {lane}"),
            Self::Leave { run } => write!(f, "leave {run}"),
            Self::Feed { run } => write!(f, "feed {run}"),
            Self::Interrupt { run, .. } => write!(f, "interrupt {run}"),
            Self::Close { run, .. } => write!(f, "close {run}"),
            Self::Terminate { run } => write!(f, "terminate {run}"),
            Self::Kill { run, ending } => write!(f, "kill {run}: {ending}"),
            Self::GiveUp { run, ending, .. } => write!(f, "give up {run}: {ending}"),
            Self::Expire { lane } => write!(f, "end the questions of {lane}"),
            Self::EndTurn { lane, .. } => write!(f, "end the turn of {lane}"),
            Self::TellWaiting { lane } => write!(f, "tell {lane} that it waits"),
            Self::Drained => f.write_str("drained"),
        }
    }
}

/// Where the host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    Draining { until: Duration, unfinished: Unfinished, told: bool, over: bool },
}

/// One lane that is not idle.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    state: LaneState,
    facts: Facts,
    /// The next turn needs another box.
    renew: bool,
    /// The chat was told that it waits.
    told: bool,
    /// A wake came that may belong to the turn after this one.
    again: bool,
    /// How many `Feed`s the lane's run was sent. What it says of its turn before it obeyed the last is out of date.
    feeds: u64,
}

/// The state of all lanes. Lanes that are not in the map are idle.
#[derive(Debug)]
pub struct Dispatch {
    settings: Settings,
    lanes: BTreeMap<Lane, Record>,
    next_run: u64,
    phase: Phase,
}

impl Dispatch {
    pub fn new(settings: Settings) -> Self {
        Self { settings, lanes: BTreeMap::new(), next_run: 1, phase: Phase::Up }
    }

    /// Takes an event and says what is to be done, in this order. `now` is monotonic.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Wake { lane, facts } => self.wake(now, lane, facts),
            Event::Adopt { lane, facts, found } => self.adopt(now, lane, facts, found, &mut effects),
            Event::FollowUp { lane, facts } => self.follow_up(now, lane, facts, &mut effects),
            Event::Ready { run } => self.ready(now, run, &mut effects),
            Event::TurnClosed { run, next, fed } => self.turn_closed(now, run, next, fed, &mut effects),
            Event::Ended { run, after, fed } => self.ended(now, run, after, fed),
            Event::Suspend { run } => self.suspend(now, run, &mut effects),
            Event::Suspended { lane, left, facts } => self.suspended(now, lane, left, facts),
            Event::Answered { lane, facts } => self.answered(now, lane, facts, &mut effects),
            Event::Stop { lane, order } => self.stop(now, &lane, order, &mut effects),
            Event::Renew { lane } => self.renew(now, &lane, &mut effects),
            Event::Tick => {}
            Event::Drain { unfinished } => self.drain(now, unfinished, &mut effects),
            Event::EndNow => self.end_now(now, &mut effects),
        }
        self.pass_time(now, &mut effects);
        self.fill_slots(now, &mut effects);
        self.tell_drained(&mut effects);
        effects
    }

    /// When `Tick` is due at the latest.
    pub fn next_due(&self) -> Option<Duration> {
        let drain = match self.phase {
            Phase::Draining { until, .. } if until < Duration::MAX => Some(until),
            _ => None,
        };
        self.lanes.values().filter_map(Record::due).chain(drain).min()
    }

    /// Every lane that is not idle, for `status`.
    pub fn lanes(&self) -> impl Iterator<Item = (&Lane, &LaneState)> {
        self.lanes.iter().map(|(lane, record)| (lane, &record.state))
    }

    /// How many lanes start or work, and how many boxes live.
    pub fn load(&self) -> (usize, usize) {
        let working = self.lanes.values().filter(|r| r.state.holds_slot()).count();
        let boxes = self.lanes.values().filter(|r| r.state.run().is_some()).count();
        (working, boxes)
    }

    fn draining(&self) -> bool {
        self.phase != Phase::Up
    }

    fn by_run(&mut self, run: RunNo) -> Option<(&Lane, &mut Record)> {
        self.lanes.iter_mut().find(|(_, record)| record.state.run() == Some(run))
    }

    fn drain(&mut self, now: Duration, unfinished: Unfinished, effects: &mut Vec<Effect>) {
        if self.draining() {
            return;
        }
        self.phase =
            Phase::Draining { until: now + self.settings.drain, unfinished, told: false, over: false };
        self.lanes.retain(|_, record| record.state.run().is_some());
        for record in self.lanes.values_mut() {
            if matches!(record.state, LaneState::Listening { .. } | LaneState::Queued { .. }) {
                record.close(now, CloseWhy::Drain, effects);
            }
        }
    }

    fn end_now(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let told = matches!(self.phase, Phase::Draining { told: true, .. });
        self.phase =
            Phase::Draining { until: Duration::MAX, unfinished: Unfinished::Closes, told, over: true };
        self.lanes.retain(|_, record| record.state.run().is_some());
        for record in self.lanes.values_mut() {
            record.kill(now, Ending::Killed, effects);
        }
    }

    fn tell_drained(&mut self, effects: &mut Vec<Effect>) {
        if let Phase::Draining { told, .. } = &mut self.phase
            && !*told
            && self.lanes.is_empty()
        {
            *told = true;
            effects.push(Effect::Drained);
        }
    }
}
