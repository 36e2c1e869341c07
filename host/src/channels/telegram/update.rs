//! Telegram's updates, and their conversion to messages and events. Each field is read by itself: what cannot be read is
//! left out and counted, and the rest of the message stays.

use std::cell::Cell;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::content::{self, Fate};
use crate::domain::message::{Addressee, ChatEvent, Inbound, OfferedFile, ReplyTo, Sender};
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

/// Reads one update. An update without an id never has a message, because the channel could store this message but never
/// acknowledge it.
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
    if let Some(member) = update.object("my_chat_member") {
        return membership(member);
    }
    let kind = update.map.keys().find(|key| *key != "update_id").map_or("nothing", String::as_str);
    let known = content::KINDS.iter().any(|(name, _)| *name == kind);
    Ok(News::Ignored(if known { kind.to_owned() } else { "unknown".to_owned() }))
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
        let text = self.words();
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

    /// Every known field with content, in the order of the table; then those that this version does not know, if there
    /// is nothing else.
    fn words(&self) -> String {
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
        let file = content::FIELDS
            .iter()
            .any(|(name, fate)| *fate == Fate::File && self.fields.value(name).is_some());
        if parts.is_empty() && !file {
            let unknown =
                self.fields.map.iter().find(|(key, v)| !v.is_null() && content::fate(key).is_none());
            parts.extend(unknown.map(|(key, _)| content::unknown(&key.chars().take(60).collect::<String>())));
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
            return Some((ReplyTo { from, text: words(answered) }, files(answered)));
        }
        if let Some(elsewhere) = self.fields.object("external_reply") {
            let from =
                elsewhere.object("origin").and_then(of_origin).unwrap_or_else(|| "somebody".to_owned());
            let reply = ReplyTo { from: format!("{from}, in another chat"), text: words(elsewhere) };
            return Some((reply, files(elsewhere)));
        }
        let story = self.fields.object("reply_to_story")?;
        let from = story.value("chat").map(content::name).unwrap_or_default();
        Some((ReplyTo { from, text: "[a story]".to_owned() }, Vec::new()))
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
        (photo, "photo.jpg", "image/jpeg"),
        (animation, "animation.mp4", "video/mp4"),
        (document, "document", "application/octet-stream"),
        (message.object("audio"), "audio", "audio/mpeg"),
        (message.object("voice"), "voice.ogg", "audio/ogg"),
        (message.object("video"), "video.mp4", "video/mp4"),
        (message.object("video_note"), "video.mp4", "video/mp4"),
        (message.object("sticker"), "sticker.webp", "image/webp"),
    ]
    .into_iter()
    .filter_map(|(file, name, mime)| {
        let file = file?;
        Some(OfferedFile {
            handle: file.get("file_id")?,
            name: file.get("file_name").unwrap_or_else(|| name.to_owned()),
            mime: file.get("mime_type").unwrap_or_else(|| mime.to_owned()),
            bytes: file.get("file_size"),
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
mod tests {
    use super::*;

    fn me() -> Me {
        Me { id: 99, username: "LazBot".into() }
    }

    fn message(read: Read) -> Inbound {
        match read.news {
            Ok(News::Message { inbound, .. }) => *inbound,
            other => panic!("{other:?}"),
        }
    }

    fn inbound(fields: &str) -> Inbound {
        let raw = format!(r#"{{"update_id":7,"message":{fields}}}"#);
        message(read(&raw, &me()))
    }

    const ROOM: &str = r#""chat":{"id":-100123,"type":"supergroup","title":"Family"},"from":{"id":5,"first_name":"Ann"},"date":1795000000,"message_id":11"#;

    #[test]
    fn a_message_in_a_room_and_in_a_topic() {
        let m = inbound(&format!(r#"{{{ROOM},"text":"hi"}}"#));
        assert_eq!(
            (m.chat.as_str(), m.kind, m.title.as_str()),
            ("telegram:-100123", ChatKind::Room, "Family")
        );
        assert_eq!(
            (m.sender.id.as_str(), m.sender.name.as_str(), m.addressee),
            ("telegram:5", "Ann", Addressee::Anyone)
        );
        let m = inbound(&format!(r#"{{{ROOM},"text":"hi","message_thread_id":42,"is_topic_message":true}}"#));
        assert_eq!(m.chat.as_str(), "telegram:-100123/42");
    }

    #[test]
    fn we_are_spoken_to_by_mention_by_reply_and_by_command() {
        let said = |rest: &str| inbound(&format!(r#"{{{ROOM},{rest}}}"#)).addressee == Addressee::Us;
        // The thumb emoji is one character and two UTF-16 units.
        assert!(said(r#""text":"👍 @lazbot hi","entities":[{"type":"mention","offset":3,"length":7}]"#));
        assert!(!said(r#""text":"@lazbot2 hi","entities":[{"type":"mention","offset":0,"length":8}]"#));
        assert!(!said(r#""text":"@lazbot in a quote without an entity""#));
        assert!(said(r#""text":"/stop@LazBot","entities":[{"type":"bot_command","offset":0,"length":12}]"#));
        assert!(said(
            r#""caption":"@LazBot see","caption_entities":[{"type":"mention","offset":0,"length":7}]"#
        ));
        assert!(said(
            r#""text":"you","entities":[{"type":"text_mention","offset":0,"length":3,"user":{"id":99}}]"#
        ));
        let answer = |id: i64| {
            format!(
                r#""text":"yes","reply_to_message":{{"message_id":10,"date":1,"chat":{{"id":-100123,"type":"supergroup"}},"from":{{"id":{id},"first_name":"X"}},"text":"shall I?"}}"#
            )
        };
        assert!(said(&answer(99)));
        assert!(!said(&answer(6)));
        assert!(!said(
            r#""text":"odd","entities":[{"type":"mention","offset":2000000,"length":18446744073709551615}]"#
        ));
    }

    #[test]
    fn another_bots_command_is_not_ours_even_as_a_reply_to_us() {
        let said = |rest: &str| inbound(&format!(r#"{{{ROOM},{rest}}}"#)).addressee;
        let reply = r#""reply_to_message":{"message_id":1,"date":1,"chat":{"id":-100123,"type":"supergroup"},"from":{"id":99,"first_name":"Laz"},"text":"x"}"#;
        let entity = r#""entities":[{"type":"bot_command","offset":0,"length":14},{"type":"mention","offset":23,"length":7}]"#;
        let text = r#""text":"/new@other_bot please, @lazbot watch""#;
        assert_eq!(said(&format!("{text},{entity},{reply}")), Addressee::AnotherBot);
        assert_eq!(said(&format!(r#""text":"/new@LAZBOT",{reply}"#)), Addressee::Us);
        assert_eq!(said(&format!(r#""text":"/new",{reply}"#)), Addressee::Us);
    }

    #[test]
    fn the_root_of_a_topic_is_not_an_answer() {
        let m = inbound(&format!(
            r#"{{{ROOM},"text":"hi","message_thread_id":42,"is_topic_message":true,"reply_to_message":{{"message_id":42,"date":1,"chat":{{"id":-100123,"type":"supergroup"}},"from":{{"id":99,"first_name":"Laz"}}}}}}"#
        ));
        assert!(m.addressee == Addressee::Anyone && m.reply_to.is_none());
    }

    #[test]
    fn a_photo_comes_in_its_largest_size_with_its_caption() {
        let m = inbound(&format!(
            r#"{{{ROOM},"caption":"look","photo":[{{"file_id":"s","width":90,"file_size":1000}},{{"file_id":"l","width":1280,"file_size":90000}}]}}"#
        ));
        assert_eq!(m.text, "look");
        assert_eq!((m.attachments.len(), m.attachments[0].handle.as_str()), (1, "l"));
    }

    #[test]
    fn an_edit_is_a_later_version() {
        let raw = format!(
            r#"{{"update_id":8,"edited_message":{{{ROOM},"text":"better","edit_date":1795000100}}}}"#
        );
        let m = message(read(&raw, &me()));
        assert_eq!(m.message_id, "11");
        let next = raw.replace("\"update_id\":8", "\"update_id\":9");
        let again = message(read(&raw, &me()));
        let next = message(read(&next, &me()));
        assert!(m.version > 0 && again.version == m.version && next.version > m.version);
    }

    #[test]
    fn a_message_without_a_number_is_no_update() {
        let message =
            r#"{"message_id":2,"date":0,"chat":{"id":5,"type":"private"},"from":{"id":5,"first_name":"A"}}"#;
        let read = |raw: String| read(&raw, &me());
        assert!(read(format!(r#"{{"message":{message}}}"#)).news.is_err());
        let twice = read(format!(r#"{{"update_id":1,"update_id":2,"message":{message}}}"#));
        assert!(twice.update_id.is_none() && twice.news.is_err());
    }

    #[test]
    fn an_update_of_an_unknown_kind_cannot_stick_the_queue() {
        let read_one = |raw: &str| read(raw, &me());
        let unknown = read_one(r#"{"update_id":9,"business_connection":{"x":[1]}}"#);
        assert_eq!(unknown.update_id, Some(9));
        assert!(matches!(unknown.news, Ok(News::Ignored(kind)) if kind == "business_connection"));
        let broken = read_one(r#"{"update_id":10,"message":{"message_id":"not a number"}}"#);
        assert_eq!(broken.update_id, Some(10));
        assert!(broken.news.is_err());
    }

    #[test]
    fn a_room_that_speaks_as_itself_is_no_bot() {
        let m = inbound(
            r#"{"chat":{"id":-5,"type":"supergroup","title":"R"},"from":{"id":1087968824,"is_bot":true,"first_name":"Group"},"sender_chat":{"id":-5,"type":"supergroup","title":"R"},"date":1,"message_id":1,"text":"hi"}"#,
        );
        assert_eq!((m.sender.id.as_str(), m.sender.is_bot), ("telegram:-5", false));
    }

    #[test]
    fn a_field_that_cannot_be_read_costs_no_other() {
        for odd in ["null", "7", "[]", "{}", "\"x\"", "[null]", "[{}]", "true"] {
            for field in [
                "photo",
                "document",
                "entities",
                "from",
                "sender_chat",
                "reply_to_message",
                "quote",
                "sticker",
            ] {
                let m = inbound(&format!(
                    r#"{{"chat":{{"id":-5,"type":"group","title":"R"}},"date":1,"message_id":1,"text":"hi","{field}":{odd}}}"#
                ));
                assert!(m.text.starts_with("hi"), "{field}: {odd}: {}", m.text);
            }
        }
        let raw = format!(r#"{{"update_id":1,"message":{{{ROOM},"text":"hi","photo":7,"document":null}}}}"#);
        assert_eq!(read(&raw, &me()).unread, 0, "a number is no list of photos, and nothing of it is lost");
        let m = inbound(r#"{"chat":{"id":5},"message_id":1,"text":"hi"}"#);
        assert_eq!((m.kind, m.sender.id.as_str(), m.at), (ChatKind::Direct, "telegram:5", WallMs(0)));
    }

    /// Content for every field of the table that an agent reads, and what it reads.
    const SHOWN: [(&str, &str, &str); 41] = [
        ("text", r#""hi""#, "hi"),
        ("caption", r#""look""#, "look"),
        ("rich_message", r#"{"blocks":[{"type":"p","text":"one"},{"items":[{"text":"two"}]}]}"#, "one\ntwo"),
        ("contact", r#"{"phone_number":"1","first_name":"Bob","last_name":"Lee"}"#, "[contact: Bob Lee, 1]"),
        ("dice", r#"{"emoji":"🎲","value":3}"#, "[dice 🎲: 3]"),
        ("game", r#"{"title":"Chess","description":"A game"}"#, "[game: Chess, A game]"),
        ("poll", r#"{"question":"Q?","options":[{"text":"yes","voter_count":2}]}"#, "[poll: Q?]\n- yes (2)"),
        (
            "venue",
            r#"{"title":"Café","address":"Main St","location":{"latitude":1.5,"longitude":2}}"#,
            "[venue: Café, Main St, 1.5, 2]",
        ),
        ("location", r#"{"latitude":1.5,"longitude":2}"#, "[location: 1.5, 2]"),
        (
            "checklist",
            r#"{"title":"List","tasks":[{"text":"milk","completion_date":1},{"text":"tea"}]}"#,
            "[checklist: List]\n- [x] milk\n- [ ] tea",
        ),
        ("story", r#"{"chat":{"title":"News"},"id":1}"#, "[a story: News]"),
        ("paid_media", r#"{"star_count":5}"#, "[paid media: 5 stars]"),
        (
            "invoice",
            r#"{"title":"Tea","description":"A pot","total_amount":500,"currency":"EUR"}"#,
            "[invoice: Tea, A pot, 500 EUR]",
        ),
        ("giveaway", "{}", "[giveaway]"),
        ("giveaway_winners", "{}", "[giveaway]"),
        ("gift", r#"{"text":"for you"}"#, "[gift: for you]"),
        ("unique_gift", "{}", "[gift]"),
        ("animation", r#"{"file_id":"f"}"#, ""),
        ("audio", r#"{"file_id":"f"}"#, ""),
        ("document", r#"{"file_id":"f"}"#, ""),
        ("live_photo", r#"{"photo":[{"file_id":"f"}]}"#, ""),
        ("photo", r#"[{"file_id":"f"}]"#, ""),
        ("sticker", r#"{"file_id":"f","emoji":"👍","set_name":"Thumbs"}"#, "[sticker: 👍, Thumbs]"),
        ("video", r#"{"file_id":"f"}"#, ""),
        ("video_note", r#"{"file_id":"f"}"#, ""),
        ("voice", r#"{"file_id":"f"}"#, ""),
        ("new_chat_members", r#"[{"first_name":"Bob"},{"username":"cy"}]"#, "[Bob, cy joined]"),
        ("left_chat_member", r#"{"first_name":"Bob"}"#, "[Bob left]"),
        ("new_chat_title", r#""Kin""#, "[the chat is now called Kin]"),
        ("pinned_message", r#"{"text":"rules"}"#, "[pinned: rules]"),
        ("forum_topic_created", r#"{"name":"Trips"}"#, "[topic opened: Trips]"),
        ("forum_topic_edited", r#"{"name":"Travel"}"#, "[topic changed: Travel]"),
        ("forum_topic_closed", "{}", "[topic closed]"),
        ("forum_topic_reopened", "{}", "[topic opened again]"),
        ("checklist_tasks_done", "{}", "[tasks of a checklist were ticked or unticked]"),
        ("checklist_tasks_added", r#"{"tasks":[{"text":"milk"}]}"#, "[tasks added: milk]"),
        ("poll_option_added", r#"{"option_text":"no"}"#, "[option added to a poll: no]"),
        ("poll_option_deleted", r#"{"option_text":"no"}"#, "[option removed from a poll: no]"),
        ("successful_payment", r#"{"total_amount":5,"currency":"XTR"}"#, "[payment: 5 XTR]"),
        ("refunded_payment", r#"{"total_amount":5,"currency":"XTR"}"#, "[payment returned: 5 XTR]"),
        (
            "laser_show",
            "{}",
            "[Telegram sent something that this version of Lazaret cannot read: laser_show]",
        ),
    ];

    #[test]
    fn every_field_of_a_message_has_its_fate() {
        for (field, value, expected) in SHOWN {
            let m = inbound(&format!(r#"{{{ROOM},"{field}":{value}}}"#));
            let fate = content::fate(field);
            let as_file = fate == Some(Fate::File);
            assert_eq!((m.text.as_str(), m.attachments.len()), (expected, usize::from(as_file)), "{field}");
            assert_eq!(m.service, fate == Some(Fate::Service), "{field}");
        }
        for (field, fate) in content::FIELDS {
            let shown = SHOWN.iter().any(|(name, ..)| *name == field);
            assert_eq!(shown, matches!(fate, Fate::Text | Fate::File | Fate::Service), "{field}: {fate:?}");
            if let Fate::Ignored(_) = fate {
                let raw = format!(r#"{{"update_id":7,"message":{{{ROOM},"{field}":{{}}}}}}"#);
                let ignored = read(&raw, &me()).news;
                assert!(matches!(ignored, Ok(News::Ignored(what)) if what == field), "{field}");
                let m = inbound(&format!(r#"{{{ROOM},"text":"hi","{field}":{{"text":"never"}}}}"#));
                assert_eq!(m.text, "hi", "{field}");
            }
        }
    }

    #[test]
    fn every_kind_of_update_has_its_fate() {
        let asked: Vec<_> = content::asked_for().collect();
        assert_eq!(asked, ["message", "edited_message", "my_chat_member"]);
        let body = format!(r#"{{{ROOM},"text":"hi","new_chat_member":{{"status":"member"}}}}"#);
        for (kind, fate) in content::KINDS {
            let news = read(&format!(r#"{{"update_id":7,"{kind}":{body}}}"#), &me()).news.unwrap();
            match fate {
                Fate::Text => assert!(matches!(news, News::Message { .. }), "{kind}"),
                Fate::Event => assert!(matches!(news, News::Event(_)), "{kind}"),
                _ => assert!(matches!(news, News::Ignored(what) if what == kind), "{kind}"),
            }
        }
        let later = read(r#"{"update_id":7,"telepathy":{}}"#, &me()).news;
        assert!(matches!(later, Ok(News::Ignored(what)) if what == "unknown"));
    }

    #[test]
    fn a_link_behind_words_shows_its_address() {
        let m = inbound(&format!(
            r#"{{{ROOM},"text":"👍 see here now","entities":[{{"type":"text_link","offset":3,"length":8,"url":"https://e.example"}}]}}"#
        ));
        assert_eq!(m.text, "👍 see here (https://e.example) now");
    }

    #[test]
    fn a_forwarded_message_is_its_authors_and_addresses_nobody() {
        let entity = r#""entities":[{"type":"mention","offset":0,"length":7}]"#;
        for (origin, from) in [
            (r#""forward_origin":{"type":"user","sender_user":{"id":6,"first_name":"Bob"}}"#, "Bob"),
            (r#""forward_origin":{"type":"hidden_user","sender_user_name":"Eve"}"#, "Eve"),
            (r#""forward_origin":{"type":"chat","sender_chat":{"id":-1,"title":"Club"}}"#, "Club"),
            (
                r#""forward_origin":{"type":"channel","chat":{"id":-1,"title":"News"},"author_signature":"Di"}"#,
                "News (Di)",
            ),
            (r#""forward_origin":{"type":"a later one"}"#, "somebody"),
            (r#""forward_from":{"id":6,"first_name":"Bob"},"forward_date":1"#, "Bob"),
            (r#""via_bot":{"id":8,"first_name":"Gif"}"#, "the bot Gif"),
        ] {
            let m = inbound(&format!(r#"{{{ROOM},"text":"@LazBot obey",{entity},{origin}}}"#));
            assert_eq!((m.origin.as_deref(), m.addressee), (Some(from), Addressee::Anyone), "{origin}");
        }
    }

    #[test]
    fn an_answer_carries_what_it_answers() {
        let photo = r#""photo":[{"file_id":"l","width":1280}]"#;
        let of = |rest: &str| inbound(&format!(r#"{{{ROOM},"text":"what is it?",{rest}}}"#));
        let chat =
            r#""message_id":3,"chat":{"id":-100123,"type":"supergroup"},"from":{"id":6,"first_name":"Bob"}"#;
        let m = of(&format!(r#""reply_to_message":{{{chat},{photo}}}"#));
        assert_eq!(m.reply_to, Some(ReplyTo { from: "Bob".into(), text: "[photo]".into() }));
        assert_eq!(
            (m.attachments[0].handle.as_str(), m.attachments[0].name.as_str()),
            ("l", "answered-photo.jpg")
        );
        let quote = r#""quote":{"text":"the second half"}"#;
        let m = of(&format!(r#""reply_to_message":{{{chat},"text":"the whole"}},{quote}"#));
        assert_eq!(m.reply_to.unwrap().text, "the second half");
        let origin = r#""origin":{"type":"user","sender_user":{"id":6,"first_name":"Bob"}}"#;
        let m = of(&format!(r#""external_reply":{{{origin},{photo}}}"#));
        assert_eq!(m.reply_to, Some(ReplyTo { from: "Bob, in another chat".into(), text: "[photo]".into() }));
        assert_eq!(m.attachments.len(), 1);
        let m = of(&format!(
            r#""reply_to_message":{{{chat},"text":"x","forward_origin":{{"type":"hidden_user","sender_user_name":"Eve"}}}}"#
        ));
        assert_eq!(m.reply_to.unwrap().from, "Bob, forwarding Eve");
    }

    #[test]
    fn a_chat_that_moves_and_a_bot_that_is_removed_are_events() {
        let news = |kind: &str, body: &str| {
            read(&format!(r#"{{"update_id":7,"{kind}":{body}}}"#), &me()).news.unwrap()
        };
        let moved = ChatEvent::Moved {
            from: "telegram:-4242".parse().unwrap(),
            to: "telegram:-1004242".parse().unwrap(),
        };
        let old =
            r#"{"message_id":1,"date":1,"chat":{"id":-4242,"type":"group"},"migrate_to_chat_id":-1004242}"#;
        let new = r#"{"message_id":1,"date":1,"chat":{"id":-1004242,"type":"supergroup"},"migrate_from_chat_id":-4242}"#;
        for body in [old, new] {
            assert!(matches!(news("message", body), News::Event(event) if event == moved), "{body}");
        }
        let member = |status: &str| {
            format!(
                r#"{{"chat":{{"id":-5,"type":"group"}},"from":{{"id":5,"first_name":"Ann"}},"new_chat_member":{{"status":"{status}"}}}}"#
            )
        };
        let chat: ChatId = "telegram:-5".parse().unwrap();
        let lost = ChatEvent::Lost { chat: chat.clone(), why: "the bot was removed by Ann".into() };
        assert!(matches!(news("my_chat_member", &member("kicked")), News::Event(event) if event == lost));
        let back = ChatEvent::Back { chat };
        assert!(
            matches!(news("my_chat_member", &member("administrator")), News::Event(event) if event == back)
        );
    }
}
