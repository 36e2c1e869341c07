//! Decides which fires follow from a task's schedule: which planned times have come, and which of them run, are skipped
//! or are missed. `store` applies the plan in the transaction that loaded the task.

use std::time::Duration;

use crate::domain::task::{Overlap, Task};
use crate::domain::{WallMs, Zone};
use crate::schedule::Schedule;

/// A fire is late if it starts longer than this after its planned time.
const ON_TIME: Duration = Duration::from_secs(60);
/// How many fires one plan makes at most. A person's message waits for the transaction.
pub const FIRES_AT_ONCE: usize = 500;
/// The time between two late fires of different tasks, so that they do not all start at once.
pub const SPREAD: Duration = Duration::from_secs(10);

/// The fires of a task that are not over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// One waits for its turn.
    pub waits: bool,
    /// One has an open turn, which works.
    pub works: bool,
}

/// What happens with a planned time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Runs { late: bool },
    Skipped,
    Missed,
}

/// What follows for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The planned times that have come, in order.
    pub fires: Vec<(WallMs, Fate)>,
    /// Every planned time up to this one has a fire now.
    pub after: WallMs,
    pub next_at: Option<WallMs>,
    /// How many fires may still run.
    pub left: Option<u32>,
}

impl Plan {
    /// Whether more planned times have come than one plan takes.
    pub fn is_cut(&self, now: WallMs) -> bool {
        self.next_at.is_some_and(|next| next <= now)
    }
}

/// Plans a task until `now`. Times that lie before `oldest` get no fire: the host would not keep it.
///
/// A clock that went back makes `now` earlier than the task's last planned time. The times in between then come again;
/// the store has their fires and makes no second ones.
pub fn plan(
    task: &Task,
    schedule: &Schedule,
    zone: &Zone,
    unfinished: Unfinished,
    now: WallMs,
    oldest: WallMs,
) -> Plan {
    let mut after = task.after.min(now);
    if schedule.next(zone, after).is_some_and(|next| next < oldest)
        && matches!(schedule, Schedule::Cron(_) | Schedule::Every(_))
    {
        after = after.max(oldest);
    }
    let in_time = |at: &WallMs| task.ends_at.is_none_or(|end| *at <= end) && task.left != Some(0);
    let next = |after| schedule.next(zone, after).filter(in_time);
    let mut fires = Vec::new();
    while let Some(at) = next(after).filter(|at| *at <= now && fires.len() < FIRES_AT_ONCE) {
        fires.push((at, Fate::Missed));
        after = at;
    }
    let mut plan = Plan { fires, after, next_at: next(after), left: task.left };
    if plan.is_cut(now) {
        return plan;
    }
    if let Some((at, fate)) = plan.fires.last_mut() {
        let late = now.since(*at) > ON_TIME;
        *fate = match () {
            () if late && now.since(*at) > task.catch_up => Fate::Missed,
            () if overlaps(task.overlap, unfinished) => Fate::Skipped,
            () => Fate::Runs { late },
        };
        if matches!(fate, Fate::Runs { .. }) {
            plan.left = plan.left.map(|left| left.saturating_sub(1));
        }
    }
    if plan.left == Some(0) {
        plan.next_at = None;
    }
    plan
}

fn overlaps(rule: Overlap, unfinished: Unfinished) -> bool {
    match rule {
        Overlap::Skip => unfinished.waits || unfinished.works,
        Overlap::Queue => unfinished.waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::{TaskId, TaskOrigin, TaskState, Work};

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    /// Monday, 12:00 UTC.
    const NOON: WallMs = WallMs(1_795_435_200_000);

    fn at(after_noon: i64) -> WallMs {
        WallMs(NOON.0 + after_noon)
    }

    fn task(after: WallMs) -> Task {
        Task {
            id: TaskId(1),
            group: "family".parse().unwrap(),
            name: "news".into(),
            chat: "telegram:5".parse().unwrap(),
            work: Work::Remind,
            prompt: "x".into(),
            schedule: String::new(),
            zone: "UTC".into(),
            catch_up: Duration::from_secs(12 * 3600),
            overlap: Overlap::Skip,
            ends_at: None,
            left: None,
            origin: TaskOrigin { by: "m-1".into(), depth: 0 },
            state: TaskState::Active,
            after,
            next_at: None,
        }
    }

    fn planned(task: &Task, schedule: &str, unfinished: Unfinished, now: WallMs) -> Plan {
        let schedule = Schedule::from_canonical(schedule).unwrap();
        plan(task, &schedule, &Zone::utc(), unfinished, now, WallMs(0))
    }

    const MINUTELY: &str = "cron * * * * *";
    const HOURLY: &str = "cron 0 * * * *";

    #[test]
    fn a_fire_on_time_runs_and_the_next_is_known() {
        let plan = planned(&task(NOON), HOURLY, Unfinished::default(), at(HOUR + 5));
        assert_eq!(plan.fires, [(at(HOUR), Fate::Runs { late: false })]);
        assert_eq!((plan.after, plan.next_at), (at(HOUR), Some(at(2 * HOUR))));
        let early = planned(&task(NOON), HOURLY, Unfinished::default(), at(HOUR - 1));
        assert_eq!((early.fires.len(), early.next_at), (0, Some(at(HOUR))));
    }

    #[test]
    fn after_a_night_the_newest_is_caught_up_and_the_others_are_missed() {
        let plan = planned(&task(NOON), HOURLY, Unfinished::default(), at(8 * HOUR + 20 * MINUTE));
        assert_eq!(plan.fires.len(), 8);
        assert!(plan.fires[..7].iter().all(|(_, fate)| *fate == Fate::Missed));
        assert_eq!(plan.fires[7], (at(8 * HOUR), Fate::Runs { late: true }));
        let skip = Task { catch_up: Duration::ZERO, ..task(NOON) };
        let plan = planned(&skip, HOURLY, Unfinished::default(), at(8 * HOUR + 20 * MINUTE));
        assert!(plan.fires.iter().all(|(_, fate)| *fate == Fate::Missed));
    }

    #[test]
    fn three_days_of_a_minutely_task_are_planned_in_steps() {
        let now = at(72 * HOUR);
        let (mut task, mut steps, mut fates) = (task(NOON), 0, Vec::new());
        loop {
            let plan = planned(&task, MINUTELY, Unfinished::default(), now);
            assert!(plan.fires.len() <= FIRES_AT_ONCE);
            fates.extend(plan.fires.iter().map(|(_, fate)| *fate));
            (task.after, steps) = (plan.after, steps + 1);
            if !plan.is_cut(now) {
                break;
            }
        }
        assert_eq!((fates.len(), steps), (72 * 60, 9));
        assert_eq!(fates.iter().filter(|fate| **fate != Fate::Missed).count(), 1, "only the newest runs");
        assert_eq!(fates.last(), Some(&Fate::Runs { late: false }));
    }

    #[test]
    fn a_clock_that_went_back_plans_the_same_times_again() {
        let plan = planned(&task(at(5 * HOUR)), HOURLY, Unfinished::default(), at(2 * HOUR + 1));
        assert!(plan.fires.is_empty());
        assert_eq!((plan.after, plan.next_at), (at(2 * HOUR + 1), Some(at(3 * HOUR))));
    }

    #[test]
    fn a_fire_does_not_overtake_the_one_before() {
        let fate = |overlap, waits, works| {
            let task = Task { overlap, ..task(NOON) };
            planned(&task, HOURLY, Unfinished { waits, works }, at(HOUR)).fires[0].1
        };
        let runs = Fate::Runs { late: false };
        assert_eq!(fate(Overlap::Skip, false, true), Fate::Skipped);
        assert_eq!(fate(Overlap::Skip, true, false), Fate::Skipped);
        assert_eq!(fate(Overlap::Queue, false, true), runs);
        assert_eq!(fate(Overlap::Queue, true, true), Fate::Skipped);
    }

    #[test]
    fn a_task_ends_with_its_last_fire_or_its_date() {
        let twice = Task { left: Some(1), ..task(NOON) };
        let plan = planned(&twice, HOURLY, Unfinished::default(), at(HOUR));
        assert_eq!((plan.left, plan.next_at), (Some(0), None));
        let ends = Task { ends_at: Some(at(90 * MINUTE)), ..task(NOON) };
        let plan = planned(&ends, HOURLY, Unfinished::default(), at(HOUR));
        assert_eq!((plan.fires.len(), plan.next_at), (1, None));
    }

    #[test]
    fn years_of_absence_make_no_more_fires_than_the_host_keeps() {
        let schedule = Schedule::from_canonical(HOURLY).unwrap();
        let (now, oldest) = (at(9_000 * HOUR), at(8_990 * HOUR));
        let plan = plan(&task(NOON), &schedule, &Zone::utc(), Unfinished::default(), now, oldest);
        assert_eq!(plan.fires.len(), 10);
        let once = Schedule::from_canonical("once 2026-11-24T00:00:00Z").unwrap();
        let plan = super::plan(&task(NOON), &once, &Zone::utc(), Unfinished::default(), now, oldest);
        assert_eq!((plan.fires.len(), plan.next_at), (1, None), "a single fire is never forgotten");
    }
}
