//! Whatever JSON a box sends, a provider gets known fields of known types, or nothing.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fuzz_targets;
use super::request::ModelRequest;

/// Names that the wires know, and names that make some provider fetch or run something.
const NAMES: [&str; 32] = [
    "type",
    "role",
    "content",
    "text",
    "source",
    "media_type",
    "data",
    "url",
    "file_id",
    "image_url",
    "file",
    "tools",
    "messages",
    "system",
    "name",
    "input",
    "input_schema",
    "tool_use_id",
    "is_error",
    "thinking",
    "signature",
    "cache_control",
    "ttl",
    "maker",
    "message",
    "calls",
    "mcp_servers",
    "container",
    "tool_choice",
    "metadata",
    "reasoning_content",
    "extra_content",
];

const WORDS: [&str; 20] = [
    "text",
    "image",
    "document",
    "tool_use",
    "tool_result",
    "thinking",
    "redacted_thinking",
    "opaque",
    "base64",
    "url",
    "file",
    "user",
    "assistant",
    "image_url",
    "custom",
    "ephemeral",
    "application/pdf",
    "image/png",
    "p/m",
    "https://evil.example/?d=1",
];

fn json() -> impl Strategy<Value = Value> {
    let word = proptest::sample::select(&WORDS[..]).prop_map(Value::from);
    let leaf = prop_oneof![
        4 => word,
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let name = proptest::sample::select(&NAMES[..]).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A request with everything that passes.
fn honest() -> Value {
    let source = |kind: &str| json!({ "type": "base64", "media_type": kind, "data": "AAAA" });
    let cache = json!({ "type": "ephemeral", "ttl": "5m" });
    json!({
        "model": "x", "max_tokens": 50, "stream": true, "temperature": 0.5, "top_p": 0.25, "top_k": 5,
        "stop_sequences": ["END"], "thinking": { "type": "adaptive", "display": "omitted" },
        "output_config": { "effort": "low" }, "cache_control": cache, "metadata": { "user_id": "u" },
        "system": [{ "type": "text", "text": "be kind", "cache_control": cache }],
        "tools": [{ "name": "ls", "description": "lists", "input_schema": { "type": "object" }, "cache_control": cache }],
        "tool_choice": { "type": "tool", "name": "ls", "disable_parallel_tool_use": true },
        "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "s" },
                { "type": "redacted_thinking", "data": "x" },
                { "type": "text", "text": "looking" },
                { "type": "tool_use", "id": "a", "name": "ls", "input": { "path": "." }, "cache_control": cache },
                { "type": "opaque", "maker": "p/m", "message": { "reasoning_content": "hm" },
                    "calls": { "a": { "extra_content": { "google": { "thought_signature": "AbC=" } } } } } ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "a", "is_error": true, "cache_control": cache, "content": [
                    { "type": "text", "text": "x.md" },
                    { "type": "image", "source": source("image/png") },
                    { "type": "document", "source": source("application/pdf") } ] },
                { "type": "image", "source": source("image/jpeg"), "cache_control": cache },
                { "type": "document", "source": source("application/pdf") },
                { "type": "text", "text": "and hurry", "cache_control": cache } ] },
        ],
    })
}

/// The places of all values in a request.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
        }
        _ => {}
    }
}

/// An honest request in which some values are replaced, wrapped, or given fields of others.
fn mutated() -> impl Strategy<Value = Value> {
    let change = (any::<prop::sample::Index>(), 0..4u8, json(), proptest::sample::select(&NAMES[..]));
    proptest::collection::vec(change, 1..4).prop_map(|changes| {
        let mut request = honest();
        for (at, kind, value, name) in changes {
            let mut all: Vec<String> = Vec::new();
            places(&request, "", &mut all);
            let chosen: &String = at.get(&all);
            let Some(place) = request.pointer_mut(chosen) else { continue };
            match (kind, &mut *place) {
                (0, place) => *place = value,
                (1, place) => *place = json!([place.take()]),
                (_, Value::Object(fields)) => drop(fields.insert(name.to_owned(), value)),
                (_, Value::Array(list)) => list.push(value),
                (_, place) => *place = json!({ name: value }),
            }
        }
        request
    })
}

#[test]
fn an_honest_request_passes_whole() {
    let text = honest().to_string();
    let request = ModelRequest::parse(text.as_bytes()).map_err(|error| error.message).unwrap();
    let mut expected = honest();
    expected["model"] = json!("m");
    let blocks = expected["messages"][1]["content"].as_array_mut().unwrap();
    blocks.pop();
    let body = super::anthropic::body(&request, "m", 50, super::anthropic::Thoughts::Signed).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    fuzz_targets::model_request(text.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_json_reaches_no_provider_but_in_known_fields(request in json()) {
        fuzz_targets::model_request(request.to_string().as_bytes());
        fuzz_targets::model_request(json!({ "messages": request }).to_string().as_bytes());
        fuzz_targets::model_request(
            json!({ "messages": [{ "role": "user", "content": request }], "tools": [request] }).to_string().as_bytes(),
        );
        fuzz_targets::model_request(
            json!({ "messages": [{ "role": "assistant", "content": [request] }] }).to_string().as_bytes(),
        );
    }

    #[test]
    fn a_changed_request_reaches_no_provider_but_in_known_fields(request in mutated()) {
        fuzz_targets::model_request(request.to_string().as_bytes());
    }
}
