//! Providers that fail, refuse, hang and break off.

use serde_json::json;

use super::*;
use crate::model::openai_test_chunks::delta;

async fn one(
    replies: Vec<Reply>,
    settings: impl FnOnce(Vec<ProviderSettings>) -> GatewaySettings,
) -> (World, Provider) {
    World::over(ProviderKind::Anthropic, replies, settings).await
}

#[tokio::test]
async fn what_may_pass_is_repeated_until_it_has_passed() {
    let in_stream = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n";
    let replies = vec![
        Reply::error(429, "retry-after: 0\r\n", "slow down"),
        Reply::error(529, "", "overloaded"),
        Reply::error(500, "", "oops"),
        Reply::new(503, "", "<html>down</html>"),
        Reply::nothing(),
        Reply::stream(in_stream),
        Reply::stream(""),
        Reply::new(200, "content-type: text/html\r\n", "<html>a captive portal</html>"),
        Reply::stream(&anthropic("at last")),
    ];
    let attempts = replies.len();
    let (mut world, upstream) = one(replies, quick).await;
    let answer = world.ask(&question(true)).await;
    assert_eq!((answer.status, answer.body), (200, anthropic("at last")));
    assert_eq!(upstream.seen().len(), attempts);
    assert_eq!(world.booked().await.status, 200);
    let (_, rows) = world.end().await;
    assert!(rows.is_empty(), "attempts are not calls");
}

#[tokio::test]
async fn retry_after_beyond_the_patience_is_passed_on_at_once() {
    let (world, upstream) = one(vec![Reply::error(429, "retry-after: 3600\r\n", "next hour")], quick).await;
    let answer = world.ask(&question(true)).await;
    assert_eq!((answer.status, answer.error().0.as_str()), (429, "rate_limit_error"));
    assert_eq!(answer.headers["retry-after"], "3600");
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn an_overload_that_lasts_is_told_with_who_said_what() {
    let patient = |providers| {
        let mut settings = quick(providers);
        settings.retry.total = Duration::from_millis(50);
        settings
    };
    let (mut world, upstream) = one(vec![Reply::error(529, "", "Overloaded")], patient).await;
    let answer = world.ask(&question(true)).await;
    let (kind, message) = answer.error();
    assert_eq!((answer.status, kind.as_str()), (529, "overloaded_error"));
    assert!(message.starts_with("the provider `a` answered 529: Overloaded (asked "), "{message}");
    assert!(upstream.seen().len() > 1);
    let usage = world.booked().await;
    assert_eq!((usage.status, usage.input, usage.estimated), (529, 0, false), "what failed costs nothing");
}

#[tokio::test]
async fn a_refused_key_says_what_the_owner_must_do_and_is_not_tried_again() {
    let (world, upstream) = one(vec![Reply::error(401, "", "invalid x-api-key")], quick).await;
    let answer = world.ask(&question(true)).await;
    let expected = "the provider `a` refused the key (401); the owner must set ANTHROPIC_API_KEY or `key_file` and restart";
    assert_eq!(
        (answer.status, answer.error()),
        (401, ("authentication_error".to_owned(), expected.to_owned()))
    );
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_refusal_of_the_request_reaches_the_runner_in_the_providers_words() {
    let words = "prompt is too long: 250000 tokens > 200000 maximum";
    let (world, upstream) = one(vec![Reply::error(400, "", words)], quick).await;
    let answer = world.ask(&question(true)).await;
    let (kind, message) = answer.error();
    assert_eq!((answer.status, kind.as_str(), upstream.seen().len()), (413, "request_too_large", 1));
    assert!(message.ends_with(words));
}

#[tokio::test]
async fn a_limit_that_is_too_large_is_lowered_and_the_conversation_stays_whole() {
    let told = "max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for m";
    let replies = vec![
        Reply::error(400, "", told),
        Reply::error(400, "", "max_tokens is too large"),
        Reply::stream(&anthropic("fine")),
    ];
    let (world, upstream) = one(replies, once).await;
    assert_eq!(world.ask(&question(true)).await.status, 200);
    let seen = upstream.seen();
    let limits: Vec<_> = seen.iter().map(|seen| seen.body["max_tokens"].as_u64().unwrap()).collect();
    assert_eq!(limits, [8192, 4096, 2048]);
    assert!(seen.iter().all(|seen| seen.body["messages"] == question(true)["messages"]));
}

#[tokio::test]
async fn a_provider_that_lowers_the_limit_for_ever_is_asked_a_few_times() {
    let (world, upstream) = one(vec![Reply::error(400, "", "max_tokens is too large")], once).await;
    let answer = world.ask(&question(true)).await;
    assert_eq!((answer.status, answer.error().0.as_str()), (400, "invalid_request_error"));
    assert_eq!(upstream.seen().len(), 9);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Provider::start(vec![Reply::stream(&anthropic("gotcha"))]).await;
    let location = format!("location: {}/v1/messages\r\n", elsewhere.url);
    for status in [301, 307, 308] {
        let (world, _) = one(vec![Reply::new(status, &location, "")], quick).await;
        let answer = world.ask(&question(true)).await;
        assert_eq!(answer.status, 404);
        assert!(answer.error().1.contains("no redirect is followed"));
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_named() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let world = World::start(once(vec![provider("a", ProviderKind::Anthropic, &url)]));
    let answer = world.ask(&question(true)).await;
    let (kind, message) = answer.error();
    assert_eq!((answer.status, kind.as_str()), (502, "unreachable_error"));
    assert_eq!(message, "the provider `a` cannot be reached: connection refused");
}

#[tokio::test]
async fn g7_no_answer_tells_the_box_where_the_provider_is() {
    for kind in [ProviderKind::Anthropic, ProviderKind::Openai] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let words = format!("no route at {url}/v1/messages; Server at 127.0.0.1 Port 80");
        let error = json!({ "error": { "type": "overloaded_error", "message": words } });
        let begun = delta(json!({ "content": "so" }));
        let mut replies: Vec<_> =
            [400, 401, 403, 404, 500].map(|status| Reply::error(status, "", &words)).into();
        replies.extend([
            Reply::new(502, "", &format!("<html>{words}")),
            Reply::new(307, &format!("location: {url}/elsewhere\r\n"), ""),
            Reply::new(200, "", &format!("<html>{words}")),
            Reply::json(&error),
            Reply::stream(&format!("event: error\ndata: {error}\n\n")),
            Reply::stream(&format!("data: {begun}\n\ndata: {error}\n\n")),
            Reply::silent(""),
            Reply::nothing(),
        ]);
        let calls = replies.len();
        let _upstream = Provider::serve(listener, replies);
        let mut settings = once(vec![provider("a", kind, &url)]);
        settings.silence = Duration::from_millis(50);
        let world = World::start(settings);
        for call in 0..calls {
            let answer = world.ask(&question(true)).await;
            assert!(answer.status >= 400 || answer.body.contains("event: error"), "{call}: {}", answer.body);
            let told = format!("{} {:?}", answer.body, answer.headers);
            assert!(!told.contains("127.0.0.1"), "{call}: {told}");
        }
        let (records, _) = world.end().await;
        assert!(!format!("{records:?}").contains("127.0.0.1"));
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_quoted() {
    let (world, _upstream) = one(vec![Reply::new(200, "", "<html>\u{1b}[31mLog in")], once).await;
    let answer = world.ask(&question(true)).await;
    let expected = "the provider `a` answered 200 with something that is no model's answer; it begins with \
                    \"<html>\\u{1b}[31mLog in\"; check base_url and the provider's kind";
    assert_eq!((answer.status, answer.error().1), (502, expected.to_owned()));
    let whole = world.ask(&question(false)).await;
    assert!(whole.error().1.contains("no model's answer"));
    assert_eq!(whole.error().0, "no_answer_error");
}

#[tokio::test]
async fn after_the_first_byte_a_cut_is_a_cut_and_is_booked_as_far_as_it_came() {
    let full = anthropic("half of this");
    let half = &full[..full.find("content_block_stop").unwrap() - "event: ".len()];
    for reply in [Reply::cut(half), Reply::stream(half)] {
        let (mut world, upstream) = one(vec![reply], quick).await;
        let answer = world.ask(&question(true)).await;
        assert_eq!((answer.status, answer.whole), (200, false));
        assert_eq!(answer.body, half);
        assert_eq!(upstream.seen().len(), 1, "the runner repeats, not the gateway");
        let usage = world.booked().await;
        assert_eq!((usage.status, usage.input, usage.estimated), (502, 11, true));
        let (records, _) = world.end().await;
        assert!(records[1].1.contains("\n: cut here: "), "{}", records[1].1);
    }
}

#[tokio::test]
async fn silence_before_and_within_an_answer_ends_it() {
    let quiet = |providers| {
        let mut settings = once(providers);
        settings.silence = Duration::from_millis(50);
        settings
    };
    let full = anthropic("never ends");
    let begun = &full[..full.find("event: message_delta").unwrap()];
    let (mut world, upstream) = one(vec![Reply::silent(""), Reply::silent(begun)], quiet).await;
    let before = world.ask(&question(true)).await;
    assert_eq!((before.status, before.error().0.as_str()), (504, "timeout_error"));
    upstream.hung_up().await;
    let usage = world.booked().await;
    assert!(usage.estimated && usage.input > 0, "the provider may charge for what it was sent");

    let within = world.ask(&question(true)).await;
    assert_eq!((within.body.as_str(), within.whole), (begun, false));
    upstream.hung_up().await;
}

#[tokio::test]
async fn a_call_may_take_only_so_long_however_lively_it_is() {
    let begun = anthropic("x").split("event: message_delta").next().unwrap().to_owned();
    let (mut world, upstream) = one(vec![Reply::silent(&begun)], |providers| {
        let mut settings = once(providers);
        settings.call_time = Duration::from_millis(300);
        settings
    })
    .await;
    let answer = world.ask(&question(true)).await;
    assert_eq!((answer.body, answer.whole), (begun, false));
    upstream.hung_up().await;
    assert_eq!(world.booked().await.status, 502);
}

#[tokio::test]
async fn a_runner_that_hangs_up_stops_the_provider_and_is_booked() {
    let full = anthropic("long");
    let begun = &full[..full.find("event: content_block_stop").unwrap()];
    let (mut world, upstream) = one(vec![Reply::silent(""), Reply::silent(begun)], quick).await;
    let body = question(true).to_string();
    let request =
        format!("POST /v1/messages HTTP/1.1\r\nhost: g\r\ncontent-length: {}\r\n\r\n{body}", body.len());

    for begins in [false, true] {
        let mut stream = UnixStream::connect(world.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let calls = upstream.seen().len();
        if begins {
            let mut seen = String::new();
            while !seen.contains("message_start") {
                let mut bytes = [0; 1024];
                let n = stream.read(&mut bytes).await.unwrap();
                seen.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
            }
        } else {
            while upstream.seen().len() == calls {
                tokio::task::yield_now().await;
            }
        }
        drop(stream);
        upstream.hung_up().await;
        let usage = world.booked().await;
        assert_eq!((usage.status, usage.estimated), (499, true));
        assert!(usage.input > 0, "hanging up early is not free");
    }
}

#[tokio::test]
async fn the_end_of_a_run_ends_its_calls() {
    let (world, upstream) = one(vec![Reply::silent("")], quick).await;
    let cancel = world.scope.cancel.clone();
    let stream = UnixStream::connect(world.socket()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = Full::new(Bytes::from(question(true).to_string()));
    let request = Request::post("/v1/messages").header("host", "gateway").body(body).unwrap();
    let asking = tokio::spawn(async move { sender.send_request(request).await.map(|_| ()) });
    while upstream.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    upstream.hung_up().await;
    assert!(tokio::time::timeout(PATIENCE, asking).await.unwrap().unwrap().is_err());
    let (_, rows) = world.end().await;
    assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [499]);
}

#[tokio::test]
async fn thoughts_that_another_model_had_are_left_out_when_they_are_refused() {
    let refusal = "messages.1.content.0: Invalid `signature` in `thinking` block";
    let (world, upstream) =
        one(vec![Reply::error(400, "", refusal), Reply::stream(&anthropic("fine"))], once).await;
    let mut asked = question(true);
    asked["messages"] = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "hm", "signature": "of another" }, { "type": "text", "text": "hello" } ] },
        { "role": "user", "content": "go on" },
    ]);
    assert_eq!(world.ask(&asked).await.status, 200);
    let seen = upstream.seen();
    assert_eq!(seen[0].body["messages"], asked["messages"]);
    assert_eq!(seen[1].body["messages"][1]["content"], json!([{ "type": "text", "text": "hello" }]));
}
