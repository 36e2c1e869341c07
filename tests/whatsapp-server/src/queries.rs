//! What a device that is logged in sends.

use wacore_binary::Node;

use crate::Shared;
use crate::session::Connection;

/// Takes a stanza of the device.
pub(crate) fn takes(shared: &Shared, _connection: &Connection, stanza: &Node) {
    shared.violation(format!("the device sent a <{}>", stanza.tag));
}
