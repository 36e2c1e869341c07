//! Heartbeats: tasks that a group's file defines. The file's text always means the same schedule and the same task, so
//! the host can compare it with the store at any time.

use std::time::Duration;

use ipc_schema::requests::tasks::PROMPT_MAX_CHARS;

use super::task_request::{CATCH_UP, TaskRefusal, often_enough};
use crate::domain::group_settings::{Group, Heartbeat};
use crate::domain::task::{AgentWork, FROM_FILE, Task, TaskId, TaskOrigin, TaskState, Work};
use crate::domain::{ChatId, WallMs, Zone};
use crate::schedule::{self, Schedule};

/// The beginning of every interval, local time.
const ANCHOR: &str = "2026-01-01T00:00";

/// Understands the schedule of a heartbeat. It must repeat: words such as "tomorrow" would mean another day each time
/// that the host reads the file.
///
/// # Errors
/// What is wrong with it.
pub fn schedule_of(text: &str, zone: &Zone, shortest: Duration) -> Result<Schedule, TaskRefusal> {
    let anchor = schedule::local_time(ANCHOR, zone)?;
    match schedule::parse(text, zone, anchor)? {
        Schedule::Once(_) => Err(TaskRefusal::Unreadable {
            what: "the schedule",
            text: text.to_owned(),
            why: "a heartbeat comes again and again; write \"every 30m\", \"daily 08:00\" or the like"
                .to_owned(),
        }),
        schedule => often_enough(schedule, zone, anchor, shortest),
    }
}

/// The prompt without its edges.
///
/// # Errors
/// It is empty or too long.
pub fn checked_prompt(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("the prompt is empty: say what the agent looks at".to_owned()),
        text if text.chars().count() > PROMPT_MAX_CHARS => {
            Err(format!("the prompt has more than {PROMPT_MAX_CHARS} characters"))
        }
        text => Ok(text.to_owned()),
    }
}

/// The task of a heartbeat. `present` is the task in the store: what the file does not say stays as it is there, and a
/// new schedule or zone counts from now.
pub fn task(
    group: &Group,
    heartbeat: &Heartbeat,
    prompt: String,
    chat: ChatId,
    present: Option<&Task>,
    now: WallMs,
) -> Task {
    let task = present.cloned().unwrap_or_else(|| Task {
        id: TaskId(0),
        group: group.name.clone(),
        name: heartbeat.name.clone(),
        chat: chat.clone(),
        work: Work::Remind,
        prompt: String::new(),
        schedule: String::new(),
        zone: String::new(),
        catch_up: CATCH_UP,
        overlap: Default::default(),
        ends_at: None,
        left: None,
        origin: TaskOrigin { by: FROM_FILE.to_owned(), depth: 0 },
        state: TaskState::Active,
        after: now,
        next_at: None,
    });
    let work = Work::Agent(AgentWork { context: heartbeat.context, ..AgentWork::default() });
    let mut new = Task { chat, prompt, work, ..task };
    let zone = group.zone.name();
    if new.schedule != heartbeat.schedule || new.zone != zone {
        (new.schedule, new.zone, new.after) = (heartbeat.schedule.clone(), zone.to_owned(), now);
        let schedule = Schedule::from_canonical(&new.schedule).ok();
        let next = schedule.and_then(|schedule| schedule.next(&group.zone, now));
        new.next_at = next.filter(|_| new.state == TaskState::Active);
    }
    new
}

/// The prompt as the agent gets it.
pub fn for_agent(prompt: &str) -> String {
    format!(
        "{prompt}\n\n(This is a heartbeat: look at what is due now and do it. If there is nothing that the people must \
         know, end with an empty answer.)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::group_settings::HeartbeatPrompt;
    use crate::domain::task::TaskContext;

    /// Tuesday, 24 November 2026, 12:00 UTC.
    const NOW: WallMs = WallMs(1_795_521_600_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn heartbeat(schedule: &str) -> Heartbeat {
        let schedule = schedule_of(schedule, &Zone::utc(), MINUTE).unwrap().canonical();
        let prompt = HeartbeatPrompt::Text("Look.".into());
        Heartbeat { name: "look".into(), schedule, prompt, context: TaskContext::Isolated, chat: None }
    }

    fn made(schedule: &str, present: Option<&Task>, now: WallMs) -> Task {
        let (group, chat) = (Group::for_tests("family"), "telegram:5".parse().unwrap());
        task(&group, &heartbeat(schedule), "Look.".into(), chat, present, now)
    }

    #[test]
    fn a_schedule_means_the_same_at_every_reading_and_repeats() {
        let berlin = Zone::bundled("Europe/Berlin");
        let next =
            |text| schedule_of(text, &berlin, MINUTE).unwrap().next(&berlin, NOW).unwrap().local(&berlin);
        assert_eq!(next("every 2 hours"), "2026-11-24T14:00:00+01:00");
        assert_eq!(next("weekdays 08:00"), "2026-11-25T08:00:00+01:00");
        for once in ["tomorrow 9:00", "in 20 minutes", "2026-12-24 18:00"] {
            assert_eq!(schedule_of(once, &berlin, MINUTE).unwrap_err().code(), "task.value", "{once}");
        }
        let often = schedule_of("every 2 minutes", &berlin, Duration::from_secs(300));
        assert_eq!(often.unwrap_err().code(), "schedule.too_often");
    }

    #[test]
    fn a_file_that_says_the_same_changes_nothing() {
        let first = made("every 30m", None, NOW);
        assert_eq!(first.next_at, Some(NOW.plus(Duration::from_secs(1800))));
        let fired =
            Task { after: NOW.plus(MINUTE), next_at: Some(NOW.plus(MINUTE * 30)), id: TaskId(3), ..first };
        assert_eq!(made("every 30m", Some(&fired), NOW.plus(MINUTE * 2)), fired);
    }

    #[test]
    fn a_new_schedule_counts_from_now_and_a_paused_one_stays_paused() {
        let first = Task { id: TaskId(3), ..made("every 30m", None, NOW) };
        let later = NOW.plus(MINUTE * 120 + MINUTE * 10);
        let hourly = made("hourly", Some(&first), later);
        assert_eq!((hourly.after, hourly.next_at), (later, Some(NOW.plus(MINUTE * 180))));
        let paused = Task { state: TaskState::Paused, next_at: None, ..first };
        let changed = made("hourly", Some(&paused), later);
        assert_eq!((changed.state, changed.next_at), (TaskState::Paused, None));
    }
}
