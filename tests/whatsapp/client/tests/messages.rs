//! Messages go both ways between people's phones and a device that runs the unmodified library.

use library_against_server::{By, Device, folder};
use tempfile::TempDir;
use whatsapp_rust::Jid;
use whatsapp_rust::download::MediaType;
use whatsapp_rust::types::events::{Event, InboundMessage};
use whatsapp_rust::upload::UploadOptions;
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_server::{Chat, Document, FileKind, LID, NUMBER, Person, WhatsAppServer};

const ANN: u64 = 491_511_234_567;
const ROOM: u64 = 120_363_000_000_000_001;

/// A server with a person, and a device that is linked.
struct World {
    server: WhatsAppServer,
    device: Device,
    ann: Person,
    keys: TempDir,
}

impl World {
    async fn starts() -> Self {
        let server = WhatsAppServer::start().await;
        let keys = folder();
        let device = Device::links(&server, keys.path()).await;
        server.device_is_there().await;
        let ann = server.person(ANN, "Ann");
        Self { server, device, ann, keys }
    }

    /// Waits for the next message that the library hands over.
    async fn hears(&mut self) -> InboundMessage {
        let first = |event: &Event| match event {
            Event::Messages(batch) => batch.first().cloned(),
            _ => None,
        };
        self.device.sees("a message", first).await
    }

    async fn says(&self, to: &Jid, text: &str) -> String {
        self.device.client().send_text(to.clone(), text).await.expect("the library sends").message_id
    }

    async fn sends(&self, to: &Jid, message: wa::Message) -> String {
        self.device.client().send_message(to.clone(), message).await.expect("the library sends").message_id
    }

    /// Stops the library.
    async fn rests(self) -> (WhatsAppServer, Person, TempDir) {
        self.server.acknowledged().await;
        self.device.stops().await;
        (self.server, self.ann, self.keys)
    }

    /// Starts the library with these keys.
    async fn wakes(server: WhatsAppServer, ann: Person, keys: TempDir) -> Self {
        let mut device = Device::starts(&server, keys.path(), By::Qr).await;
        device.is_connected().await;
        server.device_is_there().await;
        Self { server, device, ann, keys }
    }

    async fn ends(self) {
        self.server.acknowledged().await;
        self.device.stops().await;
        self.server.finish();
    }
}

fn copy(keys: &TempDir) -> TempDir {
    let copy = folder();
    for file in std::fs::read_dir(keys.path()).expect("a folder").flatten() {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("a copy");
    }
    copy
}

fn ann() -> Jid {
    Jid::pn(ANN.to_string())
}

fn room() -> Jid {
    Jid::group(ROOM.to_string())
}

fn text(message: &InboundMessage) -> &str {
    let extended = message.message.extended_text_message.as_option().and_then(|text| text.text.as_deref());
    message.message.conversation.as_deref().or(extended).unwrap_or_default()
}

fn context(message: &InboundMessage) -> wa::ContextInfo {
    let extended = message.message.extended_text_message.as_option();
    extended.and_then(|text| text.context_info.as_option()).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_and_the_device_write_to_each_other() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    for round in 0..3 {
        let id = world.ann.says(&chat, &format!("question {round}"));
        let heard = world.hears().await;
        assert_eq!((text(&heard), &heard.info.id), (&*format!("question {round}"), &id));
        assert_eq!((&heard.info.source.sender, &*heard.info.push_name), (&ann(), "Ann"));
        assert_eq!(heard.info.source.sender_alt, Some(Jid::lid(world.ann.lid().to_string())));
        let id = world.says(&ann(), &format!("*answer* {round}")).await;
        let received = chat.hears_message().await;
        assert_eq!((received.text, received.raw), (format!("answer {round}"), format!("*answer* {round}")));
        assert_eq!((received.id, received.chat, received.copies), (id, format!("whatsapp:{ANN}"), 1));
    }
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_writes_first_and_to_each_device_of_a_person() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    world.says(&ann(), "good morning").await;
    assert_eq!(chat.hears().await, "good morning");
    let tablet = world.ann.from_device(2);
    tablet.says(&chat, "from my tablet");
    let heard = world.hears().await;
    assert_eq!((text(&heard), heard.info.source.sender.device), ("from my tablet", 2));
    world.says(&ann(), "to both").await;
    assert_eq!(chat.hears().await, "to both");
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_hides_the_number_is_known_by_lid() {
    let mut world = World::starts().await;
    world.ann.by_lid_only(true);
    let (chat, lid) = (world.ann.direct(), Jid::lid(world.ann.lid().to_string()));
    world.ann.says(&chat, "guess who");
    let heard = world.hears().await;
    assert_eq!((&heard.info.source.sender, &heard.info.source.sender_alt), (&lid, &None));
    world.says(&lid, "hello").await;
    let received = chat.hears_message().await;
    assert_eq!((&*received.text, received.chat), ("hello", format!("whatsapp:{lid}")));
    world.ends().await;
}

async fn room_both_ways(by_lid: bool) {
    let mut world = World::starts().await;
    let bob = world.server.person(491_522_222_222, "Bob");
    let chat = world.server.room(ROOM, "Family", &[&world.ann, &bob]);
    let chat = if by_lid { chat.names_by_lid() } else { chat };
    for round in 0..2 {
        for person in [&world.ann.clone(), &bob] {
            person.says(&chat, &format!("round {round}"));
            let heard = world.hears().await;
            let (pn, lid) = (Jid::pn(person.number().to_string()), Jid::lid(person.lid().to_string()));
            let (name, other) = if by_lid { (lid, pn) } else { (pn, lid) };
            assert_eq!((text(&heard), &heard.info.source.chat), (&*format!("round {round}"), &room()));
            assert_eq!((&heard.info.source.sender, &heard.info.source.sender_alt), (&name, &Some(other)));
        }
        world.says(&room(), &format!("to all {round}")).await;
        let received = chat.hears_message().await;
        assert_eq!(
            (received.text, received.chat),
            (format!("to all {round}"), format!("whatsapp:{ROOM}@g.us"))
        );
    }
    world.ann.mentions_device(&chat, "are you there?");
    let heard = world.hears().await;
    let account = if by_lid { Jid::lid(LID.to_string()) } else { Jid::pn(NUMBER.to_string()) };
    assert_eq!(text(&heard), format!("@{} are you there?", account.user));
    assert_eq!(context(&heard).mentioned_jid, [account.to_string()]);
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_names_people_by_number_works_both_ways() {
    room_both_ways(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_names_people_by_lid_works_both_ways() {
    room_both_ways(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_leaves_a_room_and_comes_back() {
    let mut world = World::starts().await;
    let chat = world.server.room(ROOM, "Family", &[&world.ann]);
    world.says(&room(), "hello").await;
    assert_eq!(chat.hears().await, "hello");
    chat.kicks_device();
    let update = |event: &Event| matches!(event, Event::GroupUpdate(_)).then_some(());
    world.device.sees("a change of the room", update).await;
    chat.adds_device();
    world.device.sees("a change of the room", update).await;
    world.says(&room(), "hello again").await;
    assert_eq!(chat.hears().await, "hello again");
    world.ends().await;
}

async fn talk_about_messages(world: &mut World, chat: &Chat, to: Jid, author: Option<String>) {
    let ann = world.ann.clone();
    let question = ann.says(chat, "how far is it?");
    world.hears().await;
    // The device quotes, reacts, edits and deletes.
    let context = wa::ContextInfo {
        stanza_id: Some(question.clone()),
        participant: Some(author.clone().unwrap_or_else(|| Jid::pn(ANN.to_string()).to_string())),
        quoted_message: wa::Message { conversation: Some("how far is it?".into()), ..wa::Message::default() }
            .into(),
        ..wa::ContextInfo::default()
    };
    let reply = wa::message::ExtendedTextMessage {
        text: Some("ten miles".into()),
        context_info: context.into(),
        ..wa::message::ExtendedTextMessage::default()
    };
    world.sends(&to, wa::Message { extended_text_message: reply.into(), ..wa::Message::default() }).await;
    let received = chat.hears_message().await;
    assert_eq!((&*received.text, received.quotes.as_deref()), ("ten miles", Some(&*question)));
    let key = wa::MessageKey {
        remote_jid: Some(to.to_string()),
        from_me: Some(false),
        id: Some(question.clone()),
        participant: author,
    };
    world.device.client().send_reaction(to.clone(), key, "👍").await.expect("the library reacts");
    chat.comes_to_react(&question, "👍").await;
    assert_eq!(chat.reactions(&question), ["👍"]);
    let correction = wa::Message { conversation: Some("eleven miles".into()), ..wa::Message::default() };
    world
        .device
        .client()
        .edit_message(to.clone(), &received.id, correction)
        .await
        .expect("the library edits");
    assert_eq!(chat.comes_to_show("eleven").await.edits, 1);
    // The person answers, reacts, edits and deletes.
    let answer = ann.answers(chat, &received, "too far");
    let heard = world.hears().await;
    assert_eq!((text(&heard), context_id(&heard)), ("too far", Some(received.id.clone())));
    ann.reacts(chat, &received.id, "😢");
    let heard = world.hears().await;
    let reaction = heard.message.reaction_message.as_option().expect("a reaction");
    assert_eq!(reaction.text.as_deref(), Some("😢"));
    let key = reaction.key.as_option().expect("the message");
    assert_eq!((key.id.as_deref(), key.from_me), (Some(&*received.id), Some(false)));
    ann.edits(chat, &answer, "much too far");
    let heard = world.hears().await;
    let edit = heard.message.protocol_message.as_option().expect("an edit");
    assert_eq!(edit.key.as_option().and_then(|key| key.id.as_deref()), Some(&*answer));
    assert_eq!(edit.edited_message.as_option().and_then(|m| m.conversation.as_deref()), Some("much too far"));
    ann.deletes(chat, &answer);
    let heard = world.hears().await;
    let deletion = heard.message.protocol_message.as_option().expect("a deletion");
    assert_eq!(deletion.key.as_option().and_then(|key| key.id.as_deref()), Some(&*answer));
}

fn context_id(message: &InboundMessage) -> Option<String> {
    context(message).stanza_id
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_quoted_reacted_to_edited_and_deleted() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    talk_about_messages(&mut world, &chat, ann(), None).await;
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_room_are_quoted_reacted_to_edited_and_deleted() {
    let mut world = World::starts().await;
    let chat = world.server.room(ROOM, "Family", &[&world.ann]);
    talk_about_messages(&mut world, &chat, room(), Some(ann().to_string())).await;
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_both_ways() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    world.ann.shows(&chat, b"\x89PNG of a cat", "my cat");
    let heard = world.hears().await;
    let picture = heard.message.image_message.as_option().expect("a picture");
    assert_eq!(
        (picture.caption.as_deref(), picture.mimetype.as_deref()),
        (Some("my cat"), Some("image/png"))
    );
    let bytes = world.device.client().download(picture).await.expect("the library downloads");
    assert_eq!(bytes, b"\x89PNG of a cat");
    world.ann.speaks(&chat, b"OggS");
    let heard = world.hears().await;
    let voice = heard.message.audio_message.as_option().expect("a voice message");
    assert_eq!(voice.ptt, Some(true));
    assert_eq!(world.device.client().download(voice).await.expect("the library downloads"), b"OggS");
    let report = Document {
        bytes: b"%PDF".to_vec(),
        claims: Some(90 << 20),
        name: "report.pdf".into(),
        mime: "application/pdf".into(),
    };
    world.ann.sends(&chat, &report, "the report");
    let heard = world.hears().await;
    let wrapped = heard.message.document_with_caption_message.as_option().and_then(|m| m.message.as_option());
    let document = wrapped.and_then(|message| message.document_message.as_option()).expect("a document");
    assert_eq!((document.file_name.as_deref(), document.file_length), (Some("report.pdf"), Some(90 << 20)));
    world.server.files_expire(true);
    assert!(world.device.client().download(document).await.is_err());
    world.server.files_expire(false);

    let pdf = b"%PDF of the device".to_vec();
    let stored =
        world.device.client().upload(pdf.clone(), MediaType::Document, UploadOptions::default()).await;
    let stored = stored.expect("the library uploads");
    let document = wa::message::DocumentMessage {
        url: Some(stored.url),
        direct_path: Some(stored.direct_path),
        media_key: Some(stored.media_key.to_vec()),
        file_enc_sha256: Some(stored.file_enc_sha256.to_vec()),
        file_sha256: Some(stored.file_sha256.to_vec()),
        file_length: Some(stored.file_length),
        mimetype: Some("application/pdf".into()),
        file_name: Some("answer.pdf".into()),
        caption: Some("here".into()),
        ..wa::message::DocumentMessage::default()
    };
    world.sends(&ann(), wa::Message { document_message: document.into(), ..wa::Message::default() }).await;
    let received = chat.hears_message().await;
    assert_eq!(received.text, "here [file answer.pdf]");
    let file = received.file.expect("a file");
    assert_eq!((file.kind, &*file.name, &*file.mime), (FileKind::Document, "answer.pdf", "application/pdf"));
    assert_eq!(file.bytes, pdf);
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_asks_again_for_what_it_cannot_decrypt() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    let room = world.server.room(ROOM, "Family", &[&world.ann]);
    for chat in [&chat, &room, &chat, &room] {
        let id = world.ann.says_garbled(chat, "once more");
        let heard = world.hears().await;
        assert_eq!((text(&heard), &heard.info.id), ("once more", &id));
        world.ann.says(chat, "as before");
        assert_eq!(text(&world.hears().await), "as before");
    }
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_decrypt_is_told_and_hinders_nothing() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    let lost = world.ann.sends_undecryptable(&chat);
    let undecryptable = |event: &Event| match event {
        Event::UndecryptableMessage(message) => Some(message.info.id.clone()),
        _ => None,
    };
    assert_eq!(world.device.sees("a message that it cannot decrypt", undecryptable).await, lost);
    world.ann.says(&chat, "did you get it?");
    assert_eq!(text(&world.hears().await), "did you get it?");
    let unknown = world.ann.sends_unknown_kind(&chat);
    assert_eq!(world.hears().await.info.id, unknown);
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_the_device_reaches_the_library_and_is_marked() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    let phone = world.server.phone();
    phone.writes(&chat, "I answer myself");
    let heard = world.hears().await;
    assert!(heard.info.source.is_from_me);
    assert_eq!((text(&heard), &heard.info.source.chat), ("I answer myself", &ann()));
    world.ann.posts_status("on holiday");
    let heard = world.hears().await;
    assert_eq!((text(&heard), &heard.info.source.chat), ("on holiday", &Jid::status_broadcast()));
    phone.reads_newsletter("news");
    let heard = world.hears().await;
    assert!(heard.info.source.chat.is_newsletter());
    phone.syncs_history();
    world.ann.says_with_clock(&chat, "from the past", 86_400);
    // The history is a message of the phone without words, and may come before.
    let mut heard = world.hears().await;
    if heard.info.source.is_from_me {
        heard = world.hears().await;
    }
    assert_eq!((text(&heard), heard.info.timestamp.timestamp()), ("from the past", 86_400));
    world.ends().await;
}

/// A disk that comes back from a backup holds older keys than the phones know. The device and the phone each ask for
/// what they cannot decrypt, and then they understand each other again.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_keys_of_yesterday_is_understood_again() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    let family = world.server.room(ROOM, "Family", &[&world.ann]);
    let talk = async |world: &mut World, round: &str| {
        for (chat, to) in [(&chat, ann()), (&family, room())] {
            world.ann.says(chat, &format!("question {round}"));
            assert_eq!(text(&world.hears().await), format!("question {round}"));
            world.says(&to, &format!("answer {round}")).await;
            assert_eq!(chat.hears().await, format!("answer {round}"));
        }
    };
    talk(&mut world, "today").await;
    let (server, ann, keys) = world.rests().await;
    let backup = copy(&keys);
    let mut world = World::wakes(server, ann, keys).await;
    for round in 0..3 {
        talk(&mut world, &format!("later {round}")).await;
    }
    let (server, ann, _keys) = world.rests().await;
    let mut world = World::wakes(server, ann, backup).await;
    for round in 0..3 {
        talk(&mut world, &format!("after the backup {round}")).await;
    }
    world.ends().await;
}
