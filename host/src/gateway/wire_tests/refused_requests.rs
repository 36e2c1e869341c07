//! What is not served, and what is refused at the door.

use hyper::Method;

use super::*;

async fn world() -> (World, Provider) {
    World::over(ProviderKind::Anthropic, vec![Reply::stream(&anthropic("hi"))], quick).await
}

#[tokio::test]
async fn a_proxy_request_is_answered_with_how_to_ask_for_a_network() {
    let (world, upstream) = world().await;
    for wish in [
        "CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\nconnection: close\r\n\r\n",
        "GET http://169.254.169.254/latest HTTP/1.1\r\nhost: 169.254.169.254\r\nconnection: close\r\n\r\n",
        "POST http://gateway/v1/messages HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    ] {
        let answer = world.raw(wish.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        assert!(
            answer.ends_with(
                "\r\n\r\negress is off for this group: this version of Lazaret opens no way out of a box\n"
            ),
            "{answer}"
        );
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn there_are_two_routes_and_no_other() {
    let (world, upstream) = world().await;
    let healthy = world.send(Method::GET, "/healthz", &[], Bytes::new()).await;
    assert_eq!((healthy.status, healthy.body.as_str()), (200, r#"{"ok":true}"#));
    for (method, path) in [
        (Method::GET, "/v1/messages"),
        (Method::POST, "/v1/files"),
        (Method::POST, "/v1/messages/"),
        (Method::POST, "/v1/messages/batches"),
        (Method::POST, "//v1/messages"),
        (Method::DELETE, "/"),
    ] {
        let answer = world.send(method, path, &[], Bytes::from_static(b"{}")).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.error().0, "not_found_error", "{path}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn an_oversized_body_is_refused_in_words_whether_it_tells_its_length_or_not() {
    let (world, upstream) = world().await;
    let length = crate::gateway::body_budget::BODY_MAX_BYTES + 1024 * 1024;
    let chunked = ("transfer-encoding: chunked", format!("{length:x}\r\n"), "\r\n0\r\n\r\n");
    let known = (&*format!("content-length: {length}"), String::new(), "");
    for (header, before, after) in [known, chunked] {
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{header}\r\n\r\n{before}"
        );
        let request = [head.as_bytes(), &vec![b' '; length], after.as_bytes()].concat();
        // All of it is written before the answer is read, as a simple client does.
        let answer = world.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{header}: {answer}");
        assert!(
            answer.contains("request_too_large") && answer.contains("the request exceeds 32 MiB"),
            "{answer}"
        );
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let (world, _) = world().await;
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(world.raw(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_costs_nothing() {
    let (world, upstream) = world().await;
    for body in ["", "{", "[]", r#"{"messages":{}}"#, r#"{"messages":[],"mcp_servers":[]}"#] {
        let answer = world.send(Method::POST, "/v1/messages", &[], Bytes::from(body)).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (400, "invalid_request_error"), "{body}");
    }
    assert!(upstream.seen().is_empty());
    let (records, rows) = world.end().await;
    assert!(records.is_empty() && rows.is_empty());
}

#[tokio::test]
async fn c21_a_turn_gets_no_more_calls_than_twice_what_its_runner_may_make() {
    let (world, upstream) = world().await;
    for _ in 0..80 {
        assert_eq!(world.ask(&question(true)).await.status, 200);
    }
    let answer = world.ask(&question(true)).await;
    assert_eq!((answer.status, answer.error().0.as_str()), (403, "permission_error"));
    assert!(answer.error().1.contains("80 model calls"), "{:?}", answer.error());
    assert_eq!(upstream.seen().len(), 80, "nothing more was spent");
}
