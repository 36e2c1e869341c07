//! The messages that phones write, as the protocol has them.

use wacore::download::MediaType;
use wacore_binary::Jid;
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type;
use waproto::whatsapp::message_association::AssociationType;

use crate::media::{Media, Stored};
use crate::people::Document;
use crate::stanza;

/// The time in milliseconds, as messages have it.
fn millis() -> Option<i64> {
    i64::try_from(stanza::now() * 1000).ok()
}

/// A message that another one answers.
pub(crate) struct Quote {
    pub(crate) id: String,
    pub(crate) author: Jid,
    pub(crate) text: String,
}

pub(crate) fn text(words: &str, quote: Option<Quote>, mentions: &[Jid]) -> wa::Message {
    let words = Some(words.to_owned());
    if quote.is_none() && mentions.is_empty() {
        return wa::Message { conversation: words, ..wa::Message::default() };
    }
    let mut context = wa::ContextInfo {
        mentioned_jid: mentions.iter().map(Jid::to_string).collect(),
        ..wa::ContextInfo::default()
    };
    if let Some(quote) = quote {
        context.stanza_id = Some(quote.id);
        context.participant = Some(quote.author.to_string());
        context.quoted_message = text(&quote.text, None, &[]).into();
    }
    extended(words, context)
}

pub(crate) fn forwarded(words: &str) -> wa::Message {
    let context =
        wa::ContextInfo { is_forwarded: Some(true), forwarding_score: Some(1), ..wa::ContextInfo::default() };
    extended(Some(words.to_owned()), context)
}

fn extended(text: Option<String>, context: wa::ContextInfo) -> wa::Message {
    let text = wa::message::ExtendedTextMessage {
        text,
        context_info: context.into(),
        ..wa::message::ExtendedTextMessage::default()
    };
    wa::Message { extended_text_message: text.into(), ..wa::Message::default() }
}

pub(crate) fn edit(key: wa::MessageKey, to: wa::Message) -> wa::Message {
    protocol(wa::message::ProtocolMessage {
        key: key.into(),
        r#type: Some(Type::MessageEdit),
        edited_message: to.into(),
        timestamp_ms: millis(),
        ..wa::message::ProtocolMessage::default()
    })
}

pub(crate) fn deletion(key: wa::MessageKey) -> wa::Message {
    protocol(wa::message::ProtocolMessage {
        key: key.into(),
        r#type: Some(Type::Revoke),
        ..wa::message::ProtocolMessage::default()
    })
}

fn protocol(message: wa::message::ProtocolMessage) -> wa::Message {
    wa::Message { protocol_message: message.into(), ..wa::Message::default() }
}

pub(crate) fn reaction(key: wa::MessageKey, emoji: &str) -> wa::Message {
    let reaction = wa::message::ReactionMessage {
        key: key.into(),
        text: Some(emoji.to_owned()),
        sender_timestamp_ms: millis(),
        ..wa::message::ReactionMessage::default()
    };
    wa::Message { reaction_message: reaction.into(), ..wa::Message::default() }
}

/// Sets what a message says about its file.
macro_rules! of_file {
    ($kind:ty, $stored:expr, $mime:expr $(, $field:ident: $value:expr)*) => {{
        let Stored { path, key, digest, sealed_digest, length } = $stored;
        #[allow(clippy::needless_update)]
        let of = <$kind>::default();
        #[allow(clippy::needless_update)]
        let of = {
            let mut of = of;
            of.url = Some(format!("https://mmg.whatsapp.net{path}"));
            of.direct_path = Some(path);
            of.media_key = Some(key);
            of.file_sha256 = Some(digest);
            of.file_enc_sha256 = Some(sealed_digest);
            of.file_length = Some(length);
            of.media_key_timestamp = i64::try_from(stanza::now()).ok();
            of.mimetype = Some($mime.to_owned());
            $(of.$field = $value;)*
            of
        };
        of
    }};
}

/// A caption that is not there is not sent.
fn caption(words: &str) -> Option<String> {
    (!words.is_empty()).then(|| words.to_owned())
}

pub(crate) fn picture(media: &mut Media, bytes: &[u8], words: &str) -> wa::Message {
    let stored = media.keeps(bytes, MediaType::Image);
    let mime = if bytes.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" };
    let of = of_file!(wa::message::ImageMessage, stored, mime, caption: caption(words));
    wa::Message { image_message: of.into(), ..wa::Message::default() }
}

pub(crate) fn voice(media: &mut Media, bytes: &[u8]) -> wa::Message {
    let stored = media.keeps(bytes, MediaType::Audio);
    let mime = "audio/ogg; codecs=opus";
    let of = of_file!(wa::message::AudioMessage, stored, mime, ptt: Some(true), seconds: Some(3));
    wa::Message { audio_message: of.into(), ..wa::Message::default() }
}

pub(crate) fn document(media: &mut Media, file: &Document, words: &str) -> wa::Message {
    let mut stored = media.keeps(&file.bytes, MediaType::Document);
    stored.length = file.claims.unwrap_or(stored.length);
    let name = Some(file.name.clone());
    let of = of_file!(
        wa::message::DocumentMessage, stored, file.mime, file_name: name.clone(), title: name, caption: caption(words)
    );
    let message = wa::Message { document_message: of.into(), ..wa::Message::default() };
    if words.is_empty() {
        return message;
    }
    let wrapped = wa::message::FutureProofMessage { message: message.into() };
    wa::Message { document_with_caption_message: wrapped.into(), ..wa::Message::default() }
}

pub(crate) fn video(media: &mut Media, file: &Document, words: &str) -> wa::Message {
    let mut stored = media.keeps(&file.bytes, MediaType::Video);
    stored.length = file.claims.unwrap_or(stored.length);
    let of =
        of_file!(wa::message::VideoMessage, stored, file.mime, caption: caption(words), seconds: Some(3));
    wa::Message { video_message: of.into(), ..wa::Message::default() }
}

/// Announces an album.
pub(crate) fn album(pictures: usize) -> wa::Message {
    let album = wa::message::AlbumMessage {
        expected_image_count: u32::try_from(pictures).ok(),
        ..wa::message::AlbumMessage::default()
    };
    wa::Message { album_message: album.into(), ..wa::Message::default() }
}

/// Makes a message a part of an album.
pub(crate) fn joins_album(message: &mut wa::Message, album: wa::MessageKey, at: usize) {
    let association = wa::MessageAssociation {
        association_type: Some(AssociationType::MediaAlbum),
        parent_message_key: album.into(),
        message_index: i32::try_from(at).ok(),
    };
    let context = wa::MessageContextInfo {
        message_association: association.into(),
        ..wa::MessageContextInfo::default()
    };
    message.message_context_info = context.into();
}

/// A message of a kind that is not in the protocol of today: whoever reads it finds no field that it knows.
pub(crate) fn unknown_kind() -> wa::Message {
    wa::Message::default()
}

/// A piece of the phone's memory, without a chat.
pub(crate) fn history() -> wa::Message {
    let notification = wa::message::HistorySyncNotification {
        sync_type: Some(wa::message::HistorySyncType::RECENT),
        initial_hist_bootstrap_inline_payload: Some(Vec::new()),
        chunk_order: Some(1),
        ..wa::message::HistorySyncNotification::default()
    };
    protocol(wa::message::ProtocolMessage {
        r#type: Some(Type::HistorySyncNotification),
        history_sync_notification: notification.into(),
        ..wa::message::ProtocolMessage::default()
    })
}
