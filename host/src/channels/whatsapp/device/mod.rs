//! This host as a linked device of an account: the channel, built on the library.

mod acks;
mod beside;
mod client;
mod connection;
mod credentials;
mod disappearing;
mod fetch;
mod inbound;
mod life;
mod link;
mod link_words;
mod manners;
mod network;
mod orders;
mod outage;
mod outbound;
mod passkey;
mod people;
mod session;
mod shared;
mod trouble;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use whatsapp_rust::Client;

use super::{NAME, WhatsAppSettings, markup};
use crate::channels::{
    Account, Batch, BuildError, Channel, ChannelError, ChannelSettings, FetchError, ReactError, SendError,
    Surroundings,
};
use crate::domain::outbound::{Part, PartText, SpooledFile};
use crate::domain::{ChannelName, ChatId, ChatKind};
use crate::policy::delivery::Abilities;
use crate::policy::platform_pace::{Limit, Limits};
use connection::Connection;
#[cfg(any(test, fuzzing))]
pub(super) use inbound::samples::read_bytes;
pub(super) use link::Link;
use outbound::Sender;

pub(super) struct WhatsApp {
    settings: WhatsAppSettings,
    connection: Connection,
}

impl WhatsApp {
    pub fn new(settings: WhatsAppSettings, host: &Surroundings<'_>) -> Result<Self, BuildError> {
        let connection = Connection::new(settings.clone(), host.folder, host.workers.clone());
        Ok(Self { settings, connection })
    }

    fn sender<'a>(&'a self, client: &'a Client) -> Sender<'a> {
        Sender { client, acks: self.connection.acks(), timers: self.connection.timers() }
    }
}

#[async_trait]
impl Channel for WhatsApp {
    fn name(&self) -> ChannelName {
        NAME
    }

    fn not_linked(&self) -> Option<String> {
        self.connection.not_linked()
    }

    async fn linked(&self) {
        self.connection.linked().await;
    }

    async fn recovered(&self) {
        self.connection.recovered().await;
    }

    async fn close(&self) {
        self.connection.close().await;
    }

    async fn account(&self) -> Result<Account, ChannelError> {
        self.connection.account().await
    }

    async fn next(&self, _position: Option<String>) -> Result<Batch, ChannelError> {
        self.connection.next().await
    }

    async fn fetch(&self, handle: &str, most: u64) -> Result<Vec<u8>, FetchError> {
        let away = |e: SendError| FetchError::Away { why: e.to_string(), after: None };
        fetch::fetch(self.connection.client().map_err(away)?.as_ref(), handle, most).await
    }

    fn split(&self, markdown: &str) -> Vec<PartText> {
        markup::parts(markdown)
    }

    fn takes_caption(&self, caption: &str) -> bool {
        markup::is_caption(caption)
    }

    /// Phones drop a second message with the same id. WhatsApp could edit a message for a quarter of an hour, but with
    /// ids of its own the host needs no placeholders.
    fn abilities(&self) -> Abilities {
        Abilities { own_id: true, edits: false }
    }

    fn pace(&self) -> Limits {
        let limit = |calls: u32, seconds: u64| Some(Limit { calls, within: Duration::from_secs(seconds) });
        Limits {
            chat: limit(self.settings.chat_burst, u64::from(self.settings.chat_burst) * 2),
            room: None,
            all: limit(self.settings.per_minute, 60),
            pause: self.settings.pause.0,
        }
    }

    async fn ready(&self) {
        self.connection.up().await;
    }

    async fn send(&self, part: &Part) -> Result<String, SendError> {
        self.sender(&*self.connection.client()?).send(part).await
    }

    fn takes_files(&self) -> bool {
        true
    }

    async fn send_file(&self, part: &Part, file: &SpooledFile, path: &Path) -> Result<String, SendError> {
        self.sender(&*self.connection.client()?).send_file(part, file, path).await
    }

    async fn typing(&self, chat: &ChatId) {
        if let Ok(client) = self.connection.client() {
            manners::typing(&client, chat).await;
        }
    }

    fn reacts(&self) -> bool {
        true
    }

    async fn react(&self, chat: &ChatId, message: &str, emoji: Option<&str>) -> Result<(), ReactError> {
        let away = |e: SendError| ReactError::Later { why: e.to_string(), after: None };
        let client = self.connection.client().map_err(away)?;
        manners::react(self.sender(&client), chat, message, emoji).await
    }

    fn taken_mark(&self, chat: &ChatId) -> Option<&'static str> {
        self.settings.taken_reaction.mark(self.settings.kind_of(chat) == ChatKind::Room)
    }
}
