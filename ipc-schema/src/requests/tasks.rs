//! The requests about scheduled tasks, and `remind`. They share their limits.
//!
//! A member's agent manages the tasks of its own group. The agent of `main` manages all; it names another group's task
//! by its id (`task-12`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RequestArgs, grouped};
use crate::{Refusal, RefusalCode};

/// The longest name of a task, in characters.
pub const NAME_MAX_CHARS: usize = 60;
/// The longest schedule or point in time as text, in bytes. The longest useful one has about 60.
pub const SCHEDULE_MAX_BYTES: usize = 200;
/// The longest prompt of a task, in characters.
pub const PROMPT_MAX_CHARS: usize = 8_000;
/// The longest gate script, in bytes.
pub const GATE_MAX_BYTES: usize = 8_000;
/// The longest text of a reminder, in characters.
pub const REMINDER_MAX_CHARS: usize = 4_000;
/// How many fires `task_history` shows at most.
pub const HISTORY_MAX: u32 = 50;

/// In which session a task works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskContext {
    /// In a box and a session of its own, beside the conversation. Each fire begins an empty session.
    #[default]
    Isolated,
    /// As a turn of the group's conversation, which it sees and continues.
    Group,
}

/// What happens to a fire while an earlier one of the same task is not over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is skipped.
    #[default]
    Skip,
    /// It waits. A further one is skipped.
    Queue,
}

/// Makes a task. Answered with the task: its id, the schedule as it was understood, and its next fire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleTask {
    /// The name, unique among the group's tasks.
    pub name: String,
    /// When: cron with five fields, or a phrase such as `daily 07:30`, `every 30m`, `tomorrow 9:00`.
    pub schedule: String,
    /// What the agent does at each fire.
    pub prompt: String,
    /// In which session it works.
    #[serde(default)]
    pub context: TaskContext,
    /// The chat that gets the replies, such as `telegram:-100123`; absent: the chat of this turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// The IANA time zone of the schedule; absent: the group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// A shell script that runs in the box before the model is called. Its last line is JSON:
    /// `{"wake": true, "data": …}`. Without `wake` the model is not called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// How late a missed fire may still run, such as `12h`; `skip`: not at all. Absent: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<String>,
    /// What happens to a fire while an earlier one is not over.
    #[serde(default)]
    pub overlap: Overlap,
    /// The task ends at this time, such as `2026-12-24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The task ends after this many fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Whether the final answer is only kept in the history. What the agent sends with `send_message` reaches the chat
    /// in any case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// The model, if another one than the group's; only for isolated tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The most model calls of one fire, if fewer than those of a turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_calls: Option<u32>,
}

/// Lists the tasks of the group, or for the agent of `main` those of all groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListTasks {
    /// Whether to list the tasks of all groups; only for `main`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_groups: bool,
    /// Whether to list ended and cancelled tasks too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// Changes a task. What is absent stays. Answered like [`ScheduleTask`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTask {
    /// The task: its name or its id.
    pub task: String,
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The new prompt, or the new text of a reminder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The new chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// The new time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The new gate script; an empty one removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// The new limit for late fires, or `skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<String>,
    /// The new rule for overlapping fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// The new end; an empty one removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The new number of fires from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Whether the final answer is only kept in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<bool>,
}

/// Declares the requests that only name a task.
macro_rules! about_one_task {
    ($($(#[$about:meta])* $name:ident = $kind:literal,)*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The task: its name or its id.
            pub task: String,
        }

        impl RequestArgs for $name {
            const KIND: &'static str = $kind;

            fn check(&self) -> Result<(), Refusal> {
                names_a_task(&self.task)
            }
        }
    )*};
}

about_one_task! {
    /// Stops a task from firing until it is resumed. What it would have done meanwhile is not done later.
    PauseTask = "pause_task",
    /// Lets a paused task fire again, from its next time on.
    ResumeTask = "resume_task",
    /// Ends a task for good. Its history stays.
    CancelTask = "cancel_task",
}

/// Shows what became of a task's latest fires.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskHistory {
    /// The task: its name or its id.
    pub task: String,
    /// How many fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(description = format!("How many fires, at most {HISTORY_MAX}; absent: 10."))]
    pub count: Option<u32>,
}

/// Posts a text in a chat at a time, without a model. The reminder is a task, which the other requests list, pause and
/// cancel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remind {
    /// The text to post, Markdown.
    pub text: String,
    /// When, as in `schedule_task`: `in 20 minutes`, `tomorrow 9:00`, `weekly mon 09:00`.
    pub when: String,
    /// The chat; absent: the chat of this turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// The IANA time zone; absent: the group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl RequestArgs for ScheduleTask {
    const KIND: &'static str = "schedule_task";

    fn check(&self) -> Result<(), Refusal> {
        is_a_name(&self.name)?;
        is_a_schedule(&self.schedule)?;
        is_a_prompt(&self.prompt)?;
        self.gate.as_deref().map_or(Ok(()), is_a_gate)?;
        [&self.chat, &self.zone, &self.catch_up, &self.until, &self.model]
            .into_iter()
            .flatten()
            .try_for_each(|text| is_short(text))?;
        if self.times == Some(0) || self.model_calls == Some(0) {
            return forbidden("`times` and `model_calls` are at least 1");
        }
        Ok(())
    }
}

impl RequestArgs for ListTasks {
    const KIND: &'static str = "list_tasks";

    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

impl RequestArgs for UpdateTask {
    const KIND: &'static str = "update_task";

    fn check(&self) -> Result<(), Refusal> {
        names_a_task(&self.task)?;
        self.name.as_deref().map_or(Ok(()), is_a_name)?;
        self.schedule.as_deref().map_or(Ok(()), is_a_schedule)?;
        self.prompt.as_deref().map_or(Ok(()), is_a_prompt)?;
        self.gate.as_deref().map_or(Ok(()), is_a_gate)?;
        [&self.chat, &self.zone, &self.catch_up, &self.until]
            .into_iter()
            .flatten()
            .try_for_each(|text| is_short(text))?;
        if self.times == Some(0) {
            return forbidden("`times` is at least 1; cancel_task ends the task now");
        }
        Ok(())
    }
}

impl RequestArgs for TaskHistory {
    const KIND: &'static str = "task_history";

    fn check(&self) -> Result<(), Refusal> {
        names_a_task(&self.task)
    }
}

impl RequestArgs for Remind {
    const KIND: &'static str = "remind";

    fn check(&self) -> Result<(), Refusal> {
        is_a_schedule(&self.when)?;
        [&self.chat, &self.zone].into_iter().flatten().try_for_each(|text| is_short(text))?;
        if self.text.trim().is_empty() {
            return forbidden("the reminder has no text");
        }
        at_most("the text of a reminder", self.text.chars().count(), REMINDER_MAX_CHARS, "characters")
    }
}

fn forbidden<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(RefusalCode::Forbidden, why))
}

fn at_most(what: &str, has: usize, limit: usize, unit: &str) -> Result<(), Refusal> {
    if has <= limit {
        return Ok(());
    }
    let (has, limit) = (grouped(has), grouped(limit));
    Err(Refusal::new(RefusalCode::TooBig, format!("{what} has {has} {unit}, at most {limit} are allowed")))
}

fn is_a_name(name: &str) -> Result<(), Refusal> {
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return forbidden("a task's name is one line with at least one visible character");
    }
    at_most("the name", name.chars().count(), NAME_MAX_CHARS, "characters")
}

fn names_a_task(task: &str) -> Result<(), Refusal> {
    if task.trim().is_empty() {
        return forbidden("name the task, or give its id such as `task-12`; list_tasks shows both");
    }
    is_short(task)
}

fn is_a_schedule(text: &str) -> Result<(), Refusal> {
    at_most("the schedule", text.len(), SCHEDULE_MAX_BYTES, "bytes")
}

fn is_short(text: &str) -> Result<(), Refusal> {
    at_most("one of the short texts (chat, zone, time, model, task)", text.len(), SCHEDULE_MAX_BYTES, "bytes")
}

fn is_a_prompt(prompt: &str) -> Result<(), Refusal> {
    if prompt.trim().is_empty() {
        return forbidden("the prompt is empty: say what to do at each fire");
    }
    at_most("the prompt", prompt.chars().count(), PROMPT_MAX_CHARS, "characters")
}

fn is_a_gate(script: &str) -> Result<(), Refusal> {
    at_most("the gate script", script.len(), GATE_MAX_BYTES, "bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daily(change: impl FnOnce(&mut ScheduleTask)) -> Result<(), RefusalCode> {
        let mut task = ScheduleTask {
            name: "news".into(),
            schedule: "daily 07:30".into(),
            prompt: "Read the news.".into(),
            ..ScheduleTask::default()
        };
        change(&mut task);
        task.check().map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_task_has_limits_that_are_checked_before_anything_is_parsed() {
        assert_eq!(daily(|_| {}), Ok(()));
        assert_eq!(daily(|t| t.name = "é".repeat(NAME_MAX_CHARS)), Ok(()));
        assert_eq!(daily(|t| t.name = "é".repeat(NAME_MAX_CHARS + 1)), Err(RefusalCode::TooBig));
        assert_eq!(daily(|t| t.name = " \u{7}".into()), Err(RefusalCode::Forbidden));
        assert_eq!(daily(|t| t.schedule = "x".repeat(10_000)), Err(RefusalCode::TooBig));
        assert_eq!(daily(|t| t.prompt = "é".repeat(PROMPT_MAX_CHARS + 1)), Err(RefusalCode::TooBig));
        assert_eq!(daily(|t| t.prompt = "\n ".into()), Err(RefusalCode::Forbidden));
        assert_eq!(daily(|t| t.gate = Some("x".repeat(GATE_MAX_BYTES + 1))), Err(RefusalCode::TooBig));
        assert_eq!(daily(|t| t.times = Some(0)), Err(RefusalCode::Forbidden));
    }

    #[test]
    fn a_reminder_needs_a_text_and_a_change_needs_a_task() {
        let remind =
            |text: &str| Remind { text: text.into(), when: "in 1 minute".into(), ..Remind::default() };
        assert!(remind("stretch").check().is_ok());
        assert_eq!(remind(" ").check().map_err(|r| r.code), Err(RefusalCode::Forbidden));
        let nameless = CancelTask { task: " ".into() };
        assert_eq!(nameless.check().map_err(|r| r.code), Err(RefusalCode::Forbidden));
    }
}
