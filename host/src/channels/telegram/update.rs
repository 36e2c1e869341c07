//! Telegram's updates, and their conversion to messages and events. Each field is read by itself: what cannot be read
//! is left out and counted, and the rest of the message stays.

use std::cell::Cell;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::content::{self, Fate};
use crate::domain::message::{Addressee, ChatEvent, Inbound, OfferedFile, Press, ReplyTo, Sender};
use crate::domain::{ChatId, ChatKind, SenderId, WallMs};

/// The answer of `getMe`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Me {
    pub(super) id: i64,
    #[serde(default)]
    pub(super) username: String,
}

/// The part of a sent message that serves as its receipt.
#[derive(Debug, Deserialize)]
pub(super) struct Sent {
    pub(super) message_id: i64,
}

/// The result of reading one update.
pub(super) struct Read {
    /// Absent only if the text is no update at all.
    pub(super) update_id: Option<i64>,
    pub(super) news: Result<News, String>,
    /// Fields that were there and could not be read.
    pub(super) unread: u64,
}

/// What an update brings.
#[derive(Debug)]
pub(super) enum News {
    Message {
        inbound: Box<Inbound>,
        /// The album that the message is a part of.
        album: Option<String>,
    },
    Event(ChatEvent),
    /// Nothing for an agent: the kind of the update, or the fields of its message.
    Ignored(String),
}

#[derive(Deserialize)]
struct Head {
    update_id: i64,
}

/// An object of the Bot API.
#[derive(Clone, Copy)]
struct Fields<'a> {
    map: &'a Map<String, Value>,
    unread: &'a Cell<u64>,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, unread: &'a Cell<u64>) -> Option<Self> {
        value.as_object().map(|map| Self { map, unread })
    }

    fn value(self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn get<T: Deserialize<'a>>(self, name: &str) -> Option<T> {
        let value = self.value(name)?;
        let read = T::deserialize(value);
        self.unread.set(self.unread.get() + u64::from(read.is_err()));
        read.ok()
    }

    /// The elements of a list that can be read.
    fn list<T: Deserialize<'a>>(self, name: &str) -> Vec<T> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let read: Vec<T> = items.iter().filter_map(|item| T::deserialize(item).ok()).collect();
        let missed = items.len() - read.len() + usize::from(!value.is_array());
        self.unread.set(self.unread.get() + u64::try_from(missed).unwrap_or(u64::MAX));
        read
    }

    fn object(self, name: &str) -> Option<Self> {
        Self::of(self.value(name)?, self.unread)
    }

    fn flag(self, name: &str) -> bool {
        self.value(name) == Some(&Value::Bool(true))
    }
}

#[derive(Deserialize)]
struct Entity {
    #[serde(rename = "type")]
    kind: String,
    offset: usize,
    length: usize,
    user: Option<Value>,
    url: Option<Value>,
}

/// Reads one update. An update without an id never has a message, because the channel could store this message but
/// never acknowledge it.
pub(super) fn read(raw: &str, me: &Me) -> Read {
    let unread = Cell::new(0);
    let (update_id, news) = match serde_json::from_str::<Head>(raw) {
        Err(e) => (None, Err(e.to_string())),
        Ok(Head { update_id }) => {
            let value = serde_json::from_str::<Value>(raw).map_err(|e| e.to_string());
            (Some(update_id), value.and_then(|value| news(&value, &unread, me, update_id)))
        }
    };
    Read { update_id, news, unread: unread.get() }
}

fn news(update: &Value, unread: &Cell<u64>, me: &Me, update_id: i64) -> Result<News, String> {
    let update = Fields::of(update, unread).ok_or("an update is no object")?;
    if let Some(message) = update.object("message").or_else(|| update.object("edited_message")) {
        return Message { fields: message, chat: chat_of(message)? }.news(me, update_id);
    }
    if let Some(query) = update.object("callback_query") {
        return press(query);
    }
    if let Some(member) = update.object("my_chat_member") {
        return membership(member);
    }
    let kind = update.map.keys().find(|key| *key != "update_id").map_or("nothing", String::as_str);
    let known = content::KINDS.iter().any(|(name, _)| *name == kind);
    Ok(News::Ignored(if known { kind.to_owned() } else { "unknown".to_owned() }))
}

/// A press on a button. Without its message, nobody knows in which chat the button stands, so it names no choice. A
/// message that Telegram calls inaccessible has its chat, but not its topic.
fn press(query: Fields<'_>) -> Result<News, String> {
    let id = query.get::<String>("id").ok_or("a press has no id")?;
    let from = query.value("from").ok_or("a press has no sender")?;
    let user = query.object("from").and_then(|user| user.get::<i64>("id")).ok_or("a press has no sender")?;
    let message =
        query.object("message").and_then(|fields| Some(Message { fields, chat: chat_of(fields).ok()? }));
    let sender = Sender {
        id: format!("telegram:{user}").parse().map_err(|e: crate::domain::chat::BadAddress| e.to_string())?,
        name: chat_name(from, user),
        is_bot: query.object("from").is_some_and(|user| user.flag("is_bot")),
    };
    let chat =
        message.as_ref().map_or(ChatRef { id: user, direct: true, about: from }, |m| ChatRef { ..m.chat });
    let press = Press {
        token: message.as_ref().and_then(|_| query.get("data")).unwrap_or_default(),
        message: message.as_ref().and_then(|m| m.fields.get::<i64>("message_id")).map(|id| id.to_string()),
        id: id.clone(),
    };
    let inbound = Inbound {
        chat: address(chat.id, message.as_ref().and_then(Message::topic))?,
        kind: if chat.direct { ChatKind::Direct } else { ChatKind::Room },
        title: chat_name(chat.about, chat.id),
        message_id: format!("press:{id}"),
        version: 0,
        sender,
        text: String::new(),
        origin: None,
        service: false,
        reply_to: None,
        attachments: Vec::new(),
        addressee: Addressee::Us,
        at: WallMs(0),
        press: Some(press),
    };
    Ok(News::Message { inbound: Box::new(inbound), album: None })
}

/// The bot was removed from a chat, or is there again.
fn membership(change: Fields<'_>) -> Result<News, String> {
    let chat = address(chat_of(change)?.id, None)?;
    let status = change.object("new_chat_member").and_then(|member| member.get::<&str>("status"));
    Ok(match status {
        Some("kicked" | "left") => {
            let by = change.value("from").map(content::name).filter(|by| !by.is_empty());
            let by = by.map_or_else(String::new, |by| format!(" by {by}"));
            let direct = chat.local().parse::<i64>().is_ok_and(|id| id > 0);
            let why =
                if direct { format!("the bot was blocked{by}") } else { format!("the bot was removed{by}") };
            News::Event(ChatEvent::Lost { chat, why })
        }
        Some(_) => News::Event(ChatEvent::Back { chat }),
        None => News::Ignored("my_chat_member".to_owned()),
    })
}

struct ChatRef<'a> {
    id: i64,
    direct: bool,
    about: &'a Value,
}

fn chat_of(fields: Fields<'_>) -> Result<ChatRef<'_>, String> {
    let about = fields.value("chat").ok_or("it has no chat")?;
    let chat = Fields::of(about, fields.unread).ok_or("its chat is no object")?;
    let id = chat.get::<i64>("id").ok_or("its chat has no id")?;
    // A chat with one person has a positive id, the person's. The type may be missing.
    let direct = chat.get::<&str>("type").map_or(id > 0, |kind| kind == "private");
    Ok(ChatRef { id, direct, about })
}

fn address(chat: i64, topic: Option<i64>) -> Result<ChatId, String> {
    let address = match topic {
        Some(topic) => format!("telegram:{chat}/{topic}"),
        None => format!("telegram:{chat}"),
    };
    address.parse().map_err(|e: crate::domain::chat::BadAddress| e.to_string())
}

struct Message<'a> {
    fields: Fields<'a>,
    chat: ChatRef<'a>,
}

impl<'a> Message<'a> {
    fn news(self, me: &Me, update_id: i64) -> Result<News, String> {
        if let Some(to) = self.fields.get::<i64>("migrate_to_chat_id") {
            let (from, to) = (address(self.chat.id, None)?, address(to, None)?);
            return Ok(News::Event(ChatEvent::Moved { from, to }));
        }
        if let Some(from) = self.fields.get::<i64>("migrate_from_chat_id") {
            let (from, to) = (address(from, None)?, address(self.chat.id, None)?);
            return Ok(News::Event(ChatEvent::Moved { from, to }));
        }
        let message_id = self.id().ok_or("it has no message_id")?;
        let topic = self.topic();
        let origin = origin(self.fields);
        let mut attachments = files(self.fields);
        let text = self.words(attachments.is_empty());
        if text.is_empty() && attachments.is_empty() {
            return Ok(News::Ignored(self.ignored()));
        }
        let reply = self.reply();
        if let Some((_, answered)) = &reply {
            // The agent can look at what the person answers, even if it came before the agent did.
            attachments.extend(
                answered
                    .iter()
                    .cloned()
                    .map(|file| OfferedFile { name: format!("answered-{}", file.name), ..file }),
            );
        }
        let at = self.fields.get::<i64>("date").unwrap_or(0);
        let inbound = Inbound {
            chat: address(self.chat.id, topic)?,
            kind: if self.chat.direct { ChatKind::Direct } else { ChatKind::Room },
            title: chat_name(self.chat.about, self.chat.id),
            message_id,
            version: self.fields.get::<i64>("edit_date").map_or(0, |at| version(at, update_id)),
            sender: self.sender()?,
            addressee: self.addressee(me, origin.is_some()),
            text,
            origin,
            service: self.is_service(),
            reply_to: reply.map(|(reply, _)| reply),
            attachments,
            at: WallMs(at.saturating_mul(1000)),
            press: None,
        };
        Ok(News::Message { inbound: Box::new(inbound), album: self.fields.get("media_group_id") })
    }

    /// Messages that only one person of a room sees have numbers of their own, and all of them the id 0.
    fn id(&self) -> Option<String> {
        let id = self.fields.get::<i64>("message_id")?;
        match self.fields.get::<i64>("ephemeral_message_id").filter(|_| id == 0) {
            Some(ephemeral) => Some(format!("e{ephemeral}")),
            None => Some(id.to_string()),
        }
    }

    fn topic(&self) -> Option<i64> {
        self.fields.get("message_thread_id").filter(|_| self.fields.flag("is_topic_message"))
    }

    /// Every known field with content, in the order of the table. If there is nothing else and no file, the name of a
    /// field that could not be read or that this version does not know.
    fn words(&self, no_file: bool) -> String {
        let said = said(self.fields);
        let mut parts: Vec<String> = Vec::new();
        parts.extend((!said.is_empty()).then_some(said));
        // A venue repeats its place as a location, and names it.
        let venue = self.fields.value("venue").is_some();
        for (name, fate) in content::FIELDS {
            let told = matches!(fate, Fate::Text | Fate::Service) || name == "sticker";
            let repeated = venue && name == "location";
            if let Some(value) = self.fields.value(name).filter(|_| told && !repeated) {
                parts.extend(content::words(name, value));
            }
        }
        if parts.is_empty() && no_file {
            let holds = |name: &str| matches!(content::fate(name), None | Some(Fate::Text | Fate::File));
            let unread = self.fields.map.iter().find(|(key, v)| !v.is_null() && **v != "" && holds(key));
            parts.extend(unread.map(|(key, _)| content::unknown(&key.chars().take(60).collect::<String>())));
        }
        parts.join("\n")
    }

    fn is_service(&self) -> bool {
        let holds = |wanted: &[Fate]| {
            content::FIELDS
                .iter()
                .any(|(name, fate)| wanted.contains(fate) && self.fields.value(name).is_some())
        };
        holds(&[Fate::Service]) && !holds(&[Fate::Text, Fate::File])
    }

    /// Names what an ignored message holds.
    fn ignored(&self) -> String {
        let ignored = content::FIELDS
            .iter()
            .find(|(name, fate)| matches!(fate, Fate::Ignored(_)) && self.fields.value(name).is_some());
        ignored.map_or("empty", |(name, _)| name).to_owned()
    }

    /// If a room speaks as itself (an anonymous administrator, a linked channel), the room is the sender.
    fn sender(&self) -> Result<Sender, String> {
        let id = |id: i64| format!("telegram:{id}").parse::<SenderId>().map_err(|e| e.to_string());
        if let Some(about) = self.fields.value("sender_chat")
            && let Some(chat) = self.fields.object("sender_chat").and_then(|chat| chat.get::<i64>("id"))
        {
            let name = chat_name(about, chat);
            let signed = self.fields.get::<String>("author_signature").map(|by| format!("{name} ({by})"));
            return Ok(Sender { id: id(chat)?, name: signed.unwrap_or(name), is_bot: false });
        }
        let (about, fields) = (self.fields.value("from"), self.fields.object("from"));
        let (user, is_bot) =
            (fields.and_then(|u| u.get::<i64>("id")), fields.is_some_and(|u| u.flag("is_bot")));
        let (about, user) = about.zip(user).unwrap_or((self.chat.about, self.chat.id));
        Ok(Sender { id: id(user)?, name: chat_name(about, user), is_bot })
    }

    /// A command with another bot's name is that bot's, whatever else addresses us. A mention in words that the sender
    /// only passes on addresses nobody.
    fn addressee(&self, me: &Me, passed_on: bool) -> Addressee {
        let ours = |addresses: bool| if addresses { Addressee::Us } else { Addressee::Anyone };
        let reply = self.answered().and_then(|m| m.object("from")?.get("id")) == Some(me.id);
        if passed_on {
            return ours(reply);
        }
        let (text, entities) = text_and_entities(self.fields);
        let named = Addressee::named(text, |name| name.eq_ignore_ascii_case(&me.username));
        named.unwrap_or_else(|| ours(reply || mentions(text, &entities, me)))
    }

    /// Returns the message that this message answers. In a topic, Telegram marks every message as a reply to the one
    /// that opened the topic; this is ignored.
    fn answered(&self) -> Option<Fields<'a>> {
        let answered = self.fields.object("reply_to_message")?;
        let opener = self.topic().is_some() && answered.get::<i64>("message_id") == self.topic();
        (!opener).then_some(answered)
    }

    /// What this message answers, and the files of that.
    fn reply(&self) -> Option<(ReplyTo, Vec<OfferedFile>)> {
        let quote = self.fields.object("quote").and_then(|quote| quote.get::<String>("text"));
        let words = |of: Fields<'_>| quote.clone().unwrap_or_else(|| quoted(of));
        if let Some(answered) = self.answered() {
            let chat = answered
                .value("sender_chat")
                .or_else(|| answered.value("from"))
                .or_else(|| answered.value("chat"));
            let from = chat.map(content::name).unwrap_or_default();
            // The words of a forwarded message are not those of the person who forwarded it.
            let from = origin(answered).map_or(from.clone(), |origin| format!("{from}, forwarding {origin}"));
            let message = answered.get::<i64>("message_id").map(|id| id.to_string());
            return Some((ReplyTo { from, text: words(answered), message }, files(answered)));
        }
        if let Some(elsewhere) = self.fields.object("external_reply") {
            let from =
                elsewhere.object("origin").and_then(of_origin).unwrap_or_else(|| "somebody".to_owned());
            let reply =
                ReplyTo { from: format!("{from}, in another chat"), text: words(elsewhere), message: None };
            return Some((reply, files(elsewhere)));
        }
        let story = self.fields.object("reply_to_story")?;
        let from = story.value("chat").map(content::name).unwrap_or_default();
        Some((ReplyTo { from, text: "[a story]".to_owned(), message: None }, Vec::new()))
    }
}

/// The words that a reply quotes: the text, or what stands for the content.
fn quoted(message: Fields<'_>) -> String {
    let said = said(message);
    let content = content::FIELDS.iter().filter(|(_, fate)| matches!(fate, Fate::Text | Fate::File));
    let content = content.filter_map(|(name, _)| content::words(name, message.value(name)?));
    let parts: Vec<String> = (!said.is_empty()).then_some(said).into_iter().chain(content).collect();
    parts.join("\n")
}

fn text_and_entities(message: Fields<'_>) -> (&str, Vec<Entity>) {
    match message.get::<&str>("text") {
        Some(text) => (text, message.list("entities")),
        None => (message.get("caption").unwrap_or_default(), message.list("caption_entities")),
    }
}

/// The text or caption. A link whose address is hidden behind words shows it.
fn said(message: Fields<'_>) -> String {
    let (text, entities) = text_and_entities(message);
    let links = entities.iter().filter(|entity| entity.kind == "text_link");
    let mut links: Vec<(usize, &str)> = links
        .filter_map(|link| Some((link.offset.checked_add(link.length)?, link.url.as_ref()?.as_str()?)))
        .collect();
    if links.is_empty() {
        return text.to_owned();
    }
    links.sort_by_key(|(end, _)| *end);
    let mut links = links.into_iter().peekable();
    let (mut out, mut unit) = (String::with_capacity(text.len()), 0);
    for c in text.chars() {
        out.push(c);
        unit += c.len_utf16();
        // Offsets count UTF-16 code units (Bot API, MessageEntity).
        while let Some((_, url)) = links.next_if(|(end, _)| *end <= unit) {
            out = format!("{out} ({url})");
        }
    }
    out
}

fn mentions(text: &str, entities: &[Entity], me: &Me) -> bool {
    let units: Vec<u16> = text.encode_utf16().collect();
    let handle = format!("@{}", me.username).to_lowercase();
    entities.iter().any(|entity| {
        let span = units.get(entity.offset..entity.offset.saturating_add(entity.length)).unwrap_or_default();
        let span = String::from_utf16_lossy(span).to_lowercase();
        match entity.kind.as_str() {
            "mention" => span == handle,
            "bot_command" => span.ends_with(&handle),
            "text_mention" => entity.user.as_ref().is_some_and(|user| user["id"] == me.id),
            _ => false,
        }
    })
}

/// Whose words a message carries, if not its sender's.
fn origin(message: Fields<'_>) -> Option<String> {
    let forwarded = message.object("forward_origin").and_then(of_origin);
    let old = || {
        let named = ["forward_from", "forward_from_chat"].into_iter().find_map(|name| message.value(name));
        let hidden = || message.get::<String>("forward_sender_name");
        named
            .map(content::name)
            .or_else(hidden)
            .or_else(|| message.value("forward_date").map(|_| "somebody".to_owned()))
    };
    let bot = || message.value("via_bot").map(|bot| format!("the bot {}", content::name(bot)));
    forwarded.or_else(old).or_else(bot)
}

fn of_origin(origin: Fields<'_>) -> Option<String> {
    let named = ["sender_user", "sender_chat", "chat"]
        .into_iter()
        .find_map(|name| origin.value(name))
        .map(content::name);
    let name = named.or_else(|| origin.get("sender_user_name")).filter(|name: &String| !name.is_empty());
    let name = name.unwrap_or_else(|| "somebody".to_owned());
    Some(match origin.get::<String>("author_signature") {
        Some(author) => format!("{name} ({author})"),
        None => name,
    })
}

fn files(message: Fields<'_>) -> Vec<OfferedFile> {
    // A live photo has its still picture as a photo.
    let photo = largest(message).or_else(|| largest(message.object("live_photo")?));
    let animation = message.object("animation");
    // Telegram sends a GIF as an animation and, for old clients, as a document too.
    let document = message.object("document").filter(|_| animation.is_none());
    [
        (photo, "photo.jpg", "image/jpeg", false),
        (animation, "animation.mp4", "video/mp4", false),
        (document, "document", "application/octet-stream", false),
        (message.object("audio"), "audio", "audio/mpeg", false),
        (message.object("voice"), "voice.ogg", "audio/ogg", true),
        (message.object("video"), "video.mp4", "video/mp4", false),
        (message.object("video_note"), "video.mp4", "video/mp4", true),
        (message.object("sticker"), "sticker.webp", "image/webp", false),
    ]
    .into_iter()
    .filter_map(|(file, name, mime, spoken)| {
        let file = file?;
        Some(OfferedFile {
            handle: file.get("file_id")?,
            name: file.get("file_name").unwrap_or_else(|| name.to_owned()),
            mime: file.get("mime_type").unwrap_or_else(|| mime.to_owned()),
            bytes: file.get("file_size"),
            spoken,
        })
    })
    .collect()
}

/// The largest size of a photo.
fn largest(of: Fields<'_>) -> Option<Fields<'_>> {
    let sizes = of.value("photo")?.as_array()?.iter().filter_map(|size| Fields::of(size, of.unread));
    sizes.filter(|size| size.value("file_id").is_some()).max_by_key(|size| size.get::<u64>("width"))
}

/// Returns the version of an edit. Edits carry a time in seconds and no number. Their update ids, which grow,
/// distinguish two edits within one second. A repeated update has the same version.
fn version(edit_date: i64, update_id: i64) -> i64 {
    edit_date.saturating_mul(1 << 20) | (update_id & 0xf_ffff)
}

fn chat_name(about: &Value, id: i64) -> String {
    Some(content::name(about)).filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_string())
}

#[cfg(test)]
mod tests;
