//! Answers that pass through.

use hyper::Method;
use serde_json::json;

use super::*;
use crate::model::openai_test_chunks::delta;

#[tokio::test]
async fn a_stream_passes_byte_for_byte_and_is_counted_and_recorded() {
    let (mut world, _upstream) =
        World::over(ProviderKind::Anthropic, vec![Reply::stream(&anthropic("Grüß dich"))], quick).await;
    let answer = world.ask(&question(true)).await;
    assert_eq!((answer.status, answer.whole), (200, true));
    assert_eq!(answer.body, anthropic("Grüß dich"));

    let usage = world.booked().await;
    assert_eq!((usage.input, usage.output, usage.cache_read, usage.cache_write), (11, 22, 33, 44));
    assert_eq!((usage.provider.as_str(), usage.model.as_str()), ("a", "model-of-a"));
    assert_eq!((usage.turn, usage.status, usage.estimated), (Some(TurnId(7)), 200, false));
    assert_eq!(usage.cost_micros, None, "a model that is in no price table");

    let (records, rows) = world.end().await;
    assert!(rows.is_empty(), "one row per call");
    let names: Vec<&str> = records.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["000001-request.json", "000001-response.sse.txt"]);
    assert!(records[0].1.contains(r#""model":"model-of-a""#));
    assert_eq!(records[1].1, anthropic("Grüß dich"));
}

#[tokio::test]
async fn only_what_the_host_decides_goes_to_the_provider_and_only_three_headers_come_back() {
    let (world, upstream) =
        World::over(ProviderKind::Anthropic, vec![Reply::stream(&anthropic("hi"))], quick).await;
    let smuggled = [
        ("authorization", "Bearer of-the-box"),
        ("x-api-key", "of-the-box"),
        ("cookie", "of=box"),
        ("anthropic-version", "2024-01-02"),
        ("anthropic-beta", "of-the-box"),
        ("x-forwarded-for", "of-the-box"),
        ("te", "of-the-box"),
    ];
    let body = Bytes::from(question(true).to_string());
    let answer = world.send(Method::POST, "/v1/messages?beta=true", &smuggled, body).await;

    let seen = &upstream.seen()[0];
    let head = seen.head.to_lowercase();
    assert!(head.starts_with("post /v1/messages http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("x-api-key: {CANARY}\r\n")));
    assert!(head.contains("anthropic-version: 2024-01-02\r\n"));
    assert!(
        !head.contains("of-the-box") && !head.contains("of=box") && !head.contains("anthropic-beta"),
        "{head}"
    );
    assert_eq!(seen.body["model"], "model-of-a");
    assert_eq!(seen.body["max_tokens"], 8192);
    assert_eq!(seen.body["stream"], true);

    let mut names: Vec<&str> = answer.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "date", "request-id", "transfer-encoding"]);
    assert_eq!(answer.headers["request-id"], "req_1");
}

#[tokio::test]
async fn a_key_that_the_provider_echoes_never_reaches_box_record_or_error() {
    let text = format!("your key is {CANARY}, keep it safe");
    let echo = anthropic(&text);
    let message = json!({ "type": "message", "content": [], "note": CANARY, "usage": {} });
    let replies = vec![
        Reply::stream(&echo),
        Reply::json(&message),
        Reply::new(200, &format!("request-id: {CANARY}\r\n"), &echo),
        Reply::error(400, "", &text),
        Reply::error(401, "", &text),
        Reply::new(200, "", &format!("<html>{CANARY}")),
    ];
    let calls = replies.len();
    let (world, upstream) = World::over(ProviderKind::Anthropic, replies, once).await;
    for call in 0..calls {
        let answer = world.ask(&question(call != 1)).await;
        assert!(
            !answer.body.contains("canary") && !format!("{:?}", answer.headers).contains("canary"),
            "{call}"
        );
        if call < 4 {
            assert!(answer.body.contains("[redacted]"), "{call}: {}", answer.body);
        }
    }
    assert_eq!(
        upstream.seen().iter().filter(|seen| seen.head.contains(CANARY)).count(),
        calls,
        "it was sent"
    );
    let (records, rows) = world.end().await;
    assert_eq!((records.len(), rows.len()), (2 * calls, calls));
    assert!(!format!("{records:?}").contains("canary") && !format!("{rows:?}").contains("canary"));
}

#[tokio::test]
async fn g7_a_key_in_other_letters_and_in_pieces_reaches_neither_box_nor_record() {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02X}")).collect();
    let reversed: String = CANARY.chars().rev().collect();
    let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("x:{CANARY}"));
    let forms = [CANARY.to_owned(), hex, reversed, base64];
    for kind in [ProviderKind::Anthropic, ProviderKind::Openai] {
        let event = |text: &str| match kind {
            ProviderKind::Openai => delta(json!({ "content": text })),
            _ => {
                let delta = json!({ "type": "text_delta", "text": text });
                json!({ "type": "content_block_delta", "index": 0, "delta": delta })
            }
        };
        let start = "data: {\"type\":\"message_start\",\"message\":{}}\n\n";
        for form in &forms {
            let pieces = form
                .as_bytes()
                .chunks(5)
                .map(|piece| format!("data: {}\n\n", event(std::str::from_utf8(piece).unwrap())));
            let stream = format!(
                "{}{}",
                if kind == ProviderKind::Anthropic { start } else { "" },
                pieces.collect::<String>()
            );
            let replies = vec![Reply::stream(&stream), Reply::error(400, "", form)];
            let (world, _upstream) = World::over(kind, replies, once).await;
            for _ in 0..2 {
                let answer = world.ask(&question(true)).await;
                let texts = answer.body.lines().filter_map(|line| line.strip_prefix("data: "));
                let values = texts.filter_map(|text| serde_json::from_str::<Value>(text).ok());
                let said: String =
                    values.filter_map(|value| value["delta"]["text"].as_str().map(str::to_owned)).collect();
                let told = format!("{said} {}", answer.body);
                assert!(told.contains("[redacted]") && !told.contains(&form[8..]), "{kind:?} {told}");
            }
            let (records, _) = world.end().await;
            assert!(!format!("{records:?}").contains(&form[8..]));
        }
    }
}

#[tokio::test]
async fn a_request_that_is_not_streamed_is_answered_whole_and_a_stream_that_is_not_one_is_made_one() {
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": "hi" }], "usage": { "input_tokens": 3, "output_tokens": 4 },
    });
    let (mut world, _upstream) =
        World::over(ProviderKind::Anthropic, vec![Reply::json(&message)], quick).await;
    assert_eq!(world.ask(&question(false)).await.json(), message);
    assert_eq!(world.booked().await.output, 4);

    let events = world.ask(&question(true)).await.events();
    assert_eq!(events.first().unwrap()["type"], "message_start");
    assert_eq!(events[2]["delta"]["text"], "hi");
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    assert_eq!(world.booked().await.input, 3);
}
