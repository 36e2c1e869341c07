//! Decides which container starts, stops, waits and dies. It takes an [`Event`] and the time, and returns [`Effect`]s.
//! `supervisor` performs them. This module reads no clock, no store and no engine.
//!
//! There are two deciders. The other one is `turns`, which decides the life of a turn: what a message joins, what a
//! crash costs, what ends. This module knows of a turn only whether it is open, wants a run, or waits.
//!
//! These rules hold after every event (`proptest_model.rs` tests them):
//! - A lane has at most one run. At most [`Settings::working`] lanes start or work.
//! - At most [`Settings::boxes`] boxes live. A listening box closes for a lane that waits. The host adopts all
//!   existing boxes, even more than that, and then starts none.
//! - A lane that wants a run gets one, unless a person stops it or the host drains.
//! - No box starts after [`Event::Drain`].
//! - Every lane that is not idle has a deadline or waits for a lane that has one. [`Effect::GiveUp`] ends a run that
//!   does not answer.

mod lane;
#[cfg(test)]
mod proptest_model;
#[cfg(test)]
mod script_tests;
mod slots;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ipc_schema::letters::to_agent::{CloseWhy, InterruptWhy};

use crate::domain::group_settings::Priority;
use crate::domain::{Ending, Lane, MessageSeq};
pub use lane::{LaneState, Renewal};

/// The box has this long after `_close` before the host sends SIGTERM.
pub const CLOSE_GRACE: Duration = Duration::from_secs(10);
/// After a drain's last `_close`, SIGTERM and SIGKILL, the host waits this much longer for the box to end.
const LAST_GRACE: Duration = Duration::from_secs(5);
/// The box has this long after the time limit's `interrupt` before SIGKILL.
pub const TIME_GRACE: Duration = Duration::from_secs(2);
/// The box has this long after the `interrupt` of a `/stop` before SIGKILL. It is long, because the host can reuse a
/// box that obeys.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// The host tells the chat, once, when it waits longer than this.
const TELL_WAIT: Duration = Duration::from_secs(60);
/// The host gives up a start after this. Each step of a start has its own time limit of up to some minutes (the image
/// check, the probe of the posture), so only a fault of the host reaches this limit.
const START_LIMIT: Duration = Duration::from_secs(15 * 60);
/// The host gives up a run this long after it sent a signal. The last letters and the cleanup of a large directory
/// take minutes at most. An engine that is away must not block the lane for longer.
const END_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The host repeats an order to end questions after this, until it gets an answer.
const EXPIRE_AGAIN: Duration = Duration::from_secs(60);

/// A run's number in this process. It distinguishes a late answer of an ended run from an answer of the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunNo(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many lanes may start or work at once.
    pub working: usize,
    /// How many boxes may live at once, including listening ones.
    pub boxes: usize,
    /// How long turns may go on after the first signal.
    pub drain: Duration,
}

/// Facts about a lane. Each wake brings them, so that a change of the group's settings applies from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The order in which lanes get slots.
    pub priority: Priority,
    /// The host closes a listening box after this. Zero means one box per turn.
    pub idle_window: Duration,
    pub turn_limit: Duration,
    /// The longest time of a run. It is checked between turns.
    pub run_limit: Duration,
}

/// The state of an earlier host's run, from its rows and its letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptedState {
    /// It has not written `ready`.
    Starting,
    /// It has got the lane's open turn.
    Working,
    /// It waits for a turn.
    Listening,
    /// It was told to close.
    Closing,
}

/// What a drain does with turns that are not done when its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Their boxes go on, and the next host adopts them. For a restart or an upgrade.
    GoesOn,
    /// Their boxes close after the current tool, and the next host resumes the turns in new boxes.
    Closes,
}

/// What follows for a lane when its run has ended.
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
        facts: Facts,
    },
    /// An earlier host left a box for the lane, and this host has opened its mailbox. It precedes every other event.
    Adopt {
        lane: Lane,
        facts: Facts,
        found: AdoptedState,
    },
    /// The store has more messages for the lane's open turn.
    FollowUp {
        lane: Lane,
        facts: Facts,
    },
    /// The box has written `ready`.
    Ready {
        run: RunNo,
    },
    /// The store has taken `turn_done`.
    TurnClosed {
        run: RunNo,
        /// Whether the lane's next turn is open already.
        next: bool,
        /// How many `Feed`s the run had obeyed by then.
        fed: u64,
    },
    /// The box is gone, and the store has collected its run.
    Ended {
        run: RunNo,
        after: After,
        /// How many `Feed`s the run had obeyed.
        fed: u64,
    },
    /// The turn's question has been open for longer than a box waits.
    Suspend {
        run: RunNo,
    },
    /// The lane's turn waits for a person. The host finds this at boot, or when the time of a question seemed to be
    /// over.
    Suspended {
        lane: Lane,
        /// The time until the question expires.
        left: Duration,
        facts: Facts,
    },
    /// A question of the lane's open turn has been answered or has expired.
    Answered {
        lane: Lane,
        facts: Facts,
    },
    /// A person has sent `/stop`.
    Stop {
        lane: Lane,
        /// The command. It ends nothing that was written after it. Absent if an earlier host told the box about it.
        order: Option<MessageSeq>,
    },
    /// The lane's next turn needs a new box, because of `/new` or another image.
    Renew {
        lane: Lane,
    },
    Tick,
    /// The first signal: finish the turns, and start nothing.
    Drain {
        unfinished: Unfinished,
    },
    /// The second signal: end now.
    EndNow,
}

/// What `supervisor` must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make a box for the lane. The run answers with `Ready` or `Ended`, and in any case with a final `Ended`.
    Start { lane: Lane, run: RunNo },
    /// Continue with the box that an earlier host left. The answers are those of `Start`.
    Adopt { lane: Lane, run: RunNo },
    /// Leave the box to the next host. It goes on by itself. There is no answer.
    Leave { run: RunNo },
    /// Write the new messages of the open turn to the box.
    Feed { run: RunNo },
    /// Write `interrupt`.
    Interrupt {
        run: RunNo,
        why: InterruptWhy,
        /// A person's `/stop`. It does not apply to a turn that began after it.
        order: Option<MessageSeq>,
    },
    /// Write `_close`.
    Close { run: RunNo, why: CloseWhy },
    /// Send SIGTERM, and SIGKILL five seconds later.
    Terminate { run: RunNo },
    Kill {
        run: RunNo,
        /// The ending of the run.
        ending: Ending,
    },
    /// Drop the worker of a run that does not answer, store the run's end and remove its box. The answer is `Ended`.
    /// The order is repeated until then.
    GiveUp {
        lane: Lane,
        run: RunNo,
        /// The ending, unless one is stored already.
        ending: Ending,
    },
    /// End the question of the lane's suspended turn, because its time is over. The answer is `Answered` or
    /// `Suspended`. The order is repeated until then.
    Expire { lane: Lane },
    /// End the open turn, on which no box works, because a person sent `/stop`.
    EndTurn {
        lane: Lane,
        /// The command. It ends nothing that was written after it.
        order: Option<MessageSeq>,
    },
    /// Tell the chat, once, that it waits for a free slot.
    TellWaiting { lane: Lane },
    /// The drain is complete: nothing runs and nothing will start.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    Draining { until: Duration, unfinished: Unfinished, told: bool, over: bool },
}

/// A lane that is not idle.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    state: LaneState,
    facts: Facts,
    /// The next turn needs a new box.
    renew: bool,
    /// Whether the chat knows that it waits.
    told: bool,
    /// Notes a wake that may belong to the next turn.
    again: bool,
    /// How many `Feed`s the lane's run was sent. What it reports about its turn before it has obeyed the last one is
    /// out of date.
    feeds: u64,
}

/// The state of all lanes. A lane that is not in the map is idle.
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

    /// Takes an event and returns the effects in order. `now` is monotonic.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Wake { lane, facts } => self.wake(now, lane, facts),
            Event::Adopt { lane, facts, found } => self.adopt(now, lane, facts, found, &mut effects),
            Event::FollowUp { lane, facts } => self.follow_up(now, lane, facts, &mut effects),
            Event::Ready { run } => self.ready(now, run, &mut effects),
            Event::TurnClosed { run, next, fed } => self.turn_closed(now, run, next, fed, &mut effects),
            Event::Ended { run, after, fed } => self.ended(now, run, after, fed, &mut effects),
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

    /// When the next `Tick` must come at the latest.
    pub fn next_due(&self) -> Option<Duration> {
        let drain = match self.phase {
            Phase::Draining { until, .. } if until < Duration::MAX => Some(until),
            _ => None,
        };
        self.lanes.values().filter_map(Record::due).chain(drain).min()
    }

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
