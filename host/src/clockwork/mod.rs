//! What the host does by the clock: it watches the disk and the time, and by night makes a copy and clears away what
//! has been kept long enough.

mod clear;
mod night;
mod watch;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::domain::ChatId;
use crate::domain::outbound::Saying;
use crate::parts::Parts;
use crate::store::StoreError;

pub use watch::Watch;

/// Runs until the host drains.
pub async fn run(parts: Arc<Parts>, watch: Watch, stop: CancellationToken) {
    tokio::join!(watch.run(&parts, &stop), night::run(&parts, &stop));
}

/// Says something about the whole host where its owner reads: in the chats of `main` on platforms, and on the terminal
/// where there are none. `word` makes it one notice however often it is said.
async fn tell_owner(parts: &Parts, word: &str, text: &str) -> Result<(), StoreError> {
    let chats = parts.store.chats().await?;
    let of_main: Vec<ChatId> =
        chats.into_iter().filter(|(_, group, _)| group.is_main()).map(|(chat, _, _)| chat).collect();
    let on_platforms = of_main.iter().any(|chat| !is_terminal(chat));
    for chat in of_main.iter().filter(|chat| !(on_platforms && is_terminal(chat))) {
        let saying = Saying::notice(chat, word, text.to_owned());
        parts.store.say(None, saying, parts.clock.wall()).await?;
    }
    parts.bell.ring();
    Ok(())
}

fn is_terminal(chat: &ChatId) -> bool {
    chat.channel() == crate::domain::ChannelName::Terminal
}
