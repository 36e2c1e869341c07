//! The connection to WhatsApp's server, as the channel uses it. A worker of its own keeps it (`life`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep_until;
use whatsapp_rust::Client;

use super::super::WhatsAppSettings;
use super::acks::Acks;
use super::credentials::Credentials;
use super::disappearing::Timers;
use super::life::{not_linked, run_worker};
use super::orders::{self, Order};
use super::shared::{Heard, Shared, Standing};
use super::trouble::Trouble;
use crate::channels::linking::LinkState;
use crate::channels::{Account, Batch, ChannelError, SendError};
use crate::workers::Workers;

/// An outage is told when it has lasted this long: the server closes connections all the time.
const GRACE: Duration = Duration::from_secs(15);

pub(super) struct Connection {
    shared: Arc<Shared>,
    heard: tokio::sync::Mutex<Heard>,
    orders: mpsc::Sender<Order>,
    /// The worker takes this. It comes back if the worker panics, and the worker starts again.
    order_queue: Arc<tokio::sync::Mutex<mpsc::Receiver<Order>>>,
    workers: Workers,
    worker: Mutex<Option<JoinHandle<()>>>,
    /// Whether the host knows of the present trouble.
    told: AtomicBool,
}

impl Connection {
    pub fn new(settings: WhatsAppSettings, folder: &Path, workers: Workers) -> Self {
        let (shared, heard) = Shared::new(settings, Credentials::of(folder));
        let (orders, queue) = mpsc::channel(8);
        let (heard, order_queue) = (tokio::sync::Mutex::new(heard), Arc::new(tokio::sync::Mutex::new(queue)));
        let (worker, told) = (Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(shared);
        let connection = Self { shared, heard, orders, order_queue, workers, worker, told };
        if connection.shared.credentials.state() != LinkState::NotLinked {
            connection.shared.down("WhatsApp has not answered yet");
        }
        connection
    }

    /// Keeps the worker at work. The first call starts it.
    fn keep_alive(&self) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.as_ref().is_some_and(|worker| !worker.is_finished()) {
            return;
        }
        let (shared, queue, orders) =
            (Arc::clone(&self.shared), Arc::clone(&self.order_queue), self.orders.clone());
        *worker = Some(self.workers.keep("the connection to WhatsApp", move || {
            let (shared, queue, orders) = (Arc::clone(&shared), Arc::clone(&queue), orders.clone());
            async move {
                let mut queue = queue.lock().await;
                // It ends with this worker, however that ends.
                let mut listening = JoinSet::new();
                match listener(&shared.credentials) {
                    Ok(listener) => drop(listening.spawn(orders::listen(listener, orders))),
                    Err(e) => {
                        let folder = shared.credentials.folder().display();
                        tracing::warn!(
                            code = "whatsapp.orders",
                            "the host cannot open its socket in {folder}, so `lazaret link` and `lazaret unlink` reach it after \
                             a minute: {e}"
                        );
                    }
                }
                run_worker(shared, &mut queue).await;
            }
        }));
    }

    /// Returns the client; an error if it is not logged in now.
    pub fn client(&self) -> Result<Arc<Client>, SendError> {
        let standing = self.shared.standing.borrow();
        if let Some(client) = standing.logged_in() {
            return Ok(Arc::clone(client));
        }
        let why = match &*standing {
            Standing::Up { .. } => "WhatsApp is not connected".to_owned(),
            Standing::NotLinked => not_linked().why,
            Standing::Down { why, .. } | Standing::Trouble(Trouble { why, .. }) => why.clone(),
        };
        Err(SendError::NotArrived { why, after: None })
    }

    pub fn acks(&self) -> &Acks {
        &self.shared.acks
    }

    pub fn timers(&self) -> &Timers {
        &self.shared.timers
    }

    pub fn not_linked(&self) -> Option<String> {
        matches!(*self.shared.standing.borrow(), Standing::NotLinked).then(|| not_linked().why)
    }

    pub async fn linked(&self) {
        self.until(|standing| !matches!(standing, Standing::NotLinked)).await;
    }

    /// Waits until there may be something to read again. A login waits for messages that the host must have stored, so
    /// the host reads as soon as there is another one.
    pub async fn recovered(&self) {
        self.until(|standing| match standing {
            Standing::Up { .. } | Standing::NotLinked => true,
            Standing::Down { since, account, .. } => {
                since.elapsed() < GRACE || (account.is_some() && self.shared.has_unread())
            }
            Standing::Trouble(_) => false,
        })
        .await;
    }

    /// Waits until [`Connection::client`] returns the client.
    pub async fn up(&self) {
        self.until(|standing| standing.logged_in().is_some()).await;
    }

    async fn until(&self, there: impl FnMut(&Standing) -> bool) {
        self.keep_alive();
        // The sender lives as long as this connection.
        let _ = self.shared.standing.subscribe().wait_for(there).await;
    }

    pub async fn account(&self) -> Result<Account, ChannelError> {
        self.keep_alive();
        let mut standing = self.shared.standing.subscribe();
        loop {
            let now = standing.borrow_and_update().clone();
            match now {
                Standing::Up { account, .. } | Standing::Down { account: Some(account), .. } => {
                    return Ok(account);
                }
                other => self.while_down(&mut standing, other).await?,
            }
        }
    }

    /// Waits for what people write. It is cancel-safe: a cancelled call has taken nothing.
    pub async fn next(&self) -> Result<Batch, ChannelError> {
        self.keep_alive();
        let mut heard = self.heard.lock().await;
        let mut standing = self.shared.standing.subscribe();
        loop {
            if let Ok(one) = heard.try_recv() {
                return one;
            }
            let now = standing.borrow_and_update().clone();
            match now {
                Standing::Up { .. } => {
                    if self.told.swap(false, Ordering::Relaxed) {
                        return Ok(Batch::default());
                    }
                    tokio::select! {
                        Some(one) = heard.recv() => return one,
                        _ = standing.changed() => {}
                    }
                }
                // The host asks `not_linked` before the next read.
                Standing::NotLinked => return Ok(Batch::default()),
                other => tokio::select! {
                    Some(one) = heard.recv() => return one,
                    waited = self.while_down(&mut standing, other) => waited?,
                },
            }
        }
    }

    /// Waits for another standing. An outage that lasts, and trouble that a person must end, are errors.
    async fn while_down(
        &self,
        standing: &mut watch::Receiver<Standing>,
        now: Standing,
    ) -> Result<(), ChannelError> {
        let trouble = match now {
            Standing::Up { .. } => return Ok(()),
            Standing::NotLinked => Trouble::passes("whatsapp.not_linked", not_linked().why),
            Standing::Trouble(trouble) => trouble,
            Standing::Down { since, why, .. } => tokio::select! {
                _ = standing.changed() => return Ok(()),
                () = sleep_until(since + GRACE) => Trouble::passes("whatsapp.offline", why),
            },
        };
        self.told.store(true, Ordering::Relaxed);
        Err(trouble.error())
    }

    /// Closes the connection, so that the keys are stored as they are.
    pub async fn close(&self) {
        let running = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running.filter(|worker| !worker.is_finished()) else { return };
        // Nobody reads any more, so what is not stored yet must come again.
        self.shared.closing.cancel();
        // These fail if the worker panics, and the connection is closed then, too.
        let _ = self.orders.send(Order::Close).await;
        let _ = running.await;
    }
}

fn listener(credentials: &Credentials) -> std::io::Result<tokio::net::UnixListener> {
    credentials.prepare()?;
    orders::bind(credentials.folder())
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn damaged_keys_are_trouble_until_a_command_removes_them() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::of(&dir.path().join("channels/whatsapp"));
        credentials.prepare().unwrap();
        std::fs::write(credentials.keys(), "no keys").unwrap();
        let connection =
            Connection::new(WhatsAppSettings::default(), credentials.folder(), Workers::default());
        assert_eq!(connection.not_linked(), None, "it is a link, and it is broken");
        let Err(ChannelError::NeedsPerson { why, code: "whatsapp.keys" }) = connection.account().await else {
            panic!("the keys were used");
        };
        assert!(why.contains("lazaret link whatsapp"), "{why}");
        assert!(connection.client().is_err());
        // The worker listens before it looks at the keys.
        let told = orders::unlink(credentials.folder()).await.unwrap().unwrap();
        assert!(told.contains("On the phone"), "{told}");
        connection.recovered().await;
        assert!(connection.not_linked().unwrap().contains("lazaret link whatsapp"));
        let again = orders::unlink(credentials.folder()).await.unwrap();
        assert_eq!(again.unwrap_err().why, not_linked().why);
        connection.close().await;
        assert!(orders::unlink(credentials.folder()).await.is_none(), "the host is down");
    }

    #[tokio::test]
    async fn trouble_that_is_over_is_told_by_a_read_that_brings_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("whatsapp");
        let connection = Connection::new(WhatsAppSettings::default(), &folder, Workers::default());
        let trouble = Trouble::person("whatsapp.replaced", "another program");
        connection.shared.standing.send_replace(Standing::Trouble(trouble.clone()));
        let now = Standing::Trouble(trouble);
        let mut standing = connection.shared.standing.subscribe();
        assert!(matches!(
            connection.while_down(&mut standing, now).await,
            Err(ChannelError::Broken { code: "whatsapp.replaced", .. })
        ));
        connection.shared.standing.send_replace(Standing::NotLinked);
        connection.recovered().await;
        assert!(connection.next().await.unwrap().inbound.is_empty());
    }
}
