//! Sends the outbox to the platforms: one queue per chat, in order, and a receipt for each part. `daemon` runs one
//! worker per channel, which runs one worker per chat that has something to send.
//!
//! A chat's worker makes one platform call after the other: it waits for the rate limit, claims the head of the chat's
//! queue, calls, and stores the outcome. A crash or a panic between the claim and the outcome leaves the part in state
//! `sending`. The next claim finds it in this state, and `policy::delivery` decides what follows.

mod extras;
mod lines;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::channels::{Channel, SendError};
use crate::domain::ChatId;
use crate::domain::message::ChatEvent;
use crate::domain::outbound::{DeliveryStrategy, Part};
use crate::policy::backoff::{LONGEST_WAIT, STORE_AGAIN};
use crate::policy::delivery::{Next, SendOutcome, Terms};
use crate::policy::platform_pace::{Destination, PaceWait, Pacer};
use crate::random;
use crate::services::Services;
use crate::spool::Spool;
use crate::store::{NextPart, StoreError};
use lines::Lines;

/// How long after the stop a call may still begin.
const LAST_CALLS: Duration = Duration::from_secs(3);
/// How long a call in progress at the stop may take.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// How much longer a call with a file may take.
const FILE: Duration = Duration::from_secs(240);
/// The shortest wait for a part that is not due, which prevents a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);

/// Handles, at boot and before anything is sent, the parts that an earlier host was sending when it died.
///
/// # Errors
/// The store fails.
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
    pacer: Arc<Mutex<Pacer>>,
    /// The order of drafts and parts.
    lines: Arc<Lines>,
    /// Notified when a call has ended.
    ended: Notify,
    /// Cancelled when the host drains. What can be sent at once is still sent; what must wait is left to the next host.
    stop: CancellationToken,
    /// Cancelled when no call may begin any more.
    closed: CancellationToken,
}

/// Delivers for one channel until the host drains. Then it finishes the calls in progress and sends what can be sent at
/// once. The next host sends the rest.
pub async fn deliver(services: Arc<Services>, channel: Arc<dyn Channel>, stop: CancellationToken) {
    let mut signals = services.outbox_signal.subscribe();
    let (pacer, lines) = (Arc::new(Mutex::new(Pacer::new(channel.pace()))), Arc::new(Lines::default()));
    let _extras = extras::start(&services, &channel, &pacer, &lines, &stop);
    let spool = Spool::at(services.install.root.spool());
    let delivery = Arc::new(Delivery {
        services,
        channel,
        spool,
        pacer,
        lines,
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
            // `services` holds the signal's sender, so the signal outlives this listener.
            _ = signals.changed() => {}
            Some(done) = workers.join_next(), if !workers.is_empty() => {
                // A worker catches its panics itself, so it always returns its chat.
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
    // A part can be queued while the last worker of its chat is ending.
    for chat in delivery.services.store.chats_waiting(delivery.channel.name()).await.unwrap_or_default() {
        workers.spawn(drain(Arc::clone(delivery), chat));
    }
    while workers.join_next().await.is_some() {}
}

/// Empties a chat's queue, and starts again after a panic.
async fn drain(delivery: Arc<Delivery>, chat: ChatId) -> ChatId {
    let workers = delivery.services.workers.clone();
    workers.kept(&format!("delivery to {chat}"), || send_waiting(&delivery, &chat)).await;
    chat
}

/// Sends the queue of a chat, one part after the other, until it is empty or the host drains.
///
/// A part that may not be sent yet holds back the parts behind it, so that the order survives an outage.
async fn send_waiting(delivery: &Delivery, chat: &ChatId) {
    let place = Destination { chat: chat.to_string(), room: delivery.channel.room(chat) };
    let _line = PartLine(delivery, chat);
    // A change of the group's policy applies the next time that a worker starts here.
    let terms = match delivery.terms(chat).await {
        Ok(terms) => terms,
        Err(e) => {
            tracing::error!(%chat, code = e.code(), "delivery waits for the store: {e}");
            return delivery.rest(STORE_AGAIN).await;
        }
    };
    // The worker waits for the rate limit before it claims: a part that waits is not marked, and no attempt is counted.
    while let Some(mut slot) = delivery.may_call(&place).await {
        delivery.lines.begin_part(chat).await;
        let progress = delivery.send_one(chat, &mut slot, &terms).await;
        drop(slot);
        delivery.lines.end_part(chat);
        match progress {
            ChatProgress::Continue => {}
            ChatProgress::Empty => break,
            ChatProgress::PaceWait(_) if delivery.stop.is_cancelled() => break,
            ChatProgress::PaceWait(wait) => delivery.rest(wait).await,
        }
    }
}

/// What the worker of a chat does next.
enum ChatProgress {
    Continue,
    PaceWait(Duration),
    Empty,
}

/// The right to make one call. Dropping it, also in a panic, tells the pacer that the call has ended.
struct CallSlot<'a> {
    delivery: &'a Delivery,
    place: &'a Destination,
    /// Whether the worker called the platform.
    called: bool,
}

impl Drop for CallSlot<'_> {
    fn drop(&mut self) {
        let now = self.delivery.services.clock.now().mono;
        let mut pacer = self.delivery.pacer();
        pacer.end(self.place, now, self.called);
        if self.called {
            pacer.rest(now, random::fraction());
        }
        drop(pacer);
        self.delivery.ended.notify_waiters();
    }
}

/// The worker of a chat. Dropping it, also in a panic, lets drafts go again.
struct PartLine<'a>(&'a Delivery, &'a ChatId);

impl Drop for PartLine<'_> {
    fn drop(&mut self) {
        self.0.lines.end_part(self.1);
    }
}

impl Delivery {
    async fn terms(&self, chat: &ChatId) -> Result<Terms, StoreError> {
        let install = &self.services.install;
        let group = self.services.store.group_of(chat).await?;
        // If the group's file is invalid, the channel's setting applies.
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

    /// Waits until the channel is ready and the rate limit allows a call. Returns `None` when the host drains and the
    /// call would have to wait.
    async fn may_call<'a>(&'a self, place: &'a Destination) -> Option<CallSlot<'a>> {
        while !self.closed.is_cancelled() {
            tokio::select! {
                // A channel that is ready sends what can be sent at once, also while the host drains.
                biased;
                () = self.channel.ready() => {}
                () = self.stop.cancelled() => return None,
            }
            // The worker listens before it asks the pacer, so that it misses no end in between.
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

    /// Claims the next part, makes at most one call and stores the outcome.
    async fn send_one(&self, chat: &ChatId, slot: &mut CallSlot<'_>, terms: &Terms) -> ChatProgress {
        let now = self.services.clock.wall();
        let part = match self.services.store.claim(chat.clone(), *terms, now).await {
            Ok(NextPart::Part(part)) => *part,
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
            // The platform does not answer, or nobody is at the terminal. The row stays in state `sending`, and the
            // next claim treats the call as cut off.
            () = late(&self.stop) => return ChatProgress::Empty,
        };
        if let SendOutcome::NotArrived { after: Some(after), .. } = &happened {
            // The pause applies to the whole room, not only to the chat that called.
            self.pacer().shut(slot.place, self.services.clock.now().mono, (*after).min(LONGEST_WAIT));
        }
        self.record(part, happened, terms.retry).await;
        ChatProgress::Continue
    }

    /// Returns how long a call may take. A large file over a slow line needs more time.
    fn time_limit(&self, part: &Part) -> Option<Duration> {
        let more = if part.file.is_some() { FILE } else { Duration::ZERO };
        self.channel.patience().map(|limit| limit + more)
    }

    /// Makes the one call that a part needs next.
    async fn call(&self, part: &Part) -> SendOutcome {
        let in_words = (!self.channel.has_buttons()).then(|| part.in_words());
        match made(&self.channel, &self.spool, in_words.as_ref().unwrap_or(part)).await {
            Ok(made) => made,
            Err(error) => {
                tracing::debug!(chat = %part.chat, code = error.code(), "part {}: {error}", part.id);
                if let SendError::Moved { to, .. } = &error {
                    self.chat_moved(&part.chat, to).await;
                }
                happened(error)
            }
        }
    }

    /// Binds a chat to its new id, with everything that waits for it. The part then goes there at once.
    async fn chat_moved(&self, from: &ChatId, to: &ChatId) {
        let moved = ChatEvent::Moved { from: from.clone(), to: to.clone() };
        match self.services.store.chat_events(vec![moved], self.services.clock.wall()).await {
            Ok(_) => {
                tracing::warn!(chat = %from, code = "chat.moved", "the platform has given this chat the id {to}")
            }
            Err(e) => {
                tracing::error!(chat = %from, code = e.code(), "the chat's new id {to} is not stored: {e}")
            }
        }
    }

    /// Stores the outcome of a call. It retries until it succeeds, because only this worker knows the outcome.
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
            Next::Rest { why, receipt, .. } => {
                tracing::warn!(%chat, code = "delivery.partly", "of part {row} the beginning is sent ({receipt}): {why}");
            }
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
                // The store has queued a notice in the owner's chat.
                self.services.outbox_signal.notify();
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
        SendError::Moved { why, .. } => SendOutcome::NotArrived { why, after: Some(Duration::ZERO) },
        SendError::Cut { why } => SendOutcome::Cut { why },
        SendError::Partly { why, receipt, rest } => SendOutcome::Partly { why, receipt, rest },
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

/// Returns some seconds after the host began to drain.
async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_ANSWER).await;
}
