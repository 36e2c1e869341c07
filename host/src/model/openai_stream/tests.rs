use super::*;
use crate::model::openai_test_chunks::{call, delta, stop, stream};

/// The events of a stream of these data lines, cut into bytes `step` at a time.
fn events(lines: &[Value], step: usize) -> Vec<Value> {
    let mut translator = Translator::new("p", "gpt", 40);
    let wire = stream(lines);
    let mut out = Vec::new();
    for bytes in wire.as_bytes().chunks(step) {
        out.extend(translator.feed(bytes).unwrap());
    }
    out.extend(translator.finish().unwrap());
    let mut parser = EventParser::default();
    let events = parser.feed(&out).unwrap();
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// The tool calls as a reader of the Messages wire puts them together, which also checks that blocks neither
/// overlap nor skip an index.
fn calls(events: &[Value]) -> Vec<(String, String)> {
    let mut open = None;
    let mut next = 0;
    let mut calls = Vec::new();
    for event in events {
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!((open, event["index"].as_u64()), (None, Some(next)), "blocks overlap");
                open = Some(next);
                if event["content_block"]["type"] == "tool_use" {
                    let name = event["content_block"]["name"].as_str().unwrap().to_owned();
                    calls.push((name, String::new()));
                }
            }
            "content_block_delta" => {
                assert_eq!(event["index"].as_u64(), open);
                if let Some(json) = event["delta"]["partial_json"].as_str() {
                    calls.last_mut().unwrap().1.push_str(json);
                }
            }
            "content_block_stop" => {
                assert_eq!(event["index"].as_u64(), open.take());
                next += 1;
            }
            _ => {}
        }
    }
    assert_eq!(open, None, "a block stayed open");
    calls
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["content_block"]["id"].as_str()).collect()
}

fn pair(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn text_and_counts_become_a_message_however_the_bytes_are_cut() {
    let lines = [
        delta(json!({ "role": "assistant", "content": "" })),
        delta(json!({ "reasoning_content": "hidden" })),
        delta(json!({ "content": "Grüß" })),
        delta(json!({ "content": " dich" })),
        stop("stop"),
        json!({ "choices": [], "usage": { "prompt_tokens": 9, "completion_tokens": 3 } }),
        json!("[DONE]"),
    ];
    let types = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    for step in [1, 7, 10_000] {
        // `[DONE]` is no JSON string on the wire.
        let mut translator = Translator::new("p", "gpt", 40);
        let wire = stream(&lines).replace("\"[DONE]\"", "[DONE]");
        let mut out = Vec::new();
        for bytes in wire.as_bytes().chunks(step) {
            out.extend(translator.feed(bytes).unwrap());
        }
        assert!(translator.finish().unwrap().is_empty(), "the end was written at [DONE]");
        assert!(!translator.estimated());
        let events = EventParser::default().feed(&out).unwrap();
        let events: Vec<Value> = events.iter().map(|e| serde_json::from_str(e).unwrap()).collect();
        assert_eq!(events.iter().map(|e| e["type"].as_str().unwrap()).collect::<Vec<_>>(), types);
        let thought = json!({ "type": "opaque", "maker": "p/gpt", "message": { "reasoning_content": "hidden" }, "calls": {} });
        assert_eq!(events[5]["content_block"], thought, "the provider gets it back");
        assert_eq!(events[7]["usage"]["input_tokens"], 9);
        assert_eq!(events[7]["delta"]["stop_reason"], "end_turn");
    }
}

#[test]
fn parallel_calls_with_one_id_are_two_calls_with_two_ids() {
    let lines = [
        call(0, "call_1", Some("ls"), ""),
        call(0, "", None, "{\"a\":"),
        call(0, "", None, "1}"),
        call(1, "call_1", Some("cat"), "{\"b\":2}"),
        stop("tool_calls"),
    ];
    let events = events(&lines, 13);
    assert_eq!(calls(&events), [pair("ls", "{\"a\":1}"), pair("cat", "{\"b\":2}")]);
    let ids = ids(&events);
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.starts_with("call_") && id.len() <= 40));
}

#[test]
fn interleaved_arguments_end_up_in_their_own_calls() {
    let lines = [
        call(0, "a", Some("ls"), "{\"a\""),
        call(1, "b", Some("cat"), "{\"b\""),
        call(0, "", None, ":1}"),
        call(1, "", None, ":2}"),
        stop("tool_calls"),
    ];
    assert_eq!(calls(&events(&lines, 99)), [pair("ls", "{\"a\":1}"), pair("cat", "{\"b\":2}")]);
}

#[test]
fn calls_that_all_have_index_0_or_none_stay_separate() {
    for index in [json!(0), Value::Null] {
        for ids in [["a", "b"], ["same", "same"]] {
            let lines = [
                call(index.clone(), ids[0], Some("ls"), "{\"a\":1}"),
                call(index.clone(), ids[1], Some("ls"), "{\"b\":2}"),
                stop("stop"),
            ];
            let events = events(&lines, 99);
            assert_eq!(calls(&events), [pair("ls", "{\"a\":1}"), pair("ls", "{\"b\":2}")], "{index} {ids:?}");
            assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
        }
    }
}

#[test]
fn a_call_waits_for_its_name_and_one_without_a_name_is_no_call() {
    let lines = [
        call(0, "a", None, "{\"a\""),
        call(0, "", Some("ls"), ":1}"),
        call(1, "b", None, "{}"),
        stop("tool_calls"),
    ];
    assert_eq!(calls(&events(&lines, 99)), [pair("ls", "{\"a\":1}")]);
    let events = events(&lines[2..], 99);
    assert_eq!(calls(&events), []);
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "end_turn");
}

#[test]
fn the_fields_of_a_call_that_belong_to_the_provider_are_kept_by_the_calls_id() {
    let signature = json!({ "google": { "thought_signature": "AbC=" } });
    let mut second = call(1, "b", Some("ls"), "{}");
    second["choices"][0]["delta"]["tool_calls"][0]["extra_content"] = signature.clone();
    let events = events(&[call(0, "a", Some("ls"), "{}"), second, stop("tool_calls")], 99);
    let ids = ids(&events);
    let block = events.iter().find(|event| event["content_block"]["type"] == "opaque").unwrap();
    let expected =
        Value::Object([(ids[1].to_owned(), json!({ "extra_content": signature }))].into_iter().collect());
    assert_eq!(block["content_block"]["calls"], expected);
}

#[test]
fn a_name_that_is_repeated_with_every_piece_is_one_call() {
    let lines = [call(0, "a", Some("ls"), "{\"a\""), call(0, "a", Some("ls"), ":1}"), stop("tool_calls")];
    assert_eq!(calls(&events(&lines, 99)), [pair("ls", "{\"a\":1}")]);
}

#[test]
fn counts_that_the_server_does_not_send_are_estimated() {
    let mut translator = Translator::new("p", "gpt", 40);
    translator.feed(format!("data: {}\n\n", delta(json!({ "content": "eight ch" }))).as_bytes()).unwrap();
    translator.feed(format!("data: {}\n\n", stop("length")).as_bytes()).unwrap();
    let end = String::from_utf8(translator.finish().unwrap().to_vec()).unwrap();
    assert!(translator.estimated());
    assert!(end.contains(r#""usage":{"input_tokens":10,"output_tokens":2}"#), "{end}");
    assert!(end.contains(r#""stop_reason":"max_tokens""#), "{end}");
}

#[test]
fn a_stream_that_stops_without_a_reason_has_no_end() {
    let told = events(&[delta(json!({ "content": "half" }))], 99);
    assert_eq!(told.last().unwrap()["type"], "content_block_delta");
}

#[test]
fn errors_and_garbage_are_told() {
    let told =
        |line: &str| Translator::new("p", "gpt", 0).feed(format!("data: {line}\n\n").as_bytes()).unwrap_err();
    assert!(told(r#"{"error":{"message":"quota"}}"#).message.ends_with("quota"));
    assert!(told(r#"{"error":"quota"}"#).message.ends_with("quota"));
    assert!(told("<html>").message.contains("no chunk"));
}

#[test]
fn an_answer_that_calls_tools_without_end_is_refused_before_it_fills_the_memory() {
    let mut translator = Translator::new("p", "gpt", 40);
    let piece = format!("data: {}\n\n", call(0, "a", None, &"x".repeat(1024 * 1024)));
    let refused = (0..16).position(|_| translator.feed(piece.as_bytes()).is_err());
    assert_eq!(refused, Some(8));
    let mut translator = Translator::new("p", "gpt", 40);
    let one = |n: u64| format!("data: {}\n\n", call(n, "a", Some("t"), "{}"));
    let refused = (0..2_000).position(|n| translator.feed(one(n).as_bytes()).is_err());
    assert_eq!(refused, Some(1_000));
}
