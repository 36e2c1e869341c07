//! A family on WhatsApp, for unit tests and the fuzz target: the account, Ann and Bob, their direct chats and a room.

use whatsapp_rust::chrono::DateTime;
use whatsapp_rust::types::message::{MessageInfo, MessageSource};
use whatsapp_rust::{Jid, waproto};

use super::known::Known;
use super::message::{News, read};
use crate::domain::WallMs;
use crate::domain::message::Inbound;

pub const NOW: i64 = 1_795_000_000;

pub fn us() -> Jid {
    Jid::lid("900001")
}

pub fn ann() -> Jid {
    Jid::lid("900005")
}

pub fn bob() -> Jid {
    Jid::lid("900006")
}

pub fn family() -> Jid {
    Jid::group("120363021")
}

/// Ann's number and name are known, Bob's only the number.
pub(super) fn known() -> Known {
    let mut known = Known::new();
    known.me = vec![Jid::pn("491510000001"), us()];
    known.my_name = "Laz".into();
    known.now = WallMs((NOW + 60) * 1000);
    known.same(&ann(), &Jid::pn("491510000005"));
    known.same(&bob(), &Jid::pn("491510000006"));
    known.named(&ann(), "Ann");
    known.titled(&family(), "Family");
    known
}

/// What WhatsApp tells of a message that Ann writes from her second device.
pub fn info(chat: &Jid) -> MessageInfo {
    MessageInfo {
        source: MessageSource {
            chat: chat.clone(),
            sender: Jid::lid_device("900005", 2),
            is_group: *chat == family(),
            ..MessageSource::default()
        },
        id: "3EB0C431".into(),
        push_name: "Ann".into(),
        timestamp: DateTime::from_timestamp(NOW, 0).unwrap_or_default(),
        ..MessageInfo::default()
    }
}

/// Reads the bytes of a message that Ann writes in this chat.
pub fn of_bytes(bytes: &[u8], chat: &Jid) -> Option<Inbound> {
    let message = waproto::codec::message_decode(bytes).ok()?;
    match read(&message, &info(chat), &known()) {
        News::Message { inbound, .. } => Some(*inbound),
        News::Ignored(_) => None,
    }
}

/// Reads the bytes of a message in a direct chat and in a room.
pub fn read_bytes(bytes: &[u8]) -> Vec<Inbound> {
    [ann(), family()].iter().filter_map(|chat| of_bytes(bytes, chat)).collect()
}
