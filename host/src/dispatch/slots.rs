//! Decides which lane gets a free slot, and which box closes when there is no room for another.

use std::cmp::Reverse;
use std::time::Duration;

use ipc_schema::letters::to_agent::CloseWhy;

use super::{Dispatch, Effect, LaneState, Record, RunNo};
use crate::domain::Lane;
use crate::domain::group_settings::Priority;

/// Each minute of waiting raises a lane's priority by one step, so that a low priority delays a lane but never starves
/// it.
const LIFT: Duration = Duration::from_secs(60);

/// A person goes before a task that has not waited for this many steps longer.
const PERSON_FIRST: u64 = 3;

/// At most this many tasks of one group work at once, beside its conversation.
const TASKS_OF_A_GROUP: usize = 2;

impl Dispatch {
    pub(super) fn fill_slots(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.draining() {
            return;
        }
        let mut full = false;
        while self.load().0 < self.settings.working {
            let Some(lane) = self.next_in_line(now, full) else { break };
            let next_run = RunNo(self.next_run);
            let room = self.load().1 < self.settings.boxes;
            let Some(record) = self.lanes.get_mut(&lane) else { break };
            let LaneState::Queued { held, .. } = record.state else { break };
            match held {
                Some((run, born)) => {
                    record.state = LaneState::Working { run, born, since: now, stopping: None };
                    record.feed(effects);
                }
                None if room => {
                    self.next_run += 1;
                    record.state = LaneState::Starting { run: next_run, born: now };
                    effects.push(Effect::Start { lane, run: next_run });
                }
                None if self.make_room(now, effects) => break,
                // All boxes wait for turns of their own lanes. Those lanes go first, because otherwise no lane could
                // go on.
                None => full = true,
            }
        }
    }

    /// The waiting lane with the highest priority, after the raise for its waiting time. Among equals it is the one
    /// that has waited longest. This is fair between groups: a lane that has just had a turn has only begun to wait.
    ///
    /// `full` limits the choice to lanes with a box.
    fn next_in_line(&self, now: Duration, full: bool) -> Option<Lane> {
        let urgency = |lane: &Lane, record: &Record, since: Duration| {
            let base: u64 = match record.facts.priority {
                Priority::Low => 0,
                Priority::Normal => 1,
                Priority::High => 2,
            };
            let base = if lane.task_id().is_some() { base } else { base + PERSON_FIRST };
            base + now.saturating_sub(since).as_secs() / LIFT.as_secs()
        };
        let tasks = || self.lanes.iter().filter(|(lane, r)| lane.task_id().is_some() && r.state.holds_slot());
        // A slot stays free for people, if there are two or more.
        let tasks_may = self.settings.working == 1 || tasks().count() + 1 < self.settings.working;
        let may = |lane: &Lane| {
            let of_group = || tasks().filter(|(other, _)| other.group == lane.group).count();
            lane.task_id().is_none() || (tasks_may && of_group() < TASKS_OF_A_GROUP)
        };
        self.lanes
            .iter()
            .filter_map(|(lane, record)| match record.state {
                LaneState::Queued { since, held } if may(lane) && (held.is_some() || !full) => {
                    Some(((urgency(lane, record, since), Reverse(since)), lane))
                }
                _ => None,
            })
            .max_by(|(a, _), (b, _)| a.cmp(b))
            .map(|(_, lane)| lane.clone())
    }

    /// Closes the listening box that has been quiet longest, unless another box is closing already. Returns whether
    /// there will be room.
    fn make_room(&mut self, now: Duration, effects: &mut Vec<Effect>) -> bool {
        if self.lanes.values().any(|r| matches!(r.state, LaneState::Closing { .. })) {
            return true;
        }
        let quietest = self
            .lanes
            .values_mut()
            .filter_map(|r| match r.state {
                LaneState::Listening { since, .. } => Some((since, r)),
                _ => None,
            })
            .min_by_key(|(since, _)| *since);
        let Some((_, record)) = quietest else { return false };
        record.close(now, CloseWhy::Yield, effects);
        true
    }
}
