//! Golden files for every letter of both directions, the generated schemas, and round trips.
//!
//! `UPDATE_GOLDEN=1 cargo test -p ipc-schema` writes them anew; a change of theirs is a change of the protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the golden files of this repository")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ipc_schema::letters::from_agent::*;
use ipc_schema::letters::{FromAgent, Request, ToAgent, from_agent, to_agent};
use ipc_schema::requests::tasks::{Overlap, TaskContext};
use ipc_schema::requests::{
    AskPermission, AskPerson, CancelTask, ListTasks, PauseTask, React, Remind, ResumeTask, ScheduleTask,
    SearchHistory, SendFile, TaskHistory, UpdatePersonality, UpdateTask,
};
use ipc_schema::{FromAgentLetter, Letter, LetterId, MessageSeq, ToAgentLetter, TurnId};
use proptest::prelude::*;

const RUN: &str = "019ab000-0000-7000-8000-000000000001";
const TURN: TurnId = TurnId(41);

fn letter<B>(n: u64, id: LetterId, turn: Option<TurnId>, body: B) -> Letter<B> {
    let at = "2026-11-21T13:03:00.250Z".to_owned();
    Letter { id, run: RUN.parse().unwrap(), turn, n, ack: 2, at, body }
}

fn from_host(n: u64, turn: Option<TurnId>, body: ToAgent) -> ToAgentLetter {
    letter(n, LetterId::of_host(n), turn, body)
}

fn begin() -> to_agent::Begin {
    to_agent::Begin {
        minor: 0,
        group: "family".parse().unwrap(),
        lane: "conversation".into(),
        main: false,
        session: "conversation-1".into(),
        persona: "Laz".into(),
        model: to_agent::Model {
            name: "model-1".into(),
            provider: Some("provider-1".into()),
            max_tokens: 8192,
            window: 200_000,
            no_images: true,
        },
        limits: to_agent::Limits {
            model_calls: 40,
            turn_s: 900,
            command_s: 120,
            command_max_s: 600,
            output_bytes: 30_000,
            requests: 200,
            compaction_percent: 80,
        },
        tools: to_agent::ToolPolicy {
            default: to_agent::ToolVerdict::Record,
            rules: vec![to_agent::ToolRule {
                tool: "run_command".into(),
                command: Some("rm *".into()),
                verdict: to_agent::ToolVerdict::Deny,
            }],
        },
        allowed: vec![to_agent::AlwaysAllowed {
            tool: "run_command".into(),
            command: Some("git push".into()),
        }],
        files: true,
        reactions: true,
        network: "There is no network here.".into(),
        zone: "Europe/Berlin".into(),
        claude_md_global: Some(to_agent::Text { text: "Be brief.\n".into(), sha256: "ab".repeat(32) }),
        claude_md_group: Some(to_agent::Text { text: "# Family\n".into(), sha256: "cd".repeat(32) }),
        open: Some(to_agent::OpenTurn { turn: TURN, consumed: vec![LetterId::of_block(TURN, 3, 1)] }),
        closed: vec![TurnId(40), TurnId(39)],
    }
}

fn input() -> to_agent::Input {
    let person = |id: &str, name: &str, owner| to_agent::Person { id: id.into(), name: name.into(), owner };
    to_agent::Input {
        chat: to_agent::Chat {
            id: "telegram:-100123/42".into(),
            kind: to_agent::ChatKind::Room,
            title: "Family".into(),
        },
        messages: vec![
            to_agent::Message {
                id: MessageSeq(11),
                wakes: false,
                from: person("telegram:6", "Bob", false),
                at: "2026-11-21T14:02:10+01:00".into(),
                text: "we are out of milk".into(),
                forwarded_from: None,
                edited: false,
                reply_to: None,
                attachments: vec![],
                order: None,
            },
            to_agent::Message {
                id: MessageSeq(12),
                wakes: true,
                from: person("telegram:5", "Ann", true),
                at: "2026-11-21T14:03:00+01:00".into(),
                text: "@laz what do we need?".into(),
                forwarded_from: None,
                edited: true,
                reply_to: Some(to_agent::Quote { from: "Bob".into(), text: "we are out of milk".into() }),
                attachments: vec![
                    to_agent::Attachment {
                        path: Some("/inbox/3f2a.jpg".into()),
                        name: "fridge.jpg".into(),
                        mime: "image/jpeg".into(),
                        bytes: 48_213,
                        problem: None,
                        transcript: None,
                        no_transcript: None,
                    },
                    to_agent::Attachment {
                        path: Some("/inbox/77b0.ogg".into()),
                        name: "voice.ogg".into(),
                        mime: "audio/ogg".into(),
                        bytes: 9_120,
                        problem: None,
                        transcript: Some("and buy some bread".into()),
                        no_transcript: None,
                    },
                ],
                order: None,
            },
            to_agent::Message {
                id: MessageSeq(13),
                wakes: true,
                from: person("telegram:5", "Ann", true),
                at: "2026-11-21T14:03:09+01:00".into(),
                text: "/compact".into(),
                forwarded_from: None,
                edited: false,
                reply_to: None,
                attachments: vec![],
                order: Some(to_agent::Order::Compact),
            },
        ],
        context_omitted: 3,
        fire: None,
    }
}

/// The input of a turn that a task's fire caused.
fn fire() -> to_agent::Input {
    let fire = to_agent::Fire {
        id: "f-12".into(),
        task: "task-3".into(),
        name: "backup check".into(),
        prompt: "Say whether the backup of last night is complete.".into(),
        planned: "2026-11-21T07:30:00+01:00".into(),
        late: true,
        silent: true,
        gate: Some("test -e /workspace/backup.log && echo '{\"wake\": true}'".into()),
        model_calls: Some(10),
    };
    to_agent::Input { messages: vec![], context_omitted: 0, fire: Some(fire), ..input() }
}

/// One letter of every type the host writes.
fn to_agent_letters() -> Vec<ToAgentLetter> {
    let request = LetterId::of_request(TURN, "toolu_01A").unwrap();
    let ok = to_agent::Verdict::Ok { result: serde_json::json!({ "sha256": "ef".repeat(32) }) };
    vec![
        from_host(1, None, ToAgent::Begin(Box::new(begin()))),
        from_host(2, Some(TURN), ToAgent::Input(input())),
        from_host(3, Some(TURN), ToAgent::Response(to_agent::Response { request, verdict: ok })),
        from_host(
            4,
            Some(TURN),
            ToAgent::Interrupt(to_agent::Interrupt { why: to_agent::InterruptWhy::Stop }),
        ),
        from_host(
            4,
            None,
            ToAgent::Close(to_agent::Close {
                why: to_agent::CloseWhy::Idle,
                reason: "nothing to do for the idle window".into(),
            }),
        ),
        from_host(5, Some(TURN), ToAgent::Input(fire())),
    ]
}

/// One letter of every type the box writes.
fn from_agent_letters() -> Vec<FromAgentLetter> {
    let block = |n, entry, block, body| letter(n, LetterId::of_block(TURN, entry, block), Some(TURN), body);
    let run = |n, turn, body| letter(n, LetterId::of_run(n), turn, body);
    let mut letters = vec![
        run(
            1,
            None,
            FromAgent::Ready(Ready {
                minor: 0,
                runner: "0.1.0".into(),
                arch: "x86_64".into(),
                shell: Some("/bin/sh".into()),
                entries: 17,
                resumes: Some(TURN),
                lost: None,
            }),
        ),
        run(
            2,
            Some(TURN),
            FromAgent::Status(Status {
                state: Activity::Tool,
                tool: Some("run_command".into()),
                detail: Some("ls -la".into()),
                deadline_s: Some(130),
            }),
        ),
        run(3, Some(TURN), FromAgent::Draft(Draft { text: "You need".into() })),
        block(4, 19, 1, FromAgent::Message(from_agent::Message { text: "Looking…".into() })),
        letter(
            5,
            LetterId::of_request(TURN, "toolu_01A").unwrap(),
            Some(TURN),
            FromAgent::Request(Request::UpdatePersonality(UpdatePersonality {
                text: "# Family\nBe kind.\n".into(),
                base_sha256: Some("cd".repeat(32)),
            })),
        ),
        letter(
            6,
            LetterId::of_request(TURN, "toolu_01B").unwrap(),
            Some(TURN),
            FromAgent::Request(Request::AskPerson(AskPerson {
                question: "Whole milk, or skimmed?".into(),
                choices: vec!["whole".into(), "skimmed".into()],
            })),
        ),
        letter(
            7,
            LetterId::of_request(TURN, "toolu_01C").unwrap(),
            Some(TURN),
            FromAgent::Request(Request::SendFile(SendFile {
                path: "/workspace/out/list.pdf".into(),
                caption: Some("What we need.".into()),
                name: Some("shopping list.pdf".into()),
            })),
        ),
        block(
            8,
            21,
            0,
            FromAgent::TurnDone(TurnDone {
                outcome: Outcome::Failed,
                text: String::new(),
                error: Some(ErrorDetail {
                    code: "model.auth".into(),
                    reason: "the provider refused the key".into(),
                }),
                model_calls: 2,
                tool_calls: 1,
                gated: false,
            }),
        ),
        run(
            9,
            None,
            FromAgent::Failed(Failed {
                code: "session.unreadable".into(),
                reason: "it is a directory".into(),
            }),
        ),
    ];
    let tasks = task_requests().into_iter().zip(10..);
    letters.extend(tasks.map(|(request, n)| {
        let id = LetterId::of_request(TURN, &format!("toolu_{n}")).unwrap();
        letter(n, id, Some(TURN), FromAgent::Request(request))
    }));
    letters.push(block(
        18,
        23,
        0,
        FromAgent::TurnDone(TurnDone {
            outcome: Outcome::Finished,
            text: String::new(),
            error: None,
            model_calls: 0,
            tool_calls: 0,
            gated: true,
        }),
    ));
    let search = SearchHistory {
        query: Some("boiler".into()),
        range: Some("last week".into()),
        chat: Some("telegram:-100123/42".into()),
        count: Some(10),
        page: Some(2),
    };
    let id = LetterId::of_request(TURN, "toolu_19").unwrap();
    letters.push(letter(19, id, Some(TURN), FromAgent::Request(search.into())));
    letters.push(letter(
        20,
        LetterId::of_request(TURN, "toolu_20").unwrap(),
        Some(TURN),
        FromAgent::Request(Request::React(React { emoji: "👍".into(), message: Some(MessageSeq(12)) })),
    ));
    let ask = AskPermission {
        tool: "run_command".into(),
        detail: "git pull && git push".into(),
        commands: vec!["git push".into()],
    };
    let id = LetterId::of_request(TURN, "toolu_21").unwrap();
    letters.push(letter(21, id, Some(TURN), FromAgent::Request(ask.into())));
    letters
}

/// One request of every kind about tasks.
fn task_requests() -> Vec<Request> {
    let task = || "news".to_owned();
    vec![
        ScheduleTask {
            name: task(),
            schedule: "weekdays 07:30".into(),
            prompt: "Read /workspace/feeds and tell what is new.".into(),
            context: TaskContext::Group,
            chat: Some("telegram:-100123/42".into()),
            zone: Some("Europe/Berlin".into()),
            gate: Some("echo '{\"wake\": true, \"data\": [1]}'".into()),
            catch_up: Some("12h".into()),
            overlap: Overlap::Queue,
            until: Some("2027-06-30".into()),
            times: Some(100),
            silent: true,
            model: None,
            model_calls: Some(10),
        }
        .into(),
        ListTasks { all_groups: false, ended: true }.into(),
        UpdateTask { task: task(), schedule: Some("daily 08:00".into()), ..UpdateTask::default() }.into(),
        PauseTask { task: task() }.into(),
        ResumeTask { task: task() }.into(),
        CancelTask { task: "task-3".into() }.into(),
        TaskHistory { task: task(), count: Some(5) }.into(),
        Remind { text: "Stretch!".into(), when: "in 20 minutes".into(), chat: None, zone: None }.into(),
    ]
}

fn place(folder: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)
}

fn golden(folder: &str, name: &str, bytes: &[u8]) {
    let path = place(folder, name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let there = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(String::from_utf8_lossy(&there), String::from_utf8_lossy(bytes), "{}", path.display());
}

#[test]
fn every_letter_of_the_host_is_golden_and_read_back() {
    let letters = to_agent_letters();
    for letter in &letters {
        let bytes = letter.to_bytes().unwrap();
        golden("golden/to-agent", &letter.file_name(), &bytes);
        assert_eq!(ToAgentLetter::parse(&bytes).unwrap(), *letter);
    }
    no_others("golden/to-agent", letters.iter().map(ToAgentLetter::file_name));
}

#[test]
fn every_letter_of_the_box_is_golden_and_read_back() {
    let letters = from_agent_letters();
    let mut kinds: Vec<&str> = letters.iter().map(|l| l.body.kind()).collect();
    for letter in &letters {
        let bytes = letter.to_bytes().unwrap();
        golden("golden/from-agent", &letter.file_name(), &bytes);
        assert_eq!(FromAgentLetter::parse(&bytes).unwrap(), *letter);
    }
    let mut all = FromAgent::KINDS.to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    all.sort_unstable();
    assert_eq!(kinds, all, "a type without a golden file");
    let mut requests: Vec<&str> = letters.iter().filter_map(request_kind).collect();
    requests.sort_unstable();
    let mut all = Request::KINDS.to_vec();
    all.sort_unstable();
    assert_eq!(requests, all, "a request without a golden file");
    no_others("golden/from-agent", letters.iter().map(FromAgentLetter::file_name));
}

fn request_kind(letter: &FromAgentLetter) -> Option<&str> {
    match &letter.body {
        FromAgent::Request(request) => Some(request.kind()),
        _ => None,
    }
}

/// A letter whose number has changed leaves no file under its old name.
fn no_others(folder: &str, names: impl Iterator<Item = String>) {
    let there = fs::read_dir(place(folder, "")).unwrap();
    let there: BTreeSet<String> = there.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, names.collect(), "{folder}");
}

#[test]
fn the_schemas_are_the_types() {
    for (name, schema) in [
        ("to-agent.json", schemars::schema_for!(ToAgent)),
        ("from-agent.json", schemars::schema_for!(FromAgent)),
    ] {
        let mut text = serde_json::to_vec_pretty(schema.as_value()).unwrap();
        text.push(b'\n');
        golden("schemas", name, &text);
    }
}

/// A newer host may say more than an older runner knows, and must not be cut off for it.
#[test]
fn the_runner_ignores_what_it_does_not_know() {
    let bytes = to_agent_letters()[1].to_bytes().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let newer = text.replacen("\"v\": 1,", "\"v\": 1, \"later\": {\"a\": [1]},", 1);
    let newer = newer.replacen("\"messages\":", "\"mood\": \"fine\", \"messages\":", 1);
    assert_eq!(ToAgentLetter::parse(newer.as_bytes()).unwrap(), to_agent_letters()[1]);
    let other = text.replacen("\"v\": 1,", "\"v\": 2,", 1);
    assert_eq!(ToAgentLetter::parse(other.as_bytes()).unwrap_err().code, ipc_schema::RefusalCode::Version);
}

proptest! {
    #[test]
    fn whatever_an_agent_says_comes_through(text in any::<String>(), entry in 1u64..1_000_000, ack in 0u64..1000) {
        let body = FromAgent::Message(from_agent::Message { text: text.clone() });
        let mut said = letter(9, LetterId::of_block(TURN, entry, 0), Some(TURN), body);
        said.ack = ack;
        let bytes = said.to_bytes().unwrap();
        match FromAgentLetter::parse(&bytes) {
            Ok(read) => prop_assert_eq!(read, said),
            Err(refusal) => prop_assert!(text.contains('\0'), "{}", refusal),
        }
    }

    #[test]
    fn no_bytes_make_the_strict_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = FromAgentLetter::parse(&bytes);
    }

    #[test]
    fn a_golden_letter_with_one_byte_changed_is_read_or_refused(which in 0..from_agent_letters().len(), at in any::<usize>(), byte: u8) {
        let mut bytes = from_agent_letters()[which].to_bytes().unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = FromAgentLetter::parse(&bytes);
    }
}

/// B9: what a box sees of the machine is said in files of the owner's, and no letter has a word for it.
#[test]
fn b9_no_letter_of_an_agent_can_carry_a_mount() {
    let schema = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/from-agent.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    fn names(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(properties) = map.get("properties").and_then(|p| p.as_object()) {
                    found.extend(properties.keys().cloned());
                }
                map.values().for_each(|v| names(v, found));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|v| names(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    names(&schema, &mut found);
    assert!(found.contains(&"question".to_owned()), "the schema was read");
    for word in ["mount", "bind", "volume", "source", "target", "container", "privileged", "image", "runtime"]
    {
        assert!(
            !found.iter().any(|name| name.to_lowercase().contains(word)),
            "a letter has a field like {word}"
        );
    }
    let request = |body: &str| {
        format!(
            r#"{{"v":1,"id":"t-41:2.0","run":"{RUN}","turn":"t-41","n":6,"ack":2,"at":"2026-11-21T13:03:00.250Z","type":"request","body":{body}}}"#
        )
    };
    let plain = request(r##"{"kind":"update_personality","args":{"text":"# x"}}"##);
    FromAgentLetter::parse(plain.as_bytes()).unwrap();
    for forged in [
        r##"{"kind":"update_personality","args":{"text":"# x","mounts":[{"source":"/"}]}}"##,
        r##"{"kind":"update_personality","args":{"text":"# x"},"containerConfig":{"additionalMounts":[]}}"##,
    ] {
        let refused = FromAgentLetter::parse(request(forged).as_bytes()).unwrap_err();
        assert_eq!(refused.code, ipc_schema::RefusalCode::Schema, "{forged}");
    }
    let unknown = request(r#"{"kind":"register_group","args":{"name":"x","mounts":["/root/.ssh"]}}"#);
    let parsed = FromAgentLetter::parse(unknown.as_bytes()).unwrap();
    let FromAgent::Request(Request::Unsupported { kind }) = parsed.body else { panic!("{parsed:?}") };
    assert_eq!(kind, "register_group", "its arguments are dropped unread");
}
