//! `editMessageText`.

use serde_json::{Value, json};

use super::server::{Answer, ok, place, read_text, refused};
use super::{Shared, State, buttons};

/// Changes the text of one of the bot's messages, with Telegram's checks.
pub(super) fn edit_message(shared: &Shared, ask: &Value) -> Answer {
    let (chat, message_id) = (ask["chat_id"].as_i64().unwrap_or(0), ask["message_id"].as_i64().unwrap_or(0));
    let mut state = shared.state();
    let topic = topic_of(&state, chat, message_id);
    state.sees_call(chat, topic);
    if state.kicked.contains(&chat) {
        return refused(403, "Forbidden: bot was kicked from the supergroup chat", None);
    }
    let text = match read_text(&mut state, ask) {
        Ok(text) => text,
        Err(what) => return refused(400, &what, None),
    };
    let buttons = match buttons::read_keyboard(&mut state, ask) {
        Ok(buttons) => buttons,
        Err(what) => return refused(400, &what, None),
    };
    let found = state.sent.iter_mut().find(|m| (m.chat, m.message_id) == (chat, message_id) && !m.deleted);
    let Some(message) = found else {
        return refused(400, "Bad Request: message to edit not found", None);
    };
    if message.text == text && message.buttons == buttons {
        let what = "Bad Request: message is not modified: specified new message content and reply markup are \
                    exactly the same as a current content and reply markup of the message";
        return refused(400, what, None);
    }
    message.text.clone_from(&text);
    message.raw = ask["text"].as_str().unwrap_or_default().to_owned();
    message.buttons = buttons;
    message.edits += 1;
    if let Some(log) = &state.log {
        log.delivered(&place(chat, topic), &message_id.to_string(), &text, true);
    }
    let about = state.chats.get(&chat).cloned().unwrap_or_default();
    drop(state);
    shared.changed();
    ok(
        json!({ "message_id": message_id, "date": 1_795_000_000, "edit_date": 1_795_000_001, "chat": about, "text": text }),
    )
}

fn topic_of(state: &State, chat: i64, message_id: i64) -> Option<i64> {
    state.sent.iter().find(|m| (m.chat, m.message_id) == (chat, message_id)).and_then(|m| m.topic)
}
