//! Chats that are not admitted: what is kept of them, and whom the host tells. And chats that are admitted because they
//! belong to an admitted one.

use std::time::Duration;

use crate::domain::message::Inbound;
use crate::domain::{ChatId, GroupName, WallMs};
use crate::policy::admission::{self, ADMISSION_CODE};
use crate::policy::attachment_limits;
use crate::services::Services;
use crate::store::{Admission, KeptMessage, StoreError, StrangerSeen};
use crate::text;

/// How many chats that ask to be admitted the owner is told of in an hour.
const ASKS: usize = 5;

pub(super) fn stranger(services: &Services, inbound: &Inbound) -> StrangerSeen {
    let most = services.install.file.host.attachment_bytes();
    let kept = admission::is_kept(inbound).then(|| KeptMessage {
        message_id: inbound.message_id.clone(),
        sender: inbound.sender.id.clone(),
        sender_name: inbound.sender.name.clone(),
        text: inbound.text.clone(),
        origin: inbound.origin.clone(),
        reply_to: inbound.reply_to.clone(),
        attachments: attachment_limits::offered(&inbound.attachments, most),
        at: inbound.at.0,
    });
    // The code has six unambiguous characters of a random UUID. Nobody can guess one of the few open codes, and the
    // operator types the code on their own terminal.
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let random = uuid::Uuid::new_v4();
    let code = random
        .as_bytes()
        .iter()
        .take(ADMISSION_CODE)
        .map(|b| char::from(LETTERS[usize::from(b % 32)]))
        .collect();
    StrangerSeen {
        chat: inbound.chat.clone(),
        kind: inbound.kind,
        title: inbound.title.clone(),
        sender: inbound.sender.id.clone(),
        sender_name: text::label(&inbound.sender.name),
        code,
        kept,
    }
}

/// Tells the chats of `main` which chats have written for the first time, in the batch that was stored at `now`. Nobody
/// can fill those chats with such notices: after `ASKS` chats in an hour, only `lazaret groups list` shows the others.
/// The terminal is not told, because nobody may be there to read it.
pub(super) async fn tell_main(services: &Services, seen: &[ChatId], now: WallMs) -> Result<(), StoreError> {
    if seen.is_empty() {
        return Ok(());
    }
    let waiting = services.store.strangers().await?;
    let lately = waiting.iter().filter(|s| now.since(s.first_at) < Duration::from_secs(3600)).count();
    if lately > ASKS {
        return Ok(());
    }
    let chats = services.store.chats().await?;
    for s in waiting {
        if s.first_at != now || !seen.iter().any(|chat| chat.as_str() == s.chat) {
            continue;
        }
        let told = text::chat_asks(&s.title, &s.sender_name, &s.chat, &s.code);
        for (chat, group, _) in &chats {
            let pushes = services.channels.of(chat).is_some_and(|channel| channel.patience().is_some());
            if *group == GroupName::main() && pushes {
                services.notice(chat, &format!("asks:{}", s.code), told.clone()).await;
            }
        }
    }
    Ok(())
}

/// Admits a chat that belongs to an admitted one, such as a new topic of a forum, where the settings want that.
pub(super) async fn follow(services: &Services, inbound: &Inbound) -> Result<Option<GroupName>, StoreError> {
    let leader = services.channels.of(&inbound.chat).and_then(|channel| channel.follows(&inbound.chat));
    let Some(leader) = leader else { return Ok(None) };
    let Some(group) = services.store.group_of(&leader).await? else { return Ok(None) };
    tracing::info!(chat = %inbound.chat, %group, "a new topic of {leader} is admitted with it");
    let (chat, title, kind) = (inbound.chat.clone(), inbound.title.clone(), inbound.kind);
    let (by, now) = (leader.to_string(), services.clock.wall());
    services.store.admit_chat(Admission { chat, group: group.clone(), kind, title, by, now }).await?;
    Ok(Some(group))
}
