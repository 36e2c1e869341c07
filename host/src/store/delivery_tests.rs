//! The outbox as people see it: in order, at most as often as it was counted, and never in silence.

use std::time::Duration;

use rusqlite::params;

use super::*;
use crate::domain::group_settings::SenderRules;
use crate::domain::message::{Addressee, Admitted, Command, Inbound, Role, Sender};
use crate::domain::outbound::{Delivery, OutgoingText, Part, Voice};
use crate::domain::{ChannelName, ChatId, ChatKind, GroupName, MessageSeq, TurnId, WallMs};
use crate::policy::delivery::{Abilities, Doubt, Next, SendOutcome, Terms};
use crate::policy::delivery_notices::HeldCommand;

const T: WallMs = WallMs(1_795_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const ROOM: &str = "telegram:-1";
const OWNER: &str = "telegram:5";

fn chat(text: &str) -> ChatId {
    text.parse().unwrap()
}

fn terms(delivery: Delivery) -> Terms {
    let abilities = Abilities { own_id: false, edits: true };
    Terms { delivery, abilities, lifetime: DAY, retry: DAY }
}

fn later(seconds: u64) -> WallMs {
    T.plus(Duration::from_secs(seconds))
}

struct Office {
    store: Store,
    terms: Terms,
    written: i64,
    _dir: tempfile::TempDir,
}

/// The room of the group `family`, whose turn 1 is open, and the owner's own chat in `main`.
async fn office(delivery: Delivery) -> Office {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("lazaret.db")).unwrap();
    for (id, group, kind) in [
        (ROOM, "family", ChatKind::Room),
        (OWNER, "main", ChatKind::Direct),
        ("telegram:-2", "work", ChatKind::Room),
    ] {
        let group: GroupName = group.parse().unwrap();
        store.group(&group, T).await.unwrap();
        let (chat, title, by) = (chat(id), "Family [lazaret]".to_owned(), "test".to_owned());
        store.admit_chat(Admission { chat, group, kind, title, by, now: T }).await.unwrap();
    }
    let mut office = Office { store, terms: terms(delivery), written: 0, _dir: dir };
    office.writes(ROOM, "family", "hello", Role::Wake).await;
    office
}

impl Office {
    async fn writes(&mut self, in_chat: &str, group: &str, text: &str, role: Role) -> MessageSeq {
        self.written += 1;
        let sender = Sender { id: "telegram:5".parse().unwrap(), name: "Ann".into(), is_bot: false };
        let inbound = Inbound {
            chat: chat(in_chat),
            kind: ChatKind::Room,
            title: "Family [lazaret]".into(),
            message_id: self.written.to_string(),
            version: 0,
            sender,
            text: text.into(),
            origin: None,
            service: false,
            reply_to: None,
            attachments: vec![],
            addressee: Addressee::Us,
            at: T,
            press: None,
        };
        let group = group.parse().unwrap();
        let rules = SenderRules::default();
        let admitted = vec![Admitted { group, role, owner: false, rules, inbound, attachments: vec![] }];
        let intake = Intake { now: T, ..super::tests::intake(admitted) };
        self.store.accept(intake).await.unwrap().remove(0).seq
    }

    async fn replies(&self, key: &str, parts: &[&str]) {
        let parts = parts.iter().map(|p| (*p).to_owned().into()).collect();
        let outgoing = OutgoingText {
            chat: chat(ROOM),
            voice: Voice::Reply,
            key: key.into(),
            parts,
            answers: None,
            choices: None,
        };
        self.store.say(Some(TurnId(1)), outgoing, T).await.unwrap();
    }

    async fn claims_at(&self, in_chat: &str, now: WallMs) -> Part {
        match self.store.claim(chat(in_chat), self.terms, now).await.unwrap() {
            NextPart::Part(part) => *part,
            other => panic!("{other:?}"),
        }
    }

    async fn claims(&self) -> Part {
        self.claims_at(ROOM, T).await
    }

    async fn settles(&self, part: Part, happened: SendOutcome) -> Next {
        self.store.settle(part, happened, DAY, T).await.unwrap()
    }

    /// Sends all that is due, each part at the first try.
    async fn sends(&self, in_chat: &str, now: WallMs) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            match self.store.claim(chat(in_chat), self.terms, now).await.unwrap() {
                NextPart::Part(part) => {
                    let text = part.text.clone();
                    let edit = part.strategy == crate::domain::outbound::DeliveryStrategy::Edit;
                    let happened = match &part.placeholder {
                        None if edit => SendOutcome::Claimed("7".into()),
                        _ => SendOutcome::Arrived("8".into()),
                    };
                    if let Next::Sent { .. } = self.settles(*part, happened).await {
                        texts.push(text);
                    }
                }
                NextPart::Expired(_) => {}
                NextPart::NotBefore(_) | NextPart::Empty => return texts,
            }
        }
    }

    /// State, uncertain copies and strays of the row with this text.
    async fn row(&self, text: &str) -> (String, u64, u64) {
        let said = self.store.message_trace(MessageSeq(1)).await.unwrap().unwrap().turn.unwrap().outbox;
        let row = said.into_iter().find(|row| row.text == text).unwrap();
        (row.state, row.uncertain, row.strays)
    }

    async fn ages(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        let sql = "UPDATE outbox SET created_at = created_at - ?1, lives_from = lives_from - ?1";
        self.store.write(move |c| Ok(c.execute(sql, params![by])?)).await.unwrap();
    }

    async fn order(&mut self, in_chat: &str, group: &str, text: &str, word: HeldCommand) -> Option<String> {
        let command = if word == HeldCommand::Drop { Command::Drop } else { Command::Resend };
        let seq = self.writes(in_chat, group, text, Role::Command(command)).await;
        let first =
            self.store.resolve_held(seq, group.parse().unwrap(), chat(in_chat), word, T).await.unwrap();
        let again =
            self.store.resolve_held(seq, group.parse().unwrap(), chat(in_chat), word, T).await.unwrap();
        assert_eq!(again, None, "an order that is handed over again does nothing");
        first
    }
}

fn away() -> SendOutcome {
    SendOutcome::NotArrived { why: "away".into(), after: None }
}

fn cut() -> SendOutcome {
    SendOutcome::Cut { why: "cut".into() }
}

fn kicked() -> SendOutcome {
    SendOutcome::Gone { why: "Forbidden: bot was kicked".into() }
}

#[tokio::test]
async fn order_holds_behind_a_part_that_waits() {
    let o = office(Delivery::Resend).await;
    o.replies("a", &["first"]).await;
    o.replies("b", &["second"]).await;
    let first = o.claims().await;
    let asked = SendOutcome::NotArrived { why: "429".into(), after: Some(Duration::from_secs(5)) };
    o.settles(first, asked).await;
    assert_eq!(o.row("first").await, ("deferred".into(), 0, 0));
    let head = o.store.claim(chat(ROOM), o.terms, later(4)).await.unwrap();
    assert_eq!(head, NextPart::NotBefore(later(5)));
    assert_eq!(o.sends(ROOM, later(5)).await, ["first", "second"]);
}

#[tokio::test]
async fn a_clock_that_was_set_back_silences_nobody() {
    let o = office(Delivery::Resend).await;
    o.replies("a", &["first"]).await;
    let part = o.claims().await;
    o.settles(part, away()).await;
    let year = Duration::from_secs(365 * 24 * 3600);
    let long_ago = WallMs(T.0 - i64::try_from(year.as_millis()).unwrap());
    assert_eq!(o.sends(ROOM, long_ago).await, ["first"]);
}

#[tokio::test]
async fn a_host_that_dies_in_a_send_leaves_what_its_policy_allows() {
    for (delivery, state, copies, strays) in [
        (Delivery::Resend, "uncertain", 1, 0),
        (Delivery::Edit, "deferred", 0, 1),
        (Delivery::Hold, "uncertain", 1, 0),
    ] {
        let o = office(delivery).await;
        o.replies("a", &["first"]).await;
        o.replies("b", &["second"]).await;
        o.claims().await;
        o.store.recover_sending(T).await.unwrap();
        assert_eq!(o.store.recover_sending(T).await.unwrap(), Default::default(), "recovered twice");
        assert_eq!(o.row("first").await, (state.into(), copies, strays), "{delivery:?}");
        let said = o.sends(ROOM, T).await;
        if delivery == Delivery::Hold {
            assert_eq!(said[0], "second", "what is behind a held part goes on");
            assert!(said[1].contains("may or may not have arrived"), "{said:?}");
        } else {
            assert_eq!(said, ["first", "second"], "{delivery:?}");
        }
        assert_eq!(o.store.summary().await.unwrap().delivery.uncertain, copies);
    }
}

#[tokio::test]
async fn where_our_own_id_is_taken_a_repeat_is_no_doubt() {
    let mut o = office(Delivery::Hold).await;
    o.terms.abilities.own_id = true;
    o.replies("a", &["first"]).await;
    let before = o.claims().await.idempotency_key;
    o.store.recover_sending(T).await.unwrap();
    let again = o.claims().await;
    assert_eq!((again.idempotency_key.clone(), again.attempts), (before, 1));
    o.settles(again, cut()).await;
    assert_eq!(o.row("first").await, ("deferred".into(), 0, 0));
}

#[tokio::test]
async fn a_part_that_a_worker_left_behind_is_taken_for_cut_off() {
    let o = office(Delivery::Resend).await;
    o.replies("a", &["first"]).await;
    o.claims().await;
    assert!(matches!(o.store.claim(chat(ROOM), o.terms, T).await.unwrap(), NextPart::NotBefore(_)));
    assert_eq!(o.row("first").await, ("uncertain".into(), 1, 0));
    assert_eq!(o.sends(ROOM, T).await, ["first"]);
}

#[tokio::test]
async fn of_a_part_whose_beginning_arrived_only_the_rest_is_sent() {
    for delivery in [Delivery::Resend, Delivery::Edit, Delivery::Hold] {
        let o = office(delivery).await;
        o.replies("a", &["one two", "three"]).await;
        let mut part = o.claims().await;
        if delivery == Delivery::Edit {
            o.settles(part, SendOutcome::Claimed("6".into())).await;
            part = o.claims().await;
        }
        let (why, receipt, rest) = ("too long".to_owned(), "7".to_owned(), "two".to_owned());
        let next = o.settles(part.clone(), SendOutcome::Partly { why, receipt, rest }).await;
        assert!(matches!(next, Next::Rest { .. }), "{next:?}");
        // The answer of the store was lost: the rest is not cut again.
        o.settles(part, SendOutcome::Partly { why: "x".into(), receipt: "7".into(), rest: "o".into() }).await;
        assert_eq!(o.row("one two").await, ("ready".into(), 0, 0));
        let rest = o.claims().await;
        assert_eq!(
            (rest.markup.as_deref(), rest.placeholder.as_deref()),
            (Some("two"), None),
            "it goes before the next part"
        );
        o.settles(rest, SendOutcome::Refused { why: "no".into() }).await;
        let said = o.store.message_trace(MessageSeq(1)).await.unwrap().unwrap().turn.unwrap().outbox;
        let told = said.iter().find(|row| row.voice == "notice").unwrap();
        assert!(told.text.starts_with("The rest of a reply could not be delivered: no."), "{}", told.text);
        assert_eq!(o.row("three").await.0, "failed");
    }
}

#[tokio::test]
async fn a_placeholder_claims_the_place_and_its_text_is_repeated_freely() {
    let o = office(Delivery::Edit).await;
    o.replies("a", &["text"]).await;
    let place = o.claims().await;
    assert_eq!(
        o.settles(place, SendOutcome::Claimed("7".into())).await,
        Next::Fill { placeholder: "7".into() }
    );
    assert_eq!(o.row("text").await, ("ready".into(), 0, 0));
    for _ in 0..3 {
        let text = o.claims_at(ROOM, later(3600)).await;
        assert_eq!(text.placeholder.as_deref(), Some("7"));
        o.settles(text, cut()).await;
    }
    o.claims_at(ROOM, later(3600)).await;
    o.store.recover_sending(T).await.unwrap();
    assert_eq!(o.row("text").await, ("deferred".into(), 0, 0), "however often: it stands there once");
    // Somebody deletes the placeholder: another one takes its place.
    let text = o.claims().await;
    o.settles(text, SendOutcome::Lost { why: "not found".into(), stands: false }).await;
    let place = o.claims_at(ROOM, later(3600)).await;
    assert_eq!(place.placeholder, None);
    o.settles(place, cut()).await;
    assert_eq!(o.row("text").await, ("deferred".into(), 0, 1));
}

#[tokio::test]
async fn what_came_of_a_call_is_written_once() {
    let o = office(Delivery::Resend).await;
    o.replies("a", &["text"]).await;
    let part = o.claims().await;
    o.settles(part.clone(), SendOutcome::Arrived("8".into())).await;
    for again in [SendOutcome::Arrived("9".into()), cut(), kicked()] {
        o.settles(part.clone(), again).await;
    }
    assert_eq!(o.row("text").await, ("sent".into(), 0, 0));
    assert!(o.store.summary().await.unwrap().delivery.unreachable.is_empty());
}

#[tokio::test]
async fn nobody_is_sent_the_torn_rest_of_a_reply() {
    let o = office(Delivery::Resend).await;
    o.replies("a", &["one", "two", "three"]).await;
    o.replies("b", &["another"]).await;
    let one = o.claims().await;
    o.settles(one, SendOutcome::Arrived("8".into())).await;
    let two = o.claims().await;
    o.settles(two, SendOutcome::Refused { why: "Bad Request: no".into() }).await;
    assert_eq!((o.row("two").await.0, o.row("three").await.0), ("failed".into(), "failed".into()));
    let another = o.claims().await;
    assert_eq!(another.text, "another");
    o.settles(another, SendOutcome::Refused { why: "no".into() }).await;
    assert_eq!(
        o.sends(ROOM, T).await,
        ["The rest of a reply could not be delivered: Bad Request: no. Ask again if you still need it."],
        "one notice a turn"
    );
}

#[tokio::test]
async fn a_reply_older_than_a_day_is_not_said_and_a_notice_is() {
    let o = office(Delivery::Resend).await;
    o.replies("a", &["stale one", "stale two"]).await;
    let notice = OutgoingText::notice(&chat(ROOM), "end", "I gave this up.".into());
    o.store.say(Some(TurnId(1)), notice, T).await.unwrap();
    o.ages(DAY + Duration::from_secs(1)).await;
    o.replies("b", &["fresh"]).await;
    assert_eq!(
        o.sends(ROOM, T).await,
        [
            "I gave this up.",
            "fresh",
            "A reply could not be delivered in time, and is too old now. Ask again if you still need it."
        ]
    );
    assert_eq!(
        (o.row("stale one").await.0, o.row("stale two").await.0),
        ("expired".into(), "expired".into())
    );
}

#[tokio::test]
async fn a_day_of_trying_ends_in_a_notice() {
    let o = office(Delivery::Resend).await;
    o.replies("a", &["text"]).await;
    let part = o.claims().await;
    let next = o.store.settle(part, cut(), DAY, later(24 * 3600 + 1)).await.unwrap();
    let Next::GiveUp { doubt, .. } = next else { panic!("{next:?}") };
    assert_eq!(doubt, Doubt { copies: 1, strays: 0 });
    let said = o.sends(ROOM, T).await;
    assert!(said[0].starts_with("A reply may not have been delivered: given up after 1 d 0 h"), "{said:?}");
}

#[tokio::test]
async fn a_chat_that_cannot_be_reached_is_told_once_to_the_owner() {
    let mut o = office(Delivery::Resend).await;
    o.replies("a", &["one", "two"]).await;
    o.replies("b", &["three"]).await;
    let one = o.claims().await;
    o.settles(one, kicked()).await;
    for text in ["one", "two", "three"] {
        assert_eq!(o.row(text).await.0, "failed", "all of it at once");
    }
    o.replies("c", &["four"]).await;
    let four = o.claims().await;
    o.settles(four, kicked()).await;
    assert_eq!(
        o.sends(OWNER, T).await,
        [
            "Replies to Family (lazaret) (telegram:-1) cannot be delivered: Forbidden: bot was kicked. What waited for it \
          is given up. As soon as a message comes from there, replies go there again."
        ]
    );
    let unreachable = o.store.summary().await.unwrap().delivery.unreachable;
    assert_eq!((unreachable.len(), unreachable[0].chat.as_str()), (1, ROOM));
    assert!(o.sends(ROOM, T).await.is_empty());

    // It works again; the next time is told again.
    o.writes(ROOM, "family", "we are back", Role::Context).await;
    assert!(o.store.summary().await.unwrap().delivery.unreachable.is_empty());
    o.replies("d", &["five"]).await;
    let five = o.claims().await;
    o.store.settle(five, kicked(), DAY, later(60)).await.unwrap();
    assert_eq!(o.sends(OWNER, T).await.len(), 1);
}

#[tokio::test]
async fn a_held_part_waits_for_a_persons_word() {
    let mut o = office(Delivery::Hold).await;
    for (key, text) in [("a", "to be sent again"), ("b", "to be left")] {
        o.replies(key, &[text]).await;
        let part = o.claims().await;
        o.settles(part, cut()).await;
        o.sends(ROOM, T).await;
    }
    let held = o.store.summary().await.unwrap().delivery.held;
    let codes: Vec<&str> = held.iter().map(|held| held.code.as_str()).collect();
    assert!(codes.len() == 2 && codes[0] != codes[1] && codes[0].len() >= 2, "{held:?}");
    assert!(
        o.store.chats_waiting(ChannelName::new("telegram")).await.unwrap().is_empty(),
        "nobody is busy with it"
    );

    let order = format!("/resend {}", codes[0]);
    let told = o.order("telegram:-2", "work", &order, HeldCommand::Resend).await.unwrap();
    assert!(told.starts_with("Nothing is held here"), "another group's chat: {told}");
    // Late, in small letters, and from the owner's own chat.
    o.ages(3 * DAY).await;
    let order = format!("/resend {}", codes[0].to_lowercase());
    o.order(OWNER, "main", &order, HeldCommand::Resend).await;
    o.order(ROOM, "family", &format!("/drop {}", codes[1]), HeldCommand::Drop).await;
    assert_eq!(
        o.sends(ROOM, T).await,
        ["to be sent again".to_owned(), format!("{} is not sent again.", codes[1])]
    );
    assert_eq!(o.row("to be sent again").await, ("sent".into(), 1, 0));
    assert_eq!(o.row("to be left").await, ("failed".into(), 1, 0));
    let told = o.order(ROOM, "family", "/resend", HeldCommand::Resend).await.unwrap();
    assert!(told.starts_with("Which one?"), "{told}");
    assert!(o.store.open_commands().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_part_that_is_cut_off_again_is_asked_about_again() {
    let mut o = office(Delivery::Hold).await;
    o.replies("a", &["text"]).await;
    let mut codes = Vec::new();
    for host_dies in [true, false, false, true] {
        let part = o.claims().await;
        if host_dies {
            o.store.recover_sending(T).await.unwrap();
        } else {
            o.settles(part, cut()).await;
        }
        assert_eq!(o.sends(ROOM, T).await.last().unwrap().matches("/resend").count(), 1);
        let code = o.store.summary().await.unwrap().delivery.held[0].code.clone();
        o.order(OWNER, "main", &format!("/resend {code}"), HeldCommand::Resend).await;
        codes.push(code);
    }
    assert!(
        codes[0] != codes[1] && codes[1] != codes[2],
        "an old question does not name a new one: {codes:?}"
    );
    assert_eq!(o.row("text").await, ("ready".into(), 4, 0));
}
