//! Sends parts. The message's id is made from the part, so a repeat has the id of the first try and people's phones
//! drop it. A part counts as sent once the server has acknowledged that id.
//!
//! After a restart the host sends a part again whose acknowledgement it has not stored. A phone that cannot decrypt a
//! message asks for it again; the library answers by itself, from the messages that it keeps in its own database.

mod compose;
mod media;
mod mentions;
mod refusals;

use std::path::Path;
use std::time::Duration;

use whatsapp_rust::wacore_binary::JidExt as _;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Client, Freshness, Jid, SendOptions};

use super::super::markup;
use super::acks::Acks;
use super::disappearing::Timers;
use super::people::{self, MessageId};
use crate::channels::SendError;
use crate::domain::ChatId;
use crate::domain::outbound::{Part, SpooledFile, Voice};
use mentions::Mentioned;
use refusals::Tried;

/// How long the server may take to acknowledge a message. It is shorter than the channel's patience.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// What a send needs of the connection.
pub(super) struct Sender<'a> {
    pub client: &'a Client,
    pub acks: &'a Acks,
    pub timers: &'a Timers,
}

impl Sender<'_> {
    pub async fn send(&self, part: &Part) -> Result<String, SendError> {
        let to = address(&part.chat)?;
        let text = self.mentioned(&to, part).await;
        let quoted = compose::quoted(part, &to);
        self.deliver(to, compose::text(text, quoted), part).await
    }

    pub async fn send_file(&self, part: &Part, file: &SpooledFile, path: &Path) -> Result<String, SendError> {
        let to = address(&part.chat)?;
        let caption = self.mentioned(&to, part).await;
        let kind = media::kind(file, path).await?.with_caption(&caption.text);
        let uploaded = media::upload(self.client, path, kind).await?;
        let quoted = compose::quoted(part, &to);
        self.deliver(to, compose::file(file, kind, uploaded, caption, quoted), part).await
    }

    /// Puts a reaction in the place of the account's earlier one. An empty `emoji` takes it back.
    pub async fn react(&self, chat: &ChatId, message: &MessageId, emoji: &str) -> Result<(), SendError> {
        let to = address(chat)?;
        let reaction = compose::reaction(&to, message, emoji);
        let id = compose::id(&uuid::Uuid::now_v7().to_string());
        self.acknowledged(to, reaction, SendOptions::default(), id, Tried::default()).await.map(|_| ())
    }

    /// Returns the text as it is sent, and whom it mentions. A notice mentions nobody: it may quote anything.
    async fn mentioned(&self, to: &Jid, part: &Part) -> Mentioned {
        let text = markup::rendered(part);
        if part.voice == Voice::Notice || !to.is_group() || !mentions::may_mention(&text) {
            return Mentioned::nobody(text);
        }
        // The library keeps the members of each room. Without them, the text goes without mentions.
        match self.client.groups().query_info(to).await {
            Ok(room) => Mentioned::of(&text, |number| mentions::member(&room, number)),
            Err(_) => Mentioned::nobody(text),
        }
    }

    async fn deliver(&self, to: Jid, message: wa::Message, part: &Part) -> Result<String, SendError> {
        let mut options = SendOptions::default();
        if let Some(seconds) = self.timers.of(&part.chat) {
            options = options.with_ephemeral_expiration(seconds);
        }
        // After a failed try, what the library knows of the chat's members and devices may be outdated.
        if part.attempts > 0 {
            options = options.with_group_metadata_freshness(Freshness::Refresh);
        }
        // The library gives a refresh of devices up while those of other chats change, as after a restart with many
        // messages to send. So only one try asks for it.
        if part.attempts == 1 {
            options = options.with_device_freshness(Freshness::Refresh);
        }
        let id = compose::id(&part.idempotency_key);
        let notice = part.voice == Voice::Notice;
        let tried = Tried { notice, earlier: part.attempts, ..Tried::default() };
        self.acknowledged(to, message, options, id, tried).await
    }

    /// Sends a message and waits until the server has acknowledged it.
    async fn acknowledged(
        &self,
        to: Jid,
        message: wa::Message,
        options: SendOptions,
        id: String,
        tried: Tried,
    ) -> Result<String, SendError> {
        let tried = Tried { in_room: to.is_group(), ..tried };
        // The answer can come before the call returns.
        let answer = self.acks.expect(&id);
        let sent = self.client.send_message_with_options(to, message, options.with_message_id(&id)).await;
        sent.map_err(|e| refusals::not_sent(&e, tried))?;
        let cut = |why: &str| Err(SendError::Cut { why: why.to_owned() });
        match tokio::time::timeout(ACKNOWLEDGED_WITHIN, answer).await {
            Ok(Ok(Ok(()))) => Ok(id),
            Ok(Ok(Err(number))) => Err(refusals::refused(&number, tried)),
            Ok(Err(_)) => cut("the connection ended before WhatsApp acknowledged the message"),
            Err(_) => cut("WhatsApp did not acknowledge the message in time"),
        }
    }
}

fn address(chat: &ChatId) -> Result<Jid, SendError> {
    people::jid_of(chat).ok_or_else(|| SendError::Gone { why: format!("{chat} is no chat of WhatsApp") })
}
