//! Any transcript that the runner can write makes a request that the strictest server of each kind accepts.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::anthropic::{self, Thoughts};
use super::configured_providers::ProviderSettings;
use super::dialect::Dialect;
use super::openai;
use super::request::ModelRequest;
use crate::domain::ProviderKind;
use strict::{Strict, violations};

#[path = "../../../tests/src/model/strict.rs"]
mod strict;

const MAKERS: [&str; 3] = ["p/m", "p/other", "other/m"];

/// Ids that servers were seen to give, as JSON. Some are in the shape of the ids that the host makes.
const IDS: [&str; 10] = [
    r#""toolu_1""#,
    r#""""#,
    "null",
    "7",
    r#""functions.ls:0""#,
    r#""call00001""#,
    r#""call_0""#,
    r#""a b\n""#,
    r#""ü""#,
    r#""xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
];

const NAMES: [&str; 6] = [r#""ls""#, r#""""#, "null", "[]", r#""my tool.ü""#, r#""\ud83d""#];

const INPUTS: [&str; 9] = [
    "{}",
    r#"{"path":"."}"#,
    "null",
    r#""""#,
    "[1]",
    "7",
    r#""{\"a\":1}""#,
    r#"{"half":"\ud83d","\udc00":[1.50]}"#,
    r#"{"content":[{"type":"image","source":{"type":"url","url":"https://x.example"}}]}"#,
];

const TEXTS: [&str; 5] = [r#""hello""#, r#""""#, r#"" \n""#, r#""half \ud83d""#, "null"];

/// Blocks without a call, as JSON.
const OTHERS: [&str; 16] = [
    r#"{"type":"thinking","thinking":"hm","signature":"s"}"#,
    r#"{"type":"thinking","thinking":"hm","signature":""}"#,
    r#"{"type":"thinking","thinking":"hm"}"#,
    r#"{"type":"thinking","signature":"s"}"#,
    r#"{"type":"thinking","thinking":"hm","signature":"s","novel":1}"#,
    r#"{"type":"redacted_thinking","data":"x"}"#,
    r#"{"type":"redacted_thinking"}"#,
    r#"{"type":"text","text":"hello","citations":null,"novel":{}}"#,
    r#"{"type":"mystery","content":[[[[[[1]]]]]]}"#,
    r#"{"type":"image","source":{"type":"url","url":"https://x.example"}}"#,
    r#"{"type":"server_tool_use","id":"s","name":"web","input":{}}"#,
    r#"{"type":7}"#,
    r#"{"text":"no type"}"#,
    "{}",
    "[1]",
    "null",
];

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(choices)
}

fn call() -> impl Strategy<Value = String> {
    let field = |name: &'static str, choices: &'static [&'static str]| {
        proptest::option::weighted(0.9, one_of(choices))
            .prop_map(move |value| value.map_or(String::new(), |value| format!(r#","{name}":{value}"#)))
    };
    let extra = prop_oneof![Just(""), Just(r#","extra_content":{"a":1}"#), Just(r#","caller":null"#)];
    (field("id", &IDS), field("name", &NAMES), field("input", &INPUTS), extra)
        .prop_map(|(id, name, input, extra)| format!(r#"{{"type":"tool_use"{id}{name}{input}{extra}}}"#))
}

fn opaque() -> impl Strategy<Value = String> {
    let message = prop_oneof![Just("{}"), Just(r#"{"reasoning_content":"hm \ud83d \" ://"}"#)];
    (one_of(&MAKERS), message, one_of(&IDS)).prop_map(|(maker, message, id)| {
        let id = if id.starts_with('"') { id } else { r#""x""# };
        let signature = r#"{"extra_content":{"google":{"thought_signature":"AbC="}}}"#;
        format!(r#"{{"type":"opaque","maker":"{maker}","message":{message},"calls":{{{id}:{signature}}}}}"#)
    })
}

fn block() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => call(),
        2 => one_of(&TEXTS).prop_map(|text| format!(r#"{{"type":"text","text":{text}}}"#)),
        3 => one_of(&OTHERS).prop_map(str::to_owned),
        1 => opaque(),
    ]
}

/// The kind and body of an entry.
fn entry() -> impl Strategy<Value = (&'static str, String)> {
    let results = (one_of(&IDS), one_of(&["", "ok", " "]), any::<bool>());
    let result = results.prop_map(|(id, content, error)| {
        let id = if id.starts_with('"') { id } else { r#""""# };
        let content = json!(content);
        format!(r#"{{"blocks":[{{"tool_use_id":{id},"content":{content},"is_error":{error}}}]}}"#)
    });
    let model = proptest::option::of(one_of(&MAKERS));
    let answer = (proptest::collection::vec(block(), 0..5), model).prop_map(|(blocks, model)| {
        let model = json!(model);
        format!(r#"{{"blocks":[{}],"stop_reason":"tool_use","model":{model}}}"#, blocks.join(","))
    });
    let left = (0u64..9, proptest::option::of(0u64..9))
        .prop_map(|(through, from)| json!({ "through": through, "from": from, "told": "x" }).to_string());
    prop_oneof![
        6 => answer.prop_map(|body| ("assistant", body)),
        4 => result.prop_map(|body| ("results", body)),
        2 => Just(("input", input())),
        1 => one_of(&["", "note"]).prop_map(|text| ("note", json!({ "text": text }).to_string())),
        1 => one_of(&["interrupted", "failed", "limit"])
            .prop_map(|outcome| ("end", json!({ "outcome": outcome }).to_string())),
        1 => Just(("summary", json!({ "text": "before", "archive": "a", "made_at": 1 }).to_string())),
        1 => left.prop_map(|body| ("left_out", body)),
    ]
}

fn input() -> String {
    json!({
        "chat": { "id": "terminal:local", "kind": "direct", "title": "t" },
        "messages": [{ "id": "m-1", "wakes": true, "from": { "id": "terminal:1", "name": "Ann" },
            "at": "2026-11-21T14:03:00+01:00", "text": "hello" }],
    })
    .to_string()
}

/// The lines of a transcript after which it is the model's turn.
fn transcript() -> impl Strategy<Value = Vec<String>> {
    let entries = proptest::collection::vec((entry(), any::<bool>()), 0..14);
    entries.prop_map(|entries| {
        let mut turn = 1;
        let last = (("input", input()), true);
        let numbered = entries.into_iter().chain([last]).zip(1..);
        let line = |(((kind, body), next), n): (((&str, String), bool), u64)| {
            turn += u64::from(next);
            format!(r#"{{"entry":{n},"turn":"t-{turn}","at":"","kind":"{kind}","body":{body}}}"#)
        };
        numbered.map(line).collect()
    })
}

/// The request for each kind of server, written twice: the same transcript gives the same bytes.
fn written(lines: &[String]) -> Vec<(Strict, Value)> {
    let body = agent_runner::test_door::request_after(lines, "p", "m").unwrap();
    let request = ModelRequest::parse(body.as_bytes()).map_err(|error| error.message).unwrap();
    let settings = ProviderSettings::new("p", ProviderKind::Openai);
    let plain = Dialect::default();
    let servers = [
        (Strict::Messages, plain),
        (Strict::Mistral, Dialect { answer_after_tool: true, ..plain }),
        (Strict::DeepSeek, Dialect { thoughts: true, ..plain }),
        (Strict::Gemini, Dialect { signature: true, ..plain }),
    ];
    let write = |server, dialect| match server {
        Strict::Messages => anthropic::body(&request, "m", 100, Thoughts::Signed).unwrap(),
        _ => openai::body(&request, &settings, "m", 100, dialect).unwrap(),
    };
    let both = servers.into_iter().map(|(server, dialect)| {
        let bytes = write(server, dialect);
        assert_eq!(bytes, write(server, dialect));
        (server, serde_json::from_slice(&bytes).unwrap())
    });
    both.collect()
}

/// What belongs to the provider itself is no violation: it made it.
fn without_own(server: Strict, mut body: Value) -> Value {
    let messages = body.get_mut("messages").and_then(Value::as_array_mut);
    for message in messages.into_iter().flatten().filter_map(Value::as_object_mut) {
        if server != Strict::DeepSeek {
            message.remove("reasoning_content");
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten().filter_map(Value::as_object_mut) {
            if server != Strict::Gemini {
                call.remove("extra_content");
            }
        }
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_transcript_makes_a_request_that_every_strict_server_accepts(lines in transcript()) {
        for (server, body) in written(&lines) {
            let broken = violations(server, &without_own(server, body.clone()));
            prop_assert!(broken.is_empty(), "{server:?}: {broken:#?}\n{body:#}");
        }
    }

    #[test]
    fn no_server_gets_what_belongs_to_another(lines in transcript()) {
        let lines: Vec<_> = lines.into_iter().map(|line| line.replace(MAKERS[0], MAKERS[1])).collect();
        let body = agent_runner::test_door::request_after(&lines, "p", "m").unwrap();
        let request = ModelRequest::parse(body.as_bytes()).map_err(|error| error.message).unwrap();
        let settings = ProviderSettings::new("p", ProviderKind::Openai);
        let body = openai::body(&request, &settings, "m", 100, Dialect::default()).unwrap();
        let broken = violations(Strict::Chat, &serde_json::from_slice(&body).unwrap());
        prop_assert!(broken.is_empty(), "{broken:#?}");
    }
}
