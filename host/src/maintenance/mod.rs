//! The host's scheduled work: it watches the disk and the clock, copies the database at night, takes special rights
//! from agents' files, and removes what is past its retention. `daemon` spawns it.

mod disk_watch;
mod minute_loop;
mod retention;
mod strip_rights;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::domain::ChatId;
use crate::domain::outbound::OutgoingText;
use crate::services::Services;
use crate::store::StoreError;

use disk_watch::Watch;

/// Checks the disk before intake reads anything, and spawns the workers, which run until the host drains.
pub fn spawn(services: &Arc<Services>, stop: &CancellationToken) {
    let mut first = Some(Watch::begin(services));
    let (own, until) = (Arc::clone(services), stop.clone());
    drop(services.workers.keep("the disk watch", move || {
        let watch = first.take().unwrap_or_else(|| Watch::begin(&own));
        let (services, stop) = (Arc::clone(&own), until.clone());
        async move { watch.run(&services, &stop).await }
    }));
    let (own, until) = (Arc::clone(services), stop.clone());
    drop(services.workers.keep("the nightly work", move || {
        let (services, stop) = (Arc::clone(&own), until.clone());
        async move { minute_loop::run(&services, &stop).await }
    }));
}

/// Sends a notice about the whole host where its owner reads: in the chats of `main` on platforms, and on the terminal
/// if there are none. `word` is an idempotency key: the same word gives one notice.
async fn tell_owner(services: &Services, word: &str, text: &str) -> Result<(), StoreError> {
    let chats = services.store.chats().await?;
    let of_main: Vec<ChatId> =
        chats.into_iter().filter(|(_, group, _)| group.is_main()).map(|(chat, _, _)| chat).collect();
    let on_platforms = of_main.iter().any(|chat| !is_local(services, chat));
    for chat in of_main.iter().filter(|chat| !(on_platforms && is_local(services, chat))) {
        let outgoing = OutgoingText::notice(chat, word, text.to_owned());
        services.store.say(None, outgoing, services.clock.wall()).await?;
    }
    services.outbox_signal.notify();
    Ok(())
}

/// Returns whether the chat is on a channel that only the host's own user can open.
fn is_local(services: &Services, chat: &ChatId) -> bool {
    services.channels.of(chat).is_some_and(|channel| channel.local_owner().is_some())
}
