//! Hands over what the library tells beside messages, such as a changed group, in a task of its own: it waits for the
//! host, and the connection does not.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use whatsapp_rust::Client;
use whatsapp_rust::types::events::{Event, UndecryptableMessage};

use super::shared::Shared;
use super::trouble;

/// So many events wait for the host. While it cannot store them, the library drops further ones.
pub(super) const WAITING: usize = 1000;

/// Hands the events of one client over, in their order, until its session has ended and none is left.
pub(super) async fn hand_over(
    shared: Arc<Shared>,
    client: Arc<Client>,
    mut events: mpsc::Receiver<Arc<Event>>,
    ended: CancellationToken,
) {
    let work = async {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = ended.cancelled(), if !events.is_closed() => {
                    events.close();
                    continue;
                }
            };
            let Some(event) = event else { return };
            if let Event::UndecryptableMessage(lost) = &*event {
                undecryptable(&shared, lost, &event).await;
            }
            if let Some(batch) = shared.reader.read_event(&client, &event).await {
                shared.hand_over(batch).await;
            }
        }
    };
    // If the host closes the channel, nobody takes the rest.
    shared.closing.run_until_cancelled(work).await;
}

/// Tells the owner if there are many of them, and waits beside until the message comes again.
async fn undecryptable(shared: &Arc<Shared>, lost: &UndecryptableMessage, event: &Arc<Event>) {
    let source = &lost.info.source;
    let sender = source.sender.to_non_ad_string();
    if shared.undecryptable().another(&sender) {
        shared.hand_over(trouble::undecryptable(&sender, source.is_from_me)).await;
    }
    let (beside, again) = (Arc::clone(shared), Arc::clone(event));
    tokio::spawn(async move {
        let later = async {
            if let Some(batch) = beside.reader.still_unread(&again).await {
                beside.hand_over(batch).await;
            }
        };
        beside.closing.run_until_cancelled(later).await;
    });
}
