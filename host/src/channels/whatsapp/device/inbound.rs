//! Turns what the library delivers into messages and events of the host.

use whatsapp_rust::Client;
use whatsapp_rust::types::durability_hook::InboundMessage;
use whatsapp_rust::types::events::Event;

use crate::channels::Batch;

/// Reads decrypted messages, in their order.
pub(super) async fn read(_client: &Client, _messages: &[InboundMessage]) -> Batch {
    Batch::default()
}

/// Reads what WhatsApp tells beside messages, such as a changed group; `None` for what the host does not use.
pub(super) async fn read_event(_client: &Client, _event: &Event) -> Option<Batch> {
    None
}
