//! What WhatsApp tells of groups and people beside messages: who came and went, a new subject, a new number.

use whatsapp_rust::Jid;
use whatsapp_rust::types::events::{ContactNumberChanged, GroupUpdate};
use whatsapp_rust::wacore::stanza::groups::{GroupNotificationAction as Action, GroupParticipantInfo};
use whatsapp_rust::wacore_binary::JidExt;

use super::super::people::{chat_of, sender_of};
use super::known::Known;
use crate::channels::Batch;
use crate::domain::ChatKind;
use crate::domain::message::{Addressee, ChatEvent, Inbound, Sender};
use crate::text::label;

/// Reads a change of a group, and learns from it.
pub(super) fn read(update: &GroupUpdate, known: &mut Known) -> Batch {
    let mut batch = Batch::default();
    learn(update, known);
    let Some(chat) = chat_of(&update.group_jid).filter(|_| update.group_jid.is_group()) else { return batch };
    let concerns_us = |people: &[GroupParticipantInfo]| {
        people.iter().any(|person| addresses(person).any(|jid| known.is_us(jid)))
    };
    match &update.action {
        Action::Add { participants, .. } if concerns_us(participants) => {
            batch.events.push(ChatEvent::Back { chat });
        }
        Action::Create { .. } => batch.events.push(ChatEvent::Back { chat }),
        Action::Remove { participants, .. } if concerns_us(participants) => {
            let why = "somebody removed the account from the room, or it left".to_owned();
            batch.events.push(ChatEvent::Lost { chat, why });
        }
        Action::Delete { .. } => {
            batch.events.push(ChatEvent::Lost { chat, why: "the room was closed".to_owned() });
        }
        action => match words(action, update, known).and_then(|text| line(update, known, text)) {
            Some(line) => batch.inbound.push(line),
            None => batch.count("whatsapp.ignored.group_update", 1),
        },
    }
    batch
}

/// A person's new number is a new address of the chat with that person.
pub(super) fn number_changed(change: &ContactNumberChanged, known: &mut Known) -> Batch {
    if let Some(lid) = &change.new_lid {
        known.same(lid, &change.new_jid);
    }
    let (from, to) = (chat_of(&change.old_jid), chat_of(&change.new_jid));
    let moved = from.zip(to).filter(|(from, to)| from != to && change.new_jid.server.is_pn_family());
    let events = moved.map(|(from, to)| ChatEvent::Moved { from, to }).into_iter().collect();
    Batch { events, ..Batch::default() }
}

fn learn(update: &GroupUpdate, known: &mut Known) {
    match &update.action {
        Action::Subject { subject, .. } => known.titled(&update.group_jid, subject),
        Action::Create { raw } => {
            let group = raw.get_optional_child("group");
            let subject =
                group.and_then(|group| group.attrs().optional_string("subject").map(|s| s.into_owned()));
            if let Some(subject) = subject {
                known.titled(&update.group_jid, &subject);
            }
        }
        _ => {}
    }
    if let Some((participant, number)) = update.participant.as_ref().zip(update.participant_pn.as_ref()) {
        known.same(participant, number);
    }
    for person in people(&update.action) {
        for other in [&person.phone_number, &person.lid].into_iter().flatten() {
            known.same(&person.jid, other);
        }
        known.named(&person.jid, person.display_name.as_deref().unwrap_or_default());
    }
}

/// The addresses whose phone numbers [`read`] looks up.
pub(super) fn people_in(update: &GroupUpdate) -> Vec<Jid> {
    update
        .participant
        .iter()
        .chain(people(&update.action).iter().map(|person| &person.jid))
        .cloned()
        .collect()
}

fn people(action: &Action) -> &[GroupParticipantInfo] {
    match action {
        Action::Add { participants, .. }
        | Action::Remove { participants, .. }
        | Action::Promote { participants }
        | Action::Demote { participants }
        | Action::Modify { participants } => participants,
        _ => &[],
    }
}

fn addresses(person: &GroupParticipantInfo) -> impl Iterator<Item = &Jid> {
    [Some(&person.jid), person.phone_number.as_ref(), person.lid.as_ref()].into_iter().flatten()
}

/// The line that the agent reads; `None` for what says nothing that an agent can use.
fn words(action: &Action, update: &GroupUpdate, known: &Known) -> Option<String> {
    let actor = update.participant.as_ref().map(|actor| known.person(actor));
    let alone = match people(action) {
        [person] => actor == Some(known.person(&person.jid)),
        _ => false,
    };
    let names: Vec<String> = people(action).iter().map(|person| known.name(&person.jid)).collect();
    let names = names.join(", ");
    Some(match action {
        Action::Add { reason, .. } if alone || reason.is_some() => format!("[{names} joined]"),
        Action::Add { .. } => format!("[added {names}]"),
        Action::Remove { .. } if alone => format!("[{names} left]"),
        Action::Remove { .. } => format!("[removed {names}]"),
        Action::Promote { .. } => format!("[made {names} an admin]"),
        Action::Demote { .. } => format!("[{names} is no admin any more]"),
        Action::Subject { subject, .. } => format!("[the chat is now called {}]", label(subject)),
        Action::Description { description: Some(text), .. } => format!("[described the chat: {text}]"),
        _ => return None,
    })
}

fn line(update: &GroupUpdate, known: &Known, text: String) -> Option<Inbound> {
    let actor =
        update.participant.as_ref().or_else(|| people(&update.action).first().map(|person| &person.jid))?;
    let actor = known.person(actor);
    let id = update.notification_id.clone().unwrap_or_else(|| update.timestamp.timestamp().to_string());
    Some(Inbound {
        chat: chat_of(&update.group_jid)?,
        kind: ChatKind::Room,
        title: known.title(&update.group_jid),
        message_id: format!("{id}#{}", update.action_index),
        version: 0,
        sender: Sender { id: sender_of(&actor)?, name: known.name(&actor), is_bot: false },
        text,
        origin: None,
        service: true,
        reply_to: None,
        attachments: Vec::new(),
        addressee: Addressee::Anyone,
        at: known.time(update.timestamp.timestamp_millis()),
        press: None,
    })
}
