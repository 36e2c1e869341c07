//! What becomes of an update: of every field of a message, and of every kind.

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
    assert_eq!((m.chat.as_str(), m.kind, m.title.as_str()), ("telegram:-100123", ChatKind::Room, "Family"));
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
    assert!(said(r#""caption":"@LazBot see","caption_entities":[{"type":"mention","offset":0,"length":7}]"#));
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
    let raw =
        format!(r#"{{"update_id":8,"edited_message":{{{ROOM},"text":"better","edit_date":1795000100}}}}"#);
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
        for field in
            ["photo", "document", "entities", "from", "sender_chat", "reply_to_message", "quote", "sticker"]
        {
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
    ("laser_show", "{}", "[Telegram sent something that this version of Lazaret cannot read: laser_show]"),
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
    assert_eq!(asked, ["message", "edited_message", "my_chat_member", "callback_query"]);
    let body = format!(r#"{{{ROOM},"id":"77","text":"hi","new_chat_member":{{"status":"member"}}}}"#);
    for (kind, fate) in content::KINDS {
        let news = read(&format!(r#"{{"update_id":7,"{kind}":{body}}}"#), &me()).news.unwrap();
        match fate {
            Fate::Text => assert!(matches!(news, News::Message { .. }), "{kind}"),
            Fate::Press => {
                assert!(matches!(news, News::Message { inbound, .. } if inbound.press.is_some()), "{kind}");
            }
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
    assert_eq!(
        m.reply_to,
        Some(ReplyTo { from: "Bob".into(), text: "[photo]".into(), message: Some("3".into()) })
    );
    assert_eq!(
        (m.attachments[0].handle.as_str(), m.attachments[0].name.as_str()),
        ("l", "answered-photo.jpg")
    );
    let quote = r#""quote":{"text":"the second half"}"#;
    let m = of(&format!(r#""reply_to_message":{{{chat},"text":"the whole"}},{quote}"#));
    assert_eq!(m.reply_to.unwrap().text, "the second half");
    let origin = r#""origin":{"type":"user","sender_user":{"id":6,"first_name":"Bob"}}"#;
    let m = of(&format!(r#""external_reply":{{{origin},{photo}}}"#));
    assert_eq!(
        m.reply_to,
        Some(ReplyTo { from: "Bob, in another chat".into(), text: "[photo]".into(), message: None })
    );
    assert_eq!(m.attachments.len(), 1);
    let m = of(&format!(
        r#""reply_to_message":{{{chat},"text":"x","forward_origin":{{"type":"hidden_user","sender_user_name":"Eve"}}}}"#
    ));
    assert_eq!(m.reply_to.unwrap().from, "Bob, forwarding Eve");
}

#[test]
fn a_chat_that_moves_and_a_bot_that_is_removed_are_events() {
    let news =
        |kind: &str, body: &str| read(&format!(r#"{{"update_id":7,"{kind}":{body}}}"#), &me()).news.unwrap();
    let moved = ChatEvent::Moved {
        from: "telegram:-4242".parse().unwrap(),
        to: "telegram:-1004242".parse().unwrap(),
    };
    let old = r#"{"message_id":1,"date":1,"chat":{"id":-4242,"type":"group"},"migrate_to_chat_id":-1004242}"#;
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
    assert!(matches!(news("my_chat_member", &member("administrator")), News::Event(event) if event == back));
}

#[test]
fn a_press_counts_in_the_chat_of_its_message() {
    let of = |rest: &str| {
        let from = r#""from":{"id":5,"first_name":"Ann"}"#;
        read(&format!(r#"{{"update_id":7,"callback_query":{{"id":"77",{from}{rest}}}}}"#), &me())
    };
    let chat = r#""chat":{"id":-100123,"type":"supergroup","title":"Family"},"message_id":11"#;
    let topic = r#""message_thread_id":42,"is_topic_message":true,"date":1,"from":{"id":99,"is_bot":true}"#;
    let m = message(of(&format!(r#","data":"ab:1","message":{{{chat},{topic}}}"#)));
    assert_eq!((m.chat.as_str(), m.message_id.as_str()), ("telegram:-100123/42", "press:77"));
    assert_eq!((m.sender.id.as_str(), m.sender.name.as_str(), m.sender.is_bot), ("telegram:5", "Ann", false));
    let pressed = Press { id: "77".into(), message: Some("11".into()), token: "ab:1".into() };
    assert_eq!(m.press, Some(pressed));
    // An inaccessible message has no topic.
    let m = message(of(&format!(r#","data":"ab:1","message":{{{chat},"date":0}}"#)));
    assert_eq!((m.chat.as_str(), m.press.unwrap().token.as_str()), ("telegram:-100123", "ab:1"));
    // Whatever these buttons are, they are not ours.
    for (rest, place) in [
        (r#","data":"ab:1""#, "telegram:5"),
        (r#","data":"ab:1","inline_message_id":"x","message":null"#, "telegram:5"),
        (r#","data":"ab:1","message":{"message_id":3}"#, "telegram:5"),
        (&format!(r#","game_short_name":"chess","message":{{{chat}}}"#), "telegram:-100123"),
        (&format!(r#","data":7,"message":{{{chat}}}"#), "telegram:-100123"),
    ] {
        let m = message(of(rest));
        assert_eq!((m.chat.as_str(), m.press.unwrap().token.as_str()), (place, ""), "{rest}");
    }
    for broken in [r#"{"from":{"id":5},"data":"x"}"#, r#"{"id":"77"}"#, r#"{"id":"77","from":{}}"#] {
        let raw = format!(r#"{{"update_id":7,"callback_query":{broken}}}"#);
        assert!(read(&raw, &me()).news.is_err(), "{broken}");
    }
}
