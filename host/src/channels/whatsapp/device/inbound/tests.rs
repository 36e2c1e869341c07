//! What becomes of a message: of every field, of every kind of chat and sender, and of what is odd.

use std::sync::Arc;

use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::chrono::DateTime;
use whatsapp_rust::types::message::MessageCategory;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message::*;

use super::content::UNREADABLE;
use super::samples::{NOW, ann, bob, family, info, known, us};
use super::*;
use crate::domain::WallMs;
use crate::domain::message::Addressee;

macro_rules! message {
    ($field:ident: $value:expr) => {
        wa::Message { $field: MessageField::some($value), ..wa::Message::default() }
    };
}

macro_rules! of {
    ($type:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $type { $($field: $value),*, ..$type::default() }
    };
}

// Below the macros, which they use.
mod beside_messages;
mod kinds;

fn s(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn says(text: &str) -> wa::Message {
    wa::Message { conversation: s(text), ..wa::Message::default() }
}

fn says_with(text: &str, context: wa::ContextInfo) -> wa::Message {
    let text = of!(ExtendedTextMessage { text: s(text), context_info: MessageField::some(context) });
    message!(extended_text_message: text)
}

fn key(id: &str, author: Option<&Jid>) -> MessageField<wa::MessageKey> {
    let participant = author.map(ToString::to_string);
    MessageField::some(wa::MessageKey { id: s(id), participant, ..wa::MessageKey::default() })
}

fn picture(caption: Option<&str>) -> ImageMessage {
    of!(ImageMessage {
        caption: caption.map(str::to_owned),
        direct_path: s("/v/t62.7118-24/1?ccb=11-4"),
        media_key: Some(vec![7; 32]),
        file_sha256: Some(vec![1; 32]),
        file_enc_sha256: Some(vec![2; 32]),
        file_length: Some(90_000),
        mimetype: s("image/jpeg"),
    })
}

/// Reads what Ann writes in this chat.
fn read_in(chat: &Jid, message: &wa::Message) -> Result<Inbound, &'static str> {
    match message::read(message, &info(chat), &known()) {
        News::Message { inbound, .. } => Ok(*inbound),
        News::Ignored(why) => Err(why),
    }
}

fn direct(message: &wa::Message) -> Inbound {
    read_in(&ann(), message).unwrap()
}

fn room(message: &wa::Message) -> Inbound {
    read_in(&family(), message).unwrap()
}

fn reader() -> Reader {
    let reader = Reader::new(Clock::new());
    reader.state().known = known();
    reader
}

fn delivered(message: wa::Message, id: &str) -> InboundMessage {
    let info = MessageInfo { id: id.to_owned(), ..info(&family()) };
    InboundMessage::builder().message(Arc::new(message)).info(Arc::new(info)).build()
}

#[test]
fn a_person_is_one_sender_in_the_room_and_alone() {
    let m = direct(&says("hi"));
    assert_eq!(
        (m.chat.as_str(), m.kind, m.title.as_str()),
        ("whatsapp:491510000005", ChatKind::Direct, "Ann")
    );
    assert_eq!((m.message_id.as_str(), m.version, m.at), ("3EB0C431", 0, WallMs(NOW * 1000)));
    let r = room(&says("hi"));
    assert_eq!(
        (r.chat.as_str(), r.kind, r.title.as_str()),
        ("whatsapp:120363021@g.us", ChatKind::Room, "Family")
    );
    assert_eq!(r.message_id, "3EB0C431/900005@lid");
    assert_eq!((&r.sender, r.sender.id.as_str()), (&m.sender, "whatsapp:491510000005"));
    assert_eq!((m.sender.name.as_str(), m.addressee, m.text.as_str()), ("Ann", Addressee::Anyone, "hi"));
}

#[test]
fn a_person_without_a_known_number_is_the_lid() {
    let stranger = Jid::lid("777");
    let mut info = info(&stranger);
    info.source.sender = stranger;
    info.push_name = String::new();
    let mut known = known();
    let read = |known: &Known| match message::read(&says("hi"), &info, known) {
        News::Message { inbound, .. } => *inbound,
        other => panic!("{other:?}"),
    };
    let m = read(&known);
    assert_eq!((m.chat.as_str(), m.sender.id.as_str()), ("whatsapp:777@lid", "whatsapp:777@lid"));
    assert_eq!(m.sender.name, "somebody");
    known.same(&Jid::pn("491517"), &Jid::lid("777"));
    let m = read(&known);
    assert_eq!((m.chat.as_str(), m.sender.name.as_str()), ("whatsapp:491517", "+491517"));
}

#[test]
fn what_is_not_for_an_agent_is_counted() {
    let why = |change: fn(&mut MessageInfo)| {
        let mut info = info(&ann());
        change(&mut info);
        match message::read(&says("hi"), &info, &known()) {
            News::Ignored(why) => why,
            News::Message { .. } => "read",
        }
    };
    assert_eq!(why(|i| i.source.is_from_me = true), "own");
    assert_eq!(why(|i| i.source.chat = "status@broadcast".parse().unwrap()), "status");
    assert_eq!(why(|i| i.source.chat = "1@newsletter".parse().unwrap()), "newsletter");
    assert_eq!(why(|i| i.category = MessageCategory::Peer), "peer");
    assert_eq!(why(|i| i.source.sender = "1@bot".parse().unwrap()), "bot");
    assert_eq!(why(|_| ()), "read");
}

#[test]
fn a_message_to_a_broadcast_list_stands_in_the_direct_chat() {
    let list: Jid = "1234@broadcast".parse().unwrap();
    let mut info = info(&list);
    info.source.is_group = true;
    let News::Message { inbound: m, .. } = message::read(&says("hi all"), &info, &known()) else { panic!() };
    assert_eq!(
        (m.chat.as_str(), m.kind, m.message_id.as_str()),
        ("whatsapp:491510000005", ChatKind::Direct, "3EB0C431")
    );
}

#[test]
fn a_wrong_clock_costs_no_message() {
    let at = |seconds: i64| {
        let info = MessageInfo { timestamp: DateTime::from_timestamp(seconds, 0).unwrap(), ..info(&ann()) };
        let News::Message { inbound, .. } = message::read(&says("hi"), &info, &known()) else { panic!() };
        inbound.at
    };
    assert_eq!(at(NOW - 3600), WallMs((NOW - 3600) * 1000));
    for odd in [0, -1, 1, NOW * 2, DateTime::<whatsapp_rust::chrono::Utc>::MAX_UTC.timestamp()] {
        assert_eq!(at(odd), known().now, "{odd}");
    }
}

#[test]
fn we_are_spoken_to_by_mention_and_by_quote() {
    let said = |text: &str, jids: &[&str]| {
        let mentioned_jid = jids.iter().map(|jid| (*jid).to_owned()).collect();
        room(&says_with(text, wa::ContextInfo { mentioned_jid, ..wa::ContextInfo::default() }))
    };
    let m = said("@900001 ask @900005 and @4917, not a@b", &["900001@lid", "900005@lid"]);
    assert_eq!((m.text.as_str(), m.addressee), ("@Laz ask @Ann and @4917, not a@b", Addressee::Us));
    assert_eq!(said("@491510000001 hi", &["491510000001@s.whatsapp.net"]).addressee, Addressee::Us);
    assert_eq!(said("@900006 hi", &["900006@lid"]).text, "@+491510000006 hi");
    assert_eq!(said("@900006 hi", &["900006@lid", "not an address"]).addressee, Addressee::Anyone);
    // A command stands first, wherever the mention is.
    let m = said(" @900001  /stop", &["900001@lid"]);
    assert_eq!((m.text.as_str(), m.addressee), ("/stop", Addressee::Us));
    assert_eq!(said("@900006 /stop", &["900006@lid"]).text, "@+491510000006 /stop");

    let quote = |author: &str| {
        room(&says_with(
            "yes",
            wa::ContextInfo {
                stanza_id: s("3EB0AA"),
                participant: s(author),
                quoted_message: MessageField::some(says("shall I?")),
                ..wa::ContextInfo::default()
            },
        ))
    };
    let m = quote("900001@lid");
    assert_eq!(m.addressee, Addressee::Us);
    let reply = m.reply_to.unwrap();
    // The account's own messages have the platform's id alone.
    assert_eq!(
        (reply.from.as_str(), reply.text.as_str(), reply.message.as_deref()),
        ("Laz", "shall I?", Some("3EB0AA"))
    );
    let m = quote("900006:3@lid");
    assert_eq!(m.addressee, Addressee::Anyone);
    assert_eq!(m.reply_to.unwrap().message.as_deref(), Some("3EB0AA/900006@lid"));
}

#[test]
fn an_answer_to_a_picture_brings_the_picture() {
    let context = wa::ContextInfo {
        stanza_id: s("3EB0AA"),
        participant: s("900006@lid"),
        quoted_message: MessageField::some(message!(image_message: picture(Some("the roof")))),
        ..wa::ContextInfo::default()
    };
    let m = room(&says_with("what is this?", context));
    assert_eq!(m.reply_to.unwrap().text, "the roof\n[photo]");
    assert_eq!((m.attachments.len(), m.attachments[0].name.as_str()), (1, "answered-photo.jpg"));
}

#[test]
fn an_answer_to_a_status_quotes_no_message() {
    let context = wa::ContextInfo {
        stanza_id: s("3EB0AA"),
        participant: s("900001@lid"),
        remote_jid: s("status@broadcast"),
        ..wa::ContextInfo::default()
    };
    let reply = direct(&says_with("nice", context)).reply_to.unwrap();
    assert_eq!((reply.text.as_str(), reply.message), ("[a status]", None));
}

#[test]
fn forwarded_words_are_somebody_elses_and_call_nobody() {
    let context = wa::ContextInfo {
        is_forwarded: Some(true),
        mentioned_jid: vec!["900001@lid".into()],
        ..wa::ContextInfo::default()
    };
    let m = room(&says_with("@900001 pay", context));
    assert_eq!((m.origin.as_deref(), m.addressee), (Some("somebody"), Addressee::Anyone));
    let info = wa::context_info::ForwardedNewsletterMessageInfo {
        newsletter_name: s("The News"),
        ..Default::default()
    };
    let context = wa::ContextInfo {
        forwarded_newsletter_message_info: MessageField::some(info),
        ..wa::ContextInfo::default()
    };
    assert_eq!(direct(&says_with("flood", context)).origin.as_deref(), Some("The News"));
}

#[test]
fn files_come_with_their_captions() {
    let m = direct(&message!(image_message: picture(Some("look"))));
    assert_eq!((m.text.as_str(), m.attachments.len(), m.service), ("look", 1, false));
    let file = &m.attachments[0];
    assert_eq!(
        (file.name.as_str(), file.mime.as_str(), file.bytes, file.spoken),
        ("photo.jpg", "image/jpeg", Some(90_000), false)
    );
    assert_eq!(direct(&message!(image_message: picture(None))).text, "");

    let voice = of!(AudioMessage {
        ptt: Some(true),
        direct_path: s("/v/1"),
        media_key: Some(vec![7; 32]),
        file_enc_sha256: Some(vec![2; 32]),
        mimetype: s("audio/ogg; codecs=opus"),
    });
    let m = direct(&message!(audio_message: voice));
    assert!(m.attachments[0].spoken && m.text.is_empty());

    let document = of!(DocumentMessage {
        file_name: s("plan.pdf"),
        caption: s("read this"),
        direct_path: s("/v/1"),
        media_key: Some(vec![7; 32]),
        file_enc_sha256: Some(vec![2; 32]),
        file_length: Some(u64::MAX),
    });
    let inside = FutureProofMessage { message: MessageField::some(message!(document_message: document)) };
    let m = direct(&message!(document_with_caption_message: inside));
    assert_eq!((m.text.as_str(), m.attachments[0].name.as_str()), ("read this", "plan.pdf"));
}

#[test]
fn a_file_that_cannot_be_fetched_is_told() {
    for (path, key) in
        [(None, Some(vec![7; 32])), (s("/v/1"), None), (s(".evil.example/v"), Some(vec![7; 32]))]
    {
        let image = ImageMessage { direct_path: path, media_key: key, ..picture(None) };
        let m = direct(&message!(image_message: image));
        assert_eq!((m.text.as_str(), m.attachments.len()), ("[photo]", 0));
    }
}

#[test]
fn an_edit_is_a_later_version_by_the_author_alone() {
    let edit = |key, text: &str, ms| {
        let change = ProtocolMessage {
            key,
            r#type: Some(protocol_message::Type::MESSAGE_EDIT),
            edited_message: MessageField::some(says(text)),
            timestamp_ms: Some(ms),
            ..ProtocolMessage::default()
        };
        message!(protocol_message: change)
    };
    let first = room(&edit(key("3EB0AA", Some(&ann())), "better", NOW * 1000 + 1));
    assert_eq!((first.message_id.as_str(), first.text.as_str()), ("3EB0AA/900005@lid", "better"));
    let second = room(&edit(key("3EB0AA", None), "best", NOW * 1000 + 2));
    assert!(0 < first.version && first.version < second.version);
    // The editor's clock puts no edit before the original.
    assert!(room(&edit(key("3EB0AA", None), "best", i64::MIN)).version > 0);
    assert_eq!(read_in(&family(), &edit(key("3EB0AA", Some(&bob())), "x", 1)), Err("edit_of_another"));
    assert_eq!(read_in(&family(), &edit(key("", None), "x", 1)), Err("protocol_message"));
    // In its wrapper, as phones send it.
    let wrapped = FutureProofMessage { message: MessageField::some(edit(key("3EB0AA", None), "best", 2)) };
    assert_eq!(direct(&message!(edited_message: wrapped)).text, "best");
}

#[test]
fn a_deletion_is_the_last_version_and_nobody_deletes_anothers() {
    let revoke = |key| {
        let change = ProtocolMessage {
            key,
            r#type: Some(protocol_message::Type::REVOKE),
            ..ProtocolMessage::default()
        };
        message!(protocol_message: change)
    };
    let m = room(&revoke(key("3EB0AA", Some(&ann()))));
    assert_eq!(
        (m.message_id.as_str(), m.service, m.text.as_str()),
        ("3EB0AA/900005@lid", true, "[deleted this message]")
    );
    assert_eq!(m.version, NOW * 1000 + 999);
    let m = room(&revoke(key("3EB0AA", Some(&bob()))));
    assert_eq!((m.message_id.as_str(), m.version), ("3EB0C431/900005@lid", 0));
    assert_eq!((m.service, m.text.as_str()), (true, "[deleted a message of +491510000006]"));
}

#[test]
fn reactions_are_told_and_wake_nobody() {
    let react = |emoji: &str, author: &Jid| {
        let reaction = of!(ReactionMessage { key: key("3EB0AA", Some(author)), text: s(emoji) });
        room(&message!(reaction_message: reaction))
    };
    let m = react("👍", &us());
    assert_eq!(
        (m.text.as_str(), m.service, m.addressee),
        ("[reacted 👍 to your message]", true, Addressee::Anyone)
    );
    assert_eq!(react("❤️", &bob()).text, "[reacted ❤️ to a message of +491510000006]");
    assert_eq!(react("😀", &ann()).text, "[reacted 😀 to an own message]");
    assert_eq!(react("", &us()).text, "[took back a reaction to your message]");
    assert!(react(&"x".repeat(500), &us()).text.len() < 60);
}

#[test]
fn an_unknown_kind_is_no_silence() {
    let m = direct(&wa::Message::default());
    assert_eq!((m.text.as_str(), m.service), (UNREADABLE, false));
    // Wrappers without end.
    let mut deep = says("at the bottom");
    for _ in 0..50 {
        deep = message!(ephemeral_message: FutureProofMessage { message: MessageField::some(deep) });
    }
    assert_eq!(direct(&deep).text, UNREADABLE);
    let vote = message!(poll_update_message: PollUpdateMessage::default());
    assert_eq!(read_in(&ann(), &vote), Err("poll_update_message"));
}

#[test]
fn the_parts_of_an_album_are_versions_of_one_message() {
    let reader = reader();
    let part = |id: &str, caption: Option<&str>, mentions: &[&str]| {
        let mut image = picture(caption);
        image.context_info = MessageField::some(wa::ContextInfo {
            mentioned_jid: mentions.iter().map(|jid| (*jid).to_owned()).collect(),
            ..wa::ContextInfo::default()
        });
        let association = wa::MessageAssociation {
            association_type: Some(wa::message_association::AssociationType::MEDIA_ALBUM),
            parent_message_key: key("ALBUM", None),
            ..wa::MessageAssociation::default()
        };
        let context = wa::MessageContextInfo {
            message_association: MessageField::some(association),
            ..wa::MessageContextInfo::default()
        };
        let mut message = message!(image_message: image);
        message.message_context_info = MessageField::some(context);
        delivered(message, id)
    };
    let read = |part: InboundMessage| {
        let m = reader.convert(&[part]).inbound.remove(0);
        (m.message_id, m.version, m.attachments.len(), m.text, m.addressee)
    };
    let album = message!(album_message: of!(AlbumMessage { expected_image_count: Some(3) }));
    assert_eq!(reader.convert(&[delivered(album, "ALBUM")]).counts["whatsapp.ignored.album_message"], 1);
    let (id, anyone) = ("A/900005@lid".to_owned(), Addressee::Anyone);
    assert_eq!(read(part("A", Some("look"), &[])), (id.clone(), 0, 1, "look".into(), anyone));
    assert_eq!(read(part("B", None, &[])), (id.clone(), 1, 2, "look".into(), anyone));
    // The acknowledgement was lost, and the part comes again: the store has this version.
    assert_eq!(read(part("B", None, &[])).1, 1);
    // A mention in a late part wakes: it makes a new message.
    let called = read(part("C", Some("@900001 see"), &["900001@lid"]));
    assert_eq!(called, ("C/900005@lid".into(), 0, 3, "look\n@Laz see".into(), Addressee::Us));
    assert_eq!(read(part("D", None, &[])).1, 1);
    assert_eq!(read(part("C", Some("@900001 see"), &["900001@lid"])).1, 0);
}

#[test]
fn a_changed_caption_keeps_its_picture() {
    let reader = reader();
    let read = |message| reader.convert(&[message]).inbound.remove(0);
    read(delivered(message!(image_message: picture(Some("lok"))), "A"));
    let change = |kind, edited: wa::Message| {
        let change = ProtocolMessage {
            key: key("A", None),
            r#type: Some(kind),
            edited_message: MessageField::some(edited),
            ..ProtocolMessage::default()
        };
        delivered(message!(protocol_message: change), "E")
    };
    let caption = message!(image_message: of!(ImageMessage { caption: s("look") }));
    let edited = read(change(protocol_message::Type::MESSAGE_EDIT, caption));
    assert_eq!((edited.text.as_str(), edited.attachments.len(), edited.version), ("look", 1, NOW * 1000));
    let deleted = read(change(protocol_message::Type::REVOKE, wa::Message::default()));
    assert_eq!((deleted.attachments.len(), deleted.service), (0, true));
}

#[test]
fn the_second_copy_of_a_picture_is_counted() {
    let association = wa::MessageAssociation {
        association_type: Some(wa::message_association::AssociationType::HD_IMAGE_DUAL_UPLOAD),
        ..wa::MessageAssociation::default()
    };
    let context =
        wa::MessageContextInfo { message_association: MessageField::some(association), ..Default::default() };
    let mut message = message!(image_message: picture(None));
    message.message_context_info = MessageField::some(context);
    assert_eq!(read_in(&ann(), &message), Err("second_copy"));
}
