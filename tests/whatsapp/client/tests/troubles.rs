//! Messages between people and a device over a line on which things go wrong.

use std::sync::{Arc, Mutex};

use library_against_server::{Device, folder};
use tempfile::TempDir;
use whatsapp_rust::types::events::{Event, ServerAck};
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, SendOptions};
use whatsapp_server::{Person, Seen, Troubles, WhatsAppServer};

const ANN: u64 = 491_511_234_567;

struct World {
    server: WhatsAppServer,
    device: Device,
    ann: Person,
    seen: Arc<Mutex<Vec<String>>>,
    _keys: TempDir,
}

impl World {
    async fn starts() -> Self {
        let server = WhatsAppServer::start().await;
        let keys = folder();
        let device = Device::links(&server, keys.path()).await;
        server.device_is_there().await;
        let ann = server.person(ANN, "Ann");
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&seen);
        server.observe(move |seen| {
            let line = match seen {
                Seen::Accepted { chat, text, .. } => format!("accepted {chat} {text}"),
                Seen::Delivered { chat, text, .. } => format!("delivered {chat} {text}"),
            };
            log.lock().expect("no other holder panicked").push(line);
        });
        Self { server, device, ann, seen, _keys: keys }
    }

    /// Sends a message with an id of its own.
    async fn says(&self, id: &str, text: &str) {
        let message = wa::Message { conversation: Some(text.to_owned()), ..wa::Message::default() };
        let options = SendOptions::default().with_message_id(id);
        let to = Jid::pn(ANN.to_string());
        // Whether it arrived says the acknowledgement only.
        let _ = self.device.client().send_message_with_options(to, message, options).await;
    }

    async fn is_acknowledged(&mut self, wanted: &str) -> ServerAck {
        let ack = |event: &Event| match event {
            Event::ServerAck(ack) if ack.id == wanted => Some(ack.clone()),
            _ => None,
        };
        self.device.sees("the acknowledgement", ack).await
    }

    async fn hears(&mut self) -> String {
        let first = |event: &Event| match event {
            Event::Messages(batch) => batch.first().and_then(|m| m.message.conversation.clone()),
            _ => None,
        };
        self.device.sees("a message", first).await
    }

    async fn ends(self) -> Vec<String> {
        self.server.acknowledged().await;
        self.device.stops().await;
        self.server.finish();
        std::mem::take(&mut self.seen.lock().expect("no other holder panicked"))
    }
}

fn troubles(lost_acks: f64, cut: f64) -> Option<Troubles> {
    Some(Troubles { lost_acks, refused: 0.0, cut, chance: fastrand::Rng::with_seed(1) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_not_stored_comes_again_and_one_that_was_does_not() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    world.device.storage_fails(true);
    world.ann.says(&chat, "one");
    world.device.has_failed_to_store().await;
    world.device.storage_fails(false);
    world.server.cuts();
    assert_eq!(world.hears().await, "one");
    world.server.acknowledged().await;

    let logins = world.server.connections();
    world.server.cuts();
    world.server.connected(logins + 1).await;
    world.ann.says(&chat, "two");
    assert_eq!(world.hears().await, "two", "what was acknowledged does not come again");
    let address = chat.address();
    assert_eq!(world.ends().await, [format!("accepted {address} one"), format!("accepted {address} two")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_sends_says_why_and_shows_nobody_the_message() {
    let mut world = World::starts().await;
    world.server.refuses_sends(Some(463));
    world.says("3EB0A1", "unwanted").await;
    assert_eq!(world.is_acknowledged("3EB0A1").await.error.as_deref(), Some("463"));
    world.server.refuses_sends(None);
    world.says("3EB0A2", "wanted").await;
    assert_eq!(world.is_acknowledged("3EB0A2").await.error, None);
    assert_eq!(world.ann.direct().shows(), ["wanted"]);
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_acknowledgement_was_lost_is_shown_once_although_it_is_sent_again() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    let logins = world.server.connections();
    world.server.troubles(troubles(1.0, 0.0));
    world.says("3EB0B1", "once").await;
    assert_eq!(chat.hears().await, "once");
    world.server.connected(logins + 1).await;
    world.server.device_is_there().await;
    world.server.troubles(None);
    world.device.is_connected().await;
    world.says("3EB0B1", "once").await;
    world.is_acknowledged("3EB0B1").await;
    assert_eq!(chat.messages().iter().map(|m| (&*m.text, m.copies)).collect::<Vec<_>>(), [("once", 2)]);
    assert_eq!(world.ends().await, [format!("delivered {} once", chat.address())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_cut_connection_swallowed_arrives_when_it_is_sent_again() {
    let mut world = World::starts().await;
    let chat = world.ann.direct();
    let logins = world.server.connections();
    world.server.troubles(troubles(0.0, 1.0));
    world.says("3EB0C1", "at last").await;
    world.server.connected(logins + 1).await;
    world.server.troubles(None);
    assert!(chat.shows().is_empty());
    world.device.is_connected().await;
    world.says("3EB0C1", "at last").await;
    world.is_acknowledged("3EB0C1").await;
    assert_eq!(chat.messages().iter().map(|m| (&*m.text, m.copies)).collect::<Vec<_>>(), [("at last", 1)]);
    world.ends().await;
}
