//! The HTTP side.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{BOT_ID, BOT_NAME, SentMessage, Shared, TOKEN, html};

type Answer = Response<Full<Bytes>>;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { serve(&shared, request).await }
            });
            // A bot that is killed breaks off its poll.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn whole(status: u16, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    answer
}

fn ok(result: Value) -> Answer {
    whole(200, json!({ "ok": true, "result": result }).to_string().into_bytes())
}

fn refused(code: u16, description: &str, retry_after: Option<u64>) -> Answer {
    let mut body = json!({ "ok": false, "error_code": code, "description": description });
    if let Some(seconds) = retry_after {
        body["parameters"] = json!({ "retry_after": seconds });
    }
    whole(code, body.to_string().into_bytes())
}

/// An error cuts the connection.
async fn serve(shared: &Shared, request: Request<Incoming>) -> io::Result<Answer> {
    let sends = request.uri().path().ends_with("/sendMessage");
    let trouble = if sends { trouble(shared) } else { Trouble::None };
    match trouble {
        Trouble::Busy => return Ok(refused(429, "Too Many Requests: retry after 1", Some(1))),
        Trouble::Down => return Ok(whole(502, b"<html>Bad Gateway</html>".to_vec())),
        Trouble::None | Trouble::Lost => {}
    }
    let answer = answer(shared, request).await;
    if matches!(trouble, Trouble::Lost) { Err(io::Error::other("the answer is lost")) } else { Ok(answer) }
}

enum Trouble {
    None,
    Busy,
    Down,
    Lost,
}

fn trouble(shared: &Shared) -> Trouble {
    let mut state = shared.state();
    let Some(troubles) = &mut state.troubles else { return Trouble::None };
    let roll = troubles.chance.f64();
    if roll < troubles.lost {
        Trouble::Lost
    } else if roll < troubles.lost + troubles.busy {
        Trouble::Busy
    } else if roll < troubles.lost + troubles.busy + troubles.down {
        Trouble::Down
    } else {
        Trouble::None
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return refused(400, "Bad Request: the body was cut", None),
    };
    let ask: Value = serde_json::from_slice(&body).unwrap_or_default();
    if shared.state().token_refused {
        return refused(401, "Unauthorized", None);
    }
    if let Some(file) = path.strip_prefix(&format!("/file/bot{TOKEN}/")) {
        return match shared.state().files.get(file) {
            Some(bytes) => whole(200, bytes.clone()),
            None => refused(404, "Not Found", None),
        };
    }
    let Some(method) = path.strip_prefix(&format!("/bot{TOKEN}/")) else {
        shared.state().violations.push("a call without the token".into());
        return refused(404, "Not Found", None);
    };
    if let Some(refusal) = planned(shared, method) {
        return refusal;
    }
    match method {
        "getMe" => ok(json!({ "id": BOT_ID, "is_bot": true, "first_name": "Laz", "username": BOT_NAME })),
        "getUpdates" => get_updates(shared, &ask).await,
        "sendMessage" => send_message(shared, &ask),
        "sendChatAction" => {
            let chat = ask["chat_id"].as_i64().unwrap_or(0);
            *shared.state().typing.entry(chat).or_default() += 1;
            shared.changed();
            ok(json!(true))
        }
        "getFile" => {
            let id = ask["file_id"].as_str().unwrap_or_default();
            match shared.state().files.get(id) {
                Some(bytes) => ok(json!({ "file_id": id, "file_size": bytes.len(), "file_path": id })),
                None => refused(400, "Bad Request: invalid file_id", None),
            }
        }
        other => {
            shared.state().violations.push(format!("an unknown method: {other}"));
            refused(404, "Not Found", None)
        }
    }
}

fn planned(shared: &Shared, method: &str) -> Option<Answer> {
    let mut state = shared.state();
    let at = state.refusals.iter().position(|r| r.method == method)?;
    let refusal = state.refusals.remove(at);
    Some(refused(refusal.code, &refusal.description, refusal.retry_after))
}

/// Asking with an offset drops every update before it; an empty poll is held for its time-out.
async fn get_updates(shared: &Shared, ask: &Value) -> Answer {
    let offset = ask["offset"].as_i64().unwrap_or(0);
    let timeout = Duration::from_secs(ask["timeout"].as_u64().unwrap_or(0));
    let mut changes = shared.changes.subscribe();
    {
        let mut state = shared.state();
        state.polls += 1;
        if state.foreign_poller {
            let what = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
            return refused(409, what, None);
        }
        let acknowledged = |update: &Value| update["update_id"].as_i64().unwrap_or(0) < offset;
        while state.updates.front().is_some_and(acknowledged) {
            let update = state.updates.pop_front();
            if let (Some(log), Some(message)) = (&state.log, update.as_ref().and_then(|u| u.get("message"))) {
                let text = message["text"].as_str().unwrap_or_default();
                log.accepted(&address(message), &message["message_id"].to_string(), text);
            }
        }
        state.polling += 1;
        if state.polling > 1 {
            state.violations.push("two polls at once".into());
        }
    }
    shared.changed();
    let polling = Polling(shared);
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        changes.borrow_and_update();
        let ready: Vec<Value> = polling.0.state().updates.iter().take(100).cloned().collect();
        if !ready.is_empty() {
            return ok(json!(ready));
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(deadline) => return ok(json!([])),
        }
    }
}

/// A message's chat as the host knows it.
fn address(message: &Value) -> String {
    match message["message_thread_id"].as_i64() {
        Some(topic) => format!("telegram:{}/{topic}", message["chat"]["id"]),
        None => format!("telegram:{}", message["chat"]["id"]),
    }
}

/// Ends the count of a poll that the bot broke off, too.
struct Polling<'a>(&'a Shared);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.state().polling -= 1;
    }
}

fn send_message(shared: &Shared, ask: &Value) -> Answer {
    let chat = ask["chat_id"].as_i64().unwrap_or(0);
    let topic = ask["message_thread_id"].as_i64();
    let raw = ask["text"].as_str().unwrap_or_default().to_owned();
    let mut state = shared.state();
    let Some(about) = state.chats.get(&chat).cloned() else {
        return refused(400, "Bad Request: chat not found", None);
    };
    let text = if ask["parse_mode"] == "HTML" {
        match html::read(&raw) {
            Ok(text) => text,
            Err(e) => return refused(400, &format!("Bad Request: {e}"), None),
        }
    } else {
        raw.clone()
    };
    let units = text.encode_utf16().count();
    if text.trim().is_empty() {
        state.violations.push("an empty message".into());
        return refused(400, "Bad Request: message text is empty", None);
    }
    if units > 4096 {
        state.violations.push(format!("a message of {units} units"));
        return refused(400, "Bad Request: message is too long", None);
    }
    state.next_message += 1;
    let message_id = state.next_message;
    if let Some(log) = &state.log {
        let chat = match topic {
            Some(topic) => format!("telegram:{chat}/{topic}"),
            None => format!("telegram:{chat}"),
        };
        log.delivered(&chat, &message_id.to_string(), &text, false);
    }
    state.sent.push(SentMessage { chat, topic, text: text.clone(), raw, message_id });
    drop(state);
    shared.changed();
    ok(json!({ "message_id": message_id, "date": 1_795_000_000, "chat": about, "text": text }))
}
