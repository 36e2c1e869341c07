//! Sends the outbox to the platforms: one queue per chat, in order, each part with its receipt. `daemon` runs one
//! worker per channel, which runs one worker per chat that has something to send.
//!
//! A chat's worker makes one call of the platform after the other: it waits for the pace, claims the head of the chat's
//! queue, calls, and stores the outcome. A crash or a panic between the claim and the outcome leaves the part
//! `sending`. The next claim finds it so, and `policy::delivery` decides what that means.

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
use crate::policy::platform_pace::{Destination, PaceWait, Pacer};
use crate::policy::retry::{LONGEST_WAIT, STORE_AGAIN};
use crate::services::Services;
use crate::spool::Spool;
use crate::store::{NextPart, StoreError};

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

/// The delivery of one channel.
struct Delivery {
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
    let delivery = Arc::new(Delivery {
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
        failpoint!("delivery.look");
        match delivery.services.store.chats_waiting(delivery.channel.name()).await {
            Ok(chats) => {
                for chat in chats {
                    if busy.insert(chat.clone()) {
                        workers.spawn(drain(Arc::clone(&delivery), chat));
                    }
                }
            }
            Err(e) => {
                tracing::error!(channel = %delivery.channel.name(), code = e.code(), "the outbox cannot be read: {e}");
                tokio::time::sleep(STORE_AGAIN).await;
            }
        }
        tokio::select! {
            // The bell outlives its listeners: `services` holds it.
            _ = rings.changed() => {}
            Some(done) = workers.join_next(), if !workers.is_empty() => {
                // Panics are caught inside, so the chat is always told.
                if let Ok(chat) = done {
                    busy.remove(&chat);
                }
            }
            () = delivery.stop.cancelled() => break,
        }
    }
    tokio::select! {
        () = last_calls(&delivery, workers) => {}
        () = async {
            tokio::time::sleep(LAST_CALLS).await;
            delivery.closed.cancel();
            std::future::pending().await
        } => {}
    }
}

async fn last_calls(delivery: &Arc<Delivery>, mut workers: JoinSet<ChatId>) {
    while workers.join_next().await.is_some() {}
    // What was queued while the last worker of its chat was ending.
    for chat in delivery.services.store.chats_waiting(delivery.channel.name()).await.unwrap_or_default() {
        workers.spawn(drain(Arc::clone(delivery), chat));
    }
    while workers.join_next().await.is_some() {}
}

/// Empties a chat's queue, again from the start after a panic.
async fn drain(delivery: Arc<Delivery>, chat: ChatId) -> ChatId {
    let workers = delivery.services.workers.clone();
    workers.kept(&format!("delivery to {chat}"), || send_waiting(&delivery, &chat)).await;
    chat
}

/// Sends what waits in a chat, one part after the other, until nothing waits or the host drains.
///
/// A part that may not go yet holds back what is behind it: order is kept through an outage.
async fn send_waiting(delivery: &Delivery, chat: &ChatId) {
    let place = Destination { chat: chat.to_string(), room: delivery.channel.room(chat) };
    // A change of the group's policy holds from the next time that something waits here.
    let terms = match delivery.terms(chat).await {
        Ok(terms) => terms,
        Err(e) => {
            tracing::error!(%chat, code = e.code(), "delivery waits for the store: {e}");
            return delivery.rest(STORE_AGAIN).await;
        }
    };
    // The pace comes before the claim: a part that waits for it is not marked, and no attempt is counted.
    while let Some(mut slot) = delivery.may_call(&place).await {
        let progress = delivery.send_one(chat, &mut slot, &terms).await;
        drop(slot);
        match progress {
            ChatProgress::Continue => {}
            ChatProgress::Empty => break,
            ChatProgress::PaceWait(_) if delivery.stop.is_cancelled() => break,
            ChatProgress::PaceWait(wait) => delivery.rest(wait).await,
        }
    }
}

/// What follows for a chat's queue.
enum ChatProgress {
    Continue,
    PaceWait(Duration),
    Empty,
}

/// The right to make one call. Dropped, also by a panic, it tells the pacer that the call has ended.
struct CallSlot<'a> {
    delivery: &'a Delivery,
    place: &'a Destination,
    /// Whether the platform was called.
    called: bool,
}

impl Drop for CallSlot<'_> {
    fn drop(&mut self) {
        let now = self.delivery.services.clock.now().mono;
        self.delivery.pacer().end(self.place, now, self.called);
        self.delivery.ended.notify_waiters();
    }
}

impl Delivery {
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

    /// Waits until the platform may be called there. `None` when the host drains and there is something to wait for.
    async fn may_call<'a>(&'a self, place: &'a Destination) -> Option<CallSlot<'a>> {
        while !self.closed.is_cancelled() {
            // Listened for before the question: an end in between is not missed.
            let ended = self.ended.notified();
            let now = self.services.clock.now().mono;
            let asked = self.pacer().begin(place, now);
            match asked {
                Ok(()) => return Some(CallSlot { delivery: self, place, called: false }),
                Err(_) if self.stop.is_cancelled() => return None,
                Err(PaceWait::Until(until)) => self.rest(until.saturating_sub(now)).await,
                Err(PaceWait::AnEnd) => tokio::select! {
                    () = ended => {}
                    () = self.stop.cancelled() => {}
                },
            }
        }
        None
    }

    async fn rest(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Makes one call at most.
    async fn send_one(&self, chat: &ChatId, slot: &mut CallSlot<'_>, terms: &Terms) -> ChatProgress {
        let now = self.services.clock.wall();
        let part = match self.services.store.claim(chat.clone(), *terms, now).await {
            Ok(NextPart::Part(part)) => part,
            Ok(NextPart::Empty) => return ChatProgress::Empty,
            Ok(NextPart::NotBefore(at)) => return ChatProgress::PaceWait(at.since(now).max(SHORTEST)),
            Ok(NextPart::Expired(row)) => {
                tracing::warn!(%chat, code = "delivery.expired", "reply {row} grew too old to be said");
                return ChatProgress::Continue;
            }
            Err(e) => {
                tracing::error!(%chat, code = e.code(), "delivery waits for the store: {e}");
                return ChatProgress::PaceWait(STORE_AGAIN);
            }
        };
        slot.called = true;
        let happened = tokio::select! {
            happened = self.call(&part) => happened,
            within = timed_out(self.time_limit(&part)) => {
                SendOutcome::Cut { why: format!("no answer within {} s", within.as_secs()) }
            }
            // A platform that does not answer, or an empty terminal. The row stays as it is: whoever finds it next
            // finds it cut off.
            () = late(&self.stop) => return ChatProgress::Empty,
        };
        if let SendOutcome::NotArrived { after: Some(after), .. } = &happened {
            // The whole room is left alone, not only the chat that asked.
            self.pacer().shut(slot.place, self.services.clock.now().mono, (*after).min(LONGEST_WAIT));
        }
        self.record(part, happened, terms.retry).await;
        ChatProgress::Continue
    }

    /// A large file over a slow line takes its time.
    fn time_limit(&self, part: &Part) -> Option<Duration> {
        let more = if part.file.is_some() { FILE } else { Duration::ZERO };
        self.channel.patience().map(|limit| limit + more)
    }

    /// The one call that a part needs next.
    async fn call(&self, part: &Part) -> SendOutcome {
        made(&self.channel, &self.spool, part).await.unwrap_or_else(|error| {
            tracing::debug!(chat = %part.chat, code = error.code(), "part {}: {error}", part.id);
            happened(error)
        })
    }

    /// Stores the outcome of a call, and does not stop trying: nobody else knows it.
    async fn record(&self, part: Part, happened: SendOutcome, retry: Duration) {
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

async fn timed_out(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// Some seconds after the host began to drain.
async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_ANSWER).await;
}
