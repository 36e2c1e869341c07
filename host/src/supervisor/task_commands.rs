//! Performs `/tasks` and its forms, which list and change what is planned in a group.

use crate::domain::message::Command;
use crate::domain::task::TaskState;
use crate::domain::{GroupName, WallMs};
use crate::policy::task_request::TaskRefusal;
use crate::services::Services;
use crate::tasks::{TaskError, Tasks};
use crate::text;

/// How many fires `/tasks history` shows.
const HISTORY: u32 = 10;

/// What the words after `/tasks` ask for. A task is named by its number or its name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    List,
    Move(TaskState, String),
    Run(String),
    History(String),
    Unknown(String),
}

impl Order {
    fn of(words: &str) -> Self {
        let (verb, task) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        let task = task.trim().trim_start_matches('#');
        // A number is never read as a name.
        let is_number = !task.is_empty() && task.bytes().all(|b| b.is_ascii_digit());
        let task = if is_number { format!("task-{task}") } else { task.to_owned() };
        match verb.to_lowercase().as_str() {
            "" | "list" if task.is_empty() => Self::List,
            _ if task.is_empty() => Self::Unknown(words.to_owned()),
            "pause" => Self::Move(TaskState::Paused, task),
            "resume" => Self::Move(TaskState::Active, task),
            "cancel" => Self::Move(TaskState::Cancelled, task),
            "run" => Self::Run(task),
            "history" => Self::History(task),
            _ => Self::Unknown(words.to_owned()),
        }
    }
}

/// Performs a command that was stored `at` a time. Returns the answer and the outcome. Only the store's errors are
/// errors: the command is performed again.
pub(super) async fn perform(
    services: &Services,
    group: &GroupName,
    line: &str,
    at: WallMs,
) -> crate::store::Result<(String, &'static str)> {
    let order = Order::of(Command::words_after(line));
    match carry_out(services, group, &order, at).await {
        Err(TaskError::Store(e)) => Err(e),
        Err(e) => Ok((refused(&e, &order), "refused")),
        Ok(done) => Ok(done),
    }
}

async fn carry_out(
    services: &Services,
    group: &GroupName,
    order: &Order,
    at: WallMs,
) -> Result<(String, &'static str), TaskError> {
    let tasks = Tasks { store: &services.store, install: &services.install, now: services.clock.wall() };
    Ok(match order {
        Order::List => (text::task_list(&tasks.list(Some(group.clone()), false).await?), "told"),
        Order::Unknown(words) => (text::unknown_task_order(words), "refused"),
        Order::Move(state, task) => {
            let changed = tasks.set_state(group, task, *state).await?;
            (text::task_changed(&tasks.shown(&changed)), state.word())
        }
        // A command that is performed again makes no second fire, because it was stored at one moment.
        Order::Run(task) => {
            let (task, _) = Tasks { now: at, ..tasks }.fire_now(group, task).await?;
            (text::task_fires_now(&tasks.shown(&task)), "fires")
        }
        Order::History(task) => {
            let task = tasks.find(group, task).await?;
            (text::task_history(&tasks.history(&task, HISTORY).await?), "told")
        }
    })
}

fn refused(e: &TaskError, order: &Order) -> String {
    match (e, order) {
        (TaskError::Refused(TaskRefusal::NoSuchTask { asked }), _) => text::no_such_task(asked),
        (TaskError::Refused(TaskRefusal::FromFile { .. }), Order::Move(_, task)) => {
            text::task_of_operator(task)
        }
        _ => text::task_not_changed(&e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_verb_and_a_number_or_a_name() {
        let read = |words: &str| Order::of(words);
        assert_eq!((read(""), read("list")), (Order::List, Order::List));
        assert_eq!(read("pause 3"), Order::Move(TaskState::Paused, "task-3".into()));
        assert_eq!(read("Resume  #3"), Order::Move(TaskState::Active, "task-3".into()));
        assert_eq!(read("cancel the news"), Order::Move(TaskState::Cancelled, "the news".into()));
        assert_eq!(
            (read("run 3"), read("history 3")),
            (Order::Run("task-3".into()), Order::History("task-3".into()))
        );
        for unknown in ["pause", "stop 3", "3", "list all"] {
            assert_eq!(read(unknown), Order::Unknown(unknown.into()));
        }
    }
}
