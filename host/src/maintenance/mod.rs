//! What the host does by the clock: it watches the disk and the time, and by night makes a copy and clears away what
//! has been kept long enough.

mod disk_watch;
mod nightly;
mod retention;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::domain::ChatId;
use crate::domain::outbound::OutgoingText;
use crate::services::Services;
use crate::store::StoreError;

pub use disk_watch::Watch;

/// Runs until the host drains.
pub async fn run(services: Arc<Services>, watch: Watch, stop: CancellationToken) {
    tokio::join!(watch.run(&services, &stop), nightly::run(&services, &stop));
}

/// Says something about the whole host where its owner reads: in the chats of `main` on platforms, and on the terminal
/// where there are none. `word` makes it one notice however often it is said.
async fn tell_owner(services: &Services, word: &str, text: &str) -> Result<(), StoreError> {
    let chats = services.store.chats().await?;
    let of_main: Vec<ChatId> =
        chats.into_iter().filter(|(_, group, _)| group.is_main()).map(|(chat, _, _)| chat).collect();
    let on_platforms = of_main.iter().any(|chat| !is_local(services, chat));
    for chat in of_main.iter().filter(|chat| !(on_platforms && is_local(services, chat))) {
        let outgoing = OutgoingText::notice(chat, word, text.to_owned());
        services.store.say(None, outgoing, services.clock.wall()).await?;
    }
    services.bell.ring();
    Ok(())
}

/// Whether the chat is on a channel that only the host's own user can open.
fn is_local(services: &Services, chat: &ChatId) -> bool {
    services.channels.of(chat).is_some_and(|channel| channel.local_owner().is_some())
}
