//! Turns what an agent, a person in a chat or the command line asks about tasks into tasks, or says why not. `store`
//! checks the quotas with [`check_quota`], in the transaction that adds the task.

use std::time::Duration;

use ipc_schema::requests::tasks::TaskContext;
use ipc_schema::requests::{Remind, ScheduleTask, UpdateTask};

use crate::domain::settings_macro::Span;
use crate::domain::task::{AgentWork, FROM_FILE, Task, TaskId, TaskOrigin, TaskState, Work};
use crate::domain::{ChatId, GroupName, WallMs, Zone};
use crate::schedule::{self, Schedule, ScheduleError};

/// How late a fire may run unless the task says otherwise.
pub const CATCH_UP: Duration = Duration::from_secs(12 * 3600);
/// The same for a task that fires once: nothing replaces it.
const CATCH_UP_ONCE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many tasks the turn of a fire may make.
pub const MADE_BY_A_FIRE: u64 = 5;
/// How much of a reminder's text becomes its name, in characters.
const REMINDER_NAME: usize = 40;

/// Looks a zone up by its IANA name; the error names similar ones.
pub type ZonesByName = fn(&str) -> Result<Zone, ScheduleError>;

/// Where and when somebody asks.
pub struct Asked<'a> {
    pub group: &'a GroupName,
    /// The chat that gets the replies if the request names none.
    pub chat: &'a ChatId,
    /// The group's zone.
    pub zone: &'a Zone,
    pub now: WallMs,
    /// The shortest interval that the settings allow.
    pub shortest: Duration,
    pub zones: ZonesByName,
}

/// Why a task is not made or not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskRefusal {
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("the group has a task named {name:?} already ({id}); take another name, or change that task")]
    NameTaken { name: String, id: TaskId },
    #[error(
        "the group has {limit} tasks, which is the most; cancel one first (the setting `limits.tasks` raises it)"
    )]
    TooMany { limit: u32 },
    #[error("a scheduled turn may make {MADE_BY_A_FIRE} tasks, and this one has; ask the people of the chat")]
    TooManyInTurn,
    #[error("a task that was made by a task makes no tasks; ask the people of the chat")]
    TooDeep,
    #[error(
        "it would fire every {} and the shortest interval is {} (the setting `limits.task_interval`)",
        span(every),
        span(shortest)
    )]
    TooOften { every: Duration, shortest: Duration },
    #[error("there is no task {asked:?} here; list the tasks to see their names and ids")]
    NoSuchTask { asked: String },
    #[error("{chat} is no chat of group {group}; leave the chat out, or name one of the group's chats")]
    ChatElsewhere { chat: String, group: GroupName },
    #[error("another model needs an isolated task, because a conversation keeps its model")]
    ModelInConversation,
    #[error("{what} {text:?} cannot be read: {why}")]
    Unreadable { what: &'static str, text: String, why: String },
    #[error("{id} is {}; only a new task can replace it", state.word())]
    Ended { id: TaskId, state: TaskState },
    #[error("{id} is defined in the group's {FROM_FILE}; change it there")]
    FromFile { id: TaskId },
    #[error("only the group main may do this")]
    OnlyMain,
}

impl TaskRefusal {
    /// The error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Schedule(e) => e.code(),
            Self::NameTaken { .. } => "task.name_taken",
            Self::TooMany { .. } | Self::TooManyInTurn => "task.quota",
            Self::TooDeep => "task.depth",
            Self::TooOften { .. } => "schedule.too_often",
            Self::NoSuchTask { .. } => "task.missing",
            Self::ChatElsewhere { .. } => "task.chat",
            Self::ModelInConversation => "task.model",
            Self::Unreadable { .. } => "task.value",
            Self::Ended { .. } => "task.ended",
            Self::FromFile { .. } => "task.from_file",
            Self::OnlyMain => "ipc.forbidden",
        }
    }
}

fn span(d: &Duration) -> String {
    humantime::format_duration(*d).to_string()
}

/// Who makes a task, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The group's active and paused tasks.
    pub tasks: u64,
    /// The limit of them.
    pub limit: u32,
    /// For the turn of a fire: the depth of its task, and how many tasks the turn has made.
    pub by_fire: Option<(u32, u64)>,
}

/// Whether one more task may be made.
///
/// # Errors
/// The quota that is used up.
pub fn check_quota(quota: Quota) -> Result<(), TaskRefusal> {
    match quota.by_fire {
        Some((depth, _)) if depth > 0 => return Err(TaskRefusal::TooDeep),
        Some((_, made)) if made >= MADE_BY_A_FIRE => return Err(TaskRefusal::TooManyInTurn),
        _ => {}
    }
    if quota.tasks >= u64::from(quota.limit) {
        return Err(TaskRefusal::TooMany { limit: quota.limit });
    }
    Ok(())
}

/// A new task. The store gives it its id.
///
/// # Errors
/// What is wrong with the request. Its size limits were checked before.
pub fn new_task(ask: &ScheduleTask, asked: &Asked<'_>, origin: TaskOrigin) -> Result<Task, TaskRefusal> {
    let zone = zone_of(ask.zone.as_deref(), asked)?;
    let schedule = understood(&ask.schedule, &zone, asked)?;
    if ask.model.is_some() && ask.context == TaskContext::Group {
        return Err(TaskRefusal::ModelInConversation);
    }
    let work = AgentWork {
        context: ask.context,
        gate: ask.gate.clone().filter(|script| !script.trim().is_empty()),
        silent: ask.silent,
        model: ask.model.clone(),
        model_calls: ask.model_calls,
    };
    let catch_up = catch_up_of(ask.catch_up.as_deref(), &schedule)?;
    Ok(Task {
        overlap: ask.overlap,
        ends_at: ask.until.as_deref().map(|text| end_of(text, &zone, asked)).transpose()?.flatten(),
        left: ask.times,
        catch_up,
        work: Work::Agent(work),
        prompt: ask.prompt.trim().to_owned(),
        ..task(ask.name.trim(), ask.chat.as_deref(), &schedule, &zone, asked, origin)?
    })
}

/// A new reminder.
///
/// # Errors
/// What is wrong with the request. Its size limits were checked before.
pub fn reminder(ask: &Remind, asked: &Asked<'_>, origin: TaskOrigin) -> Result<Task, TaskRefusal> {
    let zone = zone_of(ask.zone.as_deref(), asked)?;
    let schedule = understood(&ask.when, &zone, asked)?;
    let text = ask.text.trim();
    let first = text.lines().next().unwrap_or_default();
    let name: String = first.chars().filter(|c| !c.is_control()).take(REMINDER_NAME).collect();
    Ok(Task {
        catch_up: catch_up_of(None, &schedule)?,
        prompt: text.to_owned(),
        ..task(&name, ask.chat.as_deref(), &schedule, &zone, asked, origin)?
    })
}

/// The task as it is after a change. A new schedule or zone begins at `now`.
///
/// # Errors
/// What is wrong with the request. Its size limits were checked before.
pub fn changed(task: &Task, ask: &UpdateTask, asked: &Asked<'_>) -> Result<Task, TaskRefusal> {
    may_change(task)?;
    if task.origin.by == FROM_FILE {
        return Err(TaskRefusal::FromFile { id: task.id });
    }
    let mut new = task.clone();
    let zone = zone_of(ask.zone.as_deref().or(Some(&task.zone)), asked)?;
    if ask.schedule.is_some() || ask.zone.is_some() {
        let schedule = match &ask.schedule {
            Some(text) => understood(text, &zone, asked)?,
            None => Schedule::from_canonical(&task.schedule)?,
        };
        (new.schedule, new.zone, new.after) = (schedule.canonical(), zone.name().to_owned(), asked.now);
        new.next_at = schedule.next(&zone, asked.now).filter(|_| task.state == TaskState::Active);
    }
    if let Some(name) = &ask.name {
        new.name = name.trim().to_owned();
    }
    if let Some(prompt) = &ask.prompt {
        new.prompt = prompt.trim().to_owned();
    }
    if let Some(chat) = &ask.chat {
        new.chat = chat_of(chat, asked)?;
    }
    if let Some(text) = &ask.catch_up {
        new.catch_up = catch_up_of(Some(text), &Schedule::from_canonical(&new.schedule)?)?;
    }
    if let Some(text) = &ask.until {
        new.ends_at = end_of(text, &zone, asked)?;
    }
    new.overlap = ask.overlap.unwrap_or(new.overlap);
    new.left = ask.times.or(new.left);
    if let Work::Agent(work) = &mut new.work {
        if let Some(gate) = &ask.gate {
            work.gate = Some(gate.clone()).filter(|script| !script.trim().is_empty());
        }
        work.silent = ask.silent.unwrap_or(work.silent);
    }
    Ok(new)
}

/// The task paused, active again, or cancelled. A task that fires again does so from `now` on.
///
/// # Errors
/// The task has ended, or a file defines it.
pub fn moved_to(task: &Task, state: TaskState, zones: ZonesByName, now: WallMs) -> Result<Task, TaskRefusal> {
    // An order that is performed again finds it done.
    if task.state == state {
        return Ok(task.clone());
    }
    may_change(task)?;
    if state == TaskState::Cancelled && task.origin.by == FROM_FILE {
        return Err(TaskRefusal::FromFile { id: task.id });
    }
    let mut new = Task { state, ..task.clone() };
    match state {
        TaskState::Active => {
            let zone = zones(&task.zone)?;
            (new.after, new.next_at) = (now, Schedule::from_canonical(&task.schedule)?.next(&zone, now));
            if new.next_at.is_none() {
                return Err(TaskRefusal::Schedule(ScheduleError::Past {
                    at: schedule::local(task.after, &zone),
                }));
            }
        }
        TaskState::Paused | TaskState::Done | TaskState::Cancelled => new.next_at = None,
    }
    Ok(new)
}

fn may_change(task: &Task) -> Result<(), TaskRefusal> {
    match task.state {
        TaskState::Active | TaskState::Paused => Ok(()),
        state => Err(TaskRefusal::Ended { id: task.id, state }),
    }
}

fn task(
    name: &str,
    chat: Option<&str>,
    schedule: &Schedule,
    zone: &Zone,
    asked: &Asked<'_>,
    origin: TaskOrigin,
) -> Result<Task, TaskRefusal> {
    Ok(Task {
        id: TaskId(0),
        group: asked.group.clone(),
        name: name.to_owned(),
        chat: chat.map_or_else(|| Ok(asked.chat.clone()), |chat| chat_of(chat, asked))?,
        work: Work::Remind,
        prompt: String::new(),
        schedule: schedule.canonical(),
        zone: zone.name().to_owned(),
        catch_up: CATCH_UP,
        overlap: Default::default(),
        ends_at: None,
        left: None,
        origin,
        state: TaskState::Active,
        after: asked.now,
        next_at: schedule.next(zone, asked.now),
    })
}

/// The store checks that the chat is one of the group's.
fn chat_of(chat: &str, asked: &Asked<'_>) -> Result<ChatId, TaskRefusal> {
    chat.parse().map_err(|_| TaskRefusal::ChatElsewhere { chat: chat.to_owned(), group: asked.group.clone() })
}

fn zone_of(name: Option<&str>, asked: &Asked<'_>) -> Result<Zone, TaskRefusal> {
    match name {
        None => Ok(asked.zone.clone()),
        Some(name) => Ok((asked.zones)(name)?),
    }
}

fn understood(text: &str, zone: &Zone, asked: &Asked<'_>) -> Result<Schedule, TaskRefusal> {
    often_enough(schedule::parse(text, zone, asked.now)?, zone, asked.now, asked.shortest)
}

/// Refuses a schedule with a shorter interval than the settings allow.
pub(super) fn often_enough(
    schedule: Schedule,
    zone: &Zone,
    from: WallMs,
    shortest: Duration,
) -> Result<Schedule, TaskRefusal> {
    match schedule.shortest_gap(zone, from) {
        Some(every) if every < shortest => Err(TaskRefusal::TooOften { every, shortest }),
        _ => Ok(schedule),
    }
}

fn catch_up_of(text: Option<&str>, schedule: &Schedule) -> Result<Duration, TaskRefusal> {
    match text.map(str::trim) {
        None if matches!(schedule, Schedule::Once(_)) => Ok(CATCH_UP_ONCE),
        None => Ok(CATCH_UP),
        Some("skip") => Ok(Duration::ZERO),
        Some(text) => text.parse::<Span>().map(|span| span.0).map_err(|why| TaskRefusal::Unreadable {
            what: "the limit for late fires",
            text: text.to_owned(),
            why: format!("{why}; write \"skip\" or a time such as \"12h\""),
        }),
    }
}

/// When a task ends: the end of a day, or a point in time. `None` for an empty text.
fn end_of(text: &str, zone: &Zone, asked: &Asked<'_>) -> Result<Option<WallMs>, TaskRefusal> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let whole_day = text.parse::<jiff::civil::Date>().is_ok() && text.len() == "2026-12-24".len();
    let point = if whole_day { format!("{text} 23:59") } else { text.to_owned() };
    match schedule::parse(&point, zone, asked.now)? {
        Schedule::Once(at) => Ok(Some(at)),
        _ => Err(TaskRefusal::Unreadable {
            what: "the end",
            text: text.to_owned(),
            why: "write a day or a point in time, such as \"2026-12-24\"".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tuesday, 12:00 UTC.
    const NOW: WallMs = WallMs(1_795_521_600_000);

    fn zones(name: &str) -> Result<Zone, ScheduleError> {
        let found = jiff::tz::TimeZoneDatabase::bundled().get(name).map(Zone);
        found.map_err(|_| ScheduleError::NoZone { name: name.to_owned(), nearest: Vec::new() })
    }

    fn asked<T>(act: impl FnOnce(&Asked<'_>) -> T) -> T {
        let (group, chat, zone) =
            ("family".parse().unwrap(), "telegram:5".parse().unwrap(), Zone::bundled("Europe/Berlin"));
        act(&Asked {
            group: &group,
            chat: &chat,
            zone: &zone,
            now: NOW,
            shortest: Duration::from_secs(60),
            zones,
        })
    }

    fn origin() -> TaskOrigin {
        TaskOrigin { by: "m-1".into(), depth: 0 }
    }

    fn news() -> ScheduleTask {
        let text = String::from;
        ScheduleTask {
            name: text("news"),
            schedule: text("daily 07:30"),
            prompt: text("Read."),
            ..Default::default()
        }
    }

    fn refused(change: impl FnOnce(&mut ScheduleTask)) -> &'static str {
        let mut ask = news();
        change(&mut ask);
        asked(|a| new_task(&ask, a, origin())).map_or_else(|e| e.code(), |_| "made")
    }

    #[test]
    fn a_task_is_made_in_the_groups_zone_and_for_the_chat_of_the_turn() {
        let task = asked(|a| new_task(&news(), a, origin())).unwrap();
        assert_eq!(
            (task.zone.as_str(), task.chat.as_str(), task.catch_up),
            ("Europe/Berlin", "telegram:5", CATCH_UP)
        );
        assert_eq!(task.next_at.unwrap().local(&Zone::bundled("Europe/Berlin")), "2026-11-25T07:30:00+01:00");
        assert_eq!(task.lane().to_string(), "family/task-0");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_reason() {
        assert_eq!(refused(|_| {}), "made");
        assert_eq!(refused(|t| t.schedule = "*/0 * * * *".into()), "schedule.field");
        assert_eq!(refused(|t| t.schedule = "60 * * * *".into()), "schedule.field");
        assert_eq!(refused(|t| t.schedule = "0 9 30 2 *".into()), "schedule.never");
        assert_eq!(refused(|t| t.schedule = "every 1s".into()), "schedule.too_often");
        assert_eq!(refused(|t| t.schedule = "9999-01-01 09:00".into()), "schedule.too_far");
        assert_eq!(refused(|t| t.schedule = "2020-01-01 09:00".into()), "schedule.past");
        assert_eq!(refused(|t| t.zone = Some("Europe/Berlni".into())), "schedule.no_zone");
        assert_eq!(refused(|t| t.chat = Some("nonsense".into())), "task.chat");
        assert_eq!(refused(|t| t.catch_up = Some("soon".into())), "task.value");
        assert_eq!(refused(|t| t.until = Some("daily 09:00".into())), "task.value");
        let model = |t: &mut ScheduleTask| (t.context, t.model) = (TaskContext::Group, Some("m".into()));
        assert_eq!(refused(model), "task.model");
    }

    #[test]
    fn a_reminder_takes_its_name_from_its_text() {
        let ask = Remind { text: "stretch\nnow".into(), when: "in 1 minute".into(), ..Default::default() };
        let task = asked(|a| reminder(&ask, a, origin())).unwrap();
        assert_eq!((task.name.as_str(), task.prompt.as_str()), ("stretch", "stretch\nnow"));
        assert_eq!((task.work, task.catch_up), (Work::Remind, CATCH_UP_ONCE));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let task = asked(|a| new_task(&news(), a, origin())).unwrap();
        let ask = UpdateTask { task: "news".into(), prompt: Some("Read more.".into()), ..Default::default() };
        let new = asked(|a| changed(&task, &ask, a)).unwrap();
        assert_eq!(new, Task { prompt: "Read more.".into(), ..task.clone() });
        let ask =
            UpdateTask { task: "news".into(), schedule: Some("daily 09:00".into()), ..Default::default() };
        let new = asked(|a| changed(&task, &ask, a)).unwrap();
        assert!(new.next_at > task.next_at && new.schedule != task.schedule);
    }

    #[test]
    fn a_paused_task_goes_on_from_now_and_a_cancelled_one_does_not() {
        let task = asked(|a| new_task(&news(), a, origin())).unwrap();
        let paused = moved_to(&task, TaskState::Paused, zones, NOW).unwrap();
        assert_eq!(paused.next_at, None);
        let later = NOW.plus(Duration::from_secs(3 * 24 * 3600));
        let again = moved_to(&paused, TaskState::Active, zones, later).unwrap();
        assert!(
            again.after == later && again.next_at > Some(later),
            "what it missed while paused is not done later"
        );
        let cancelled = moved_to(&task, TaskState::Cancelled, zones, NOW).unwrap();
        assert_eq!(moved_to(&cancelled, TaskState::Cancelled, zones, NOW), Ok(cancelled.clone()));
        let refused = moved_to(&cancelled, TaskState::Active, zones, NOW);
        assert_eq!(refused, Err(TaskRefusal::Ended { id: task.id, state: TaskState::Cancelled }));
    }

    #[test]
    fn tasks_have_quotas() {
        let quota = Quota { tasks: 49, limit: 50, by_fire: None };
        assert_eq!(check_quota(quota), Ok(()));
        assert_eq!(check_quota(Quota { tasks: 50, ..quota }), Err(TaskRefusal::TooMany { limit: 50 }));
        assert_eq!(check_quota(Quota { by_fire: Some((0, 4)), ..quota }), Ok(()));
        assert_eq!(check_quota(Quota { by_fire: Some((0, 5)), ..quota }), Err(TaskRefusal::TooManyInTurn));
        assert_eq!(check_quota(Quota { by_fire: Some((1, 0)), ..quota }), Err(TaskRefusal::TooDeep));
    }
}
