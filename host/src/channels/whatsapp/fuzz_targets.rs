//! The fuzz target of this channel: what it does with a decrypted message, and what must hold.

use super::device;
use crate::domain::ChatKind;
use crate::domain::message::Inbound;

/// Reads the bytes of a message in a direct chat and in a room: each gives a message of this channel, or a reason.
pub fn message(data: &[u8]) -> Vec<Inbound> {
    let read = device::read_bytes(data);
    for m in &read {
        assert_eq!((m.chat.channel(), m.sender.id.channel()), (super::NAME.as_str(), super::NAME.as_str()));
        assert!(!m.text.is_empty() || !m.attachments.is_empty(), "silence");
        assert_eq!(m.kind == ChatKind::Room, m.chat.local().ends_with(super::ROOM));
        assert!(m.version >= 0 && m.at.0 > 0, "{} {:?}", m.version, m.at);
        assert!(m.attachments.len() <= 12, "{} files", m.attachments.len());
    }
    read
}
