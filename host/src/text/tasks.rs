//! Scheduled tasks: their notices, reminders, and the list in a chat.

use super::{REASON, label, one_line, sentence};

/// A notice about the work of a task.
pub fn about_task(task: &str, notice: &str) -> String {
    format!("Task \"{}\": {notice}", label(task))
}

/// The gate script of a task is wrong. The reason comes from the box.
pub fn gate_failed(reason: &str) -> String {
    format!("The check before it failed, so the agent did not start. {}", sentence(&one_line(reason, REASON)))
}

/// The text of a reminder that is posted late. `planned` is a local time.
pub fn late_reminder(text: &str, planned: &str) -> String {
    format!("{text}\n\n(This was planned for {planned}; I was away.)")
}

/// The chat of a task is not one of the group's any more.
pub fn task_without_chat(task: &str, chat: &str) -> String {
    format!(
        "The task \"{}\" posts to {chat}, which is no chat of its group any more, so it is paused. Give it another \
         chat, or cancel it.",
        label(task)
    )
}

/// The state or the outcome of a fire, for people. `stored` is as the store has it.
pub fn fire_state(stored: &str) -> &str {
    match stored {
        "later" | "due" => "waiting",
        "open" => "running",
        outcome => outcome,
    }
}

/// Millionths of a dollar for people.
pub fn dollars(micros: u64) -> String {
    format!("${}.{:04}", micros / 1_000_000, micros % 1_000_000 / 100)
}
