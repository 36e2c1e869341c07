//! Telegram's updates, and their conversion to messages. It reads only the fields that the host uses.

use serde::Deserialize;

use crate::domain::message::{Addressee, Inbound, OfferedFile, ReplyTo, Sender};
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
    /// The message of the update, if its kind has one.
    pub(super) message: Result<Option<Inbound>, String>,
}

#[derive(Deserialize)]
struct Head {
    update_id: i64,
}

#[derive(Deserialize)]
struct Update {
    message: Option<Message>,
    edited_message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    message_id: i64,
    message_thread_id: Option<i64>,
    #[serde(default)]
    is_topic_message: bool,
    from: Option<User>,
    sender_chat: Option<Chat>,
    chat: Chat,
    date: i64,
    edit_date: Option<i64>,
    text: Option<String>,
    caption: Option<String>,
    #[serde(default)]
    entities: Vec<Entity>,
    #[serde(default)]
    caption_entities: Vec<Entity>,
    reply_to_message: Option<Box<Message>>,
    #[serde(default)]
    photo: Vec<FileRef>,
    animation: Option<FileRef>,
    document: Option<FileRef>,
    audio: Option<FileRef>,
    voice: Option<FileRef>,
    video: Option<FileRef>,
    video_note: Option<FileRef>,
    sticker: Option<FileRef>,
    location: Option<Location>,
}

#[derive(Deserialize)]
struct User {
    id: i64,
    #[serde(default)]
    is_bot: bool,
    #[serde(default)]
    first_name: String,
    last_name: Option<String>,
}

#[derive(Deserialize)]
struct Chat {
    id: i64,
    #[serde(rename = "type")]
    kind: String,
    title: Option<String>,
    first_name: Option<String>,
    username: Option<String>,
}

#[derive(Deserialize)]
struct Entity {
    #[serde(rename = "type")]
    kind: String,
    offset: usize,
    length: usize,
    user: Option<User>,
}

#[derive(Deserialize)]
struct FileRef {
    file_id: String,
    file_size: Option<u64>,
    file_name: Option<String>,
    mime_type: Option<String>,
    #[serde(default)]
    width: u64,
}

#[derive(Deserialize)]
struct Location {
    latitude: f64,
    longitude: f64,
}

/// Reads one update. An unknown kind has an id and no message. An update without an id never has a message, because the
/// channel could store this message but never acknowledge it.
pub(super) fn read(raw: &str, me: &Me) -> Read {
    let update_id = match serde_json::from_str::<Head>(raw) {
        Ok(head) => head.update_id,
        Err(e) => return Read { update_id: None, message: Err(e.to_string()) },
    };
    let message = serde_json::from_str::<Update>(raw)
        .map_err(|e| e.to_string())
        .and_then(|u| u.message.or(u.edited_message).map(|m| m.inbound(me, update_id)).transpose());
    Read { update_id: Some(update_id), message }
}

impl Message {
    fn inbound(self, me: &Me, update_id: i64) -> Result<Inbound, String> {
        let bad = |e: crate::domain::chat::BadAddress| e.to_string();
        let chat: ChatId = match self.message_thread_id.filter(|_| self.is_topic_message) {
            Some(topic) => format!("telegram:{}/{topic}", self.chat.id),
            None => format!("telegram:{}", self.chat.id),
        }
        .parse()
        .map_err(bad)?;
        let direct = self.chat.kind == "private";
        let addressee = self.addressee(me);
        let reply_to = self.quoted();
        let attachments = self.files();
        let at = WallMs(self.date.saturating_mul(1000));
        Ok(Inbound {
            kind: if direct { ChatKind::Direct } else { ChatKind::Room },
            title: self.chat.name(),
            message_id: self.message_id.to_string(),
            version: self.edit_date.map_or(0, |at| version(at, update_id)),
            sender: self.sender().map_err(bad)?,
            text: self.words(),
            chat,
            reply_to,
            attachments,
            addressee,
            at,
        })
    }

    fn words(&self) -> String {
        let place = self.location.as_ref().map(|l| format!("[location: {}, {}]", l.latitude, l.longitude));
        self.text.clone().or_else(|| self.caption.clone()).or(place).unwrap_or_default()
    }

    /// If a room speaks as itself (an anonymous administrator, a linked channel), the room is the sender.
    fn sender(&self) -> Result<Sender, crate::domain::chat::BadAddress> {
        if let Some(chat) = &self.sender_chat {
            return Ok(Sender { id: sender_id(chat.id)?, name: chat.name(), is_bot: false });
        }
        match &self.from {
            Some(user) => Ok(Sender { id: sender_id(user.id)?, name: user.name(), is_bot: user.is_bot }),
            None => Ok(Sender { id: sender_id(self.chat.id)?, name: self.chat.name(), is_bot: false }),
        }
    }

    /// A command with another bot's name is that bot's, whatever else addresses us.
    fn addressee(&self, me: &Me) -> Addressee {
        let is_us = |name: &str| name.eq_ignore_ascii_case(&me.username);
        let named = Addressee::named(&self.words(), is_us);
        named.unwrap_or(if self.addresses(me) { Addressee::Us } else { Addressee::Anyone })
    }

    fn addresses(&self, me: &Me) -> bool {
        let replied = self.answered().and_then(|m| m.from.as_ref()).is_some_and(|from| from.id == me.id);
        let text = self.text.as_deref().or(self.caption.as_deref()).unwrap_or_default();
        let units: Vec<u16> = text.encode_utf16().collect();
        let handle = format!("@{}", me.username).to_lowercase();
        let named = self.entities.iter().chain(&self.caption_entities).any(|entity| {
            // Offsets count UTF-16 code units (Bot API, MessageEntity).
            let span =
                units.get(entity.offset..entity.offset.saturating_add(entity.length)).unwrap_or_default();
            let span = String::from_utf16_lossy(span).to_lowercase();
            match entity.kind.as_str() {
                "mention" => span == handle,
                "bot_command" => span.ends_with(&handle),
                "text_mention" => entity.user.as_ref().is_some_and(|user| user.id == me.id),
                _ => false,
            }
        });
        replied || named
    }

    /// Returns the message that this message answers. In a topic, Telegram marks every message as a reply to the one
    /// that opened the topic; this is ignored.
    fn answered(&self) -> Option<&Message> {
        self.reply_to_message
            .as_deref()
            .filter(|m| !self.is_topic_message || Some(m.message_id) != self.message_thread_id)
    }

    fn quoted(&self) -> Option<ReplyTo> {
        let answered = self.answered()?;
        let from = answered.from.as_ref().map_or_else(|| answered.chat.name(), User::name);
        Some(ReplyTo { from, text: answered.words() })
    }

    fn files(&self) -> Vec<OfferedFile> {
        let photo = self.photo.iter().max_by_key(|size| size.width);
        // Telegram sends a GIF as an animation and, for old clients, as a document too.
        let document = self.document.as_ref().filter(|_| self.animation.is_none());
        [
            (photo, "photo.jpg", "image/jpeg"),
            (self.animation.as_ref(), "animation.mp4", "video/mp4"),
            (document, "document", "application/octet-stream"),
            (self.audio.as_ref(), "audio", "audio/mpeg"),
            (self.voice.as_ref(), "voice.ogg", "audio/ogg"),
            (self.video.as_ref(), "video.mp4", "video/mp4"),
            (self.video_note.as_ref(), "video.mp4", "video/mp4"),
            (self.sticker.as_ref(), "sticker.webp", "image/webp"),
        ]
        .into_iter()
        .filter_map(|(file, name, mime)| {
            let file = file?;
            Some(OfferedFile {
                handle: file.file_id.clone(),
                name: file.file_name.clone().unwrap_or_else(|| name.to_owned()),
                mime: file.mime_type.clone().unwrap_or_else(|| mime.to_owned()),
                bytes: file.file_size,
            })
        })
        .collect()
    }
}

/// Returns the version of an edit. Edits carry a time in seconds and no number. Their update ids, which grow,
/// distinguish two edits within one second. A repeated update has the same version.
fn version(edit_date: i64, update_id: i64) -> i64 {
    (edit_date << 20) | (update_id & 0xf_ffff)
}

impl User {
    fn name(&self) -> String {
        match &self.last_name {
            Some(last) => format!("{} {last}", self.first_name),
            None => self.first_name.clone(),
        }
    }
}

impl Chat {
    fn name(&self) -> String {
        let name = self.title.as_ref().or(self.first_name.as_ref()).or(self.username.as_ref());
        name.cloned().unwrap_or_else(|| self.id.to_string())
    }
}

fn sender_id(id: i64) -> Result<SenderId, crate::domain::chat::BadAddress> {
    format!("telegram:{id}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Me {
        Me { id: 99, username: "LazBot".into() }
    }

    fn inbound(message: &str) -> Inbound {
        let raw = format!(r#"{{"update_id":7,"message":{message}}}"#);
        read(&raw, &me()).message.unwrap().unwrap()
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
        let m = read(&raw, &me()).message.unwrap().unwrap();
        assert_eq!(m.message_id, "11");
        let next = raw.replace("\"update_id\":8", "\"update_id\":9");
        let again = read(&raw, &me()).message.unwrap().unwrap();
        let next = read(&next, &me()).message.unwrap().unwrap();
        assert!(m.version > 0 && again.version == m.version && next.version > m.version);
    }

    #[test]
    fn a_message_without_a_number_is_no_update() {
        let message =
            r#"{"message_id":2,"date":0,"chat":{"id":5,"type":"private"},"from":{"id":5,"first_name":"A"}}"#;
        let read = |raw: String| read(&raw, &me());
        assert!(read(format!(r#"{{"message":{message}}}"#)).message.is_err());
        let twice = read(format!(r#"{{"update_id":1,"update_id":2,"message":{message}}}"#));
        assert!(twice.update_id.is_none() && twice.message.is_err());
    }

    #[test]
    fn an_update_of_an_unknown_kind_cannot_stick_the_queue() {
        let read_one = |raw: &str| read(raw, &me());
        let unknown = read_one(r#"{"update_id":9,"business_connection":{"x":[1]}}"#);
        assert_eq!(unknown.update_id, Some(9));
        assert!(matches!(unknown.message, Ok(None)));
        let broken = read_one(r#"{"update_id":10,"message":{"message_id":"not a number"}}"#);
        assert_eq!(broken.update_id, Some(10));
        assert!(broken.message.is_err());
    }

    #[test]
    fn a_room_that_speaks_as_itself_is_no_bot() {
        let m = inbound(
            r#"{"chat":{"id":-5,"type":"supergroup","title":"R"},"from":{"id":1087968824,"is_bot":true,"first_name":"Group"},"sender_chat":{"id":-5,"type":"supergroup","title":"R"},"date":1,"message_id":1,"text":"hi"}"#,
        );
        assert_eq!((m.sender.id.as_str(), m.sender.is_bot), ("telegram:-5", false));
    }
}
