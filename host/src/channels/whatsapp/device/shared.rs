//! What the connection's worker and the channel share: how the connection stands, what was heard, and what waits for
//! an acknowledgement.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whatsapp_rust::Client;

use super::super::WhatsAppSettings;
use super::acks::Acks;
use super::credentials::Credentials;
use super::disappearing::Timers;
use super::inbound::Reader;
use super::trouble::{Trouble, Undecryptable};
use crate::channels::{Account, Batch, ChannelError};
use crate::clock::Clock;
use crate::domain::MessageSeq;

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

impl Standing {
    /// Returns the client; `None` if it is not logged in now. The standing may not tell yet that it is cut off.
    pub fn logged_in(&self) -> Option<&Arc<Client>> {
        match self {
            Self::Up { client, .. } => Some(client).filter(|client| client.is_logged_in()),
            _ => None,
        }
    }
}

pub(super) struct Shared {
    pub settings: WhatsAppSettings,
    pub credentials: Credentials,
    pub acks: Acks,
    pub timers: Timers,
    pub reader: Reader,
    pub standing: watch::Sender<Standing>,
    /// The host closes the channel, and takes nothing more.
    pub closing: CancellationToken,
    heard: mpsc::Sender<Result<Batch, ChannelError>>,
    /// How many batches the host has stored.
    stored: AtomicU64,
    undecryptable: Mutex<Undecryptable>,
}

pub(super) type Heard = mpsc::Receiver<Result<Batch, ChannelError>>;

impl Shared {
    pub fn new(settings: WhatsAppSettings, credentials: Credentials) -> (Self, Heard) {
        let (heard, receiver) = mpsc::channel(UNREAD);
        let standing = watch::Sender::new(Standing::NotLinked);
        let (acks, timers, undecryptable) = (Acks::default(), Timers::default(), Mutex::default());
        let reader = Reader::new(Clock::new());
        let closing = CancellationToken::new();
        let shared = Self {
            settings,
            credentials,
            acks,
            timers,
            reader,
            standing,
            closing,
            heard,
            stored: AtomicU64::new(0),
            undecryptable,
        };
        (shared, receiver)
    }

    /// Tells the host something. Returns false if the channel is gone.
    pub async fn say(&self, heard: Result<Batch, ChannelError>) -> bool {
        let said = self.heard.send(heard).await.is_ok();
        // Whoever waits for a change looks whether there is something unread, too.
        self.standing.send_modify(|_| ());
        said
    }

    /// How many batches the host has stored.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Whether there is something that the host has not taken.
    pub fn has_unread(&self) -> bool {
        self.heard.capacity() < self.heard.max_capacity()
    }

    /// Hands a batch over until the host has stored it: if it could not, it takes it again when it can. Returns what it
    /// has stored; `None` if the channel is gone.
    pub async fn hand_over(&self, batch: Batch) -> Option<Vec<Option<MessageSeq>>> {
        loop {
            let (committed, stored) = oneshot::channel();
            let batch = Batch {
                inbound: batch.inbound.clone(),
                events: batch.events.clone(),
                counts: batch.counts.clone(),
                notes: batch.notes.clone(),
                committed: Some(committed),
                ..Batch::default()
            };
            if !self.say(Ok(batch)).await {
                return None;
            }
            if let Ok(stored) = stored.await {
                self.stored.fetch_add(1, Ordering::Relaxed);
                return Some(stored);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_host_could_not_store_is_handed_over_again() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, mut heard) = Shared::new(WhatsAppSettings::default(), Credentials::of(dir.path()));
        let mut batch = Batch::default();
        batch.count("whatsapp.undecryptable", 1);
        batch.notes.push("ask Ann".to_owned());
        let host = async {
            // The disk is full, so the host drops the batch.
            drop(heard.recv().await);
            assert!(!shared.has_unread());
            let again = heard.recv().await.unwrap().unwrap();
            assert_eq!(
                (again.counts["whatsapp.undecryptable"], again.notes),
                (1, vec!["ask Ann".to_owned()])
            );
            again.committed.unwrap().send(vec![None]).unwrap();
        };
        assert_eq!(tokio::join!(shared.hand_over(batch), host).0, Some(vec![None]));
        assert!(shared.say(Ok(Batch::default())).await && shared.has_unread());
        drop(heard);
        assert_eq!(shared.hand_over(Batch::default()).await, None, "the channel is gone");
    }
}
