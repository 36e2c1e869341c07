//! Buttons below messages, presses on them, and the bot's answers (<https://core.telegram.org/bots/api#callbackquery>).

use serde_json::{Value, json};

use super::server::{Answer, ok, refused};
use super::{BOT_NAME, SentMessage, Shared, State};

/// A button below a message of the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Button {
    pub text: String,
    pub data: String,
}

/// A press that the bot can answer.
pub(super) struct Query {
    pub(super) id: String,
    /// The bot's answers: the text, and whether it is an alert.
    pub(super) answers: Vec<(String, bool)>,
}

/// Reads the buttons of a call, with Telegram's checks.
pub(super) fn read_keyboard(state: &mut State, ask: &Value) -> Result<Vec<Button>, String> {
    let rows = ask["reply_markup"]["inline_keyboard"].as_array().cloned().unwrap_or_default();
    let mut buttons = Vec::new();
    for button in rows.iter().flat_map(|row| row.as_array().cloned().unwrap_or_default()) {
        let field = |name: &str| button[name].as_str().unwrap_or_default().to_owned();
        let button = Button { text: field("text"), data: field("callback_data") };
        let wrong = match (button.text.trim().is_empty(), button.data.len()) {
            (true, _) => "can't parse inline keyboard button: Text must be non-empty",
            (_, 0) => "can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard",
            (_, 65..) => "BUTTON_DATA_INVALID",
            _ => {
                buttons.push(button);
                continue;
            }
        };
        state.violations.push(format!("a button {button:?}: {wrong}"));
        return Err(format!("Bad Request: {wrong}"));
    }
    Ok(buttons)
}

/// Answers `answerCallbackQuery`. A press may be answered again, but not for long.
pub(super) fn answer_query(shared: &Shared, ask: &Value) -> Answer {
    let text = ask["text"].as_str().unwrap_or_default().to_owned();
    let mut state = shared.state();
    if text.chars().count() > 200 {
        state.violations.push(format!("an answer to a press of {} characters", text.chars().count()));
        return refused(400, "Bad Request: MESSAGE_TOO_LONG", None);
    }
    let (old, alert) = (state.queries_are_old, ask["show_alert"] == true);
    let query = state.queries.iter_mut().find(|query| ask["callback_query_id"] == *query.id);
    let Some(query) = query.filter(|_| !old) else {
        let what = "Bad Request: query is too old and response timeout expired or query ID is invalid";
        return refused(400, what, None);
    };
    query.answers.push((text, alert));
    drop(state);
    shared.changed();
    ok(json!(true))
}

/// Answers `editMessageReplyMarkup`.
pub(super) fn edit_keyboard(shared: &Shared, ask: &Value) -> Answer {
    let place = (ask["chat_id"].as_i64().unwrap_or(0), ask["message_id"].as_i64().unwrap_or(0));
    let mut state = shared.state();
    let buttons = match read_keyboard(&mut state, ask) {
        Ok(buttons) => buttons,
        Err(what) => return refused(400, &what, None),
    };
    let found = state.sent.iter_mut().find(|m| (m.chat, m.message_id) == place && !m.deleted);
    let Some(message) = found else {
        return refused(400, "Bad Request: message to edit not found", None);
    };
    if message.buttons == buttons {
        let what = "Bad Request: message is not modified: specified new message content and reply markup are \
                    exactly the same as a current content and reply markup of the message";
        return refused(400, what, None);
    }
    message.buttons = buttons;
    drop(state);
    shared.changed();
    ok(json!({ "message_id": place.1, "date": 1_795_000_000, "chat": { "id": place.0 } }))
}

/// Makes a press on a button of `message`. Returns its id and the update.
pub(super) fn press(state: &mut State, from: Value, message: &SentMessage, data: &str) -> (String, Value) {
    state.next_query += 1;
    let id = format!("{}", 9_000_000_000_000_000_000_u64 + state.next_query);
    state.queries.push(Query { id: id.clone(), answers: Vec::new() });
    let about = state.chats.get(&message.chat).cloned().unwrap_or_default();
    let (bot, _) = state.bot();
    let mut pressed = json!({
        "message_id": message.message_id, "date": 1_795_000_000, "chat": about, "text": message.text,
        "from": { "id": bot, "is_bot": true, "first_name": "Laz", "username": BOT_NAME },
    });
    if let Some(topic) = message.topic {
        (pressed["message_thread_id"], pressed["is_topic_message"]) = (json!(topic), json!(true));
    }
    let query = json!({ "id": id, "from": from, "message": pressed, "chat_instance": "1", "data": data });
    (id, query)
}
