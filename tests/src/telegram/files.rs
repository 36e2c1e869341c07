//! Files that the bot sends, as `multipart/form-data`. The parser is as strict as a platform's.

use serde_json::{Value, json};

use super::server::{Answer, ok, place, refused};
use super::{SentMessage, Shared, State, html};

/// The largest file and the largest picture that a bot may send (<https://core.telegram.org/bots/api#sending-files>).
const DOCUMENT: usize = 50 << 20;
const PICTURE: usize = 10 << 20;
/// The longest caption, in UTF-16 units.
const CAPTION: usize = 1024;

/// A file as the server received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentFile {
    /// Whether the bot sent it as a picture.
    pub is_picture: bool,
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Reads a form: its fields as the arguments of a call, and its file.
pub fn read_form(content_type: &str, body: &[u8]) -> Option<(Value, Option<SentFile>)> {
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=")?.trim_matches('"');
    let boundary = format!("--{boundary}");
    let (mut ask, mut sent) = (json!({}), None);
    for part in split(body, boundary.as_bytes()).into_iter().skip(1) {
        let Some(part) = part.strip_prefix(b"\r\n") else { break };
        let at = part.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&part[..at]).ok()?;
        let bytes = part[at + 4..].strip_suffix(b"\r\n")?;
        let field = named(head, "name=")?;
        match named(head, "filename=") {
            Some(name) => sent = Some(SentFile { is_picture: field == "photo", name, bytes: bytes.to_vec() }),
            None => {
                let text = std::str::from_utf8(bytes).ok()?;
                let is_number = field == "chat_id" || field == "message_thread_id";
                ask[field] = if is_number { json!(text.parse::<i64>().ok()?) } else { json!(text) };
            }
        }
    }
    Some((ask, sent))
}

fn split<'a>(mut body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = body.windows(boundary.len()).position(|w| w == boundary) {
        parts.push(&body[..at]);
        body = &body[at + boundary.len()..];
    }
    parts.push(body);
    parts
}

/// Returns a parameter of `Content-Disposition`.
fn named(head: &str, key: &str) -> Option<String> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    let value = line.split("; ").find_map(|parameter| parameter.strip_prefix(key))?;
    Some(value.trim_matches('"').to_owned())
}

pub(super) fn send_file(shared: &Shared, method: &str, ask: &Value, file: Option<SentFile>) -> Answer {
    let (chat, topic) = (ask["chat_id"].as_i64().unwrap_or(0), ask["message_thread_id"].as_i64());
    let raw = ask["caption"].as_str().unwrap_or_default().to_owned();
    let mut state = shared.state();
    state.sees_call(chat, topic);
    if state.kicked.contains(&chat) {
        return refused(403, "Forbidden: bot was kicked from the supergroup chat", None);
    }
    let Some(about) = state.chats.get(&chat).cloned() else {
        return refused(400, "Bad Request: chat not found", None);
    };
    let Some(file) = file.filter(|file| file.is_picture == (method == "sendPhoto")) else {
        state.violations.push(format!("{method} without its file"));
        return refused(400, "Bad Request: there is no file in the request", None);
    };
    let most = if file.is_picture { PICTURE } else { DOCUMENT };
    if file.bytes.is_empty() {
        return refused(400, "Bad Request: file must be non-empty", None);
    }
    if file.bytes.len() > most {
        state.violations.push(format!("a file of {} bytes", file.bytes.len()));
        return refused(413, "Request Entity Too Large", None);
    }
    if file.is_picture && !file.bytes.starts_with(b"\x89PNG") && !file.bytes.starts_with(b"\xff\xd8\xff") {
        return refused(400, "Bad Request: IMAGE_PROCESS_FAILED", None);
    }
    if file.name.is_empty() || file.name.contains(['/', '\\']) || file.name.chars().any(char::is_control) {
        state.violations.push(format!("a file of the name {:?}", file.name));
    }
    let caption = if ask["parse_mode"] == "HTML" {
        match html::read(&raw) {
            Ok(caption) => caption,
            Err(e) => return refused(400, &format!("Bad Request: {e}"), None),
        }
    } else {
        raw.clone()
    };
    if caption.encode_utf16().count() > CAPTION {
        state.violations.push("a caption that is too long".into());
        return refused(400, "Bad Request: message caption is too long", None);
    }
    let text = format!("{caption} [file {}]", file.name).trim_start().to_owned();
    let quotes = match super::server::read_reply(&mut state, ask) {
        Ok(quotes) => quotes,
        Err(what) => return refused(400, &what, None),
    };
    state.next_message += 1;
    let message_id = state.next_message;
    if let Some(log) = &state.log {
        log.delivered(&place(chat, topic), &message_id.to_string(), &text, false);
    }
    let file = Some(file);
    let buttons = Vec::new();
    state.sent.push(SentMessage {
        chat,
        topic,
        text,
        raw,
        file,
        message_id,
        quotes,
        buttons,
        edits: 0,
        deleted: false,
    });
    drop(state);
    shared.changed();
    ok(json!({ "message_id": message_id, "date": 1_795_000_000, "chat": about, "caption": caption }))
}

/// Answers `getFile`. While the test holds files, the answer waits.
pub(super) async fn get_file(shared: &Shared, ask: &Value) -> Answer {
    let id = ask["file_id"].as_str().unwrap_or_default();
    shared.state().asked_for.push(id.to_owned());
    shared.changed();
    let given = |state: &mut State| {
        let one = state.holds_files && state.files_given > 0;
        state.files_given -= usize::from(one);
        (one || !state.holds_files).then_some(())
    };
    shared.wait_for(given).await;
    match shared.state().files.get(id) {
        Some(bytes) => ok(json!({ "file_id": id, "file_size": bytes.len(), "file_path": id })),
        None => refused(400, "Bad Request: invalid file_id", None),
    }
}
