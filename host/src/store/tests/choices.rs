//! Texts with choices, presses on them, and chats that the owner refuses.

use super::*;
use crate::domain::outbound::Part;
use crate::policy::admission::REFUSED_FOR;
use crate::policy::presses::Offer;

impl House {
    /// Says something with these choices in the topic 7 of a room, and claims it.
    async fn offers(&self, commands: &[&str]) -> Part {
        let topic = chat("telegram:-1/7");
        let (group, by) = (family(), "t".to_owned());
        let admission =
            Admission { chat: topic.clone(), group, kind: ChatKind::Room, title: "F".into(), by, now: T };
        self.store.admit_chat(admission).await.unwrap();
        self.store.say(None, offering(&topic, "asks", commands), T).await.unwrap();
        let NextPart::Part(part) = self.store.claim(topic, TERMS, T).await.unwrap() else { panic!() };
        *part
    }

    async fn finds(&self, token: &str, in_chat: &str) -> Option<Offer> {
        self.store.offer(press("1", token), chat(in_chat)).await.unwrap()
    }
}

fn press(id: &str, token: &str) -> Press {
    Press { id: id.into(), message: Some("9".into()), token: token.into() }
}

#[tokio::test]
async fn a_part_carries_its_choices_and_words_for_a_channel_without_buttons() {
    let h = house().await;
    let part = h.offers(&["/help", "/status"]).await;
    let labels: Vec<_> = part.choices.iter().flat_map(|c| &c.list).map(|c| c.label.as_str()).collect();
    assert_eq!(labels, ["do /help", "do /status"]);
    let plain = part.in_words();
    assert_eq!((plain.text.as_str(), plain.choices), ("What now?\n\nWrite /help.", None));
}

#[tokio::test]
async fn only_the_last_part_of_a_text_has_the_choices() {
    let h = house().await;
    let parts = ["one", "two"].map(|text| text.to_owned().into()).to_vec();
    let long = OutgoingText { parts, ..offering(&chat("telegram:-1"), "long", &["/help"]) };
    h.store.say(None, long, T).await.unwrap();
    let mut found = Vec::new();
    while let NextPart::Part(part) = h.store.claim(chat("telegram:-1"), TERMS, T).await.unwrap() {
        found.push((part.text.clone(), part.choices.is_some()));
        h.store.settle(*part, SendOutcome::Arrived("1".into()), TERMS.retry, T).await.unwrap();
    }
    assert_eq!(found, [("one".into(), false), ("two".into(), true)]);
}

#[tokio::test]
async fn a_press_finds_its_choice_only_where_it_stands() {
    let h = house().await;
    let part = h.offers(&["/help", "/status"]).await;
    let token = part.token(1).to_string();
    for place in ["telegram:-1/7", "telegram:-1"] {
        let offer = h.finds(&token, place).await.unwrap();
        let expected = Offer {
            chat: chat("telegram:-1/7"),
            command: "/status".into(),
            for_owners: false,
            decided: None,
        };
        assert_eq!(offer, expected, "{place}");
    }
    for place in ["telegram:-1/8", "telegram:-2", "telegram:-1/", "telegram:-"] {
        assert_eq!(h.finds(&token, place).await, None, "{place}");
    }
    for foreign in ["", "x", "x:0", &part.token(2).to_string(), &format!("{}:-1", part.id), "1:0"] {
        assert_eq!(h.finds(foreign, "telegram:-1/7").await, None, "{foreign}");
    }
}

#[tokio::test]
async fn the_first_press_is_a_command_and_every_other_one_is_dropped() {
    let mut h = house().await;
    let part = h.offers(&["/help", "/status"]).await;
    let token = |n| part.token(n).to_string();
    let first = h.presses("telegram:-1/7", "/status", press("1", &token(1))).await;
    assert!(matches!(first.placement, Placement::Command(Command::Status)), "{first:?}");
    // The platform hands the same press over again, and somebody presses the other button.
    for (id, n, command) in [("1", 1, "/status"), ("2", 0, "/help"), ("3", 1, "/status")] {
        let again = h.presses("telegram:-1/7", command, press(id, &token(n))).await;
        assert_eq!((again.seq, again.placement), (first.seq, Placement::Duplicate), "{id}");
    }
    let open = h.store.open_commands().await.unwrap();
    assert_eq!(open.iter().map(|row| row.seq).collect::<Vec<_>>(), [first.seq]);
    let decided = h.finds(&token(0), "telegram:-1/7").await.unwrap().decided.unwrap();
    assert_eq!((decided.label.as_str(), decided.by.as_str()), ("do /status", "Ann"));
}

fn stranger(code: &str, text: &str) -> StrangerSeen {
    let sender: crate::domain::SenderId = "telegram:77".parse().unwrap();
    let kept = KeptMessage {
        message_id: "1".into(),
        sender: sender.clone(),
        sender_name: "Eve".into(),
        text: text.into(),
        origin: None,
        reply_to: None,
        attachments: vec![],
        at: T.0,
    };
    StrangerSeen {
        chat: chat("telegram:77"),
        kind: ChatKind::Direct,
        title: "Eve".into(),
        sender,
        sender_name: "Eve".into(),
        owner: false,
        code: code.into(),
        kept: Some(kept),
        asks: vec![offering(&chat("telegram:-1"), code, &["/admit", "/refuse"])],
    }
}

#[tokio::test]
async fn a_refused_chat_is_forgotten_and_asks_again_after_a_month() {
    let h = house().await;
    let writes = async |code: &str, text: &str, now: WallMs| {
        let strangers = vec![stranger(code, text)];
        h.store.accept(Intake { strangers, now, ..intake(vec![]) }).await.unwrap();
        let found = h.store.strangers().await.unwrap().remove(0);
        (found.code, found.refused, found.kept.map(|kept| kept.text))
    };
    let asked = async || {
        let sql = "SELECT group_concat(key) FROM outbox";
        h.store.read(|c| Ok(c.query_row(sql, [], |r| r.get::<_, String>(0))?)).await.unwrap()
    };
    assert_eq!(writes("CODE01", "hello", T).await, ("CODE01".into(), false, Some("hello".into())));
    assert_eq!(writes("CODE02", "hello?", T).await, ("CODE01".into(), false, Some("hello".into())));
    let refused = h.store.refuse_code("CODE01".into(), "telegram:5".into(), T).await.unwrap();
    assert_eq!(refused, Some(chat("telegram:77")));
    assert_eq!(h.store.refuse_code("CODE02".into(), "telegram:5".into(), T).await.unwrap(), None);
    let soon = T.plus(REFUSED_FOR);
    assert_eq!(writes("CODE03", "let me in", soon).await, ("CODE01".into(), true, None));
    assert_eq!(asked().await, "notice:CODE01", "the owner is asked once");
    let later = soon.plus(Duration::from_secs(1));
    assert_eq!(writes("CODE04", "please", later).await, ("CODE04".into(), false, Some("please".into())));
    assert_eq!(asked().await, "notice:CODE01,notice:CODE04");
}
