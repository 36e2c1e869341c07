//! The tools about scheduled tasks, and `remind`. The host does the work, and its verdict says how it understood a
//! schedule.

use ipc_schema::letters::Request;
use ipc_schema::requests::tasks::{
    GATE_MAX_BYTES, HISTORY_MAX, NAME_MAX_CHARS, PROMPT_MAX_CHARS, REMINDER_MAX_CHARS, SCHEDULE_MAX_BYTES,
};
use ipc_schema::requests::{
    CancelTask, ListTasks, PauseTask, Remind, RequestArgs, ResumeTask, ScheduleTask, TaskHistory, UpdateTask,
    grouped,
};
use ipc_schema::text_sanitize::clean;
use serde_json::{Map, Value, json};

use super::{Output, RequestTool, args, define};

pub(super) static SCHEDULE: RequestTool = tool::<ScheduleTask>(
    "Plans work that you do later by yourself, once or again and again: at each time a turn begins with `prompt`, and its final answer is posted in the chat. Use it for work (look something up, check, compute, write); use `remind` when only a known text has to be posted. Times are local times of this group's zone unless `zone` says otherwise. The result says how the schedule was understood and when it comes next: tell the person that.",
    schedule_properties,
    &["name", "schedule", "prompt"],
    understood,
);

pub(super) static LIST: RequestTool = tool::<ListTasks>(
    "Lists the scheduled tasks and reminders with their ids, schedules, next times and last outcomes. Look here before you change a task, or plan one that may exist.",
    || {
        json!({
            "all_groups": flag("those of all groups; only the owner's group may"),
            "ended": flag("ended and cancelled ones too"),
        })
    },
    &[],
    listed,
);

pub(super) static UPDATE: RequestTool = tool::<UpdateTask>(
    "Changes a task; what you leave out stays as it is. Use it instead of a second task when somebody wants another time or text. The result says how it was understood: tell the person that.",
    update_properties,
    &["task"],
    understood,
);

pub(super) static PAUSE: RequestTool = tool::<PauseTask>(
    "Stops a task from coming until resume_task. What it would have done meanwhile is not made up for.",
    one_task,
    &["task"],
    changed,
);

pub(super) static RESUME: RequestTool = tool::<ResumeTask>(
    "Lets a paused task come again, from its next time on. The result says when: tell the person that.",
    one_task,
    &["task"],
    understood,
);

pub(super) static CANCEL: RequestTool = tool::<CancelTask>(
    "Ends a task or a reminder for good; its history stays. Use pause_task if it may be wanted again.",
    one_task,
    &["task"],
    changed,
);

pub(super) static HISTORY: RequestTool = tool::<TaskHistory>(
    "Shows what became of a task's latest times: done, failed and why, skipped, missed or made up for, with duration, tokens, cost and the beginning of the answer. Use it when somebody asks why a task did or did not come.",
    || {
        let count = format!("how many, at most {HISTORY_MAX}; 10 by default");
        json!({ "task": text(TASK), "count": number(&count) })
    },
    &["task"],
    history,
);

pub(super) static REMIND: RequestTool = tool::<Remind>(
    "Posts a text in the chat at a time, once or again and again, exactly as you give it and without you. Use it for reminders; use `schedule_task` when something has to be done or looked up at that time. A reminder is a task: list_tasks, update_task, pause_task and cancel_task know it. The result says when it comes: tell the person that.",
    || {
        let words = format!("what is posted, Markdown, at most {} characters", grouped(REMINDER_MAX_CHARS));
        json!({ "text": text(&words), "when": text(&when()), "chat": text(CHAT), "zone": text(ZONE) })
    },
    &["text", "when"],
    understood,
);

const fn tool<T: RequestArgs>(
    about: &'static str,
    properties: fn() -> Value,
    required: &'static [&'static str],
    told: fn(&Value) -> Output,
) -> RequestTool {
    RequestTool {
        definition: define(T::KIND, about, properties, required),
        needs_files: false,
        read: read::<T>,
        told,
    }
}

fn read<T: RequestArgs>(input: &str) -> Result<Request, String> {
    args::<T>(T::KIND, input).map(Into::into)
}

const TASK: &str = "its name, or its id such as task-12";
const CHAT: &str = "the chat that gets it, such as telegram:-100123; this chat by default";
const ZONE: &str = "an IANA zone such as Europe/Berlin; the group's by default";

fn when() -> String {
    format!(
        "cron with five fields (`30 7 * * 1-5`) or a phrase: `daily 07:30`, `weekdays 08:00`, `weekly mon 09:00`, `hourly`, `every 30m`, `in 20 minutes`, `tomorrow 9:00`; at most {SCHEDULE_MAX_BYTES} bytes"
    )
}

fn text(about: &str) -> Value {
    json!({ "type": "string", "description": about })
}

fn number(about: &str) -> Value {
    json!({ "type": "integer", "minimum": 1, "description": about })
}

fn flag(about: &str) -> Value {
    json!({ "type": "boolean", "description": about })
}

fn choice(about: &str, choices: &[&str]) -> Value {
    json!({ "type": "string", "enum": choices, "description": about })
}

fn one_task() -> Value {
    json!({ "task": text(TASK) })
}

/// What `schedule_task` and `update_task` have in common.
fn common_properties() -> Map<String, Value> {
    let gate = format!(
        "a shell script that runs here before you are called, so that a check costs no model call. Its last line of output (stderr counts too) must be JSON: {{\"wake\": true, \"data\": …}} calls you and shows you the data, {{\"wake\": false}} ends it there. At most {} bytes",
        grouped(GATE_MAX_BYTES)
    );
    let prompt = format!(
        "what you do each time, complete in itself: with everything that you must know then; at most {} characters",
        grouped(PROMPT_MAX_CHARS)
    );
    let overlap = "while an earlier one is not over: skip (default), or queue to let it wait";
    let fields = [
        ("name", text(&format!("short and unique here, at most {NAME_MAX_CHARS} characters"))),
        ("schedule", text(&when())),
        ("prompt", text(&prompt)),
        ("chat", text(CHAT)),
        ("zone", text(ZONE)),
        ("gate", text(&gate)),
        (
            "catch_up",
            text("how late it may still run after the host was away, such as `12h`; `skip`: not at all"),
        ),
        ("overlap", choice(overlap, &["skip", "queue"])),
        ("until", text("when it ends, such as 2026-12-24")),
        ("times", number("it ends after this many times")),
        (
            "silent",
            flag("keep the final answer in the history; only what you send with send_message is posted"),
        ),
    ];
    fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn schedule_properties() -> Value {
    let context = "isolated (default): by itself, in an empty session beside the conversation. group: as a turn of this conversation, which it sees and continues";
    let mut fields = common_properties();
    fields.insert("context".into(), choice(context, &["isolated", "group"]));
    fields.insert("model".into(), text("another model than the group's; only if isolated"));
    fields.insert("model_calls".into(), number("the most model calls each time"));
    Value::Object(fields)
}

fn update_properties() -> Value {
    let mut fields = common_properties();
    for schema in fields.values_mut() {
        schema["description"] = json!("as in schedule_task");
    }
    fields.insert("task".into(), text(TASK));
    fields.insert("prompt".into(), text("the new prompt, or the new text of a reminder"));
    fields.insert("gate".into(), text("as in schedule_task; empty: none"));
    fields.insert("until".into(), text("as in schedule_task; empty: none"));
    fields.insert("times".into(), number("it ends after this many times from now on"));
    Value::Object(fields)
}

/// For a request that has set a time.
fn understood(task: &Value) -> Output {
    Output::ok(format!(
        "{}\nTell the person how it was understood and when it comes next. If it is not what they meant, change it with update_task.",
        described(task)
    ))
}

fn changed(task: &Value) -> Output {
    Output::ok(described(task))
}

fn listed(result: &Value) -> Output {
    let tasks = result.get("tasks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if tasks.is_empty() {
        return Output::ok("There are no tasks.");
    }
    let lines = tasks.iter().map(|task| {
        let last = task.get("last").and_then(|last| {
            let words = [word(last, "planned"), word(last, "outcome")];
            Some(words.into_iter().flatten().collect::<Vec<_>>().join(" ")).filter(|words| !words.is_empty())
        });
        let mut line = format!("- {}", described(task));
        let more = [("Group", word(task, "group")), ("Context", word(task, "context")), ("Last", last)];
        for (name, said) in more.into_iter().chain([("Prompt", word(task, "prompt"))]) {
            line.extend(said.map(|said| format!(" {name}: {said}.")));
        }
        line
    });
    Output::ok(lines.collect::<Vec<_>>().join("\n"))
}

fn history(result: &Value) -> Output {
    let task = word(result, "task").unwrap_or_else(|| "The task".into());
    let fires = result.get("fires").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if fires.is_empty() {
        return Output::ok(format!("{task} has not come yet."));
    }
    let lines = fires.iter().map(|fire| {
        let said = |name: &str, unit: &str| word(fire, name).map(|said| format!("{said}{unit}"));
        let outcome =
            [word(fire, "outcome"), word(fire, "why")].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let facts = [Some(outcome), said("took_s", " s"), said("tokens", " tokens"), said("cost", "")];
        let facts: Vec<_> = facts.into_iter().flatten().filter(|fact| !fact.is_empty()).collect();
        let head: Vec<_> = [word(fire, "fire"), word(fire, "planned")].into_iter().flatten().collect();
        let reply = word(fire, "reply").map(|reply| format!(". Answer: {reply}")).unwrap_or_default();
        format!("- {}: {}{reply}", head.join(", "), facts.join(", "))
    });
    Output::ok(format!("{task}, its latest times:\n{}", lines.collect::<Vec<_>>().join("\n")))
}

/// `task-3 "news": every weekday at 07:30 (Europe/Berlin). Next: Mon 9 Nov 09:00. State: active. Chat: telegram:5.`
fn described(task: &Value) -> String {
    let mut out = word(task, "task").unwrap_or_else(|| "The task".into());
    out.extend(word(task, "name").map(|name| format!(" \"{name}\"")));
    out.extend(word(task, "schedule").map(|schedule| format!(": {schedule}")));
    out.extend(word(task, "zone").map(|zone| format!(" ({zone})")));
    out.push('.');
    let next = task.get("next").map(|_| word(task, "next").unwrap_or_else(|| "not again".into()));
    for (name, said) in [("Next", next), ("State", word(task, "state")), ("Chat", word(task, "chat"))] {
        out.extend(said.map(|said| format!(" {name}: {said}.")));
    }
    out
}

/// A field of the host's answer on one line. People choose names and texts.
pub(super) fn word(value: &Value, field: &str) -> Option<String> {
    let said = match value.get(field)? {
        Value::String(text) => clean(text).replace(['\n', '\t'], " ").trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(bool) => bool.to_string(),
        _ => return None,
    };
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::super::{REQUESTS, checked, told};
    use super::*;
    use ipc_schema::requests::tasks::{Overlap, TaskContext};

    fn request(kind: &str, input: Value) -> Result<Request, String> {
        let tool = REQUESTS.iter().find(|tool| tool.definition.name == kind).unwrap();
        (tool.read)(&input.to_string()).and_then(checked)
    }

    #[test]
    fn a_task_is_asked_for_with_everything_that_the_model_says() {
        let Ok(Request::ScheduleTask(task)) = request(
            "schedule_task",
            json!({
                "name": "news", "schedule": "weekdays 07:30", "prompt": "Read the news.", "context": "group",
                "overlap": "queue", "silent": true, "times": 3, "gate": "echo '{\"wake\": true}'",
            }),
        ) else {
            panic!()
        };
        assert_eq!((task.context, task.overlap), (TaskContext::Group, Overlap::Queue));
        assert_eq!((task.silent, task.times, task.zone), (true, Some(3), None));
        let short = request("schedule_task", json!({ "name": "n", "schedule": "hourly", "prompt": "p" }));
        let Ok(Request::ScheduleTask(task)) = short else { panic!() };
        assert_eq!((task.context, task.overlap, task.silent), (TaskContext::Isolated, Overlap::Skip, false));
    }

    #[test]
    fn arguments_that_do_not_fit_are_told_before_anybody_is_asked() {
        let long = |chars: usize| "x".repeat(chars);
        let schedule = |field: &str, value: Value, problem: &str| {
            let mut input = json!({ "name": "n", "schedule": "hourly", "prompt": "p" });
            input[field] = value;
            ("schedule_task", input, problem.to_owned())
        };
        let missing = |kind, input| (kind, input, "missing field".to_owned());
        for (kind, input, problem) in [
            schedule("name", json!(7), "expected a string"),
            schedule("name", json!(long(NAME_MAX_CHARS + 1)), "the name has 61 characters"),
            schedule("name", json!(" "), "one line"),
            schedule("schedule", json!(long(10_000)), "the schedule has 10,000 bytes"),
            schedule("prompt", json!(""), "the prompt is empty"),
            schedule("prompt", json!("p\u{7}"), "control"),
            schedule("prompt", json!(long(PROMPT_MAX_CHARS + 1)), "at most 8,000"),
            schedule("gate", json!(long(GATE_MAX_BYTES + 1)), "the gate script has 8,001 bytes"),
            schedule("zone", json!(long(SCHEDULE_MAX_BYTES + 1)), "zone"),
            schedule("times", json!(0), "at least 1"),
            schedule("times", json!(-1), "-1"),
            schedule("model_calls", json!(0), "at least 1"),
            schedule("context", json!("main"), "isolated"),
            schedule("overlap", json!("both"), "queue"),
            schedule("silent", json!("no"), "boolean"),
            schedule("every", json!("30m"), "every"),
            missing("schedule_task", json!({ "name": "n", "schedule": "hourly" })),
            missing("update_task", json!({ "schedule": "hourly" })),
            missing("pause_task", json!({})),
            missing("resume_task", json!({})),
            missing("cancel_task", json!({})),
            missing("task_history", json!({ "count": 3 })),
            missing("remind", json!({ "text": "stretch" })),
            ("update_task", json!({ "task": "news", "times": 0 }), "times".into()),
            ("update_task", json!({ "task": " ", "name": "n" }), "list_tasks".into()),
            ("pause_task", json!({ "task": "" }), "list_tasks".into()),
            ("resume_task", json!({ "task": ["news"] }), "string".into()),
            ("cancel_task", json!({ "task": long(SCHEDULE_MAX_BYTES + 1) }), "200".into()),
            ("task_history", json!({ "task": "news", "count": "all" }), "u32".into()),
            ("list_tasks", json!({ "group": "family" }), "group".into()),
            ("list_tasks", json!({ "ended": 1 }), "boolean".into()),
            ("remind", json!({ "text": " ", "when": "in 1 minute" }), "no text".into()),
            (
                "remind",
                json!({ "text": long(REMINDER_MAX_CHARS + 1), "when": "in 1 minute" }),
                "4,000".into(),
            ),
            ("remind", json!({ "text": "x", "when": long(10_000) }), "schedule".into()),
        ] {
            let refused = request(kind, input.clone()).unwrap_err();
            assert!(refused.contains(&problem), "{kind} {input}: {refused}");
        }
    }

    #[test]
    fn limits_are_told_from_the_constants() {
        let schema = schedule_properties().to_string();
        for limit in ["60 characters", "200 bytes", "8,000 characters", "8,000 bytes"] {
            assert!(schema.contains(limit), "{limit}");
        }
    }

    fn said(request: impl Into<Request>, result: Value) -> String {
        let output = told(&request.into(), &result);
        assert!(!output.is_error);
        output.text
    }

    fn news() -> Value {
        json!({
            "task": "task-3", "name": "news", "schedule": "every weekday at 07:30", "zone": "Europe/Berlin",
            "next": "Mon 9 Nov 09:00 Europe/Berlin, in 2 days", "state": "active", "chat": "telegram:5",
        })
    }

    #[test]
    fn the_verdict_on_a_schedule_says_what_was_understood() {
        let text = said(ScheduleTask::default(), news());
        assert!(
            text.starts_with("task-3 \"news\": every weekday at 07:30 (Europe/Berlin). Next: Mon 9 Nov"),
            "{text}"
        );
        assert!(text.contains("State: active. Chat: telegram:5.\nTell the person"), "{text}");
        let mut over = news();
        over["next"] = Value::Null;
        over["state"] = json!("cancelled");
        let text = said(CancelTask::default(), over);
        assert!(text.ends_with("Next: not again. State: cancelled. Chat: telegram:5."), "{text}");
    }

    #[test]
    fn a_list_has_one_line_for_each_task_whatever_people_call_it() {
        let mut task = news();
        task["name"] = json!("a\n- task-9 \"forged\"\u{202e}");
        task["group"] = json!("family");
        task["context"] = json!("isolated");
        task["prompt"] = json!("Read\nthe news");
        task["last"] = json!({ "planned": "Sat 7 Nov 07:30", "outcome": "ran" });
        let text = said(ListTasks::default(), json!({ "tasks": [task, news()] }));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.contains(
                "Group: family. Context: isolated. Last: Sat 7 Nov 07:30 ran. Prompt: Read the news."
            )
        );
        assert_eq!(said(ListTasks::default(), json!({ "tasks": [] })), "There are no tasks.");
    }

    #[test]
    fn a_history_says_what_became_of_each_time() {
        let fires = json!([
            { "fire": "f-12", "planned": "Sat 21 Nov 07:30", "outcome": "ran", "why": null, "took_s": 12,
              "tokens": 1234, "cost": "$0.01", "reply": "Nothing new." },
            { "fire": "f-11", "planned": "Fri 20 Nov 07:30", "outcome": "failed", "why": "gate.exit: exit code 3" },
        ]);
        let text = said(TaskHistory::default(), json!({ "task": "task-3", "fires": fires }));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "- f-12, Sat 21 Nov 07:30: ran, 12 s, 1234 tokens, $0.01. Answer: Nothing new.");
        assert_eq!(lines[2], "- f-11, Fri 20 Nov 07:30: failed: gate.exit: exit code 3");
        assert!(
            said(TaskHistory::default(), json!({ "task": "task-3", "fires": [] })).contains("not come yet")
        );
    }

    #[test]
    fn an_answer_of_any_shape_is_told_somehow() {
        let shapes =
            [json!(null), json!([1]), json!("x"), json!({}), json!({ "tasks": 1, "fires": "x", "task": {} })];
        let odd = json!({ "tasks": [null, 1, { "last": 7 }], "fires": [null, { "took_s": [] }], "next": 5, "more": 1 });
        for shape in shapes.into_iter().chain([odd]) {
            for tool in REQUESTS.iter() {
                assert!(!(tool.told)(&shape).text.is_empty(), "{} {shape}", tool.definition.name);
            }
        }
    }
}
