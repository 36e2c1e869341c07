//! People, and the chats in which they write.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{BOT_NAME, SentMessage, Shared, buttons};

/// The bot sends this text first and later replaces it. [`Chat::hears`] ignores it.
pub const PLACEHOLDER: &str = "…";

/// A notice in a chat of `main` begins so when another chat asks to be admitted. [`Chat::hears`] ignores it, because
/// most journeys admit their chats in the terminal.
pub const ASKS: &str = "[lazaret] A chat asks to be admitted";

/// A chat, or one topic of it.
#[derive(Clone)]
pub struct Chat {
    shared: Arc<Shared>,
    id: i64,
    topic: Option<i64>,
}

#[derive(Clone)]
pub struct Person {
    shared: Arc<Shared>,
    id: i64,
    name: String,
}

pub struct Photo {
    pub bytes: Vec<u8>,
    pub caption: String,
}

/// A file that a person sends, with the properties that Telegram reports.
pub struct Document {
    pub bytes: Vec<u8>,
    /// The reported size, if any.
    pub claims: Option<usize>,
    pub name: String,
    /// The reported type.
    pub mime: String,
}

impl Chat {
    pub(super) fn new(shared: Arc<Shared>, id: i64, topic: Option<i64>) -> Self {
        Self { shared, id, topic }
    }

    /// Returns one topic of this room.
    pub fn topic(&self, topic: i64) -> Chat {
        Chat::new(Arc::clone(&self.shared), self.id, Some(topic))
    }

    /// Returns the chat's address in the host.
    pub fn address(&self) -> String {
        match self.topic {
            Some(topic) => format!("telegram:{}/{topic}", self.id),
            None => format!("telegram:{}", self.id),
        }
    }

    /// Waits for the bot's next message in this chat. Returns the text that people read.
    pub async fn hears(&self) -> String {
        self.hears_message().await.text
    }

    /// Like [`Self::hears`]. Returns the whole message.
    pub async fn hears_message(&self) -> SentMessage {
        let place = (self.id, self.topic);
        self.shared
            .wait_for(|state| {
                let from = state.heard.get(&place).copied().unwrap_or(0);
                let here = |m: &&SentMessage| {
                    (m.chat, m.topic) == place && m.text != PLACEHOLDER && !m.text.starts_with(ASKS)
                };
                let message = state.sent.iter().filter(here).nth(from)?.clone();
                state.heard.insert(place, from + 1);
                Some(message)
            })
            .await
    }

    /// Returns the bot's messages in this chat that the test has not read yet.
    pub fn unheard(&self) -> Vec<String> {
        let state = self.shared.state();
        let from = state.heard.get(&(self.id, self.topic)).copied().unwrap_or(0);
        let here = |m: &&SentMessage| {
            (m.chat, m.topic) == (self.id, self.topic) && m.text != PLACEHOLDER && !m.text.starts_with(ASKS)
        };
        state.sent.iter().filter(here).skip(from).map(|m| m.text.clone()).collect()
    }

    /// Returns the texts of all messages of the bot in this chat, placeholders too.
    pub fn shows(&self) -> Vec<String> {
        let state = self.shared.state();
        let here = state.sent.iter().filter(|m| (m.chat, m.topic) == (self.id, self.topic) && !m.deleted);
        here.map(|m| m.text.clone()).collect()
    }

    /// Like [`Self::shows`]. Returns the whole messages.
    pub fn messages(&self) -> Vec<SentMessage> {
        let state = self.shared.state();
        let here = state.sent.iter().filter(|m| (m.chat, m.topic) == (self.id, self.topic) && !m.deleted);
        here.cloned().collect()
    }

    /// Waits until the chat shows a message of the bot that contains `words`.
    pub async fn comes_to_show(&self, words: &str) -> SentMessage {
        let place = (self.id, self.topic);
        let here = |m: &&SentMessage| (m.chat, m.topic) == place && !m.deleted && m.text.contains(words);
        self.shared.wait_for(|state| state.sent.iter().find(here).cloned()).await
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// Waits until the chat shows that the bot is typing.
    pub async fn sees_typing(&self) {
        self.shared.wait_for(|state| state.typing.get(&self.id).map(|_| ())).await;
    }
}

impl Person {
    pub(super) fn new(shared: Arc<Shared>, id: i64, name: &str) -> Self {
        Self { shared, id, name: name.to_owned() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the person's own chat with the bot.
    pub fn direct(&self) -> Chat {
        let about = json!({ "id": self.id, "type": "private", "first_name": self.name });
        self.shared.state().chats.insert(self.id, about);
        Chat::new(Arc::clone(&self.shared), self.id, None)
    }

    /// Writes a message; `@laz_bot` and commands get their entities. Returns the message's id.
    pub fn says(&self, chat: &Chat, text: &str) -> i64 {
        let mut message = self.message(chat);
        message["text"] = json!(text);
        message["entities"] = entities(text);
        self.send("message", message)
    }

    pub fn answers(&self, chat: &Chat, to: &SentMessage, text: &str) -> i64 {
        let mut message = self.message(chat);
        message["text"] = json!(text);
        message["reply_to_message"] = json!({
            "message_id": to.message_id,
            "date": 1,
            "chat": { "id": to.chat, "type": "supergroup" },
            "from": { "id": super::BOT_ID, "is_bot": true, "first_name": "Laz", "username": BOT_NAME },
            "text": to.text,
        });
        self.send("message", message)
    }

    /// Deletes a message of the chat.
    pub fn deletes(&self, chat: &Chat, message_id: i64) {
        self.shared.state().written.remove(&(chat.id, message_id));
    }

    /// Presses the button with this label. Returns the id of the press.
    pub fn presses(&self, message: &SentMessage, label: &str) -> String {
        let state = self.shared.state();
        let place = (message.chat, message.message_id);
        let shown = state.sent.iter().find(|m| (m.chat, m.message_id) == place);
        let button = shown.and_then(|m| m.buttons.iter().find(|button| button.text.starts_with(label)));
        let Some(data) = button.map(|button| button.data.clone()) else {
            panic!("no button {label} in {shown:?}");
        };
        drop(state);
        self.presses_with(message, &data)
    }

    /// Presses a button that carries `data`, as only a program of the person's own can.
    pub fn presses_with(&self, message: &SentMessage, data: &str) -> String {
        let from = json!({ "id": self.id, "is_bot": false, "first_name": self.name });
        let (id, query) = buttons::press(&mut self.shared.state(), from, message, data);
        self.shared.push_update("callback_query", query);
        id
    }

    /// Replaces the text of an earlier message.
    pub fn edits(&self, chat: &Chat, message_id: i64, text: &str) {
        let mut message = self.message(chat);
        message["message_id"] = json!(message_id);
        message["text"] = json!(text);
        message["entities"] = entities(text);
        message["edit_date"] = json!(1_795_000_100);
        self.shared.push_update("edited_message", message);
    }

    pub fn shows(&self, chat: &Chat, photo: Photo) -> i64 {
        let file_id = format!("photo-{}-{}", self.id, photo.bytes.len());
        let size = photo.bytes.len();
        self.shared.state().files.insert(file_id.clone(), photo.bytes);
        let mut message = self.message(chat);
        message["caption"] = json!(photo.caption);
        message["caption_entities"] = entities(&photo.caption);
        message["photo"] = json!([
            { "file_id": format!("{file_id}-small"), "width": 90, "height": 90, "file_size": 800 },
            { "file_id": file_id, "width": 1280, "height": 960, "file_size": size },
        ]);
        self.send("message", message)
    }

    /// Sends several photos at once. Telegram sends each as a message of its own, and the caption with the first.
    pub fn shows_album(&self, chat: &Chat, photos: &[Vec<u8>], caption: &str) {
        for (at, bytes) in photos.iter().enumerate() {
            let file_id = format!("album-{}-{at}", self.id);
            let mut message = self.message(chat);
            message["media_group_id"] = json!(format!("album-{}", self.id));
            message["photo"] =
                json!([{ "file_id": file_id, "width": 90, "height": 90, "file_size": bytes.len() }]);
            self.shared.state().files.insert(file_id, bytes.clone());
            if at == 0 {
                message["caption"] = json!(caption);
                message["caption_entities"] = entities(caption);
            }
            self.send("message", message);
        }
    }

    /// Sends a voice message.
    pub fn speaks(&self, chat: &Chat, recording: &[u8]) -> i64 {
        let file_id = format!("voice-{}-{}", self.id, recording.len());
        self.shared.state().files.insert(file_id.clone(), recording.to_vec());
        let mut message = self.message(chat);
        message["voice"] = json!({ "file_id": file_id, "duration": 3, "mime_type": "audio/ogg", "file_size": recording.len() });
        self.send("message", message)
    }

    /// Passes on what somebody else wrote.
    pub fn forwards(&self, chat: &Chat, author: &str, text: &str) -> i64 {
        let mut message = self.message(chat);
        message["text"] = json!(text);
        message["entities"] = entities(text);
        let author = json!({ "id": 9, "is_bot": false, "first_name": author });
        message["forward_origin"] = json!({ "type": "user", "date": 1, "sender_user": author });
        self.send("message", message)
    }

    /// Sends a file with a caption.
    pub fn sends(&self, chat: &Chat, document: Document, caption: &str) -> i64 {
        let file_id = format!("document-{}-{}", self.id, document.bytes.len());
        self.shared.state().files.insert(file_id.clone(), document.bytes);
        let mut message = self.message(chat);
        message["caption"] = json!(caption);
        message["caption_entities"] = entities(caption);
        message["document"] =
            json!({ "file_id": file_id, "file_name": document.name, "mime_type": document.mime });
        if let Some(bytes) = document.claims {
            message["document"]["file_size"] = json!(bytes);
        }
        self.send("message", message)
    }

    fn message(&self, chat: &Chat) -> Value {
        let about = self.shared.state().chats.get(&chat.id).cloned().unwrap_or_default();
        let mut message = json!({
            "from": { "id": self.id, "is_bot": false, "first_name": self.name },
            "chat": about,
            "date": 1_795_000_000,
        });
        if let Some(topic) = chat.topic {
            message["message_thread_id"] = json!(topic);
            message["is_topic_message"] = json!(true);
        }
        message
    }

    fn send(&self, kind: &str, mut message: Value) -> i64 {
        let id = {
            let mut state = self.shared.state();
            state.next_message += 1;
            state.next_message
        };
        message["message_id"] = json!(id);
        self.shared.state().written.insert((message["chat"]["id"].as_i64().unwrap_or(0), id));
        self.shared.push_update(kind, message);
        id
    }
}

/// Returns the entities for mentions and commands, with offsets in UTF-16 units.
fn entities(text: &str) -> Value {
    let mut found = Vec::new();
    for (at, word) in words(text) {
        let kind = match word.chars().next() {
            Some('@') => "mention",
            Some('/') => "bot_command",
            _ => continue,
        };
        let offset = text[..at].encode_utf16().count();
        found.push(json!({ "type": kind, "offset": offset, "length": word.encode_utf16().count() }));
    }
    json!(found)
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(' ').scan(0, |at, word| {
        let start = *at;
        *at += word.len() + 1;
        Some((start, word.trim_end_matches([',', '.', '!', '?', ':'])))
    })
}
