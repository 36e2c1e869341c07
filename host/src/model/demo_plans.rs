//! What the demo model understands of time: reminders and repeated tasks. The words of the schedule are those that
//! `schedule` reads; the host's verdict says when they come.

use serde_json::{Value, json};

use crate::domain::{WallMs, Zone};
use crate::schedule::{self, Interval, Schedule, ScheduleError, Step};

/// A wish for a reminder or for a task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Reminder { text: String, when: String },
    Task { name: String, schedule: String, prompt: String },
}

/// Understands "remind me in 1 minute to stretch" and "every day at 8 tell me a joke", also with the time at the end.
pub(super) fn plan(wish: &str) -> Option<Plan> {
    let words: Vec<&str> = wish.split_whitespace().skip_while(|word| is_polite(word)).collect();
    let is = |at: usize, word: &str| words.get(at).is_some_and(|said| said.eq_ignore_ascii_case(word));
    if is(0, "remind") && is(1, "me") {
        let (when, text) = split(&words[2..], |_, _| true)?;
        return Some(Plan::Reminder { text, when });
    }
    // A task repeats. "Every day" alone may begin any sentence.
    let repeats = |schedule: &Option<Schedule>, words: &[&str]| {
        let first = words.first().map(|word| word.to_lowercase()).unwrap_or_default();
        let begins = ["every", "each", "daily", "weekly", "monthly", "hourly", "weekdays", "weekends"];
        let vague = match schedule {
            Some(Schedule::Once(_)) => true,
            Some(Schedule::Every(Interval { step: Step::Days(_), .. })) => !has_digit(words),
            _ => false,
        };
        begins.contains(&first.as_str()) && !vague
    };
    let (schedule, prompt) = split(&words, repeats)?;
    let name = prompt.split_whitespace().take(4).collect::<Vec<_>>().join(" ").chars().take(40).collect();
    Some(Plan::Task { name, schedule, prompt })
}

fn is_polite(word: &str) -> bool {
    ["please", "please,", "can", "could", "you"].contains(&word.to_lowercase().as_str())
}

/// Splits words into a schedule at their beginning, or with a time of day or a number at their end, and the rest.
fn split(words: &[&str], fits: impl Fn(&Option<Schedule>, &[&str]) -> bool) -> Option<(String, String)> {
    let is_schedule = |words: &[&str]| understood(&tidy(words)).is_some_and(|read| fits(&read, words));
    let front = (1..words.len()).rev().find(|n| is_schedule(&words[..*n]));
    let (when, rest) = match front {
        Some(n) => words.split_at(n),
        None => {
            let n = (1..words.len()).find(|n| has_digit(&words[*n..]) && is_schedule(&words[*n..]))?;
            let (rest, when) = words.split_at(n);
            (when, rest)
        }
    };
    let rest = if ["to", "that"].contains(&rest[0]) { &rest[1..] } else { rest };
    Some((tidy(when), tidy(rest))).filter(|(_, rest)| !rest.is_empty())
}

fn has_digit(words: &[&str]) -> bool {
    words.iter().any(|word| word.contains(|c: char| c.is_ascii_digit()))
}

fn tidy(words: &[&str]) -> String {
    words.join(" ").trim_matches([',', '.', '!', '?', ':', '"', ' ']).to_owned()
}

/// Whether words are a schedule; `None` inside for one that the host refuses with a reason worth telling.
fn understood(words: &str) -> Option<Option<Schedule>> {
    match schedule::parse(words, &Zone::utc(), WallMs(0)) {
        Ok(schedule) => Some(Some(schedule)),
        Err(ScheduleError::TooOften { .. } | ScheduleError::Past { .. }) => Some(None),
        Err(_) => None,
    }
}

impl Plan {
    /// The tool and its input.
    pub(super) fn request(&self) -> (&'static str, Value) {
        match self {
            Self::Reminder { text, when } => ("remind", json!({ "text": text, "when": when })),
            Self::Task { name, schedule, prompt } => {
                ("schedule_task", json!({ "name": name, "schedule": schedule, "prompt": prompt }))
            }
        }
    }

    /// The answer to the person, from what the tool told.
    pub(super) fn verdict(&self, told: &str) -> String {
        let line = told.lines().next().unwrap_or_default();
        let next = line.split_once("Next: ").map(|(_, next)| next.split(". ").next().unwrap_or(next));
        let when = next.map_or_else(|| format!("is planned: {line}"), |next| format!("comes {next}"));
        match self {
            Self::Reminder { text, .. } => format!(
                "Done: \"{text}\" {when}. The host posts it by itself, and `/tasks` lists what is planned."
            ),
            Self::Task { name, .. } => format!(
                "Done: the task \"{name}\" {when}. It starts a turn of its own each time; `/tasks` lists, pauses and \
                 cancels what is planned."
            ),
        }
    }
}

/// The answer to a fire.
pub(super) fn fired(name: &str, prompt: &str) -> String {
    let prompt: String = prompt.chars().take(200).collect();
    let done = if prompt.to_lowercase().contains("joke") {
        "A container walks into a bar. \"Anything else?\" asks the host. \"I would not know\", says the container."
    } else {
        "A model would do this now; I follow a script and only show that it came."
    };
    format!("The task \"{name}\" has fired. It says {prompt:?}.\n\n{done}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reminder(wish: &str) -> (String, String) {
        match plan(wish) {
            Some(Plan::Reminder { text, when }) => (when, text),
            other => panic!("{wish}: {other:?}"),
        }
    }

    #[test]
    fn a_reminder_names_its_time_before_or_after_its_text() {
        for (wish, when, text) in [
            ("remind me in 1 minute to stretch", "in 1 minute", "stretch"),
            ("Please remind me to stretch in 1 minute!", "in 1 minute", "stretch"),
            ("remind me tomorrow at 9:00 to call Ann at work", "tomorrow at 9:00", "call Ann at work"),
            ("Remind me every day at 8, that the bins go out.", "every day at 8", "the bins go out"),
            ("remind me in 2 hours: tea", "in 2 hours", "tea"),
        ] {
            assert_eq!(reminder(wish), (when.to_owned(), text.to_owned()), "{wish}");
        }
        assert_eq!(plan("remind me to stretch"), None, "it has no time");
        assert_eq!(plan("remind me in 1 minute"), None, "it has no text");
    }

    #[test]
    fn a_task_repeats() {
        let task = |name: &str, schedule: &str, prompt: &str| {
            let [name, schedule, prompt] = [name, schedule, prompt].map(str::to_owned);
            Some(Plan::Task { name, schedule, prompt })
        };
        let joke = task("tell me a joke", "every day at 8", "tell me a joke");
        assert_eq!(plan("every day at 8 tell me a joke"), joke);
        assert_eq!(
            plan("Tell me a joke every day at 8."),
            task("Tell me a joke", "every day at 8", "Tell me a joke")
        );
        assert_eq!(plan("daily 07:30: read the news"), task("read the news", "daily 07:30", "read the news"));
        let often = plan("every 5 seconds say hi");
        assert_eq!(often, task("say hi", "every 5 seconds", "say hi"), "the host says why it refuses");
        for no_plan in
            ["what do you do every day", "tomorrow at 9 is a holiday", "every day is a good day", "hello"]
        {
            assert_eq!(plan(no_plan), None, "{no_plan}");
        }
    }
}
