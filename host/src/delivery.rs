//! From the outbox to the platforms: one queue per chat, in order, each part with its receipt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::channels::{Channel, SendError};
use crate::domain::outbound::{Part, Voice};
use crate::domain::{ChatId, WallMs};
use crate::parts::Parts;
use crate::policy::retry;
use crate::store::{Head, LIFETIME, Sent, StoreError};

/// After the store failed.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// Delivers for one channel until it is told to stop; what is being sent then is finished.
pub async fn deliver(parts: Arc<Parts>, channel: Arc<dyn Channel>, stop: CancellationToken) {
    let mut workers = JoinSet::new();
    let mut busy = BTreeSet::new();
    let mut rings = parts.bell.listen();
    loop {
        match parts.store.chats_waiting(channel.name()).await {
            Ok(chats) => {
                for chat in chats {
                    if busy.insert(chat.clone()) {
                        workers.spawn(drain(Arc::clone(&parts), Arc::clone(&channel), chat, stop.clone()));
                    }
                }
            }
            Err(e) => {
                tracing::error!(channel = %channel.name(), code = e.code(), "the outbox cannot be read: {e}");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
        tokio::select! {
            // The bell outlives its listeners: `parts` holds it.
            _ = rings.changed() => {}
            Some(done) = workers.join_next(), if !workers.is_empty() => {
                if let Ok(chat) = done {
                    busy.remove(&chat);
                }
            }
            () = stop.cancelled() => break,
        }
    }
    while workers.join_next().await.is_some() {}
}

/// Sends what waits in a chat, one part after the other, until nothing waits or the host drains.
///
/// A part that may not go yet holds back what is behind it: order is kept through an outage.
async fn drain(
    parts: Arc<Parts>,
    channel: Arc<dyn Channel>,
    chat: ChatId,
    stop: CancellationToken,
) -> ChatId {
    while !stop.is_cancelled() {
        let wait = match send_head(&parts, &channel, &chat, &stop).await {
            Ok(Next::Go) => continue,
            Ok(Next::Empty) => break,
            Ok(Next::Wait(wait)) => wait,
            Err(e) => {
                tracing::error!(%chat, code = e.code(), "delivery waits for the store: {e}");
                STORE_RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => break,
        }
    }
    chat
}

enum Next {
    Go,
    Wait(Duration),
    Empty,
}

async fn send_head(
    parts: &Parts,
    channel: &Arc<dyn Channel>,
    chat: &ChatId,
    stop: &CancellationToken,
) -> Result<Next, StoreError> {
    let now = parts.clock.wall();
    let part = match parts.store.claim(chat.clone(), now).await? {
        Head::Empty => return Ok(Next::Empty),
        Head::NotBefore(at) => return Ok(Next::Wait(at.since(now).max(Duration::from_millis(10)))),
        Head::Part(part) => part,
    };
    if part.voice == Voice::Reply && now.since(part.created) > LIFETIME {
        parts.store.sent(part.id, Sent::Expired, now).await?;
        tracing::warn!(%chat, code = "delivery.expired", "a reply grew too old to be said");
        return Ok(Next::Go);
    }
    let sent = tokio::select! {
        sent = send(channel, &part) => sent,
        within = out_of_patience(channel.patience()) => {
            Err(SendError::Later { why: format!("no answer within {} s", within.as_secs()), after: None })
        }
        // Only a send that waits for a person (an empty terminal) is still here when the drain is over.
        () = late(stop) => return Ok(Next::Wait(Duration::ZERO)),
    };
    let outcome = match sent {
        Ok(receipt) => Sent::Receipt(receipt),
        Err(SendError::Never { why }) => Sent::Failed(why),
        Err(SendError::Later { why, after }) => later(&part, now, why, after),
    };
    settle(parts, &part, outcome).await?;
    Ok(Next::Go)
}

async fn send(channel: &Arc<dyn Channel>, part: &Part) -> Result<String, SendError> {
    failpoint!("delivery.send.before", |e| SendError::Later { why: e.to_string(), after: None });
    let sent = channel.send(part).await;
    failpoint!("delivery.send.after");
    sent
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
    tokio::time::sleep(Duration::from_secs(5)).await;
}

fn later(part: &Part, now: WallMs, why: String, after: Option<Duration>) -> Sent {
    if now.since(part.created) > retry::SEND_DAY {
        return Sent::Failed(format!("given up after a day: {why}"));
    }
    Sent::Later { at: now.plus(retry::next_send(part.attempts + 1, after)), error: why }
}

async fn settle(parts: &Parts, part: &Part, outcome: Sent) -> Result<(), StoreError> {
    match &outcome {
        Sent::Receipt(_) => parts.store.stage(part.turn, None, None, "sent", parts.clock.now()),
        Sent::Later { error, .. } => {
            tracing::warn!(chat = %part.chat, code = "delivery.later", "part {} waits: {error}", part.id);
        }
        Sent::Failed(why) => {
            tracing::error!(chat = %part.chat, code = "delivery.failed", "part {}: {why}", part.id)
        }
        Sent::Expired => {}
    }
    parts.store.sent(part.id, outcome, parts.clock.wall()).await
}
