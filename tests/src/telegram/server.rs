//! The HTTP side of the Telegram server.

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

use super::trouble::Trouble;
use super::{BOT_NAME, SentFile, SentMessage, Shared, State, buttons, edits, files, html, manners};

pub(super) type Answer = Response<Full<Bytes>>;

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

pub(super) fn ok(result: Value) -> Answer {
    whole(200, json!({ "ok": true, "result": result }).to_string().into_bytes())
}

pub(super) fn refused(code: u16, description: &str, retry_after: Option<u64>) -> Answer {
    let mut body = json!({ "ok": false, "error_code": code, "description": description });
    if let Some(seconds) = retry_after {
        body["parameters"] = json!({ "retry_after": seconds });
    }
    whole(code, body.to_string().into_bytes())
}

/// Answers a request. An error cuts the connection.
async fn serve(shared: &Shared, request: Request<Incoming>) -> io::Result<Answer> {
    let path = request.uri().path().to_owned();
    let content_type = request.headers().get(hyper::header::CONTENT_TYPE).cloned();
    let content_type = content_type.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(refused(400, "Bad Request: the body was cut", None)),
    };
    let (ask, file) = files::read_form(content_type, &body)
        .unwrap_or_else(|| (serde_json::from_slice(&body).unwrap_or_default(), None));
    let method = path.rsplit('/').next().unwrap_or_default();
    let words = ask["text"].as_str().or(file.as_ref().map(|file| file.name.as_str())).unwrap_or_default();
    let trouble = shared.state().trouble(method, words);
    let Some(trouble) = trouble else { return Ok(answer(shared, &path, &ask, file).await) };
    shared.changed();
    if trouble.is_done() {
        answer(shared, &path, &ask, file.clone()).await;
    }
    match trouble {
        Trouble::CutAfter | Trouble::CutBefore => Err(io::Error::other("the connection is cut")),
        Trouble::BadGatewayAfter | Trouble::BadGatewayBefore => {
            Ok(whole(502, b"<html>Bad Gateway</html>".to_vec()))
        }
        Trouble::HangsAfter => std::future::pending().await,
        Trouble::DeletedBefore => {
            let number = |name: &str| ask[name].as_i64().unwrap_or(0);
            shared.state().delete(number("chat_id"), number("message_id"));
            Ok(answer(shared, &path, &ask, file).await)
        }
        Trouble::Busy => Ok(refused(429, "Too Many Requests: retry after 1", Some(1))),
        Trouble::Refused(code, what) => Ok(refused(code, &what, None)),
    }
}

async fn answer(shared: &Shared, path: &str, ask: &Value, sent: Option<SentFile>) -> Answer {
    if shared.state().token_refused {
        return refused(401, "Unauthorized", None);
    }
    let (bot, token) = shared.state().bot();
    if let Some(file) = path.strip_prefix(&format!("/file/bot{token}/")) {
        return match shared.state().files.get(file) {
            Some(bytes) => whole(200, bytes.clone()),
            None => refused(404, "Not Found", None),
        };
    }
    let Some(method) = path.strip_prefix(&format!("/bot{token}/")) else {
        shared.state().violations.push("a call without the token".into());
        return refused(404, "Not Found", None);
    };
    if let Some(refusal) = planned(shared, method, ask) {
        return refusal;
    }
    let moved = ask["chat_id"].as_i64().and_then(|chat| shared.state().moved.get(&chat).copied());
    if let Some(to) = moved {
        let body = json!({
            "ok": false, "error_code": 400, "parameters": { "migrate_to_chat_id": to },
            "description": "Bad Request: group chat was upgraded to a supergroup chat",
        });
        return whole(400, body.to_string().into_bytes());
    }
    match method {
        "getMe" => ok(json!({ "id": bot, "is_bot": true, "first_name": "Laz", "username": BOT_NAME })),
        "getMyCommands" => match shared.state().commands.clone() {
            Value::Null => ok(json!([])),
            commands => ok(commands),
        },
        "setMyCommands" => manners::set_commands(shared, ask),
        "sendMessageDraft" => manners::show_draft(shared, ask),
        "setMessageReaction" => manners::set_reaction(shared, ask),
        "getUpdates" => get_updates(shared, ask).await,
        "sendMessage" => send_message(shared, ask),
        "sendDocument" | "sendPhoto" => files::send_file(shared, method, ask, sent),
        "answerCallbackQuery" => buttons::answer_query(shared, ask),
        "editMessageReplyMarkup" => buttons::edit_keyboard(shared, ask),
        "editMessageText" => edits::edit_message(shared, ask),
        "sendChatAction" => {
            let chat = ask["chat_id"].as_i64().unwrap_or(0);
            *shared.state().typing.entry(chat).or_default() += 1;
            shared.changed();
            ok(json!(true))
        }
        "getFile" => files::get_file(shared, ask).await,
        other => {
            shared.state().violations.push(format!("an unknown method: {other}"));
            refused(404, "Not Found", None)
        }
    }
}

fn planned(shared: &Shared, method: &str, ask: &Value) -> Option<Answer> {
    let mut state = shared.state();
    let at = state.refusals.iter().position(|r| r.method == method)?;
    let refusal = state.refusals.remove(at);
    shared.changed();
    if let (Some(seconds), Some(chat)) = (refusal.retry_after, ask["chat_id"].as_i64()) {
        state.asks_for_patience(chat, seconds);
    }
    Some(refused(refusal.code, &refusal.description, refusal.retry_after))
}

/// Answers `getUpdates`. A poll with an offset drops every update before it. A poll without a result waits for its
/// timeout.
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
                let text = message["text"].as_str().or(message["caption"].as_str()).unwrap_or_default();
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

/// Returns the host's address of a message's chat.
fn address(message: &Value) -> String {
    place(message["chat"]["id"].as_i64().unwrap_or(0), message["message_thread_id"].as_i64())
}

/// Returns the host's address of a chat.
pub(super) fn place(chat: i64, topic: Option<i64>) -> String {
    match topic {
        Some(topic) => format!("telegram:{chat}/{topic}"),
        None => format!("telegram:{chat}"),
    }
}

/// Counts a poll until it is dropped, so that a poll that the bot broke off is no longer counted.
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
    state.sees_call(chat, topic);
    if state.kicked.contains(&chat) {
        return refused(403, "Forbidden: bot was kicked from the supergroup chat", None);
    }
    let Some(about) = state.chats.get(&chat).cloned() else {
        return refused(400, "Bad Request: chat not found", None);
    };
    let text = match read_text(&mut state, ask) {
        Ok(text) => text,
        Err(what) => return refused(400, &what, None),
    };
    let buttons = match buttons::read_keyboard(&mut state, ask) {
        Ok(buttons) => buttons,
        Err(what) => return refused(400, &what, None),
    };
    let quotes = match read_reply(&mut state, ask) {
        Ok(quotes) => quotes,
        Err(what) => return refused(400, &what, None),
    };
    state.next_message += 1;
    let message_id = state.next_message;
    if let Some(log) = &state.log {
        log.delivered(&place(chat, topic), &message_id.to_string(), &text, false);
    }
    let sent = SentMessage {
        chat,
        topic,
        text: text.clone(),
        raw,
        file: None,
        message_id,
        quotes,
        buttons,
        edits: 0,
        deleted: false,
    };
    state.sent.push(sent);
    drop(state);
    shared.changed();
    ok(json!({ "message_id": message_id, "date": 1_795_000_000, "chat": about, "text": text }))
}

/// Returns the message that a call quotes (`reply_parameters`), or Telegram's error. A form carries the object as JSON.
pub(super) fn read_reply(state: &mut State, ask: &Value) -> Result<Option<i64>, String> {
    let reply = match &ask["reply_parameters"] {
        Value::Null => return Ok(None),
        Value::String(json) => serde_json::from_str(json).unwrap_or_default(),
        object => object.clone(),
    };
    let Some(id) = reply["message_id"].as_i64() else {
        state.violations.push(format!("reply parameters without a message: {reply}"));
        return Err("Bad Request: can't parse reply parameters JSON object".into());
    };
    let chat = ask["chat_id"].as_i64().unwrap_or(0);
    let exists = state.written.contains(&(chat, id))
        || state.sent.iter().any(|m| (m.chat, m.message_id) == (chat, id) && !m.deleted);
    match (exists, reply["allow_sending_without_reply"] == true) {
        (true, _) => Ok(Some(id)),
        (false, true) => Ok(None),
        (false, false) => Err("Bad Request: message to be replied not found".into()),
    }
}

/// Returns the text of a message or an edit as people will read it, or Telegram's error.
pub(super) fn read_text(state: &mut State, ask: &Value) -> Result<String, String> {
    let raw = ask["text"].as_str().unwrap_or_default();
    let text = if ask["parse_mode"] == "HTML" {
        html::read(raw).map_err(|e| format!("Bad Request: {e}"))?
    } else {
        raw.to_owned()
    };
    let units = text.encode_utf16().count();
    if !text.chars().any(is_seen) {
        state.violations.push("an empty message".into());
        return Err("Bad Request: message text is empty".into());
    }
    if units > 4096 {
        state.violations.push(format!("a message of {units} units"));
        return Err("Bad Request: message is too long".into());
    }
    if state.longest_text.is_some_and(|longest| units > longest) {
        return Err("Bad Request: MESSAGE_TOO_LONG".into());
    }
    Ok(text)
}

/// Whether people see the character. Telegram takes no text without one.
fn is_seen(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(
            c,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{2800}' | '\u{3164}' | '\u{feff}'
        )
}
