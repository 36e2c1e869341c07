//! A server that speaks WhatsApp's multi-device protocol as the library `whatsapp-rust` expects it, with people on
//! phones. It refuses what the library's sources say that WhatsApp's server refuses. Nobody has compared it with the
//! real server.
//!
//! A test reads as a conversation:
//!
//! ```no_run
//! # async fn story() {
//! use whatsapp_server::WhatsAppServer;
//!
//! let whatsapp = WhatsAppServer::start().await;
//! let ann = whatsapp.person(491_511_234_567, "Ann");
//! let family = whatsapp.room(120_363_000_000_000_001, "Family", &[&ann]);
//! ann.says(&family, "hello");
//! assert_eq!(family.hears().await, "Hello, Ann.");
//! # }
//! ```
//!
//! One account is linked: its phone ([`WhatsAppServer::phone`]) links one device, which is what the test runs. The
//! server collects every breach of the protocol by the device and fails the test in [`WhatsAppServer::finish`].

#![allow(missing_docs, reason = "many fixtures are clear by their names")]

mod account;
mod appstate;
mod directory;
mod letters;
mod login;
mod media;
mod pairing;
mod passkey;
mod people;
mod phones;
mod queries;
mod reading;
mod received;
mod rooms;
mod session;
mod signal;
mod stanza;
mod trouble;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wacore_binary::Node;

pub use account::{LID, NUMBER};
pub use pairing::Refused;
pub use people::{ASKS, Chat, Document, Person};
pub use received::{FileKind, Received, SentFile};
pub use trouble::Troubles;

use account::{Account, Device};
use wire::ServerKeys;

/// What happened between the device and people, for a test that keeps a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The device acknowledged a message: the server will not hand it over again.
    Accepted {
        /// The chat's address in the host.
        chat: String,
        id: String,
        text: String,
    },
    /// A person's phone shows a message of the device, or its new text after an edit.
    Delivered {
        /// The chat's address in the host.
        chat: String,
        id: String,
        text: String,
        edit: bool,
    },
}

type Observer = Box<dyn Fn(Seen) + Send + Sync>;

/// The server, its people and their chats. It listens on a free port of this machine.
pub struct WhatsAppServer {
    shared: Arc<Shared>,
    /// `None` while WhatsApp is away.
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// The phone of the account, which links the device.
pub struct Phone {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) address: SocketAddr,
    keys: Mutex<Arc<ServerKeys>>,
    state: Mutex<State>,
    /// Changes with every event. Tests wait for it.
    changes: watch::Sender<u64>,
    observer: Mutex<Option<Observer>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) account: Account,
    /// The linked device.
    pub(crate) device: Option<Device>,
    pub(crate) people: people::World,
    line: session::Line,
    pairing: pairing::Pairing,
    trouble: trouble::Trouble,
    violations: Vec<String>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> Arc<ServerKeys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes everything that waits for a change of the state.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Waits until `inspect` returns a value.
    pub(crate) async fn wait_for<T>(&self, mut inspect: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = inspect(&mut self.state()) {
                return found;
            }
            // The sender lives in `self`, so this cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// Notes that the device broke the protocol.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        self.state().violations.push(what.into());
        self.changed();
    }

    /// Tells the observer of the test, if there is one. The caller holds no lock of the state.
    pub(crate) fn seen(&self, seen: Seen) {
        if let Some(observer) = &*self.observer.lock().unwrap_or_else(PoisonError::into_inner) {
            observer(seen);
        }
    }

    /// Sends the device a stanza. The server keeps messages, receipts, notifications and calls until the device
    /// acknowledges them, and hands them over again at its next login. Everything else reaches a device that is there.
    pub(crate) fn to_device(&self, stanza: Node) {
        self.state().line.sends(stanza, None);
        self.changed();
    }
}

impl WhatsAppServer {
    /// Starts a server on a free port.
    pub async fn start() -> Self {
        let listener = match TcpListener::bind("127.0.0.1:0").await {
            Ok(listener) => listener,
            Err(e) => panic!("no port for WhatsApp: {e}"),
        };
        let address = match listener.local_addr() {
            Ok(address) => address,
            Err(e) => panic!("no address for WhatsApp: {e}"),
        };
        let shared = Arc::new(Shared {
            address,
            keys: Mutex::default(),
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            observer: Mutex::default(),
        });
        let accepting = Mutex::new(Some(tokio::spawn(session::accept(listener, Arc::clone(&shared)))));
        Self { shared, accepting }
    }

    fn accepting(&self) -> Option<JoinHandle<()>> {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns the address of the server, for `channels.whatsapp.base_url`.
    pub fn url(&self) -> String {
        format!("ws://{}/ws/chat", self.shared.address)
    }

    /// Takes the server down: it refuses connections and breaks the open ones.
    pub async fn goes_away(&self) {
        if let Some(accepting) = self.accepting() {
            accepting.abort();
            // The task was aborted, so it returns an error.
            let _ = accepting.await;
        }
    }

    /// Lets the server listen again on the same port.
    pub async fn comes_back(&self) {
        let listener = match TcpListener::bind(self.shared.address).await {
            Ok(listener) => listener,
            Err(e) => panic!("WhatsApp cannot come back: {e}"),
        };
        let accepting = tokio::spawn(session::accept(listener, Arc::clone(&self.shared)));
        *self.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepting);
    }

    /// Returns the phone of the account.
    pub fn phone(&self) -> Phone {
        Phone { shared: Arc::clone(&self.shared) }
    }

    /// Adds a person with a phone.
    pub fn person(&self, number: u64, name: &str) -> Person {
        Person::new(Arc::clone(&self.shared), number, name)
    }

    /// Adds a room. The account is a member of it.
    pub fn room(&self, id: u64, title: &str, members: &[&Person]) -> Chat {
        Chat::room(Arc::clone(&self.shared), id, title, members)
    }

    /// Tells `observer` everything that the device accepts and that people see, as it happens.
    pub fn observe(&self, observer: impl Fn(Seen) + Send + Sync + 'static) {
        *self.shared.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(observer));
    }

    /// Waits until the device is logged in and receives messages as they come.
    pub async fn device_is_there(&self) {
        self.shared.wait_for(|state| state.line.is_live().then_some(())).await;
    }

    /// Waits until no device has a connection, linked or not.
    pub async fn nobody_is_there(&self) {
        let nobody =
            |state: &mut State| (state.pairing.open().is_none() && !state.line.is_open()).then_some(());
        self.shared.wait_for(nobody).await;
    }

    /// Waits until the device has acknowledged everything that the server had for it.
    pub async fn acknowledged(&self) {
        self.shared.wait_for(|state| state.line.is_empty().then_some(())).await;
    }

    /// Returns how often the device has logged in.
    pub fn connections(&self) -> u64 {
        self.shared.state().line.logins()
    }

    /// Waits until the device has logged in `count` times.
    pub async fn connected(&self, count: u64) {
        self.shared.wait_for(|state| (state.line.logins() >= count).then_some(())).await;
    }

    /// Returns how many of the logins took up an earlier handshake (Noise IK): the device knew the server's key.
    pub fn resumed(&self) -> u64 {
        self.shared.state().line.resumed()
    }

    /// Gives the server another key: devices cannot take up their handshakes.
    pub fn changes_its_key(&self) {
        *self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    /// Stops the server. Panics if the device broke the protocol.
    pub fn finish(self) {
        self.accepting().iter().for_each(JoinHandle::abort);
        let violations = std::mem::take(&mut self.shared.state().violations);
        assert!(violations.is_empty(), "the device broke WhatsApp's protocol:\n{}", violations.join("\n"));
    }
}

impl Drop for WhatsAppServer {
    fn drop(&mut self) {
        self.accepting().iter().for_each(JoinHandle::abort);
    }
}
