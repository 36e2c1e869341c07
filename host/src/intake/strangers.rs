//! Chats that are not admitted: what is kept of them, and whom the host tells. And chats that are admitted because they
//! belong to an admitted one.

use crate::domain::message::Inbound;
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChatId, GroupName, SenderId};
use crate::policy::admission::{self, ADMISSION_CODE};
use crate::policy::attachment_limits;
use crate::services::Services;
use crate::store::{Admission, KeptMessage, StoreError, StrangerSeen};
use crate::text;

pub(super) async fn stranger(
    services: &Services,
    inbound: &Inbound,
    owners: &[SenderId],
) -> Result<StrangerSeen, StoreError> {
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
    let code: String = random
        .as_bytes()
        .iter()
        .take(ADMISSION_CODE)
        .map(|b| char::from(LETTERS[usize::from(b % 32)]))
        .collect();
    let sender_name = text::label(&inbound.sender.name);
    let (told, choices) = text::chat_asks(&inbound.title, &sender_name, inbound.chat.as_str(), &code);
    let asks = |chat: &ChatId| OutgoingText {
        choices: Some(choices.clone()),
        ..OutgoingText::notice(chat, &format!("asks:{code}"), told.clone())
    };
    Ok(StrangerSeen {
        asks: chats_of_main(services).await?.iter().map(asks).collect(),
        chat: inbound.chat.clone(),
        kind: inbound.kind,
        title: inbound.title.clone(),
        sender: inbound.sender.id.clone(),
        owner: owners.contains(&inbound.sender.id),
        sender_name,
        code,
        kept,
    })
}

/// The chats of `main` that are told of a chat that asks. The terminal is not told, because nobody may be there to read
/// it.
async fn chats_of_main(services: &Services) -> Result<Vec<ChatId>, StoreError> {
    let pushes =
        |chat: &ChatId| services.channels.of(chat).is_some_and(|channel| channel.patience().is_some());
    let chats = services.store.chats().await?.into_iter();
    Ok(chats.filter(|(chat, group, _)| group.is_main() && pushes(chat)).map(|(chat, ..)| chat).collect())
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
