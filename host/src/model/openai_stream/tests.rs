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

/// The texts of the answer, joined.
fn texts(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect()
}

/// The thoughts of the answer, joined.
fn thoughts(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["delta"]["thinking"].as_str()).collect()
}

/// What the translator made of these bytes, and how much it could not read.
fn translated(wire: &str) -> (Vec<Value>, u64) {
    let mut translator = Translator::new("p", "gpt", 40);
    let mut out = translator.feed(wire.as_bytes()).unwrap().to_vec();
    out.extend(translator.finish().unwrap());
    let events = EventParser::default().feed(&out).unwrap();
    (events.iter().map(|event| serde_json::from_str(event).unwrap()).collect(), translator.skipped())
}

#[test]
fn a_piece_of_a_call_keeps_the_box_awake() {
    let mut translator = Translator::new("p", "gpt", 40);
    let mut feed = |chunk: Value| translator.feed(format!("data: {chunk}\n\n").as_bytes()).unwrap();
    assert!(
        feed(delta(json!({ "role": "assistant", "content": "" }))).is_empty(),
        "no part of an answer yet"
    );
    let begun = feed(call(0, "a", Some("ls"), "{\"a\""));
    assert!(begun.starts_with(b"event: message_start") && begun.ends_with(b"data: {\"type\":\"ping\"}\n\n"));
    assert_eq!(feed(call(0, "", None, ":1}")), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
    assert_eq!(translator.answered(), 7, "what the box has not received counts, too");
}

#[test]
fn one_call_stays_one_call_however_its_pieces_are_labelled() {
    let args = "{\"a\":1}";
    let index =
        |index: Value, id: &str, name: Option<&str>, arguments: &str| call(index, id, name, arguments);
    let stories = [
        (
            "the name in every piece",
            vec![call(0, "c", Some("ls"), ""), call(0, "c", Some("ls"), args), call(0, "c", Some("ls"), "")],
        ),
        (
            "a name in every piece and no id",
            vec![call(0, "", Some("ls"), ""), call(0, "", Some("ls"), args), call(0, "", Some("ls"), "")],
        ),
        (
            "neither index nor id",
            vec![
                index(Value::Null, "", Some("ls"), ""),
                index(Value::Null, "", None, "{\"a\""),
                index(Value::Null, "", Some("ls"), ":1}"),
            ],
        ),
        ("arguments under another index", vec![call(0, "c", Some("ls"), ""), call(1, "c", None, args)]),
        (
            "the whole call under two indexes",
            vec![call(0, "c", Some("ls"), args), call(1, "c", Some("ls"), args)],
        ),
        (
            "the whole call under two indexes, in pieces",
            vec![
                call(0, "c", Some("ls"), args),
                call(1, "c", Some("ls"), ""),
                call(1, "", None, "{\"a\""),
                call(1, "", None, ":1}"),
            ],
        ),
        (
            "another index with every piece",
            vec![call(0, "c", Some("ls"), ""), call(1, "", None, "{\"a\""), call(2, "", None, ":1}")],
        ),
        ("an index -1", vec![index(json!(-1), "c", Some("ls"), "{\"a\""), index(json!(-1), "", None, ":1}")]),
        ("an index as a text", vec![index(json!("0"), "c", Some("ls"), "{\"a\""), call(0, "", None, ":1}")]),
        (
            "an id in every piece, each another one",
            vec![call(0, "c", Some("ls"), "{\"a\""), call(0, "d", None, ":1}")],
        ),
        (
            "the whole arguments again at the end",
            vec![call(0, "c", Some("ls"), "{\"a\""), call(0, "c", None, ":1}"), call(0, "c", None, args)],
        ),
        ("a bracket too many", vec![call(0, "c", Some("ls"), args), call(0, "c", None, "}")]),
        ("empty arguments first", vec![call(0, "c", Some("ls"), "{}"), call(0, "c", None, args)]),
        (
            "an empty call beside it",
            vec![
                call(0, "c", Some("ls"), args),
                delta(json!({ "tool_calls": [{ "index": 1 }, {}, null, 7] })),
            ],
        ),
        (
            "arguments as an object",
            vec![delta(json!({ "tool_calls": [
            { "index": 0, "id": "c", "function": { "name": "ls", "arguments": { "a": 1 } } }] }))],
        ),
        (
            "no list",
            vec![delta(json!({ "tool_calls": { "function": { "name": "ls", "arguments": args } } }))],
        ),
        (
            "the form before tool calls",
            vec![delta(json!({ "function_call": { "name": "ls", "arguments": args } }))],
        ),
        (
            "a message at the end again",
            vec![
                call(0, "c", Some("ls"), args),
                json!({ "choices": [{ "message": { "tool_calls": [{ "id": "d", "function": { "name": "ls", "arguments": args } }] } }] }),
            ],
        ),
    ];
    for (story, mut lines) in stories {
        lines.push(stop("tool_calls"));
        assert_eq!(calls(&events(&lines, 99)), [pair("ls", args)], "{story}");
    }
}

#[test]
fn two_calls_stay_two_calls() {
    let stories = [
        (
            "one id, other arguments in pieces",
            vec![
                call(0, "c", Some("ls"), "{\"a\":1}"),
                call(1, "c", Some("ls"), ""),
                call(1, "", None, "{\"b\""),
                call(1, "", None, ":2}"),
            ],
        ),
        (
            "equal calls with two ids",
            vec![call(0, "c", Some("ls"), "{\"a\":1}"), call(0, "d", Some("ls"), "{\"b\":2}")],
        ),
        (
            "in one list",
            vec![delta(json!({ "tool_calls": [
            { "id": "c", "function": { "name": "ls", "arguments": "{\"a\":1}" } },
            { "id": "d", "function": { "name": "ls", "arguments": "{\"b\":2}" } } ] }))],
        ),
    ];
    for (story, mut lines) in stories {
        lines.push(stop("tool_calls"));
        assert_eq!(calls(&events(&lines, 99)), [pair("ls", "{\"a\":1}"), pair("ls", "{\"b\":2}")], "{story}");
    }
    let twice = [call(0, "c", Some("ls"), "{}"), call(1, "d", Some("ls"), "{}"), stop("tool_calls")];
    assert_eq!(calls(&events(&twice, 99)).len(), 2, "the model may ask for the same twice");
}

#[test]
fn thoughts_are_no_text() {
    let told = events(
        &[
            delta(
                json!({ "content": [{ "type": "thinking", "thinking": [{ "type": "text", "text": "b" }] }] }),
            ),
            delta(json!({ "content": "Hello" })),
            delta(json!({ "content": [{ "type": "text", "text": "!" }] })),
            stop("stop"),
        ],
        99,
    );
    assert_eq!((thoughts(&told).as_str(), texts(&told).as_str()), ("b", "Hello!"));
}

#[test]
fn an_answer_of_which_nothing_can_be_read_is_asked_for_again() {
    for content in [json!([7]), json!({ "new": "shape" })] {
        let mut translator = Translator::new("p", "gpt", 99);
        let wire = format!("data: {}\n\ndata: {}\n\n", delta(json!({ "content": content })), stop("stop"));
        translator.feed(wire.as_bytes()).unwrap();
        let refused = translator.feed(b"data: [DONE]\n\n").unwrap_err();
        assert_eq!((refused.status, refused.kind), (502, "no_answer_error"), "{content}");
    }
}

#[test]
fn one_odd_element_costs_itself_alone() {
    let text = |text: &str| format!("data: {}\n\n", delta(json!({ "content": text })));
    let end = format!("data: {}\n\ndata: [DONE]\n\n", stop("stop"));
    let odd = [
        ("data: \n\n", 0),
        ("data: \u{feff}\n\n", 0),
        (": comment\n\n", 0),
        ("data: <html>\n\n", 1),
        ("data: {\"choices\": [\n\n", 1),
        ("data: 7\n\ndata: null\n\n", 2),
        ("data: {\"choices\": null, \"usage\": null}\n\n", 0),
        ("data: {\"choices\": [7]}\n\n", 1),
        ("data: {\"choices\": [{\"delta\": 7}]}\n\n", 1),
        ("data: {\"choices\": [{\"delta\": {\"content\": 7, \"tool_calls\": \"none\"}}]}\n\n", 2),
        ("data: {\"choices\": [], \"usage\": {\"prompt_tokens\": -1, \"completion_tokens\": \"x\"}}\n\n", 2),
        ("data: {\"error\": null, \"choices\": []}\n\n", 0),
        ("data: {\"type\": \"ping\"}\n\n", 0),
    ];
    for (odd, unread) in odd {
        for wire in [
            format!("{odd}{}{}{end}", text("one "), text("two")),
            format!("{}{odd}{}{end}", text("one "), text("two")),
        ] {
            let (told, skipped) = translated(&wire);
            assert_eq!((texts(&told).as_str(), skipped), ("one two", unread), "{odd}");
            assert_eq!(told.last().unwrap()["type"], "message_stop", "{odd}");
        }
    }
}

#[test]
fn a_text_is_whole_however_the_server_spells_it() {
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    for wire in [
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hi \\ud83d\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\\ude00\"}}]}\n\n",
        "\u{feff}data: {\"choices\":[{\"delta\":{\"content\":\"x\",\"content\":\"Hi \u{1f600}\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hi \u{1f600}\",\"content\":null},\"delta\":null}]}\n\n",
        "data: {\"choices\":[{\"message\":{\"content\":\"Hi \"}}]}\n\ndata: {\"choices\":[{\"message\":{\"content\":\"\u{1f600}\"}}]}\n\n",
        "data: {\"choices\":{\"delta\":{\"content\":\"Hi \u{1f600}\"}}}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hi \u{1f600}\"}}]}\n\ndata: {\"choices\":[{\"message\":{\"content\":\"Hi \u{1f600}\"}}]}\n\n",
    ] {
        let (told, skipped) = translated(&format!("{wire}{end}"));
        assert_eq!((texts(&told).as_str(), skipped), ("Hi \u{1f600}", 0), "{wire}");
    }
}

#[test]
fn half_an_answer_has_no_end() {
    let half = || delta(json!({ "content": "half" }));
    let empty = json!({ "choices": [{ "delta": {}, "finish_reason": "" }] });
    for lines in [vec![half()], vec![half(), empty.clone()]] {
        assert_eq!(events(&lines, 99).last().unwrap()["type"], "content_block_delta");
    }
    let (told, _) = translated(&format!("data: {}\n\ndata: {empty}\n\ndata: [DONE]\n\n", half()));
    assert_eq!(told.last().unwrap()["type"], "message_stop", "the server said that it is done");
    let called = [call(0, "a", Some("ls"), "{}"), empty];
    assert!(calls(&events(&called, 99)).is_empty(), "a call of a cut answer does not run");
    for reason in ["error", "abort", "network_error"] {
        let broken = format!("data: {}\n\ndata: {}\n\n", half(), stop(reason));
        assert_eq!(
            Translator::new("p", "gpt", 0).feed(broken.as_bytes()).unwrap_err().status,
            502,
            "{reason}"
        );
    }
}

#[test]
fn an_error_is_told_and_a_stream_without_any_answer_is_none() {
    let told =
        |line: &str| Translator::new("p", "gpt", 0).feed(format!("data: {line}\n\n").as_bytes()).unwrap_err();
    assert!(told(r#"{"error":{"message":"quota"}}"#).message.ends_with("quota"));
    assert!(told(r#"{"error":"quota"}"#).message.ends_with("quota"));
    assert_eq!(told(r#"{"error":{"message":"prompt is too long","code":500}}"#).status, 413);
    for nothing in [
        "data: <html>\n\n",
        "data: [DONE]\n\n",
        "",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\n\n",
    ] {
        assert!(translated(nothing).0.is_empty(), "{nothing}");
    }
    assert_eq!(translated(&format!("data: {}\n\n", stop("stop"))).0.len(), 3, "a model may say nothing");
}

#[test]
fn an_answer_that_calls_tools_without_end_is_refused_before_it_fills_the_memory() {
    let mut translator = Translator::new("p", "gpt", 40);
    let piece = format!("data: {}\n\n", call(0, "a", None, &"x".repeat(1024 * 1024)));
    let refused = (0..16).position(|_| translator.feed(piece.as_bytes()).is_err());
    assert_eq!(refused, Some(8));
    let mut translator = Translator::new("p", "gpt", 40);
    let one = |n: u64| format!("data: {}\n\n", call(n, &format!("c{n}"), Some("t"), "{}"));
    let refused = (0..2_000).position(|n| translator.feed(one(n).as_bytes()).is_err());
    assert_eq!(refused, Some(1_000));
}
