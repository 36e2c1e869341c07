//! From the outbox to the platforms: one queue per chat, in order, each part with its receipt.
//!
//! One turn of a worker is one call of the platform: wait for the pace, claim the head of the chat's queue, call,
//! write what came of it. Everything that a crash may find lies between the claim and the writing; what it means then
//! is `policy::delivery`'s to say.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::channels::{Channel, SendError};
use crate::domain::ChatId;
use crate::domain::outbound::{DeliveryStrategy, Part};
use crate::policy::delivery::{Next, SendOutcome, Terms};
use crate::policy::rate_limit::{Destination, Pacer, Wait};
use crate::policy::retry::{LONGEST_WAIT, STORE_AGAIN};
use crate::services::Services;
use crate::spool::Spool;
use crate::store::{Head, StoreError};

/// How long after the stop a call may still begin.
const LAST_CALLS: Duration = Duration::from_secs(3);
/// How long a call that is under way at the stop may take.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// How much longer a call with a file may take.
const FILE: Duration = Duration::from_secs(240);
/// The shortest wait for a part that is not due: never a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);

/// At boot, before anything is sent: what an earlier host was sending when it died.
///
/// # Errors
/// When the store fails.
pub async fn recover(services: &Services) -> Result<(), StoreError> {
    let cut = services.store.recover_sending(services.clock.wall()).await?;
    if cut.uncertain + cut.held + cut.strays > 0 {
        tracing::warn!(
            code = "delivery.uncertain",
            "the host died while it sent: {} parts may arrive twice, {} are asked about, {} placeholders may stand empty",
            cut.uncertain,
            cut.held,
            cut.strays
        );
    }
    Ok(())
}

/// A channel's post office.
struct Post {
    services: Arc<Services>,
    channel: Arc<dyn Channel>,
    spool: Spool,
    pacer: Mutex<Pacer>,
    /// A call has ended.
    ended: Notify,
    /// The host drains: what can go at once still goes, and what must wait is left to the next host.
    stop: CancellationToken,
    /// No call begins any more.
    closed: CancellationToken,
}

/// Delivers for one channel until it is told to stop. Then what is being sent is finished, and what can go at once
/// goes; the rest stays for the next host.
pub async fn deliver(services: Arc<Services>, channel: Arc<dyn Channel>, stop: CancellationToken) {
    let mut rings = services.bell.listen();
    let pacer = Mutex::new(Pacer::new(channel.pace()));
    let spool = Spool::at(services.install.root.spool());
    let post = Arc::new(Post {
        services,
        channel,
        spool,
        pacer,
        ended: Notify::new(),
        stop,
        closed: CancellationToken::new(),
    });
    let mut workers = JoinSet::new();
    let mut busy = BTreeSet::new();
    loop {
        match post.services.store.chats_waiting(post.channel.name()).await {
            Ok(chats) => {
                for chat in chats {
                    if busy.insert(chat.clone()) {
                        workers.spawn(drain(Arc::clone(&post), chat));
                    }
                }
            }
            Err(e) => {
                tracing::error!(channel = %post.channel.name(), code = e.code(), "the outbox cannot be read: {e}");
                tokio::time::sleep(STORE_AGAIN).await;
            }
        }
        tokio::select! {
            // The bell outlives its listeners: `services` holds it.
            _ = rings.changed() => {}
            Some(done) = workers.join_next(), if !workers.is_empty() => {
                if let Ok(chat) = done {
                    busy.remove(&chat);
                }
            }
            () = post.stop.cancelled() => break,
        }
    }
    tokio::select! {
        () = last_calls(&post, workers) => {}
        () = async {
            tokio::time::sleep(LAST_CALLS).await;
            post.closed.cancel();
            std::future::pending().await
        } => {}
    }
}

async fn last_calls(post: &Arc<Post>, mut workers: JoinSet<ChatId>) {
    while workers.join_next().await.is_some() {}
    // What was queued while the last worker of its chat was ending.
    for chat in post.services.store.chats_waiting(post.channel.name()).await.unwrap_or_default() {
        workers.spawn(drain(Arc::clone(post), chat));
    }
    while workers.join_next().await.is_some() {}
}

/// Sends what waits in a chat, one part after the other, until nothing waits or the host drains.
///
/// A part that may not go yet holds back what is behind it: order is kept through an outage.
async fn drain(post: Arc<Post>, chat: ChatId) -> ChatId {
    let place = Destination { chat: chat.to_string(), room: post.channel.room(&chat) };
    // A change of the group's policy holds from the next time that something waits here.
    let terms = match post.terms(&chat).await {
        Ok(terms) => terms,
        Err(e) => {
            tracing::error!(%chat, code = e.code(), "delivery waits for the store: {e}");
            post.rest(STORE_AGAIN).await;
            return chat;
        }
    };
    // The pace comes before the claim: a part that waits for it is not marked, and no attempt is counted.
    while post.may_call(&place).await {
        let (turn, called) = post.turn(&chat, &place, &terms).await;
        post.has_called(&place, called);
        match turn {
            Turn::Go => {}
            Turn::Empty => break,
            Turn::Wait(_) if post.stop.is_cancelled() => break,
            Turn::Wait(wait) => post.rest(wait).await,
        }
    }
    chat
}

enum Turn {
    Go,
    Wait(Duration),
    Empty,
}

impl Post {
    async fn terms(&self, chat: &ChatId) -> Result<Terms, StoreError> {
        let install = &self.services.install;
        let group = self.services.store.group_of(chat).await?;
        // A group whose file is broken is delivered by the channel's setting.
        let own = group.and_then(|name| install.group(&name).ok()).and_then(|group| group.delivery);
        Ok(Terms {
            delivery: own.unwrap_or_else(|| install.delivery(self.channel.name())),
            abilities: self.channel.abilities(),
            lifetime: install.file.host.reply_lifetime.0,
            retry: install.file.host.delivery_retry.0,
        })
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer> {
        self.pacer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the platform may be called there. `false` when the host drains and there is something to wait for.
    async fn may_call(&self, place: &Destination) -> bool {
        while !self.closed.is_cancelled() {
            // Listened for before the question: an end in between is not missed.
            let ended = self.ended.notified();
            let now = self.services.clock.now().mono;
            let asked = self.pacer().begin(place, now);
            match asked {
                Ok(()) => return true,
                Err(_) if self.stop.is_cancelled() => return false,
                Err(Wait::Until(until)) => self.rest(until.saturating_sub(now)).await,
                Err(Wait::AnEnd) => tokio::select! {
                    () = ended => {}
                    () = self.stop.cancelled() => {}
                },
            }
        }
        false
    }

    fn has_called(&self, place: &Destination, called: bool) {
        let now = self.services.clock.now().mono;
        self.pacer().end(place, now, called);
        self.ended.notify_waiters();
    }

    async fn rest(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// One call at most, and whether it was made.
    async fn turn(&self, chat: &ChatId, place: &Destination, terms: &Terms) -> (Turn, bool) {
        let now = self.services.clock.wall();
        let part = match self.services.store.claim(chat.clone(), *terms, now).await {
            Ok(Head::Part(part)) => part,
            Ok(Head::Empty) => return (Turn::Empty, false),
            Ok(Head::NotBefore(at)) => return (Turn::Wait(at.since(now).max(SHORTEST)), false),
            Ok(Head::Expired(row)) => {
                tracing::warn!(%chat, code = "delivery.expired", "reply {row} grew too old to be said");
                return (Turn::Go, false);
            }
            Err(e) => {
                tracing::error!(%chat, code = e.code(), "delivery waits for the store: {e}");
                return (Turn::Wait(STORE_AGAIN), false);
            }
        };
        let happened = tokio::select! {
            happened = self.call(&part) => happened,
            within = out_of_patience(self.patience(&part)) => {
                SendOutcome::Cut { why: format!("no answer within {} s", within.as_secs()) }
            }
            // A platform that does not answer, or an empty terminal. The row stays as it is: whoever finds it next
            // finds it cut off.
            () = late(&self.stop) => return (Turn::Empty, true),
        };
        if let SendOutcome::NotArrived { after: Some(after), .. } = &happened {
            // The whole room is left alone, not only the chat that asked.
            self.pacer().shut(place, self.services.clock.now().mono, (*after).min(LONGEST_WAIT));
        }
        self.settle(part, happened, terms.retry).await;
        (Turn::Go, true)
    }

    /// A large file over a slow line takes its time.
    fn patience(&self, part: &Part) -> Option<Duration> {
        let more = if part.file.is_some() { FILE } else { Duration::ZERO };
        self.channel.patience().map(|patience| patience + more)
    }

    /// The one call that a part needs next.
    async fn call(&self, part: &Part) -> SendOutcome {
        made(&self.channel, &self.spool, part).await.unwrap_or_else(|error| {
            tracing::debug!(chat = %part.chat, code = error.code(), "part {}: {error}", part.id);
            happened(error)
        })
    }

    /// Writes what came of a call, and does not stop trying: what is known here of the platform is known nowhere else.
    async fn settle(&self, part: Part, happened: SendOutcome, retry: Duration) {
        loop {
            let now = self.services.clock.wall();
            match self.services.store.settle(part.clone(), happened.clone(), retry, now).await {
                Ok(next) => return self.tell(&part, &next),
                Err(e) => tracing::error!(chat = %part.chat, code = e.code(), "part {}: {e}", part.id),
            }
            if self.stop.is_cancelled() {
                return;
            }
            self.rest(STORE_AGAIN).await;
        }
    }

    fn tell(&self, part: &Part, next: &Next) {
        let (chat, row) = (&part.chat, part.id);
        match next {
            Next::Sent { .. } => {
                self.services.store.stage(part.turn, None, None, "sent", self.services.clock.now())
            }
            Next::Fill { .. } => {}
            Next::Again { doubt, why, .. } if doubt.copies > 0 => {
                tracing::warn!(%chat, code = "delivery.uncertain", "part {row} may arrive twice: {why}");
            }
            Next::Again { why, .. } => {
                tracing::warn!(%chat, code = "delivery.later", "part {row} waits: {why}");
            }
            Next::Ask { why } => {
                tracing::warn!(%chat, code = "delivery.held", "part {row} waits for a person: {why}");
            }
            Next::GiveUp { why, gone, .. } => {
                let code = if *gone { "delivery.unreachable" } else { "delivery.failed" };
                tracing::error!(%chat, code, "part {row}: {why}");
                // The owner's chat has something to say now.
                self.services.bell.ring();
            }
        }
    }
}

async fn made(channel: &Arc<dyn Channel>, spool: &Spool, part: &Part) -> Result<SendOutcome, SendError> {
    failpoint!("delivery.send.before", |e| SendError::NotArrived { why: e.to_string(), after: None });
    let made = match (&part.file, part.strategy, &part.placeholder) {
        (Some(file), ..) => {
            channel.send_file(part, file, &spool.path(&file.sha256)).await.map(SendOutcome::Arrived)
        }
        (None, DeliveryStrategy::Edit, None) => channel.claim(part).await.map(SendOutcome::Claimed),
        (None, DeliveryStrategy::Edit, Some(placeholder)) => {
            channel.fill(part, placeholder).await.map(|()| SendOutcome::Arrived(placeholder.clone()))
        }
        (None, DeliveryStrategy::Keyed | DeliveryStrategy::Resend | DeliveryStrategy::Hold, _) => {
            channel.send(part).await.map(SendOutcome::Arrived)
        }
    };
    failpoint!("delivery.send.after");
    made
}

fn happened(error: SendError) -> SendOutcome {
    match error {
        SendError::NotArrived { why, after } => SendOutcome::NotArrived { why, after },
        SendError::Cut { why } => SendOutcome::Cut { why },
        SendError::Lost { why, stands } => SendOutcome::Lost { why, stands },
        SendError::Refused { why } => SendOutcome::Refused { why },
        SendError::Gone { why } => SendOutcome::Gone { why },
    }
}

async fn out_of_patience(patience: Option<Duration>) -> Duration {
    match patience {
        Some(patience) => {
            tokio::time::sleep(patience).await;
            patience
        }
        None => std::future::pending().await,
    }
}

/// Some seconds after the host began to drain.
async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_ANSWER).await;
}
