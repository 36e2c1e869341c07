//! Builds the messages that are sent.

use sha2::{Digest, Sha256};
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::media::{AudioOptions, DocumentOptions, ImageOptions, VideoOptions};
use whatsapp_rust::upload::UploadResponse;
use whatsapp_rust::wacore_binary::JidExt as _;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, media, proto_helpers};

use super::super::people::MessageId;
use super::media::Kind;
use super::mentions::Mentioned;
use crate::domain::outbound::{Part, SpooledFile};

/// What the ids of WhatsApp's web client begin with; nine bytes in hex follow.
const ID_BEGINS: &str = "3EB0";
const ID_BYTES: usize = 9;

/// Makes a message id, always the same from the same key.
pub(super) fn id(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().take(ID_BYTES).fold(ID_BEGINS.to_owned(), |id, byte| format!("{id}{byte:02X}"))
}

/// Returns the quote of the message that a part answers. Phones show the quoted text themselves, from the message's id;
/// they need an empty one in its place.
pub(super) fn quoted(part: &Part, chat: &Jid) -> Option<wa::ContextInfo> {
    let MessageId { id, author } = part.quotes.as_deref()?.parse().ok()?;
    // In a direct chat the author is the other person. A message of a room is not found without its author.
    let author = author.or_else(|| (!chat.is_group()).then(|| chat.clone()))?;
    Some(wa::ContextInfo {
        stanza_id: Some(id),
        participant: Some(author.to_non_ad_string()),
        quoted_message: MessageField::some(wa::Message {
            conversation: Some(String::new()),
            ..wa::Message::default()
        }),
        ..wa::ContextInfo::default()
    })
}

fn context(quoted: Option<wa::ContextInfo>, mentioned: Vec<String>) -> Option<wa::ContextInfo> {
    if mentioned.is_empty() {
        return quoted;
    }
    Some(wa::ContextInfo { mentioned_jid: mentioned, ..quoted.unwrap_or_default() })
}

/// Builds a text message. It has no link preview: the sender makes those, and the host opens no links of an agent's.
pub(super) fn text(text: Mentioned, quoted: Option<wa::ContextInfo>) -> wa::Message {
    let Mentioned { text, people } = text;
    match context(quoted, people) {
        None => wa::Message { conversation: Some(text), ..wa::Message::default() },
        Some(context) => wa::Message {
            extended_text_message: MessageField::some(wa::message::ExtendedTextMessage {
                text: Some(text),
                context_info: MessageField::some(context),
                ..wa::message::ExtendedTextMessage::default()
            }),
            ..wa::Message::default()
        },
    }
}

/// Builds the message of an uploaded file. It has no thumbnail: the host does not decode what a box has made.
pub(super) fn file(
    file: &SpooledFile,
    kind: Kind,
    uploaded: UploadResponse,
    caption: Mentioned,
    quoted: Option<wa::ContextInfo>,
) -> wa::Message {
    let Mentioned { text, people } = caption;
    let caption = Some(text).filter(|text| !text.is_empty());
    let context_info = context(quoted, people).map(Box::new);
    let mimetype = Some(kind.mime(&file.name));
    match kind {
        Kind::Jpeg | Kind::Png => media::image_message(
            uploaded,
            ImageOptions { caption, mimetype, context_info, ..ImageOptions::default() },
        ),
        Kind::Mp4 => media::video_message(
            uploaded,
            VideoOptions { caption, mimetype, context_info, ..VideoOptions::default() },
        ),
        // No voice note: only the agent knows whether somebody speaks in it.
        Kind::Opus => {
            media::audio_message(uploaded, AudioOptions { mimetype, context_info, ..AudioOptions::default() })
        }
        Kind::Document => media::document_message(
            uploaded,
            DocumentOptions {
                caption,
                mimetype,
                context_info,
                file_name: Some(file.name.clone()),
                title: Some(file.name.clone()),
                ..DocumentOptions::default()
            },
        ),
    }
}

/// Builds a reaction to a message. An empty `emoji` takes it back.
pub(super) fn reaction(chat: &Jid, message: &MessageId, emoji: &str) -> wa::Message {
    let key = wa::MessageKey {
        remote_jid: Some(chat.to_string()),
        // In a room, only the account's own messages have no author.
        from_me: Some(chat.is_group() && message.author.is_none()),
        id: Some(message.id.clone()),
        participant: message.author.as_ref().map(Jid::to_non_ad_string),
    };
    proto_helpers::build_reaction_message(key, emoji, whatsapp_rust::wacore::time::now_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(chat: &str, quotes: Option<&str>) -> Part {
        Part { quotes: quotes.map(str::to_owned), ..Part::for_tests(chat, 1) }
    }

    fn quote_of(part: &Part) -> Option<(String, String)> {
        let chat = super::super::super::people::jid_of(&part.chat).unwrap();
        let quoted = quoted(part, &chat)?;
        assert!(quoted.quoted_message.as_option().is_some(), "phones show no quote without it");
        Some((quoted.stanza_id?, quoted.participant?))
    }

    #[test]
    fn a_repeat_has_the_id_of_the_first_try_and_it_looks_like_any_other() {
        assert_eq!(id("part-1"), id("part-1"));
        assert_ne!(id("part-1"), id("part-2"));
        let id = id("part-1");
        assert_eq!((id.len(), &id[..4]), (22, "3EB0"));
        assert!(id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()), "{id}");
    }

    #[test]
    fn a_quote_names_the_message_and_its_author() {
        let of_room = part("whatsapp:1203@g.us", Some("3EB0AA/49151@s.whatsapp.net"));
        assert_eq!(quote_of(&of_room), Some(("3EB0AA".into(), "49151@s.whatsapp.net".into())));
        let of_person = part("whatsapp:49151", Some("3EB0AA"));
        assert_eq!(quote_of(&of_person), Some(("3EB0AA".into(), "49151@s.whatsapp.net".into())));
        assert_eq!(quote_of(&part("whatsapp:1203@g.us", Some("3EB0AA"))), None);
        assert_eq!(quote_of(&part("whatsapp:1203@g.us", Some("3EB0AA/???"))), None);
        assert_eq!(quote_of(&part("whatsapp:49151", None)), None);
    }

    #[test]
    fn a_plain_text_is_nothing_but_its_words() {
        let message = text(Mentioned::nobody("see https://e.org".into()), None);
        assert_eq!(message.conversation.as_deref(), Some("see https://e.org"));
        assert!(message.extended_text_message.as_option().is_none());
    }

    #[test]
    fn a_text_can_quote_and_mention_at_once() {
        let of_room = part("whatsapp:1203@g.us", Some("3EB0AA/5@lid"));
        let quoted = quoted(&of_room, &"1203@g.us".parse().unwrap());
        let mentioned = Mentioned { text: "@7 look".into(), people: vec!["7@lid".into()] };
        let message = text(mentioned, quoted);
        let text = message.extended_text_message.as_option().unwrap();
        let context = text.context_info.as_option().unwrap();
        assert_eq!(text.text.as_deref(), Some("@7 look"));
        assert_eq!((context.stanza_id.as_deref(), context.mentioned_jid.len()), (Some("3EB0AA"), 1));
        assert_eq!(context.non_jid_mentions, None, "nobody mentions everybody by accident");
    }

    #[test]
    fn a_reaction_names_the_message_as_its_chat_does() {
        let key = |chat: &str, message: &str| {
            let message = reaction(&chat.parse().unwrap(), &message.parse().unwrap(), "👍");
            let reaction = message.reaction_message.as_option().unwrap();
            let key = reaction.key.as_option().unwrap();
            (key.from_me, key.participant.clone(), reaction.text.clone().unwrap())
        };
        assert_eq!(key("1203@g.us", "A1/5@lid"), (Some(false), Some("5@lid".into()), "👍".into()));
        assert_eq!(key("49151@s.whatsapp.net", "A1"), (Some(false), None, "👍".into()));
        assert_eq!(key("1203@g.us", "A1"), (Some(true), None, "👍".into()));
    }
}
