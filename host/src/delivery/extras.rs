//! Shows what a person may miss: drafts of replies, and marks at messages that an agent has taken. Both are best effort
//! and come after everything that must be said: they begin only while the channel's pace lets a part go at once, and no
//! part waits for their pace.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::lines::Lines;
use crate::channels::{Channel, NotShown};
use crate::domain::ChatId;
use crate::policy::backoff::STORE_AGAIN;
use crate::policy::platform_pace::{Destination, Limit, Limits, Pacer};
use crate::services::Services;
use crate::store::{MarkState, TakenMark};

/// Each chat gets a draft at most this often.
const EVERY: Duration = Duration::from_secs(1);
/// How long a draft may take. A part of its chat waits for it.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon a draft or a mark that had to wait is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a chat gets no draft after one that may still be on its way.
const AFTER_CUT: Duration = Duration::from_secs(10);

/// The extras of a channel.
pub(super) struct Extras {
    services: Arc<Services>,
    channel: Arc<dyn Channel>,
    /// The pace of parts, which comes first.
    parts: Arc<Mutex<Pacer>>,
    lines: Arc<Lines>,
    stop: CancellationToken,
    /// Their own pace: a third of the channel's.
    pacer: Mutex<Pacer>,
    /// Until when a chat gets no draft, by the monotonic clock.
    muted: Mutex<HashMap<ChatId, Duration>>,
}

/// Starts the workers of a channel's extras. They end with the handles.
pub(super) fn start(
    services: &Arc<Services>,
    channel: &Arc<dyn Channel>,
    parts: &Arc<Mutex<Pacer>>,
    lines: &Arc<Lines>,
    stop: &CancellationToken,
) -> Vec<AbortOnDropHandle<()>> {
    let third = |limit: Limit| Limit { calls: (limit.calls / 3).max(1), ..limit };
    let (pace, chat) = (channel.pace(), Some(Limit { calls: 1, within: EVERY }));
    let pacer = Pacer::new(Limits {
        chat,
        room: pace.room.map(third),
        all: pace.all.map(third),
        ..Limits::default()
    });
    let extras = Arc::new(Extras {
        services: Arc::clone(services),
        channel: Arc::clone(channel),
        parts: Arc::clone(parts),
        lines: Arc::clone(lines),
        stop: stop.clone(),
        pacer: Mutex::new(pacer),
        muted: Mutex::default(),
    });
    let (workers, name) = (&services.workers, channel.name());
    let drafts = Arc::clone(&extras);
    let drafts = workers.keep(format!("the drafts of {name}"), move || show_drafts(Arc::clone(&drafts)));
    let marks = channel
        .reacts()
        .then(|| workers.keep(format!("the marks of {name}"), move || show_marks(Arc::clone(&extras))));
    [Some(drafts), marks].into_iter().flatten().map(AbortOnDropHandle::new).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every use is a single call, so a panic leaves the state consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to make one extra call. Dropping it, also in a panic, tells the pacer that the call has ended.
struct ExtraSlot<'a> {
    extras: &'a Extras,
    place: &'a Destination,
}

impl Drop for ExtraSlot<'_> {
    fn drop(&mut self) {
        let now = self.extras.services.clock.now().mono;
        locked(&self.extras.pacer).end(self.place, now, true);
    }
}

/// A draft on its way. Dropping it lets a part of the chat go.
struct DraftLine<'a>(&'a Extras, &'a ChatId);

impl Drop for DraftLine<'_> {
    fn drop(&mut self) {
        self.0.lines.end_draft(self.1);
    }
}

impl Extras {
    fn extra<'a>(&'a self, place: &'a Destination) -> Option<ExtraSlot<'a>> {
        let now = self.services.clock.now().mono;
        let free = locked(&self.parts).is_free(place, now) && locked(&self.pacer).begin(place, now).is_ok();
        free.then_some(ExtraSlot { extras: self, place })
    }

    fn is_muted(&self, chat: &ChatId) -> bool {
        let now = self.services.clock.now().mono;
        let mut muted = locked(&self.muted);
        muted.retain(|_, until| *until > now);
        muted.contains_key(chat)
    }

    fn mute(&self, chat: &ChatId, wait: Duration) {
        let until = self.services.clock.now().mono.saturating_add(wait);
        locked(&self.muted).insert(chat.clone(), until);
    }

    async fn rest(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn place(&self, chat: &ChatId) -> Destination {
        Destination { chat: chat.to_string(), room: self.channel.room(chat) }
    }
}

async fn show_drafts(extras: Arc<Extras>) {
    let drafts = &extras.services.drafts;
    let mut signals = drafts.changes();
    let (mut workers, mut busy) = (JoinSet::new(), BTreeSet::new());
    loop {
        for chat in drafts.chats(extras.channel.name()) {
            if busy.insert(chat.clone()) {
                workers.spawn(drafts_of(Arc::clone(&extras), chat));
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
            () = extras.stop.cancelled() => return,
        }
    }
}

async fn drafts_of(extras: Arc<Extras>, chat: ChatId) -> ChatId {
    let workers = extras.services.workers.clone();
    let _ = workers.caught(&format!("the drafts to {chat}"), draw(&extras, &chat)).await;
    chat
}

/// Shows the drafts of a chat, always the newest, until none waits.
async fn draw(extras: &Extras, chat: &ChatId) {
    let (drafts, place) = (&extras.services.drafts, extras.place(chat));
    while drafts.waits(chat) && !extras.stop.is_cancelled() {
        if extras.is_muted(chat) {
            drafts.take(chat);
            return;
        }
        if !draw_once(extras, chat, &place).await {
            extras.rest(AGAIN).await;
        }
    }
}

/// Shows the newest draft. Returns whether it need not wait.
async fn draw_once(extras: &Extras, chat: &ChatId, place: &Destination) -> bool {
    if !extras.lines.begin_draft(chat) {
        return false;
    }
    // The draft is taken after its line has begun: what its turn says waits for the line, or has dropped the draft.
    let line = DraftLine(extras, chat);
    let Some(slot) = extras.extra(place) else { return false };
    let Some(draft) = extras.services.drafts.take(chat) else { return true };
    failpoint!("delivery.draft.before");
    let called = tokio::time::timeout(PATIENCE, extras.channel.draft(chat, draft.turn, &draft.text)).await;
    drop((slot, line));
    let refused = called.unwrap_or(Err(NotShown { why: "no answer in time".into(), again: AFTER_CUT }));
    if let Err(NotShown { why, again }) = refused {
        tracing::info!(%chat, code = "delivery.draft", "no drafts for {} s: {why}", again.as_secs());
        extras.mute(chat, again);
    }
    true
}

/// Sets the marks of messages that a turn has taken, and removes those of turns that are over. The rows survive a
/// restart, so the next host removes what this one has set.
async fn show_marks(extras: Arc<Extras>) {
    let mut signals = extras.services.outbox_signal.subscribe();
    loop {
        let wait = match extras.services.store.taken_marks(extras.channel.name()).await {
            Ok(marks) => mark_all(&extras, marks).await,
            Err(e) => {
                tracing::warn!(channel = %extras.channel.name(), code = e.code(), "marks wait for the store: {e}");
                Some(STORE_AGAIN)
            }
        };
        tokio::select! {
            _ = signals.changed() => {}
            () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => {}
            () = extras.stop.cancelled() => return,
        }
    }
}

/// Returns how long to wait for those that must wait.
async fn mark_all(extras: &Extras, marks: Vec<TakenMark>) -> Option<Duration> {
    let mut wait = None;
    for mark in marks {
        let later = match mark_one(extras, &mark).await {
            Ok(later) => later,
            Err(e) => {
                tracing::warn!(chat = %mark.chat, code = e.code(), "a mark waits for the store: {e}");
                Some(STORE_AGAIN)
            }
        };
        wait = match (wait, later) {
            (Some(wait), Some(later)) => Some(later.min(wait)),
            (wait, later) => wait.or(later),
        };
    }
    wait
}

async fn mark_one(extras: &Extras, mark: &TakenMark) -> crate::store::Result<Option<Duration>> {
    let (store, chat, message) = (&extras.services.store, &mark.chat, &mark.message);
    let emoji = match (mark.state, mark.turn_is_open) {
        (MarkState::Shown, true) => return Ok(None),
        (MarkState::Wanted, true) => extras.channel.taken_mark(chat),
        (MarkState::Shown, false) => None,
        (MarkState::Wanted, false) => {
            store.drop_mark(chat.clone(), message.clone()).await?;
            return Ok(None);
        }
    };
    let place = extras.place(chat);
    let Some(_slot) = extras.extra(&place) else { return Ok(Some(AGAIN)) };
    // The row says so before the platform does: a host that dies in between leaves no mark behind.
    if mark.turn_is_open && !store.show_mark(chat.clone(), message.clone()).await? {
        return Ok(None);
    }
    failpoint!("delivery.mark.before");
    let set = tokio::time::timeout(PATIENCE, extras.channel.react(chat, message, emoji)).await;
    failpoint!("delivery.mark.after");
    let wait = match set {
        Ok(Err(e)) if e.passes() => Some(e.wait()),
        Err(_) => Some(AFTER_CUT),
        Ok(result) => {
            if let Err(e) = result {
                tracing::info!(%chat, code = "delivery.mark", "a message gets no mark: {e}");
                store.drop_mark(chat.clone(), message.clone()).await?;
            } else if !mark.turn_is_open {
                store.drop_mark(chat.clone(), message.clone()).await?;
            }
            None
        }
    };
    // Whether the mark stands is not known. It is removed at the end, and not set again.
    Ok(wait.filter(|_| !mark.turn_is_open))
}
