//! Scheduled tasks: their notices, reminders, and the list in a chat.

use serde_json::Value;

use super::{REASON, label, one_line, sentence};

/// How much of a list one message takes, in characters.
const LIST: usize = 3_000;

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

/// The tasks of a group as `Tasks::list` shows them, with their numbers.
pub fn task_list(tasks: &[Value]) -> String {
    let Some(first) = tasks.first() else {
        return "Nothing is planned here. Ask the agent for it: \"remind me tomorrow at 9 to call Ann\", or \"every day \
                at 8, tell me the weather\"."
            .to_owned();
    };
    let lines: Vec<String> = tasks.iter().map(task_line).collect();
    format!("Planned here:\n{}\n\n{}", fitting(&lines), task_forms(number(first)))
}

/// `3. news: every day at 07:30 Europe/Berlin. Next: Tue 1 Dec 07:30 Europe/Berlin, in 18 hours. Last: ran.`
fn task_line(task: &Value) -> String {
    let kind = match word(task, "kind") {
        "agent" => String::new(),
        kind => format!(" ({kind})"),
    };
    let next = match task.get("next").and_then(Value::as_str) {
        Some(next) => format!("Next: {next}"),
        None => match word(task, "state") {
            "active" => "It does not come again".to_owned(),
            state => format!("It is {state}"),
        },
    };
    let last = task.get("last").filter(|last| last.is_object());
    let last = last.map_or_else(String::new, |last| format!(" Last: {}.", outcome(last)));
    let (n, name, schedule) = (number(task), label(word(task, "name")), word(task, "schedule"));
    format!("{n}. {name}{kind}: {schedule}. {next}.{last}")
}

/// `failed (model.auth)`
fn outcome(fire: &Value) -> String {
    match word(fire, "why") {
        "" => word(fire, "outcome").to_owned(),
        why => format!("{} ({})", word(fire, "outcome"), one_line(why, REASON)),
    }
}

/// The number of a task in a chat: that of its id.
fn number(task: &Value) -> &str {
    let id = word(task, "task");
    id.strip_prefix("task-").unwrap_or(id)
}

fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// As many lines as one message takes.
fn fitting(lines: &[String]) -> String {
    let mut room = LIST;
    let fits = |line: &&String| {
        let takes = line.chars().count() + 1;
        let fits = takes <= room;
        room = room.saturating_sub(takes);
        fits
    };
    let shown: Vec<&str> = lines.iter().take_while(fits).map(String::as_str).collect();
    match lines.len() - shown.len() {
        0 => shown.join("\n"),
        more => format!("{}\n… and {more} more", shown.join("\n")),
    }
}

fn task_forms(n: &str) -> String {
    format!("Change one by its number: /tasks pause {n}, resume {n}, cancel {n}, run {n} or history {n}.")
}

/// A task after `/tasks pause`, `resume` or `cancel`.
pub fn task_changed(task: &Value) -> String {
    match (word(task, "state"), task.get("next").and_then(Value::as_str)) {
        ("active", Some(next)) => {
            format!("{}: \"{}\" comes {next}.", number(task), label(word(task, "name")))
        }
        ("paused", _) => {
            let n = number(task);
            format!("{n}: \"{}\" is paused. /tasks resume {n} lets it go on.", label(word(task, "name")))
        }
        (state, _) => format!("{}: \"{}\" is {state}.", number(task), label(word(task, "name"))),
    }
}

/// The answer to `/tasks run`.
pub fn task_fires_now(task: &Value) -> String {
    let n = number(task);
    format!("{n}: \"{}\" comes now. /tasks history {n} shows what became of it.", label(word(task, "name")))
}

/// The fires of a task as `Tasks::history` shows them.
pub fn task_history(history: &Value) -> String {
    let (n, name) = (number(history), label(word(history, "name")));
    let fires = history.get("fires").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if fires.is_empty() {
        return format!("{n}: \"{name}\" has not come yet.");
    }
    let line = |fire: &Value| {
        // To the minute, without the offset.
        let planned = word(fire, "planned").get(..16).unwrap_or_default().replace('T', " ");
        let took =
            fire.get("took_s").and_then(Value::as_u64).map_or_else(String::new, |s| format!(", {s} s"));
        let cost = match word(fire, "cost") {
            "" | "$0.0000" => String::new(),
            cost => format!(", {cost}"),
        };
        format!("{planned}: {}{took}{cost}", outcome(fire))
    };
    let lines: Vec<String> = fires.iter().map(line).collect();
    format!("{n}: \"{name}\", the latest first:\n{}", fitting(&lines))
}

/// `/tasks` with a word that it does not know, or without a number.
pub fn unknown_task_order(order: &str) -> String {
    format!(
        "/tasks does not understand \"{}\". /tasks alone lists what is planned. {}",
        label(order),
        task_forms("3")
    )
}

pub fn no_such_task(asked: &str) -> String {
    format!("There is no task \"{}\" here. /tasks lists what is planned, with its numbers.", label(asked))
}

/// A person of a chat wants to end what the operator has set up in a file.
pub fn task_of_operator(asked: &str) -> String {
    let asked = label(asked);
    format!(
        "The operator has set this one up, and only the operator can end it. /tasks pause {asked} pauses it."
    )
}

pub fn task_not_changed(why: &str) -> String {
    format!("Nothing was done: {}", sentence(&one_line(why, REASON)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_shows_numbers_what_comes_next_and_what_became_of_the_last() {
        let news = json!({
            "task": "task-3", "name": "news", "kind": "agent", "schedule": "every day at 07:30 UTC", "state": "active",
            "next": "Tue 1 Dec 07:30 UTC, in 18 hours", "last": { "outcome": "failed", "why": "model.auth" },
        });
        let stretch = json!({
            "task": "task-4", "name": "stretch", "kind": "reminder", "schedule": "every hour", "state": "paused",
            "next": null, "last": null,
        });
        assert_eq!(
            task_list(&[news.clone(), stretch]),
            "Planned here:\n\
             3. news: every day at 07:30 UTC. Next: Tue 1 Dec 07:30 UTC, in 18 hours. Last: failed (model.auth).\n\
             4. stretch (reminder): every hour. It is paused.\n\n\
             Change one by its number: /tasks pause 3, resume 3, cancel 3, run 3 or history 3."
        );
        assert!(task_list(&[]).contains("remind me"));
        let many = task_list(&vec![news; 50]);
        assert!(many.chars().count() < LIST + 200 && many.contains("… and "), "{many}");
    }

    #[test]
    fn a_history_says_what_became_of_each_time() {
        let fires = json!([
            { "planned": "2026-12-01T07:30:00+01:00", "outcome": "ran", "took_s": 12, "cost": "$0.0120" },
            { "planned": "2026-11-30T07:30:00+01:00", "outcome": "missed", "why": null, "cost": "$0.0000" },
        ]);
        let told = task_history(&json!({ "task": "task-3", "name": "news", "fires": fires }));
        assert_eq!(
            told,
            "3: \"news\", the latest first:\n2026-12-01 07:30: ran, 12 s, $0.0120\n2026-11-30 07:30: missed"
        );
        let none = task_history(&json!({ "task": "task-3", "name": "news", "fires": [] }));
        assert_eq!(none, "3: \"news\" has not come yet.");
    }
}
