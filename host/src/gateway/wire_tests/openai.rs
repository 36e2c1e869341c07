//! The other wire, there and back.

use serde_json::json;

use super::*;
use crate::model::openai_test_chunks::{call, delta, stop, stream};

#[tokio::test]
async fn two_parallel_calls_and_their_results_go_there_and_back() {
    let first = stream(&[
        delta(json!({ "content": "Looking." })),
        call(0, "call_0", Some("ls"), "{\"path\":"),
        call(0, "call_0", None, "\".\"}"),
        call(1, "call_0", Some("cat"), "{}"),
        stop("tool_calls"),
        json!({ "choices": [], "usage": { "prompt_tokens": 50, "completion_tokens": 9 } }),
    ]) + "data: [DONE]\n\n";
    let second = stream(&[delta(json!({ "content": "Done." })), stop("stop")]);
    let (mut world, upstream) =
        World::over(ProviderKind::Openai, vec![Reply::stream(&first), Reply::stream(&second)], quick).await;

    let tools = json!([{ "name": "ls", "input_schema": {} }, { "name": "cat", "input_schema": {} }]);
    let mut asked = question(true);
    asked["tools"] = tools;
    let events = world.ask(&asked).await.events();
    let ids: Vec<&str> = events.iter().filter_map(|event| event["content_block"]["id"].as_str()).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "the server gave one id twice: {ids:?}");
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
    let usage = world.booked().await;
    assert_eq!((usage.input, usage.output, usage.estimated), (50, 9, false));

    asked["messages"] = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": [
            { "type": "text", "text": "Looking." },
            { "type": "tool_use", "id": ids[0], "name": "ls", "input": { "path": "." } },
            { "type": "tool_use", "id": ids[1], "name": "cat", "input": {} } ] },
        { "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": ids[0], "content": "a.md" },
            { "type": "tool_result", "tool_use_id": ids[1], "content": "gone", "is_error": true } ] },
    ]);
    let events = world.ask(&asked).await.events();
    assert_eq!(events[2]["delta"]["text"], "Done.");
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    let usage = world.booked().await;
    assert_eq!((usage.output, usage.estimated), (2, true), "the second answer has no counts, and no [DONE]");

    let seen = upstream.seen();
    assert!(seen[0].head.starts_with("POST /chat/completions HTTP/1.1\r\n"));
    assert!(seen[0].head.contains(&format!("authorization: Bearer {CANARY}\r\n")));
    assert!(!seen[0].head.contains("anthropic"));
    assert_eq!(seen[0].body["stream_options"]["include_usage"], true);
    let messages = &seen[1].body["messages"];
    assert_eq!(messages[2]["tool_calls"][1]["id"], "call00002");
    assert_eq!(messages[3], json!({ "role": "tool", "tool_call_id": "call00001", "content": "a.md" }));
    assert_eq!(messages[4], json!({ "role": "tool", "tool_call_id": "call00002", "content": "Error: gone" }));
}

#[tokio::test]
async fn what_a_provider_misses_is_filled_in_and_remembered() {
    let refusal = "The `reasoning_content` in the thinking mode must be passed back to the API.";
    let fine = stream(&[delta(json!({ "content": "fine" })), stop("stop")]);
    let replies = vec![Reply::error(400, "", refusal), Reply::stream(&fine), Reply::stream(&fine)];
    let (world, upstream) = World::over(ProviderKind::Openai, replies, quick).await;
    let mut asked = question(true);
    asked["messages"] = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "a", "name": "ls", "input": {} }] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "a", "content": "x" }] },
    ]);
    for _ in 0..2 {
        assert_eq!(world.ask(&asked).await.events()[2]["delta"]["text"], "fine");
    }
    let sent: Vec<_> =
        upstream.seen().iter().map(|seen| seen.body["messages"][2]["reasoning_content"].clone()).collect();
    assert_eq!(sent, [Value::Null, json!(" "), json!(" ")]);
}

#[tokio::test]
async fn a_server_that_ignores_stream_is_understood() {
    let completion = json!({ "choices": [{ "message": { "content": "whole" }, "finish_reason": "stop" }] });
    let (world, _upstream) = World::over(ProviderKind::Openai, vec![Reply::json(&completion)], quick).await;
    let events = world.ask(&question(true)).await.events();
    assert_eq!(events[2]["delta"]["text"], "whole");
    assert_eq!(world.ask(&question(false)).await.json()["content"][0]["text"], "whole");
}

#[tokio::test]
async fn a_server_that_hangs_after_its_reason_to_stop_was_done() {
    let body = stream(&[delta(json!({ "content": "all" })), stop("stop")]);
    let replies = vec![Reply::silent(&body), Reply::cut(&body)];
    let silence = Duration::from_millis(50);
    let settings = |providers| GatewaySettings { silence, ..quick(providers) };
    let (world, _upstream) = World::over(ProviderKind::Openai, replies, settings).await;
    for _ in 0..2 {
        let answer = world.ask(&question(true)).await;
        assert!(answer.whole);
        assert_eq!(answer.events().last().unwrap()["type"], "message_stop");
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_becomes_an_event() {
    let body = stream(&[delta(json!({ "content": "so" }))]);
    let error = format!("data: {}\n\n", json!({ "error": { "message": "quota used up" } }));
    let gate = Arc::new(Semaphore::new(0));
    let replies = vec![
        Reply::gated(&body, &gate, &error),
        Reply::gated(&body, &gate, &format!("data: {}\n\n", stop("error"))),
        Reply::stream(&body),
    ];
    let (mut world, _upstream) = World::over(ProviderKind::Openai, replies, quick).await;
    world.arrived = gate;
    for words in ["quota used up", "broke off"] {
        let answer = world.ask(&question(true)).await;
        let last = answer.events().pop().unwrap();
        assert_eq!((answer.whole, last["type"].as_str()), (true, Some("error")));
        assert!(last["error"]["message"].as_str().unwrap().contains(words), "{last}");
        assert_eq!(world.booked().await.status, 502);
    }
    let half = world.ask(&question(true)).await;
    assert!(!half.whole, "a stream without its end is cut, not ended");
}

#[tokio::test]
async fn a_field_that_a_server_refuses_is_left_out_of_this_call_and_the_next() {
    let refused = |field: &str| {
        Reply::new(
            400,
            "",
            &json!({ "error": { "message": format!("Unrecognized request argument supplied: {field}") } })
                .to_string(),
        )
    };
    let fine = stream(&[delta(json!({ "content": "fine" })), stop("stop")]);
    let replies = vec![refused("stream_options"), refused("max_completion_tokens"), Reply::stream(&fine)];
    let (mut world, upstream) = World::over(ProviderKind::Openai, replies, once).await;
    for _ in 0..2 {
        assert_eq!(world.ask(&question(true)).await.events()[2]["delta"]["text"], "fine");
        assert!(world.booked().await.estimated, "without the field, a server tells no counts");
    }
    let seen = upstream.seen();
    let has = |name: &str| seen.iter().map(|seen| seen.body.get(name).is_some()).collect::<Vec<_>>();
    assert_eq!(has("stream_options"), [true, false, false, false]);
    assert_eq!(has("max_completion_tokens"), [true, true, false, false]);
    assert_eq!(has("max_tokens"), [false, false, true, true]);
}

#[tokio::test]
async fn what_a_model_writes_at_most_is_remembered_and_what_one_conversation_leaves_is_not() {
    let refused = |why: &str| Reply::new(400, "", &json!({ "error": { "message": why } }).to_string());
    let fine = || Reply::stream(&stream(&[delta(json!({ "content": "fine" })), stop("stop")]));
    let room = "'max_tokens' is too large: 8192. This model's maximum context length is 8192 tokens and your request \
                has 1500 input tokens.";
    let most = "max_tokens is too large: 8192. This model supports at most 4096 completion tokens.";
    let replies = vec![refused(room), fine(), refused(most), fine(), fine()];
    let (world, upstream) = World::over(ProviderKind::Openai, replies, once).await;
    for _ in 0..3 {
        let mut asked = question(true);
        asked["max_tokens"] = json!(8192);
        assert_eq!(world.ask(&asked).await.status, 200);
    }
    let limits = upstream.seen().into_iter().map(|seen| seen.body["max_completion_tokens"].clone());
    assert_eq!(limits.collect::<Vec<_>>(), [8192, 6692, 8192, 4096, 4096]);
}

#[tokio::test]
async fn an_error_before_the_first_word_of_a_stream_is_a_refusal_like_any_other() {
    let begun = delta(json!({ "role": "assistant", "content": "" }));
    let busy = json!({ "error": { "code": 503, "message": "Provider is overloaded" } });
    let long = json!({ "error": { "message": "Context size has been exceeded." } });
    let fine = stream(&[delta(json!({ "content": "fine" })), stop("stop")]);
    let replies = vec![
        Reply::stream(&stream(&[begun.clone(), busy])),
        Reply::stream(&fine),
        Reply::stream(&stream(&[begun, long.clone()])),
        Reply::json(&json!([long])),
    ];
    let (world, upstream) = World::over(ProviderKind::Openai, replies, quick).await;
    assert_eq!(world.ask(&question(true)).await.events()[2]["delta"]["text"], "fine");
    for attempts in [3, 4] {
        let answer = world.ask(&question(true)).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (413, "request_too_large"));
        assert_eq!(upstream.seen().len(), attempts);
    }
}
