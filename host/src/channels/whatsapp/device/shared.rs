//! What the connection's worker and the channel share: how the connection stands, what was heard, and what waits for
//! an acknowledgement.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use whatsapp_rust::Client;

use super::super::WhatsAppSettings;
use super::acks::Acks;
use super::credentials::Credentials;
use super::disappearing::Timers;
use super::inbound::Reader;
use super::trouble::{Trouble, Undecryptable};
use crate::channels::{Account, Batch, ChannelError};
use crate::clock::Clock;

/// What [`Shared::say`] has queued and nobody has read.
const UNREAD: usize = 64;

/// How the connection stands.
#[derive(Clone)]
pub(super) enum Standing {
    NotLinked,
    /// There is no connection now, and the worker tries to make one.
    Down {
        since: Instant,
        why: String,
        /// The account of an earlier connection.
        account: Option<Account>,
    },
    Up {
        client: Arc<Client>,
        account: Account,
    },
    /// A person must do something first.
    Trouble(Trouble),
}

pub(super) struct Shared {
    pub settings: WhatsAppSettings,
    pub credentials: Credentials,
    pub acks: Acks,
    pub timers: Timers,
    pub reader: Reader,
    pub standing: watch::Sender<Standing>,
    heard: mpsc::Sender<Result<Batch, ChannelError>>,
    undecryptable: Mutex<Undecryptable>,
}

pub(super) type Heard = mpsc::Receiver<Result<Batch, ChannelError>>;

impl Shared {
    pub fn new(settings: WhatsAppSettings, credentials: Credentials) -> (Self, Heard) {
        let (heard, receiver) = mpsc::channel(UNREAD);
        let standing = watch::Sender::new(Standing::NotLinked);
        let (acks, timers, undecryptable) = (Acks::default(), Timers::default(), Mutex::default());
        let reader = Reader::new(Clock::new());
        (Self { settings, credentials, acks, timers, reader, standing, heard, undecryptable }, receiver)
    }

    /// Hands something over to the host. Returns false if the channel is gone.
    pub async fn say(&self, heard: Result<Batch, ChannelError>) -> bool {
        self.heard.send(heard).await.is_ok()
    }

    pub fn undecryptable(&self) -> MutexGuard<'_, Undecryptable> {
        // Every use leaves the counts consistent, so a poisoned lock is safe to use.
        self.undecryptable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the account from the keys, before the server has confirmed it. The host then begins to read at once. It
    /// must: the login ends only after the host has stored the messages that came with it.
    pub fn knows(&self, linked: Account) {
        self.down("WhatsApp has not answered yet");
        self.standing.send_modify(|standing| {
            if let Standing::Down { account, .. } = standing {
                *account = Some(linked);
            }
        });
    }

    /// There is no connection.
    pub fn down(&self, why: impl Into<String>) {
        self.acks.all_lost();
        let why = why.into();
        self.standing.send_modify(|standing| {
            let (since, account) = match standing {
                Standing::Down { since, account, .. } => (*since, account.take()),
                Standing::Up { account, .. } => (Instant::now(), Some(account.clone())),
                Standing::NotLinked | Standing::Trouble(_) => (Instant::now(), None),
            };
            *standing = Standing::Down { since, why, account };
        });
    }
}
