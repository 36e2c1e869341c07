//! What WhatsApp tells beside messages: changes of groups and people, and what could not be decrypted.

use whatsapp_rust::types::events::{ContactNumberChanged, GroupUpdate, UnavailableType};
use whatsapp_rust::wacore::stanza::groups::{GroupNotificationAction as Action, GroupParticipantInfo};
use whatsapp_rust::wacore_binary::builder::NodeBuilder;

use super::*;

fn member(jid: Jid) -> GroupParticipantInfo {
    GroupParticipantInfo {
        jid,
        phone_number: None,
        display_name: None,
        r#type: None,
        lid: None,
        username: None,
        join_time: None,
        group_history_sent_state: None,
    }
}

/// What Ann's change of the room is for the host.
fn change(action: Action) -> (Option<String>, Vec<ChatEvent>, Known) {
    let update = GroupUpdate::builder()
        .group_jid(family())
        .notification_id("2231".into())
        .participant(ann())
        .timestamp(DateTime::from_timestamp(NOW, 0).unwrap())
        .is_lid_addressing_mode(true)
        .action(action)
        .build();
    let mut known = known();
    let batch = groups::read(&update, &mut known);
    for line in &batch.inbound {
        assert!(line.service && line.kind == ChatKind::Room);
        assert_eq!((line.message_id.as_str(), line.sender.name.as_str()), ("2231#0", "Ann"));
    }
    (batch.inbound.first().map(|line| line.text.clone()), batch.events, known)
}

fn told(action: Action) -> String {
    let (line, events, _) = change(action);
    assert!(events.is_empty());
    line.unwrap()
}

#[test]
fn who_comes_and_goes_is_context() {
    let participants = || vec![member(bob())];
    assert_eq!(told(Action::Add { participants: participants(), reason: None }), "[added +491510000006]");
    let joined = Action::Add { participants: participants(), reason: Some("invite".into()) };
    assert_eq!(told(joined), "[+491510000006 joined]");
    assert_eq!(
        told(Action::Remove { participants: participants(), reason: None }),
        "[removed +491510000006]"
    );
    assert_eq!(told(Action::Remove { participants: vec![member(ann())], reason: None }), "[Ann left]");
    assert_eq!(told(Action::Promote { participants: participants() }), "[made +491510000006 an admin]");
    let named = GroupParticipantInfo { display_name: Some("Bob".into()), ..member(bob()) };
    assert_eq!(told(Action::Demote { participants: vec![named] }), "[Bob is no admin any more]");
    assert_eq!(change(Action::NotAnnounce).0, None);
}

#[test]
fn a_new_subject_is_the_rooms_title() {
    let subject = Action::Subject { subject: "Our Family".into(), subject_owner: None, subject_time: None };
    let (line, _, known) = change(subject);
    assert_eq!(line.as_deref(), Some("[the chat is now called Our Family]"));
    assert_eq!(known.title(&family()), "Our Family");
}

#[test]
fn a_room_without_us_is_lost_until_we_are_back() {
    let chat = chat_of(&family()).unwrap();
    let ours = || vec![member(Jid::pn("491510000001"))];
    let (line, events, _) = change(Action::Remove { participants: ours(), reason: None });
    assert!(line.is_none() && matches!(&events[..], [ChatEvent::Lost { chat: lost, .. }] if *lost == chat));
    let (_, events, _) = change(Action::Delete { reason: None });
    assert!(matches!(&events[..], [ChatEvent::Lost { .. }]));
    let (_, events, _) = change(Action::Add { participants: ours(), reason: None });
    assert_eq!(events, [ChatEvent::Back { chat: chat.clone() }]);
    let group = NodeBuilder::new("group").attr("subject", "Club").build();
    let raw = NodeBuilder::new("create").children([group]).build();
    let (_, events, known) = change(Action::Create { raw });
    assert_eq!((events, known.title(&family())), (vec![ChatEvent::Back { chat }], "Club".to_owned()));
}

#[test]
fn a_new_number_moves_the_chat() {
    let changed = |new: Jid| {
        let change = ContactNumberChanged::builder()
            .old_jid(Jid::pn("491510000005"))
            .new_jid(new)
            .timestamp(DateTime::from_timestamp(NOW, 0).unwrap())
            .build();
        groups::number_changed(&change, &mut known()).events
    };
    let moved = changed(Jid::pn("4917"));
    let (from, to) = ("whatsapp:491510000005".parse().unwrap(), "whatsapp:4917".parse().unwrap());
    assert_eq!(moved, [ChatEvent::Moved { from, to }]);
    assert!(changed(Jid::pn("491510000005")).is_empty() && changed(family()).is_empty());
}

fn lost(chat: &Jid, kind: UnavailableType, mode: DecryptFailMode) -> Event {
    let lost = UndecryptableMessage::builder()
        .info(Arc::new(info(chat)))
        .is_unavailable(false)
        .unavailable_type(kind)
        .decrypt_fail_mode(mode)
        .build();
    Event::UndecryptableMessage(lost)
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_decrypted_is_told_once_it_does_not_come_again() {
    let reader = reader();
    let show = DecryptFailMode::Show;
    let event = lost(&ann(), UnavailableType::Unknown, show);
    let batch = reader.still_unread(&event).await.unwrap();
    let line = &batch.inbound[0];
    assert_eq!((line.message_id.as_str(), line.service), ("3EB0C431#unread", false));
    assert!(line.text.contains("could not be decrypted"));

    let event = lost(&family(), UnavailableType::Unknown, show);
    let waiting = reader.still_unread(&event);
    let comes = async { reader.convert(&[delivered(says("again"), "3EB0C431")]) };
    let (told, batch) = tokio::join!(waiting, comes);
    assert!(told.is_none(), "it came again");
    assert_eq!(batch.inbound[0].text, "again");

    assert!(reader.still_unread(&event).await.is_none(), "it came before");

    let reader = self::reader();
    let line = reader.still_unread(&event).await.unwrap().inbound.remove(0);
    assert!(line.service, "in a room it wakes nobody");
    assert!(reader.state().awaited.is_empty());
    // A reaction that cannot be read is no message that a person sees.
    assert!(
        reader.still_unread(&lost(&ann(), UnavailableType::Unknown, DecryptFailMode::Hide)).await.is_none()
    );
    let view_once = reader.still_unread(&lost(&ann(), UnavailableType::ViewOnce, show)).await.unwrap();
    assert!(view_once.inbound[0].text.contains("only the phone"));
}
