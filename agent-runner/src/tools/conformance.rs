//! The conformance table: each tool × (works, bad arguments, limit hit, image without any program). A new tool needs a
//! row. `cargo test -p agent-runner conformance -- --nocapture` prints the table.

use std::collections::BTreeSet;

use ipc_schema::letters::to_agent::Limits;
use serde_json::{Map, Value, json};

use super::*;
use crate::tests_support::host;

/// A tool, and the arguments of its call.
type Made = (&'static str, fn() -> Value);

/// What a call must come to.
struct Case {
    /// Calls before it, in the same box.
    before: &'static [Made],
    input: fn() -> Value,
    /// The result must hold this.
    told: &'static str,
    is_error: bool,
}

const fn works(input: fn() -> Value, told: &'static str) -> Case {
    Case { before: &[], input, told, is_error: false }
}

const fn fails(input: fn() -> Value, told: &'static str) -> Case {
    Case { is_error: true, ..works(input, told) }
}

struct Row {
    tool: &'static str,
    works: Case,
    /// A limit is hit: the result says which, or what was cut.
    limit: Case,
    /// In an image without a shell and without any program. `None`: as in any other image.
    empty_image: Option<Case>,
}

/// What a call of a tool that asks the host comes to, without a host: the request that would be made.
const ASKED: &str = "asked";

const fn row(tool: &'static str, works: Case, limit: Case) -> Row {
    Row { tool, works, limit, empty_image: None }
}

const ROWS: &[Row] = &[
    Row {
        tool: "run_command",
        works: works(|| json!({ "command": "cat a.txt" }), "hello"),
        limit: fails(|| json!({ "command": "sleep 1000", "timeout_s": 1 }), "stopped after 1 s"),
        empty_image: Some(fails(|| json!({ "command": "cat a.txt" }), "no shell")),
    },
    Row {
        tool: "read_command",
        works: Case {
            before: &[("run_command", || json!({ "command": "cat a.txt", "background": true }))],
            ..works(|| json!({ "id": 1, "wait_s": 60 }), "hello")
        },
        limit: Case {
            before: &[("run_command", || json!({ "command": "cat lines.txt", "background": true }))],
            ..works(|| json!({ "id": 1, "wait_s": 60 }), "bytes cut out here")
        },
        empty_image: Some(works(|| json!({}), "No command was started")),
    },
    Row {
        tool: "stop_command",
        works: Case {
            before: &[("run_command", || json!({ "command": "sleep 1000", "background": true }))],
            ..works(|| json!({ "id": 1 }), "stopped: killed by signal 15")
        },
        limit: fails(|| json!({ "id": 4_000_000_000_u32 }), "no background command"),
        empty_image: Some(fails(|| json!({ "id": 1 }), "read_command without `id` lists them")),
    },
    row(
        "read_file",
        works(|| json!({ "path": "a.txt" }), "hello"),
        works(|| json!({ "path": "lines.txt" }), "offset="),
    ),
    row(
        "write_file",
        works(|| json!({ "path": "new/b.txt", "content": "x" }), "wrote 1 bytes to /workspace/new/b.txt"),
        fails(|| json!({ "path": "x".repeat(300), "content": "x" }), "too long"),
    ),
    row(
        "edit_file",
        works(|| json!({ "path": "a.txt", "old": "hello", "new": "bye" }), "replaced 1"),
        fails(|| json!({ "path": "big.txt", "old": "x", "new": "y" }), "use run_command"),
    ),
    row(
        "list_files",
        works(|| json!({ "glob": "a.*" }), "a.txt  6 bytes"),
        works(|| json!({ "path": "many" }), "…and 1 more"),
    ),
    row(
        "search_files",
        works(|| json!({ "pattern": "h.llo" }), "a.txt:1"),
        works(|| json!({ "pattern": "line" }), "more"),
    ),
    row(
        "save_memory",
        works(|| json!({ "text": "Ann likes tea." }), "saved"),
        fails(|| json!({ "text": "x".repeat(5_000) }), "characters"),
    ),
    row(
        "search_memory",
        works(|| json!({ "query": "bread" }), "memory/topics/long.md"),
        works(|| json!({ "query": "bread", "most": 1 }), "more fit less well"),
    ),
    row(
        "list_memories",
        works(|| json!({}), "memory/topics/long.md: 250 entries"),
        works(|| json!({ "file": "memory/topics/long.md" }), "and 50 more"),
    ),
    row(
        "forget_memory",
        works(|| json!({ "text": "bread 7", "entry": "memory/topics/long.md:8" }), "forgotten"),
        fails(|| json!({ "text": "bread" }), "nothing"),
    ),
    row(
        "daily_log",
        works(|| json!({ "text": "It rained." }), "logged"),
        fails(|| json!({ "text": "x".repeat(5_000) }), "characters"),
    ),
    row(
        "send_message",
        works(|| json!({ "text": "hello" }), ASKED),
        works(|| json!({ "text": "x".repeat(300_000) }), "cut: too long for one letter"),
    ),
    row(
        "update_personality",
        works(|| json!({ "text": "Be kind." }), ASKED),
        fails(|| json!({ "text": "x".repeat(70_000) }), "at most 65536"),
    ),
    row(
        "ask_person",
        works(|| json!({ "question": "Which milk?" }), ASKED),
        fails(|| json!({ "question": "x".repeat(5_000) }), "4,000"),
    ),
    row(
        "send_file",
        works(|| json!({ "path": "a.txt" }), ASKED),
        fails(|| json!({ "path": "a.txt", "caption": "x".repeat(2_000) }), "1,000"),
    ),
    row(
        "schedule_task",
        works(|| json!({ "name": "news", "schedule": "daily 07:30", "prompt": "Look." }), ASKED),
        fails(|| json!({ "name": "news", "schedule": "daily 07:30", "prompt": "x".repeat(9_000) }), "8,000"),
    ),
    row("list_tasks", works(|| json!({}), ASKED), works(|| json!({ "all_groups": true }), ASKED)),
    row(
        "update_task",
        works(|| json!({ "task": "news", "prompt": "Look." }), ASKED),
        fails(|| json!({ "task": "news", "prompt": "x".repeat(9_000) }), "8,000"),
    ),
    row("pause_task", works(|| json!({ "task": "news" }), ASKED), fails(long_name, "at most 200")),
    row("resume_task", works(|| json!({ "task": "news" }), ASKED), fails(long_name, "at most 200")),
    row("cancel_task", works(|| json!({ "task": "news" }), ASKED), fails(long_name, "at most 200")),
    row("task_history", works(|| json!({ "task": "news" }), ASKED), fails(long_name, "at most 200")),
    row(
        "remind",
        works(|| json!({ "text": "Stretch!", "when": "in 1 hour" }), ASKED),
        fails(|| json!({ "text": "x".repeat(5_000), "when": "in 1 hour" }), "4,000"),
    ),
    row(
        "search_history",
        works(|| json!({ "query": "boiler" }), ASKED),
        fails(|| json!({ "query": "x".repeat(2_000) }), "1,000"),
    ),
    row(
        "react",
        works(|| json!({ "emoji": "👍" }), ASKED),
        fails(|| json!({ "emoji": "x".repeat(100) }), "one emoji"),
    ),
];

fn long_name() -> Value {
    json!({ "task": "x".repeat(300) })
}

/// A box with some files.
struct Bench {
    _dir: tempfile::TempDir,
    toolbox: Toolbox,
}

fn bench(shell: Option<Shell>) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let paths = BoxPaths::below(dir.path());
    std::fs::create_dir_all(paths.home()).unwrap();
    std::fs::create_dir(paths.resolve("many")).unwrap();
    for n in 0..=500 {
        std::fs::write(paths.resolve(&format!("many/{n}")), "").unwrap();
    }
    std::fs::write(paths.resolve("a.txt"), "hello\n").unwrap();
    std::fs::write(paths.resolve("lines.txt"), "a line\n".repeat(20_000)).unwrap();
    let big = std::fs::File::create(paths.resolve("big.txt")).unwrap();
    big.set_len(11 << 20).unwrap();
    std::fs::create_dir_all(paths.resolve("memory/topics")).unwrap();
    let bread: String = (0..250).map(|n| format!("- bread {n}\n")).collect();
    std::fs::write(paths.resolve("memory/topics/long.md"), bread).unwrap();
    let mut toolbox = Toolbox::new(paths, shell, host::begin().limits);
    toolbox.memory.origin.date = "2026-11-30".into();
    Bench { _dir: dir, toolbox }
}

impl Bench {
    async fn call(&self, tool: &str, input: &Value) -> Output {
        match Call::parse(tool, &input.to_string()) {
            Err(problem) => Output::error(problem),
            Ok(Call::Local(call)) => call.run(&self.toolbox).await,
            Ok(Call::SendMessage(message)) => {
                let fits = crate::mailbox::outbox::fit_to_letter(&message.text);
                Output::ok(if fits == message.text { ASKED.to_owned() } else { fits })
            }
            Ok(Call::Ask(request)) => match checked(*request) {
                Ok(request) => {
                    assert_eq!(request.kind(), tool);
                    Output::ok(ASKED)
                }
                Err(problem) => Output::error(problem),
            },
        }
    }

    /// Makes the case's call. Returns what is wrong with its result.
    async fn wrong(&self, tool: &str, case: &Case) -> Option<String> {
        for (tool, input) in case.before {
            self.call(tool, &input()).await;
        }
        let input = (case.input)();
        let output = self.call(tool, &input).await;
        let held = output.is_error == case.is_error && output.text.contains(case.told);
        (!held).then(|| {
            format!("{tool}, {:?}: {}", case.told, output.text.chars().take(500).collect::<String>())
        })
    }
}

/// Arguments that the tool must refuse: each property with another type, each required one missing, an unknown one, and
/// what is no object.
fn bad_arguments(definition: &Definition) -> Vec<Value> {
    let properties = (definition.properties)();
    let properties = properties.as_object().unwrap();
    let good: Map<String, Value> =
        definition.required.iter().map(|key| ((*key).to_owned(), good(&properties[*key]))).collect();
    let mut all = vec![json!([]), json!("x"), json!(7)];
    for (key, schema) in properties {
        let wrong = if schema["type"] == "object" { json!(7) } else { json!({ "an": "object" }) };
        let negative = (schema["type"] == "integer").then(|| json!(-1));
        all.extend(
            [Some(wrong), negative]
                .into_iter()
                .flatten()
                .map(|wrong| Value::Object(good.clone().into_iter().chain([(key.clone(), wrong)]).collect())),
        );
    }
    for key in definition.required {
        let rest = good.clone().into_iter().filter(|(name, _)| name != key);
        all.push(Value::Object(rest.collect()));
    }
    all.push(Value::Object(good.into_iter().chain([("zzz".to_owned(), json!(1))]).collect()));
    all
}

fn good(schema: &Value) -> Value {
    match schema["type"].as_str().unwrap() {
        "integer" => json!(1),
        "boolean" => json!(true),
        "array" => json!(["x"]),
        _ => schema.get("enum").map_or(json!("x"), |words| words[0].clone()),
    }
}

#[tokio::test]
async fn every_tool_keeps_the_conformance_table() {
    let listed: BTreeSet<_> = ipc_schema::names_and_paths::TOOLS.iter().copied().collect();
    let rows: BTreeSet<_> = ROWS.iter().map(|row| row.tool).collect();
    assert_eq!(listed, rows, "each tool has a row, and only tools have one");
    let mut wrong = Vec::new();
    println!("| tool | works | bad arguments | limit hit | empty image |\n|---|---|---|---|---|");
    for Row { tool, works, limit, empty_image } in ROWS {
        wrong.extend(bench(Shell::probe()).wrong(tool, works).await);
        wrong.extend(bench(Shell::probe()).wrong(tool, limit).await);
        let empty = bench(None);
        wrong.extend(empty.wrong(tool, empty_image.as_ref().unwrap_or(works)).await);
        let definition = all_definitions().find(|definition| definition.name == *tool).unwrap();
        let bad = bad_arguments(definition);
        for input in &bad {
            let refused = empty.call(tool, input).await;
            if !(refused.is_error && refused.text.contains(tool)) {
                wrong.push(format!("{tool} {input}: {}", refused.text));
            }
        }
        let in_empty = match empty_image {
            Some(Case { is_error: true, told, .. }) => format!("says why: \"{told}\""),
            _ => "works".to_owned(),
        };
        println!("| `{tool}` | yes | {} refused | \"{}\" | {in_empty} |", bad.len(), limit.told);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The limits that the model may not exceed by asking for more.
#[test]
fn nobody_waits_longer_than_the_limits_allow() {
    let limits = Limits { command_max_s: 60, ..host::begin().limits };
    for (tool, input) in [
        ("run_command", json!({ "command": "x", "timeout_s": 4_000_000 })),
        ("read_command", json!({ "id": 1, "wait_s": 4_000_000 })),
    ] {
        let Ok(Call::Local(call)) = Call::parse(tool, &input.to_string()) else { panic!() };
        assert_eq!(call.time_limit(&limits), Duration::from_secs(60));
    }
}
