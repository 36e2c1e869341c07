//! What agents, chats and the command line do with scheduled tasks: make, find, change and show them. All of them come
//! through here, so that all get the same verdicts. The `scheduler` lets the tasks fire.

mod heartbeats;

use std::time::Duration;

use ipc_schema::requests::{Remind, ScheduleTask, UpdateTask};
use serde_json::{Value, json};

use crate::channels::terminal::chat_of;
use crate::config::{Install, zone_data};
use crate::domain::settings_macro::Span;
use crate::domain::task::{Task, TaskOrigin, TaskState};
use crate::domain::{ChatId, FireId, GroupName, TurnId, WallMs, Zone};
use crate::policy::task_request::{self, Asked, TaskRefusal, changed, moved_to};
use crate::policy::task_view::TaskView;
use crate::store::{Adding, FireRow, Store, StoreError};
use crate::text;
pub use heartbeats::Problem;

/// How much of an answer the history shows, in characters.
const REPLY: usize = 300;
/// How often a change is tried again that crossed with a fire of the task.
const TRIES: u32 = 5;

/// Why something was not done with a task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error(transparent)]
    Refused(#[from] TaskRefusal),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} fires at this moment; do it again")]
    Fires(String),
}

impl TaskError {
    /// The error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Store(e) => e.code(),
            Self::Fires(_) => "task.busy",
        }
    }
}

/// A task to make.
pub enum NewTask {
    Work(ScheduleTask),
    Reminder(Remind),
    /// A reminder with a name that is not the beginning of its text.
    NamedReminder(String, Remind),
}

/// Who makes a task, and from where.
pub struct Maker<'a> {
    /// The group of the maker. A task of `main` may be for a chat of another group, and belongs to that group then.
    pub group: &'a GroupName,
    /// The chat that the task posts to if it names none.
    pub chat: &'a ChatId,
    pub origin: TaskOrigin,
    /// The turn and the request that make it.
    pub made_in: Option<(TurnId, String)>,
}

/// Works on tasks at one point in time.
#[derive(Clone, Copy)]
pub struct Tasks<'a> {
    pub store: &'a Store,
    pub install: &'a Install,
    pub now: WallMs,
}

impl Tasks<'_> {
    /// Makes a task.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub async fn add(&self, new: NewTask, maker: Maker<'_>) -> Result<Task, TaskError> {
        let chat = match &new {
            NewTask::Work(ask) => ask.chat.as_deref(),
            NewTask::Reminder(ask) | NewTask::NamedReminder(_, ask) => ask.chat.as_deref(),
        };
        let group = match chat.filter(|_| maker.group.is_main()).map(str::parse) {
            Some(Ok(chat)) => self.store.group_of(&chat).await?.unwrap_or_else(|| maker.group.clone()),
            _ => maker.group.clone(),
        };
        let origin = maker.origin;
        let task = self.with_asked(&group, maker.chat, |asked| match &new {
            NewTask::Work(ask) => task_request::new_task(ask, asked, origin),
            NewTask::Reminder(ask) => task_request::reminder(ask, asked, origin),
            NewTask::NamedReminder(name, ask) => {
                let task = task_request::reminder(ask, asked, origin)?;
                Ok(Task { name: name.trim().to_owned(), ..task })
            }
        })?;
        let adding = Adding { limit: self.limits(&group).0, made_in: maker.made_in };
        Ok(self.store.add_task(task, adding, self.now).await??)
    }

    /// Changes a task that the group `by` may manage.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub async fn update(&self, by: &GroupName, ask: &UpdateTask) -> Result<Task, TaskError> {
        let change =
            |task: &Task| self.with_asked(&task.group, &task.chat, |asked| changed(task, ask, asked));
        self.change(by, &ask.task, change).await
    }

    /// Pauses, resumes or cancels a task that the group `by` may manage.
    ///
    /// # Errors
    /// There is no such task, or it has ended.
    pub async fn set_state(&self, by: &GroupName, asked: &str, state: TaskState) -> Result<Task, TaskError> {
        self.change(by, asked, |task| moved_to(task, state, zone_data::named, self.now)).await
    }

    /// Makes a task fire now, beside its schedule.
    ///
    /// # Errors
    /// There is no such task, or it has ended.
    pub async fn fire_now(&self, by: &GroupName, asked: &str) -> Result<(Task, FireId), TaskError> {
        let task = self.find(by, asked).await?;
        if matches!(task.state, TaskState::Done | TaskState::Cancelled) {
            return Err(TaskRefusal::Ended { id: task.id, state: task.state }.into());
        }
        let fire = self.store.fire_now(task.id, self.now).await?;
        Ok((task, fire))
    }

    /// The chat that a task of the group posts to if nobody names one: its only chat. The chat of `lazaret chat`, which
    /// each group has, counts if there is no other. `Err` has the chats between which somebody must choose.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn only_chat(&self, group: &GroupName) -> Result<Result<ChatId, Vec<ChatId>>, StoreError> {
        let chats = self.store.chats().await?;
        let own = chats.into_iter().filter(|(_, of, _)| of == group).map(|(chat, ..)| chat);
        let local = chat_of(group);
        let (local, mut own): (Vec<_>, Vec<_>) = own.partition(|chat| Some(chat) == local.as_ref());
        if own.is_empty() {
            own = local;
        }
        Ok(match own.as_slice() {
            [one] => Ok(one.clone()),
            _ => Err(own),
        })
    }

    /// The task with this name or id. A member finds its own group's only, and learns nothing about others.
    ///
    /// # Errors
    /// There is no such task.
    pub async fn find(&self, by: &GroupName, asked: &str) -> Result<Task, TaskError> {
        let found = self.store.find_task(by.clone(), asked.to_owned()).await?;
        let mine = found.filter(|task| by.is_main() || task.group == *by);
        mine.ok_or_else(|| TaskRefusal::NoSuchTask { asked: asked.chars().take(80).collect() }.into())
    }

    /// Tasks of a group, or of all, each with what became of its last fire.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self, group: Option<GroupName>, ended: bool) -> Result<Vec<Value>, TaskError> {
        let mut tasks = Vec::new();
        for task in self.store.tasks(group, ended).await? {
            let last = self.store.fires(task.id, 1).await?.pop();
            let mut shown = self.shown(&task);
            shown["last"] = last.map_or(Value::Null, |fire| fire_shown(&fire, &task.zone));
            tasks.push(shown);
        }
        Ok(tasks)
    }

    /// What became of a task's newest fires.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn history(&self, task: &Task, count: u32) -> Result<Value, TaskError> {
        let fires = self.store.fires(task.id, count).await?;
        let fires: Vec<_> = fires.iter().map(|fire| fire_shown(fire, &task.zone)).collect();
        Ok(json!({ "task": task.id.to_string(), "name": task.name, "fires": fires }))
    }

    /// A task as JSON.
    pub fn shown(&self, task: &Task) -> Value {
        let zone = zone_data::get(&task.zone).unwrap_or_else(Zone::utc);
        serde_json::to_value(TaskView::of(task, &zone, self.now)).unwrap_or_default()
    }

    async fn change(
        &self,
        by: &GroupName,
        asked: &str,
        change: impl Fn(&Task) -> Result<Task, TaskRefusal>,
    ) -> Result<Task, TaskError> {
        for _ in 0..TRIES {
            let before = self.find(by, asked).await?;
            let after = change(&before)?;
            if let Some(verdict) = self.store.change_task(before, after, self.now).await? {
                return Ok(verdict?);
            }
        }
        Err(TaskError::Fires(asked.to_owned()))
    }

    fn with_asked<T>(&self, group: &GroupName, chat: &ChatId, act: impl FnOnce(&Asked<'_>) -> T) -> T {
        let zone = self.install.group(group).map_or_else(|_| self.install.file.zone.clone(), |g| g.zone);
        let shortest = self.limits(group).1;
        act(&Asked { group, chat, zone: &zone, now: self.now, shortest, zones: zone_data::named })
    }

    /// The most tasks of a group, and their shortest interval.
    fn limits(&self, group: &GroupName) -> (u32, Duration) {
        let limits =
            self.install.group(group).map_or_else(|_| self.install.file.limits.clone(), |g| g.limits);
        let Span(shortest) = limits.task_interval;
        (limits.tasks, shortest)
    }
}

fn fire_shown(fire: &FireRow, zone: &str) -> Value {
    let zone = zone_data::get(zone).unwrap_or_else(Zone::utc);
    let took = fire.started_at.zip(fire.ended_at).map(|(from, to)| to.since(from).as_secs());
    json!({
        "fire": fire.fire.to_string(),
        "planned": fire.planned.local(&zone),
        "outcome": text::fire_state(&fire.state),
        "why": fire.why,
        "turn": fire.turn.map(|turn| turn.to_string()),
        "took_s": took,
        "tokens": fire.tokens.0 + fire.tokens.1,
        "cost": text::dollars(fire.micros),
        "outbox": fire.reply,
        "reply": fire.said.as_ref().map(|said| said.chars().take(REPLY).collect::<String>()),
    })
}
