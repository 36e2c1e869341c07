//! A task as agents, chats and the command line show it.

use serde::Serialize;

use crate::domain::task::{FROM_FILE, Task, TaskContext, TaskState, Work};
use crate::domain::{WallMs, Zone};
use crate::schedule::{Schedule, describe_instant};

/// How much of a prompt is shown in a list, in characters.
const PROMPT: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskView {
    /// `task-3`
    pub task: String,
    pub group: String,
    pub name: String,
    /// `agent`, `reminder` or `heartbeat`
    pub kind: &'static str,
    /// As it was understood: `every day at 07:30 Europe/Berlin`.
    pub schedule: String,
    pub zone: String,
    /// `Mon 9 Nov 09:00 Europe/Berlin, in 2 days`
    pub next: Option<String>,
    /// The same instant, RFC 3339 with the offset of the zone.
    pub next_at: Option<String>,
    pub state: &'static str,
    pub chat: String,
    /// `isolated` or `group`; absent for a reminder.
    pub context: Option<&'static str>,
    /// The beginning of its prompt or text.
    pub prompt: String,
    /// The message, fire, person or file that made it.
    pub made_by: String,
}

impl TaskView {
    /// `zone` is the task's.
    pub fn of(task: &Task, zone: &Zone, now: WallMs) -> Self {
        let schedule = Schedule::from_canonical(&task.schedule);
        let next = task.next_at.filter(|_| task.state == TaskState::Active);
        let (kind, context) = match &task.work {
            Work::Remind => ("reminder", None),
            Work::Agent(work) => (
                if task.origin.by == FROM_FILE { "heartbeat" } else { "agent" },
                Some(if work.context == TaskContext::Group { "group" } else { "isolated" }),
            ),
        };
        let mut prompt: String = task.prompt.chars().take(PROMPT).collect();
        if prompt.len() < task.prompt.len() {
            prompt.push('…');
        }
        Self {
            task: task.id.to_string(),
            group: task.group.to_string(),
            name: task.name.clone(),
            kind,
            schedule: schedule.map_or_else(|_| task.schedule.clone(), |schedule| schedule.describe(zone)),
            zone: task.zone.clone(),
            next: next.map(|at| describe_instant(at, zone, now)),
            next_at: next.map(|at| at.local(zone)),
            state: task.state.word(),
            chat: task.chat.to_string(),
            context,
            prompt,
            made_by: task.origin.by.clone(),
        }
    }
}
