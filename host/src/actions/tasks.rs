//! The requests about scheduled tasks. A member's agent manages the tasks of its group, the agent of `main` all.

use ipc_schema::requests::tasks::HISTORY_MAX;
use ipc_schema::requests::{ListTasks, RequestArgs, TaskHistory, UpdateTask};
use serde_json::{Value, json};

use super::{Asker, Outcome};
use crate::domain::GroupName;
use crate::domain::task::{Task, TaskOrigin, TaskState};
use crate::policy::authorize_request::Allowed;
use crate::policy::task_request::TaskRefusal;

use crate::tasks::{Maker, NewTask, TaskError, Tasks};

/// How many fires `task_history` shows unless the agent says otherwise.
const HISTORY: u32 = 10;

fn tasks<'a>(asker: &'a Asker<'_>) -> Tasks<'a> {
    let services = asker.services;
    Tasks { store: &services.store, install: &services.install, now: services.clock.wall() }
}

fn outcome(done: Result<Value, TaskError>) -> Outcome {
    match done {
        Ok(result) => Outcome::Done(result),
        Err(e @ TaskError::Store(_)) => {
            Outcome::refused(e.code(), "the host's store failed; try it again later")
        }
        Err(e) => Outcome::refused(e.code(), e.to_string()),
    }
}

/// Tells the scheduler, and answers with the task.
fn shown(asker: &Asker<'_>, done: Result<Task, TaskError>) -> Outcome {
    asker.services.tasks_signal.notify();
    outcome(done.map(|task| tasks(asker).shown(&task)))
}

pub(super) async fn add<R: RequestArgs>(
    asker: &Asker<'_>,
    allowed: Allowed<R>,
    of: fn(R) -> NewTask,
) -> Outcome {
    let (request, group) = allowed.into_parts();
    shown(asker, made(asker, of(request), &group).await)
}

async fn made(asker: &Asker<'_>, new: NewTask, group: &GroupName) -> Result<Task, TaskError> {
    let turn = asker.services.store.asking_turn(asker.turn).await?;
    let origin = TaskOrigin { by: turn.by, depth: u32::from(turn.depth.is_some()) };
    let made_in = Some((asker.turn, asker.id.to_string()));
    tasks(asker).add(new, Maker { group, chat: &turn.chat, origin, made_in }).await
}

pub(super) async fn update(asker: &Asker<'_>, allowed: Allowed<UpdateTask>) -> Outcome {
    let (ask, group) = allowed.into_parts();
    shown(asker, tasks(asker).update(&group, &ask).await)
}

pub(super) async fn set_state<R: RequestArgs>(
    asker: &Asker<'_>,
    allowed: Allowed<R>,
    name: fn(R) -> String,
    state: TaskState,
) -> Outcome {
    let (request, group) = allowed.into_parts();
    shown(asker, tasks(asker).set_state(&group, &name(request), state).await)
}

pub(super) async fn list(asker: &Asker<'_>, allowed: Allowed<ListTasks>) -> Outcome {
    let (ask, group) = allowed.into_parts();
    if ask.all_groups && !group.is_main() {
        return outcome(Err(TaskRefusal::OnlyMain.into()));
    }
    let listed = tasks(asker).list((!ask.all_groups).then_some(group), ask.ended).await;
    outcome(listed.map(|tasks| json!({ "tasks": tasks })))
}

pub(super) async fn history(asker: &Asker<'_>, allowed: Allowed<TaskHistory>) -> Outcome {
    let (ask, group) = allowed.into_parts();
    let tasks = tasks(asker);
    let shown = async {
        let task = tasks.find(&group, &ask.task).await?;
        tasks.history(&task, ask.count.unwrap_or(HISTORY).clamp(1, HISTORY_MAX)).await
    };
    outcome(shown.await)
}
