//! A device that runs the unmodified library, for the tests of this package: what the server of the tests says must be
//! what the library understands.

mod http;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::client::Client;
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::prelude::SqliteStore;
use whatsapp_rust::transport::TokioWebSocketTransportFactory;
use whatsapp_rust::types::durability_hook::{InboundDurabilityHook, InboundMessage};
use whatsapp_rust::types::events::{Event, EventHandler};
use whatsapp_server::{NUMBER, WhatsAppServer};

use http::PlainHttp;

/// The longest that a test waits for what must come. No test depends on it: a run that reaches it has failed.
const LIMIT: Duration = Duration::from_secs(60);

/// A device with its keys on disk, and what the library tells of.
pub struct Device {
    handle: Option<BotHandle>,
    client: Arc<Client>,
    events: UnboundedReceiver<Arc<Event>>,
    storage: Arc<Storage>,
}

/// Stores the messages that arrive, unless the test wants it to fail: then they are not acknowledged.
#[derive(Default)]
struct Storage {
    fails: AtomicBool,
    failed: Notify,
}

struct Hook(Arc<Storage>);

#[whatsapp_rust::async_trait]
impl InboundDurabilityHook for Hook {
    async fn on_messages(
        &self,
        _: Arc<Client>,
        _: &[InboundMessage],
    ) -> Result<(), whatsapp_rust::anyhow::Error> {
        if !self.0.fails.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.0.failed.notify_one();
        Err(whatsapp_rust::anyhow::anyhow!("the disk is full"))
    }
}

/// How a device wants to be linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Qr,
    Code,
}

impl Device {
    /// Starts the library with the keys in `folder`.
    pub async fn starts(server: &WhatsAppServer, folder: &Path, by: By) -> Self {
        let store = SqliteStore::new(&folder.join("device.db").to_string_lossy()).await;
        let (sender, events) = unbounded_channel();
        let storage = Arc::<Storage>::default();
        let mut bot = Bot::builder()
            .with_backend(store.expect("the library opens its file"))
            .with_transport_factory(TokioWebSocketTransportFactory::new().with_url(server.url()))
            .with_http_client(PlainHttp)
            .with_version((2, 3000, 1_000_000_000))
            .with_wanted_pre_key_count(20)
            .skip_history_sync()
            .with_inbound_durability_hook(Hook(Arc::clone(&storage)))
            .with_event_handler(Events(Mutex::new(sender)));
        if by == By::Code {
            let options = PairCodeOptions { phone_number: NUMBER.to_string(), ..PairCodeOptions::default() };
            bot = bot.with_pair_code(options);
        }
        let bot = bot.build().await.expect("the library starts");
        let client = bot.client();
        Self { handle: Some(bot.spawn()), client, events, storage }
    }

    /// Links a new device by QR code and waits until it is there.
    pub async fn links(server: &WhatsAppServer, folder: &Path) -> Self {
        let mut device = Self::starts(server, folder, By::Qr).await;
        let code = device.shows_qr().await;
        server.phone().scans(&code).expect("the phone links the device");
        device.is_connected().await;
        device
    }

    /// Waits for the next event for which `wanted` returns a value.
    pub async fn sees<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the library tells of its end before it ends");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        match tokio::time::timeout(LIMIT, search).await {
            Ok(found) => found,
            Err(_) => panic!("the library never told of {what}"),
        }
    }

    pub async fn shows_qr(&mut self) -> String {
        let code = |event: &Event| match event {
            Event::PairingQrCode(shown) => Some(shown.code.clone()),
            _ => None,
        };
        self.sees("a QR code", code).await
    }

    pub async fn is_connected(&mut self) {
        self.sees("a connection", |event| matches!(event, Event::Connected(_)).then_some(())).await;
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Sets whether the device's storage fails.
    pub fn storage_fails(&self, fails: bool) {
        self.storage.fails.store(fails, Ordering::Relaxed);
    }

    /// Waits until the storage has failed to store a message.
    pub async fn has_failed_to_store(&self) {
        self.storage.failed.notified().await;
    }

    /// Ends the library in good order.
    pub async fn stops(mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
    }
}

/// Returns a folder for a device's keys.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

struct Events(Mutex<UnboundedSender<Arc<Event>>>);

impl EventHandler for Events {
    fn handle_event(&self, event: Arc<Event>) {
        // A test that has ended wants no more events.
        let _ = self.0.lock().expect("no other holder panicked").send(event);
    }
}
