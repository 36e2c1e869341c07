//! Who is who: WhatsApp's addresses (JIDs), and the host's ids of chats, senders and messages.
//!
//! One person appears as a phone number (`491511234567@s.whatsapp.net`), as a LID (`123@lid`) and with a device
//! (`491511234567:2@…`). For the host a person is the phone number, or the LID while no phone number is known.

use std::fmt;
use std::str::FromStr;

use whatsapp_rust::{Jid, Server};

use super::super::NAME;
use crate::domain::{ChatId, SenderId};

/// Returns the local part of the host's id of a person or group; `None` for what is neither, such as a newsletter.
fn local(jid: &Jid) -> Option<String> {
    match jid.server {
        Server::Pn | Server::Hosted => Some(jid.user.to_string()),
        Server::Lid | Server::HostedLid => Some(format!("{}@lid", jid.user)),
        Server::Group => Some(format!("{}@g.us", jid.user)),
        _ => None,
    }
}

pub(super) fn chat_of(jid: &Jid) -> Option<ChatId> {
    format!("{NAME}:{}", local(jid)?).parse().ok()
}

pub(super) fn sender_of(jid: &Jid) -> Option<SenderId> {
    format!("{NAME}:{}", local(jid)?).parse().ok()
}

/// Returns the address of a chat; `None` if a person has written something else into the settings.
pub(super) fn jid_of(chat: &ChatId) -> Option<Jid> {
    let local = chat.local();
    match local.split_once('@') {
        None if local.bytes().all(|b| b.is_ascii_digit()) => Some(Jid::pn(local)),
        Some((user, "lid")) => Some(Jid::lid(user)),
        Some((user, "g.us")) => Some(Jid::group(user)),
        _ => None,
    }
}

/// A message, as the host stores its id. In a group, two people can use the same id, so the author belongs to it:
/// `3EB0C431/123@lid`. In a direct chat, and for the account's own messages, it is the platform's id alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MessageId {
    pub id: String,
    /// Without the device, in the form that the group uses.
    pub author: Option<Jid>,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.author.as_ref().map_or(Ok(()), |author| write!(f, "/{}", author.to_non_ad_string()))
    }
}

impl FromStr for MessageId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The store puts the old chat's id before the ids of messages from before a move: `whatsapp:1@lid#3EB0C431`.
        let text = text.split_once('#').filter(|(chat, _)| chat.contains(':')).map_or(text, |(_, id)| id);
        let (id, author) = text.split_once('/').map_or((text, None), |(id, author)| (id, Some(author)));
        let author =
            author.map(|jid| jid.parse().map_err(|_| format!("{jid:?} is no address"))).transpose()?;
        Ok(Self { id: id.to_owned(), author })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_the_phone_number_whatever_the_device() {
        for (jid, chat) in [
            ("491511234567@s.whatsapp.net", "whatsapp:491511234567"),
            ("491511234567:2@s.whatsapp.net", "whatsapp:491511234567"),
            ("123:7@lid", "whatsapp:123@lid"),
            ("120363021@g.us", "whatsapp:120363021@g.us"),
        ] {
            let jid: Jid = jid.parse().unwrap();
            let found = chat_of(&jid).unwrap();
            assert_eq!(found.as_str(), chat);
            assert_eq!(jid_of(&found), Some(jid.to_non_ad()));
        }
        assert_eq!(chat_of(&"1@newsletter".parse().unwrap()), None);
        assert_eq!(jid_of(&"whatsapp:+49".parse().unwrap()), None);
    }

    #[test]
    fn a_message_of_a_room_is_known_by_its_author_too() {
        for text in ["3EB0C431/123@lid", "3EB0C431"] {
            assert_eq!(text.parse::<MessageId>().unwrap().to_string(), text);
        }
        let before_a_move: MessageId = "whatsapp:1@lid#3EB0C431".parse().unwrap();
        assert_eq!(before_a_move.id, "3EB0C431");
    }
}
