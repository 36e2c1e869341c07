//! The states of one lane and the transitions for each event.

use std::time::Duration;

use ipc_schema::letters::to_agent::{CloseWhy, InterruptWhy};
use serde::{Deserialize, Serialize};

use super::{
    AdoptedState, After, CLOSE_GRACE, Dispatch, END_LIMIT, EXPIRE_AGAIN, Effect, Facts, LAST_GRACE, Phase,
    Record, RunNo, START_LIMIT, STOP_GRACE, TELL_WAIT, TIME_GRACE, Unfinished,
};
use crate::domain::{Ending, Lane, MessageSeq};

/// The state of a lane. An idle lane has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneState {
    /// An open turn waits for a slot.
    Queued {
        since: Duration,
        /// The listening box that gets the turn, and when the host asked for that box.
        held: Option<(RunNo, Duration)>,
    },
    /// The host is making a box.
    Starting { run: RunNo, born: Duration },
    /// A box works on the turn.
    Working {
        run: RunNo,
        /// When the host asked for the box.
        born: Duration,
        /// When the box got the turn.
        since: Duration,
        /// Set after an `interrupt` that the box has not obeyed yet.
        stopping: Option<Stopping>,
    },
    /// The turn is suspended: it waits for a person and uses no slot and no box.
    Waiting {
        /// When its question expires, or when the order to end it is repeated.
        until: Duration,
    },
    /// A box waits for the next turn.
    Listening {
        run: RunNo,
        /// When the host asked for the box.
        born: Duration,
        /// Since when it has had no work.
        since: Duration,
    },
    /// The host has told a box to close, or is ending it.
    Closing {
        run: RunNo,
        step: Closing,
        /// When the next step is due.
        due: Duration,
        /// Whether its turn continues to wait for a person without the box.
        asks: bool,
    },
    /// An open turn waits before it gets another run.
    Backoff { until: Duration },
}

/// An order to stop the turn, which the box was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopping {
    /// When the host kills the box.
    kill_at: Duration,
    /// The ending of the run in that case.
    ending: Ending,
    /// A person's `/stop`.
    order: Option<MessageSeq>,
}

/// How far the end of a box has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// The host has written `_close`. SIGTERM follows.
    Told,
    /// The host has sent a signal. If the run does not report its end, the host gives it up with this ending.
    Ending(Ending),
}

/// What becomes of a group's boxes when the next turn needs a new one. The later variant says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Renewal {
    NoBox,
    /// The box is idle, or it is closing already.
    Closes,
    ClosesAfterTurn,
}

impl LaneState {
    pub fn run(&self) -> Option<RunNo> {
        match self {
            Self::Queued { held, .. } => held.map(|(run, _)| run),
            Self::Starting { run, .. }
            | Self::Working { run, .. }
            | Self::Listening { run, .. }
            | Self::Closing { run, .. } => Some(*run),
            Self::Waiting { .. } | Self::Backoff { .. } => None,
        }
    }

    /// Whether it counts against [`super::Settings::working`]. A closing box does not, because it gets no more work.
    pub fn holds_slot(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Working { .. })
    }

    /// What [`super::Event::Renew`] does to the lane's box.
    pub fn renewal(&self) -> Renewal {
        match self {
            Self::Listening { .. } | Self::Queued { held: Some(_), .. } | Self::Closing { .. } => {
                Renewal::Closes
            }
            Self::Starting { .. } | Self::Working { .. } => Renewal::ClosesAfterTurn,
            Self::Queued { held: None, .. } | Self::Waiting { .. } | Self::Backoff { .. } => Renewal::NoBox,
        }
    }

    /// The name in `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Starting { .. } => "starting",
            Self::Working { .. } => "working",
            Self::Waiting { .. } => "waiting for an answer",
            Self::Listening { .. } => "listening",
            Self::Closing { .. } => "closing",
            Self::Backoff { .. } => "backoff",
        }
    }
}

fn start_timed_out() -> Ending {
    let why = format!("the host did not start its box within {} minutes", START_LIMIT.as_secs() / 60);
    Ending::NeverStarted { code: "run.start_timeout".to_owned(), why }
}

impl Record {
    pub(super) fn new(state: LaneState, facts: Facts) -> Self {
        Self { state, facts, renew: false, told: false, again: false, feeds: 0 }
    }

    /// When the next transition without an event is due.
    pub(super) fn due(&self) -> Option<Duration> {
        match &self.state {
            LaneState::Queued { since, .. } => (!self.told).then(|| *since + TELL_WAIT),
            LaneState::Working { stopping: Some(stopping), .. } => Some(stopping.kill_at),
            LaneState::Working { since, .. } => Some(since.saturating_add(self.facts.turn_limit)),
            LaneState::Listening { since, .. } => Some(since.saturating_add(self.facts.idle_window)),
            LaneState::Closing { due, .. } => Some(*due),
            LaneState::Backoff { until } | LaneState::Waiting { until } => Some(*until),
            LaneState::Starting { born, .. } => Some(*born + START_LIMIT),
        }
    }

    /// Orders the messages of the open turn to be written to the lane's box.
    pub(super) fn feed(&mut self, effects: &mut Vec<Effect>) {
        if let Some(run) = self.state.run() {
            self.feeds += 1;
            effects.push(Effect::Feed { run });
        }
    }

    /// Tells the lane's box to close.
    pub(super) fn close(&mut self, now: Duration, why: CloseWhy, effects: &mut Vec<Effect>) {
        if let Some(run) = self.state.run() {
            effects.push(Effect::Close { run, why });
            let asks = why == CloseWhy::Question;
            self.state = LaneState::Closing { run, step: Closing::Told, due: now + CLOSE_GRACE, asks };
        }
    }

    pub(super) fn kill(&mut self, now: Duration, ending: Ending, effects: &mut Vec<Effect>) {
        if let Some(run) = self.state.run() {
            effects.push(Effect::Kill { run, ending: ending.clone() });
            self.end_by(run, now, ending, false);
        }
    }

    /// Gives up a run whose worker does not answer.
    fn give_up(&mut self, lane: Lane, run: RunNo, now: Duration, ending: Ending, effects: &mut Vec<Effect>) {
        effects.push(Effect::GiveUp { lane, run, ending: ending.clone() });
        self.end_by(run, now, ending, matches!(self.state, LaneState::Closing { asks: true, .. }));
    }

    fn end_by(&mut self, run: RunNo, now: Duration, ending: Ending, asks: bool) {
        self.state = LaneState::Closing { run, step: Closing::Ending(ending), due: now + END_LIMIT, asks };
    }
}

impl Dispatch {
    /// A wake can arrive before an event that happened earlier. The store can open a turn right after it closed the
    /// last one, or right after it collected the run. So a lane that seems busy notes the wake in `again`. A needless
    /// wake is harmless: a run that is fed and finds nothing new answers `TurnClosed`.
    pub(super) fn wake(&mut self, now: Duration, lane: Lane, facts: Facts) {
        if self.draining() {
            return;
        }
        let Some(record) = self.lanes.get_mut(&lane) else {
            let state = LaneState::Queued { since: now, held: None };
            self.lanes.insert(lane, Record::new(state, facts));
            return;
        };
        record.facts = facts;
        match record.state {
            LaneState::Listening { run, born, .. } => {
                record.told = false;
                record.state = LaneState::Queued { since: now, held: Some((run, born)) };
            }
            // The lane's turn has ended meanwhile, and this is a new one. The wait of the old turn does not apply to
            // it.
            LaneState::Backoff { .. } | LaneState::Waiting { .. } => {
                record.state = LaneState::Queued { since: now, held: None };
            }
            LaneState::Starting { .. } | LaneState::Working { .. } | LaneState::Closing { .. } => {
                record.again = true
            }
            LaneState::Queued { .. } => {}
        }
    }

    /// An adopted box needs no free slot, because it runs already. The host feeds a working one at once: the earlier
    /// host may have stored a message that it has not written to the box.
    pub(super) fn adopt(
        &mut self,
        now: Duration,
        lane: Lane,
        facts: Facts,
        found: AdoptedState,
        effects: &mut Vec<Effect>,
    ) {
        let run = RunNo(self.next_run);
        self.next_run += 1;
        let state = match found {
            AdoptedState::Starting => LaneState::Starting { run, born: now },
            AdoptedState::Working => LaneState::Working { run, born: now, since: now, stopping: None },
            AdoptedState::Listening => LaneState::Listening { run, born: now, since: now },
            AdoptedState::Closing => {
                LaneState::Closing { run, step: Closing::Told, due: now + CLOSE_GRACE, asks: false }
            }
        };
        effects.push(Effect::Adopt { lane: lane.clone(), run });
        let mut record = Record::new(state, facts);
        if found == AdoptedState::Working {
            record.feed(effects);
        }
        self.lanes.insert(lane, record);
    }

    /// If the lane is idle although it has an open turn, an event was lost. This wakes it.
    pub(super) fn follow_up(&mut self, now: Duration, lane: Lane, facts: Facts, effects: &mut Vec<Effect>) {
        match self.lanes.get_mut(&lane) {
            Some(record) if matches!(record.state, LaneState::Working { stopping: None, .. }) => {
                record.feed(effects);
            }
            Some(_) => {}
            None => self.wake(now, lane, facts),
        }
    }

    /// Ignores a lane that is in another state by now, because its question has been answered.
    pub(super) fn suspended(&mut self, now: Duration, lane: Lane, left: Duration, facts: Facts) {
        let waits = |record: &Record| matches!(record.state, LaneState::Waiting { .. });
        if !self.draining() && self.lanes.get(&lane).is_none_or(waits) {
            let state = LaneState::Waiting { until: now + left };
            self.lanes.insert(lane, Record::new(state, facts));
        }
    }

    pub(super) fn ready(&mut self, now: Duration, run: RunNo, effects: &mut Vec<Effect>) {
        let Some((_, record)) = self.by_run(run) else { return };
        if let LaneState::Starting { born, .. } = record.state {
            record.state = LaneState::Working { run, born, since: now, stopping: None };
            record.feed(effects);
        }
    }

    /// A `Feed` that is on its way may already give the run its next turn. Until the run has obeyed it, its reports
    /// are about the turn before, and this ignores them. The run reports again after it has obeyed.
    pub(super) fn turn_closed(
        &mut self,
        now: Duration,
        run: RunNo,
        next: bool,
        fed: u64,
        effects: &mut Vec<Effect>,
    ) {
        let draining = self.draining();
        let Some((_, record)) = self.by_run(run) else { return };
        let LaneState::Working { born, .. } = record.state else { return };
        if fed < record.feeds {
            return;
        }
        let old = now.saturating_sub(born) >= record.facts.run_limit;
        let next = next || record.again;
        if draining {
            record.close(now, CloseWhy::Drain, effects);
        } else if record.renew || old {
            record.close(now, CloseWhy::Renew, effects);
        } else if record.facts.idle_window.is_zero() {
            record.close(now, CloseWhy::Idle, effects);
        } else if next {
            (record.told, record.again) = (false, false);
            record.state = LaneState::Queued { since: now, held: Some((run, born)) };
        } else {
            record.state = LaneState::Listening { run, born, since: now };
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Duration,
        run: RunNo,
        after: After,
        fed: u64,
        effects: &mut Vec<Effect>,
    ) {
        let draining = self.draining();
        let Some((lane, record)) = self.by_run(run) else { return };
        // The box ended before it heard of the `/stop`, and the store had collected it before the `/stop` came.
        if let LaneState::Working { stopping: Some(Stopping { ending: Ending::Stopped, order, .. }), .. } =
            record.state
            && after != After::Idle
        {
            let lane = lane.clone();
            self.lanes.remove(&lane);
            return effects.push(Effect::EndTurn { lane, order });
        }
        // A wake or an answer arrived after the store had collected the run. The host may have sent it to the run as a
        // `Feed` that the run did not obey any more.
        let waits = matches!(record.state, LaneState::Queued { .. });
        let overtaken = record.again || waits || fed < record.feeds;
        let after = match after {
            After::Idle | After::Suspended(..) if overtaken => After::Wake(Duration::ZERO, record.facts),
            after => after,
        };
        let lane = lane.clone();
        let (state, facts) = match after {
            After::Wake(wait, facts) if wait.is_zero() => {
                (LaneState::Queued { since: now, held: None }, facts)
            }
            After::Wake(wait, facts) => (LaneState::Backoff { until: now + wait }, facts),
            After::Suspended(left, facts) => (LaneState::Waiting { until: now + left }, facts),
            After::Idle => return drop(self.lanes.remove(&lane)),
        };
        if draining {
            self.lanes.remove(&lane);
        } else {
            self.lanes.insert(lane, Record::new(state, facts));
        }
    }

    pub(super) fn suspend(&mut self, now: Duration, run: RunNo, effects: &mut Vec<Effect>) {
        if let Some((_, record)) = self.by_run(run)
            && let LaneState::Working { stopping: None, .. } = record.state
        {
            record.close(now, CloseWhy::Question, effects);
        }
    }

    pub(super) fn answered(&mut self, now: Duration, lane: Lane, facts: Facts, effects: &mut Vec<Effect>) {
        match self.lanes.get_mut(&lane) {
            Some(record) if matches!(record.state, LaneState::Working { stopping: None, .. }) => {
                record.feed(effects);
            }
            _ => self.wake(now, lane, facts),
        }
    }

    pub(super) fn stop(
        &mut self,
        now: Duration,
        lane: &Lane,
        order: Option<MessageSeq>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(record) = self.lanes.get_mut(lane) else { return };
        match &mut record.state {
            LaneState::Working { run, stopping: stopping @ None, .. } => {
                *stopping = Some(Stopping { kill_at: now + STOP_GRACE, ending: Ending::Stopped, order });
                effects.push(Effect::Interrupt { run: *run, why: InterruptWhy::Stop, order });
            }
            LaneState::Queued { held: None, .. } | LaneState::Backoff { .. } | LaneState::Waiting { .. } => {
                self.lanes.remove(lane);
                effects.push(Effect::EndTurn { lane: lane.clone(), order });
            }
            LaneState::Queued { held: Some((run, born)), .. } => {
                record.state = LaneState::Listening { run: *run, born: *born, since: now };
                effects.push(Effect::EndTurn { lane: lane.clone(), order });
            }
            LaneState::Starting { .. } => {
                effects.push(Effect::EndTurn { lane: lane.clone(), order });
                record.kill(now, Ending::Killed, effects);
            }
            // An open turn waits for a person, or for the next box. The end of the turn wakes the lane if there is
            // another one.
            LaneState::Closing { asks, .. } => {
                (*asks, record.again) = (false, false);
                effects.push(Effect::EndTurn { lane: lane.clone(), order });
            }
            LaneState::Working { .. } | LaneState::Listening { .. } => {}
        }
    }

    pub(super) fn renew(&mut self, now: Duration, lane: &Lane, effects: &mut Vec<Effect>) {
        let Some(record) = self.lanes.get_mut(lane) else { return };
        match record.state {
            LaneState::Listening { .. } | LaneState::Queued { held: Some(_), .. } => {
                record.close(now, CloseWhy::Renew, effects);
            }
            LaneState::Starting { .. } | LaneState::Working { .. } => record.renew = true,
            LaneState::Queued { held: None, .. }
            | LaneState::Closing { .. }
            | LaneState::Backoff { .. }
            | LaneState::Waiting { .. } => {}
        }
    }

    /// Performs everything that is due at `now`. It runs after every event, so that a late tick makes no difference.
    pub(super) fn pass_time(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if let Phase::Draining { until, unfinished, told, over } = self.phase
            && now >= until
        {
            let until = if over { Duration::MAX } else { now + CLOSE_GRACE + LAST_GRACE };
            self.phase = Phase::Draining { until, unfinished, told, over: true };
            match over {
                false => self.drain_over(now, unfinished, effects),
                // The host does not wait for boxes that it cannot end because the engine is away.
                true => self.leave(|_| true, effects),
            }
        }
        for (lane, record) in &mut self.lanes {
            if record.due().is_none_or(|due| due > now) {
                continue;
            }
            match &mut record.state {
                LaneState::Queued { .. } => {
                    record.told = true;
                    effects.push(Effect::TellWaiting { lane: lane.clone() });
                }
                LaneState::Working { stopping: Some(stopping), .. } => {
                    let ending = stopping.ending.clone();
                    record.kill(now, ending, effects);
                }
                LaneState::Working { run, stopping, .. } => {
                    effects.push(Effect::Interrupt { run: *run, why: InterruptWhy::Time, order: None });
                    let (kill_at, ending) = (now + TIME_GRACE, Ending::TimedOut);
                    *stopping = Some(Stopping { kill_at, ending, order: None });
                }
                LaneState::Listening { .. } => record.close(now, CloseWhy::Idle, effects),
                LaneState::Closing { run, step: step @ Closing::Told, due, .. } => {
                    effects.push(Effect::Terminate { run: *run });
                    (*step, *due) = (Closing::Ending(Ending::Finished), now + END_LIMIT);
                }
                LaneState::Closing { run, step: Closing::Ending(ending), .. } => {
                    let (run, ending) = (*run, ending.clone());
                    record.give_up(lane.clone(), run, now, ending, effects);
                }
                LaneState::Backoff { .. } => record.state = LaneState::Queued { since: now, held: None },
                LaneState::Waiting { until } => {
                    *until = now + EXPIRE_AGAIN;
                    effects.push(Effect::Expire { lane: lane.clone() });
                }
                LaneState::Starting { run, .. } => {
                    let run = *run;
                    record.give_up(lane.clone(), run, now, start_timed_out(), effects);
                }
            }
        }
    }

    /// The drain time is over, and some turns are not done. A box that is left goes on: with its tools now, and with
    /// its model when the next host has bound its socket. A box that is told to close ends after the current tool.
    fn drain_over(&mut self, now: Duration, unfinished: Unfinished, effects: &mut Vec<Effect>) {
        match unfinished {
            // A box that was told to close ends by itself.
            Unfinished::GoesOn => self.leave(LaneState::holds_slot, effects),
            Unfinished::Closes => {
                for record in self.lanes.values_mut().filter(|record| record.state.holds_slot()) {
                    record.close(now, CloseWhy::Drain, effects);
                }
            }
        }
    }

    fn leave(&mut self, which: impl Fn(&LaneState) -> bool, effects: &mut Vec<Effect>) {
        self.lanes.retain(|_, record| {
            let left = record.state.run().filter(|_| which(&record.state));
            effects.extend(left.map(|run| Effect::Leave { run }));
            left.is_none()
        });
    }
}
