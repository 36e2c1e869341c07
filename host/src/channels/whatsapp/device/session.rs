//! The session of one client: it connects, hands over what it hears, and ends with a reason. The library connects again
//! by itself after an outage.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whatsapp_rust::anyhow;
use whatsapp_rust::types::durability_hook::InboundMessage;
use whatsapp_rust::types::events::{Event, EventHandler, EventInterest, EventKind};
use whatsapp_rust::wacore::iq::devices::RemoveCompanionDeviceSpec;
use whatsapp_rust::{Client, InboundDurabilityHook};

use super::beside;
use super::client::{self, Use};
use super::credentials::{LINK_AGAIN, account};
use super::manners;
use super::network::Network;
use super::orders::{Order, Unlinked};
use super::outage::{Fares, LOOK_EVERY, Outage, Seen};
use super::people::MessageId;
use super::shared::{Shared, Standing};
use super::trouble::{self, Trouble};
use crate::domain::MessageSeq;

/// How long the server may take to end the link.
const UNLINK_WITHIN: Duration = Duration::from_secs(15);

const EVENTS: [EventKind; 12] = [
    EventKind::Connected,
    EventKind::Disconnected,
    EventKind::LoggedOut,
    EventKind::StreamReplaced,
    EventKind::TemporaryBan,
    EventKind::ClientOutdated,
    EventKind::ConnectFailure,
    EventKind::Messages,
    EventKind::ServerAck,
    EventKind::UndecryptableMessage,
    EventKind::GroupUpdate,
    EventKind::ContactNumberChanged,
];

/// Why a client has ended.
pub(super) enum End {
    Trouble(Trouble),
    /// The host has not taken what an earlier client brought.
    Unread,
    /// It could not connect, the host stored nothing, or the library gave up.
    Stuck {
        /// It was connected before.
        was_up: bool,
    },
    /// The keys may be others now.
    Look,
    /// The link is ended, and the keys are to be removed. The sender gets what the person is told.
    Unlink(oneshot::Sender<Unlinked>, String),
    Close,
}

/// Passes the library's events on. The library calls it in the middle of its own work, so it does not wait.
struct EventForwarder {
    shared: Arc<Shared>,
    /// What tells how the connection fares. There are few of these.
    events: UnboundedSender<Arc<Event>>,
    beside: mpsc::Sender<Arc<Event>>,
}

impl EventHandler for EventForwarder {
    fn handle_event(&self, event: Arc<Event>) {
        match &*event {
            Event::ServerAck(ack) => self.shared.acks.came(&ack.id, ack.error.clone()),
            // The hook has handed these over.
            Event::Messages(batch) if batch.hook_committed => {}
            Event::Messages(_)
            | Event::UndecryptableMessage(_)
            | Event::GroupUpdate(_)
            | Event::ContactNumberChanged(_) => {
                if let Err(TrySendError::Full(_)) = self.beside.try_send(event) {
                    tracing::warn!(
                        code = "whatsapp.dropped",
                        "the host does not take what WhatsApp tells beside messages, so it is dropped"
                    );
                }
            }
            _ => drop(self.events.send(event)),
        }
    }

    fn interest(&self) -> EventInterest {
        EventInterest::of(&EVENTS)
    }
}

/// Hands messages over to the host, and lets the library acknowledge them once they are stored.
pub(super) struct Hook {
    shared: Arc<Shared>,
    ended: CancellationToken,
    /// Has a token for each call that is under way.
    handing_over: TaskTracker,
}

#[async_trait]
impl InboundDurabilityHook for Hook {
    async fn on_messages(&self, client: Arc<Client>, messages: &[InboundMessage]) -> anyhow::Result<()> {
        for message in messages {
            self.shared.undecryptable().heard(&message.info.source.sender.to_non_ad_string());
            self.shared.timers.learn(message);
        }
        let _under_way = self.handing_over.token();
        let handed_over = async {
            let batch = self.shared.reader.read(&client, messages).await;
            let ids: Vec<String> = batch.inbound.iter().map(|inbound| inbound.message_id.clone()).collect();
            Some((ids, self.shared.hand_over(batch).await?))
        };
        // Otherwise WhatsApp sends them again at the next connection.
        let Some((ids, stored)) = self.ended.run_until_cancelled(handed_over).await.flatten() else {
            anyhow::bail!("the session has ended");
        };
        if self.shared.settings.read_receipts {
            mark_read(client, messages, &ids, &stored);
        }
        Ok(())
    }
}

/// Tells people that the host has read the messages that it has stored. It runs beside the hook, which may not send.
fn mark_read(
    client: Arc<Client>,
    messages: &[InboundMessage],
    ids: &[String],
    stored: &[Option<MessageSeq>],
) {
    let ids = ids.iter().zip(stored).filter(|(_, seq)| seq.is_some()).map(|(id, _)| id);
    let ids: HashSet<String> = ids.filter_map(|id| id.parse::<MessageId>().ok()).map(|id| id.id).collect();
    let read = messages.iter().map(|message| &message.info).filter(|info| ids.contains(&info.id));
    let read: Vec<_> = read.cloned().collect();
    tokio::spawn(async move { manners::mark_read(&client, &read).await });
}

/// Runs a client until it ends. The caller holds the lock of the keys.
pub(super) async fn run(
    shared: &Arc<Shared>,
    network: &Network,
    keys: &Path,
    orders: &mut mpsc::Receiver<Order>,
) -> End {
    let (sender, mut events) = mpsc::unbounded_channel();
    let (beside, told_beside) = mpsc::channel(beside::WAITING);
    let (ended, handing_over) = (shared.closing.child_token(), TaskTracker::new());
    let _ended = ended.clone().drop_guard();
    let forwarder = EventForwarder { shared: Arc::clone(shared), events: sender, beside };
    let hook = Hook { shared: Arc::clone(shared), ended: ended.clone(), handing_over: handing_over.clone() };
    let bot = match client::build(network, keys, forwarder, Use::Channel(hook)).await {
        Ok(bot) => bot,
        Err(e) => {
            let why = format!("the keys in {} cannot be used ({e}); {}", keys.display(), LINK_AGAIN);
            return End::Trouble(Trouble::person("whatsapp.keys", why));
        }
    };
    let client = bot.client();
    let mut running = bot.spawn();
    tokio::spawn(beside::hand_over(Arc::clone(shared), Arc::clone(&client), told_beside, ended.clone()));
    shared.down("WhatsApp has not answered yet");
    let (mut outage, mut was_up) = (Outage::new(Instant::now()), false);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            Some(event) = events.recv() => match heard(shared, network, &client, &event) {
                Next::Nothing => {}
                Next::Up => was_up = true,
                Next::End(trouble) => break End::Trouble(trouble),
            },
            order = orders.recv() => match order {
                Some(Order::Unlink(answer)) => {
                    let told = unlink(&client, &mut events).await;
                    break End::Unlink(answer, told);
                }
                Some(Order::Close) => break End::Close,
                Some(Order::Look) | None => break End::Look,
            },
            () = &mut running => break ended_by_itself(&mut events, was_up),
            _ = look.tick() => {
                let fares = fares(shared, network, &client, !handing_over.is_empty());
                if outage.is_stuck(Instant::now(), fares) {
                    break End::Stuck { was_up };
                }
            }
        }
    };
    let why = network.failure().unwrap_or_else(|| "the connection to WhatsApp was closed".to_owned());
    shared.down(why);
    if matches!(end, End::Stuck { .. }) {
        // The library waits for them, and would not close in time.
        ended.cancel();
    }
    client::close(&mut running).await;
    end
}

/// Looks at a client, and notices if its connection is gone.
fn fares(shared: &Shared, network: &Network, client: &Client, hands_over: bool) -> Fares {
    let up = matches!(*shared.standing.borrow(), Standing::Up { .. });
    let failure = network.failure();
    let hands_over = hands_over.then(|| shared.stored());
    let seen = Seen { logged_in: client.is_logged_in(), up, hands_over, unreached: failure.is_some() };
    if seen.is_cut() {
        shared.down(failure.unwrap_or_else(|| "the connection to WhatsApp is gone".to_owned()));
    }
    Fares::of(seen)
}

/// What an event means for the client.
enum Next {
    Nothing,
    Up,
    End(Trouble),
}

fn heard(shared: &Shared, network: &Network, client: &Arc<Client>, event: &Event) -> Next {
    if let Some(trouble) = trouble::of(event) {
        return Next::End(trouble);
    }
    match event {
        Event::Connected(_) => {
            let jid = client.pn().map(|jid| jid.to_string()).unwrap_or_default();
            let account = account(&jid, &client.push_name());
            shared.standing.send_replace(Standing::Up { client: Arc::clone(client), account });
            let quiet = Arc::clone(client);
            tokio::spawn(async move { manners::stay_in_background(&quiet).await });
            Next::Up
        }
        Event::Disconnected(gone) => {
            let why = network.failure().unwrap_or_else(|| format!("WhatsApp's server: {}", gone.reason));
            shared.down(why);
            Next::Nothing
        }
        _ => Next::Nothing,
    }
}

/// Returns why the library has stopped: its last events may not have been read.
fn ended_by_itself(events: &mut UnboundedReceiver<Arc<Event>>, was_up: bool) -> End {
    while let Ok(event) = events.try_recv() {
        if let Some(trouble) = trouble::of(&event) {
            return End::Trouble(trouble);
        }
    }
    End::Stuck { was_up }
}

/// Ends the link at the server, and returns what the person is told.
pub(super) async fn unlink(client: &Client, events: &mut UnboundedReceiver<Arc<Event>>) -> String {
    let asked = async {
        let jid = client.pn()?;
        client.execute(RemoveCompanionDeviceSpec::new(&jid)).await.ok()
    };
    let done = match tokio::time::timeout(UNLINK_WITHIN, asked).await {
        Ok(Some(_)) => true,
        // The server may close the connection instead of an answer.
        Ok(None) | Err(_) => {
            std::iter::from_fn(|| events.try_recv().ok()).any(|event| matches!(*event, Event::LoggedOut(_)))
        }
    };
    if done {
        "The link is ended: the account does not know this device any more, and its keys are removed."
            .to_owned()
    } else {
        UNREACHED.to_owned()
    }
}

/// What the person is told if the server could not be told.
pub(super) const UNREACHED: &str = "The keys are removed, but this host could not tell WhatsApp. On the phone, open Linked devices (Android: ⋮ on the \
     list of chats; iPhone: Settings), choose the device that is named Lazaret, and log it out.";
/// What the person is told if WhatsApp had ended the link before.
pub(super) const GONE: &str =
    "WhatsApp had ended this link already. Its keys are removed, and nothing is left to do.";
