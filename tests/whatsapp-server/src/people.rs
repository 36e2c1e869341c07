//! People, their phones, and the chats in which they write.

use std::sync::Arc;

use wacore_binary::Node;

use crate::Shared;

/// What the people half of the server remembers.
#[derive(Default)]
pub(crate) struct World {}

/// What becomes of a message of the device.
pub(crate) enum Verdict {
    /// Taken, with attributes of the acknowledgement.
    Accepted(Vec<(&'static str, String)>),
    /// Refused with an error code.
    Refused(u16),
}

/// A chat with one person, or a room.
#[derive(Clone)]
pub struct Chat {
    #[expect(dead_code, reason = "the people half uses it")]
    shared: Arc<Shared>,
}

/// A person with a phone.
#[derive(Clone)]
pub struct Person {
    #[expect(dead_code, reason = "the people half uses it")]
    shared: Arc<Shared>,
}

impl Chat {
    pub(crate) fn room(shared: Arc<Shared>, _id: u64, _title: &str, _members: &[&Person]) -> Self {
        Self { shared }
    }
}

impl Person {
    pub(crate) fn new(shared: Arc<Shared>, _number: u64, _name: &str) -> Self {
        Self { shared }
    }
}

/// Hands a `<message>` of the device to people's phones.
pub(crate) fn takes_message(_shared: &Shared, _message: &Node) -> Verdict {
    Verdict::Refused(501)
}

/// Answers a query of the device that concerns people: `usync`, `encrypt` (the bundles of prekeys), `w:g2`, `w:m`.
/// Returns the children of the result or an error code, and `None` for a query that is not people's.
pub(crate) fn answers(_shared: &Shared, _query: &Node) -> Option<Result<Vec<Node>, u16>> {
    None
}

/// A `<receipt>` of the device, which the server has taken note of.
pub(crate) fn takes_receipt(_shared: &Shared, _receipt: &Node) {}

/// The device logs in for the first time after it was linked: its phone shares keys with it.
pub(crate) fn meets_device(_shared: &Shared) {}

/// A `<presence>` or `<chatstate>` of the device: people see that it types, or that it is there.
pub(crate) fn see(_shared: &Shared, _stanza: &Node) {}
