//! The Telegram channel. It reads the Bot API (<https://core.telegram.org/bots/api>) by long poll.
//!
//! The position is the next `offset`. A call with it acknowledges every earlier update, so only the call after a
//! batch's transaction acknowledges the batch. The channel parses each update separately, so that it can skip an update
//! of an unknown kind and the queue does not get stuck.

mod albums;
mod api;
mod buttons;
mod content;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod html;
mod manners;
mod rendered_part;
mod send;
mod settings;
mod split;
mod update;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use super::{Account, Batch, Channel, ChannelError, FetchError, NotShown, ReactError, SendError};
use crate::domain::message::{Press, PressAnswer};
use crate::domain::outbound::{Part, PartText, SpooledFile};
use crate::domain::{ChannelName, ChatId, Secret, TurnId};
use crate::policy::backoff::doubling;
use crate::policy::delivery::Abilities;
use crate::policy::platform_pace::Limits;
use albums::Albums;
use api::{Api, ApiError};
#[cfg(test)]
pub use rendered_part::rendered_reply;
pub use settings::TelegramSettings;
use settings::Topics;
use update::{Me, News};

const NAME: ChannelName = ChannelName::new("telegram");
/// How long Telegram holds an empty poll, in seconds.
const POLL_SECONDS: u64 = 50;
/// How long the channel waits for another poller of the same bot to go away.
const CONFLICT_WAIT: Duration = Duration::from_secs(30);

/// How long the channel waits for late parts of an album, and how often.
const ALBUM_WAIT: Duration = Duration::from_millis(500);
const ALBUM_ROUNDS: usize = 4;

pub struct Telegram {
    api: Api,
    me: OnceCell<Me>,
    albums: Mutex<Albums>,
    failures: AtomicU32,
    pace: Limits,
    settings: TelegramSettings,
}

impl Telegram {
    /// Makes a client for one bot with the rate limits `pace`. It makes no call yet.
    ///
    /// # Errors
    /// The HTTPS client cannot be built, because this machine has no CA certificates.
    pub fn new(token: Secret, pace: Limits, settings: TelegramSettings) -> Result<Self, String> {
        let api = Api::new(token, settings.base_url.trim_end_matches('/').to_owned())?;
        Ok(Self {
            api,
            me: OnceCell::new(),
            albums: Mutex::default(),
            failures: AtomicU32::new(0),
            pace,
            settings,
        })
    }

    async fn me(&self) -> Result<&Me, ApiError> {
        let introduce = async || {
            let me: Me = self.api.call("getMe", &json!({}), api::QUICK).await?;
            tracing::info!(bot = %me.username, "Telegram knows this bot");
            self.list_commands().await;
            Ok(me)
        };
        self.me.get_or_try_init(introduce).await
    }

    fn albums(&self) -> MutexGuard<'_, Albums> {
        self.albums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn updates(&self, offset: i64, timeout: u64) -> Result<Vec<Box<RawValue>>, ApiError> {
        let ask = json!({
            "offset": offset,
            "timeout": timeout,
            "allowed_updates": content::asked_for().collect::<Vec<_>>(),
        });
        self.api.call("getUpdates", &ask, Duration::from_secs(POLL_SECONDS + 20)).await
    }

    /// Waits a moment for late parts of albums, which follow at once. A call with the same offset returns the same
    /// updates and later ones.
    async fn with_late_parts(&self, mut updates: Vec<Box<RawValue>>, offset: i64) -> Vec<Box<RawValue>> {
        for _ in 0..ALBUM_ROUNDS {
            if !updates.iter().any(|raw| raw.get().contains("media_group_id")) {
                break;
            }
            tokio::time::sleep(ALBUM_WAIT).await;
            match self.updates(offset, 0).await {
                Ok(again) if again.len() > updates.len() => updates = again,
                // What is there is there: a failed call costs no message.
                _ => break,
            }
        }
        updates
    }

    /// Reads each update. Returns the highest update id, too.
    fn batch_of(&self, updates: &[Box<RawValue>], me: &Me) -> (Batch, Option<i64>) {
        let (mut batch, mut newest) = (Batch::default(), None);
        let mut albums: Vec<(String, usize, i64)> = Vec::new();
        for raw in updates {
            let read = update::read(raw.get(), me);
            newest = newest.max(read.update_id);
            batch.count("telegram.unreadable_field", read.unread);
            match (read.news, read.update_id) {
                (Ok(News::Message { inbound, album: Some(album) }), Some(update_id))
                    if inbound.version == 0 || self.albums().is_known(&album) =>
                {
                    // The first part keeps the place of the album in the batch.
                    if !albums.iter().any(|(id, ..)| *id == album) {
                        albums.push((album.clone(), batch.inbound.len(), update_id));
                        batch.inbound.push((*inbound).clone());
                    }
                    self.albums().add(&album, update_id, *inbound);
                }
                (Ok(News::Message { inbound, .. }), _) => batch.inbound.push(*inbound),
                (Ok(News::Event(event)), _) => batch.events.push(event),
                (Ok(News::Ignored(what)), _) => batch.count(&format!("telegram.ignored.{what}"), 1),
                (Err(e), _) => {
                    batch.count("telegram.unreadable_update", 1);
                    tracing::warn!(code = "telegram.update", "an update was passed over: {e}");
                }
            }
        }
        for (album, at, first) in albums {
            if let (Some(whole), Some(place)) =
                (self.albums().whole(&album, first), batch.inbound.get_mut(at))
            {
                *place = whole;
            }
        }
        (batch, newest)
    }

    async fn poll(&self, position: Option<&str>) -> Result<Batch, ApiError> {
        let me = self.me().await?;
        // After a failure the host wants to know soon whether the trouble is over.
        let timeout = if self.failures.load(Ordering::Relaxed) > 0 { 0 } else { POLL_SECONDS };
        let offset: i64 = position.and_then(|p| p.parse().ok()).unwrap_or(0);
        let updates = self.updates(offset, timeout).await?;
        let updates = self.with_late_parts(updates, offset).await;
        self.albums().unstored_from(offset);
        let (mut batch, newest) = self.batch_of(&updates, me);
        let next = newest.map_or(offset, |id| id.saturating_add(1));
        if next < offset {
            // After a week without updates, Telegram restarts update ids at a random number (Bot API, Update). With the
            // old offset, the channel would acknowledge nothing for ever. Repeated updates are recognized by their
            // message ids.
            tracing::warn!(
                code = "telegram.renumbered",
                "updates are numbered anew, from {next} after {offset}"
            );
        }
        batch.position = (next != offset).then(|| next.to_string());
        Ok(batch)
    }

    fn explain(&self, error: ApiError) -> ChannelError {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let patient = doubling(Duration::from_secs(1), failures, Duration::from_secs(60));
        let later = |why: String, code, wait| ChannelError::Later { why, code, wait };
        match error {
            ApiError::Refused { code: 401 | 404, what, .. } => ChannelError::Broken {
                why: format!(
                    "Telegram does not know this bot ({what}): check TELEGRAM_BOT_TOKEN or token_file"
                ),
                code: "telegram.token",
            },
            ApiError::Refused { code: 409, what, .. } if what.contains("webhook") => ChannelError::Broken {
                why: format!(
                    "a webhook is set for this bot, so Telegram gives its messages to another program ({what}): \
                     remove it with deleteWebhook, {}/bot<TOKEN>/deleteWebhook",
                    self.api.base_url()
                ),
                code: "telegram.webhook",
            },
            ApiError::Refused { code: 409, what, .. } => later(
                format!(
                    "another program reads this bot's messages ({what}): end it, or give this host a bot of its own"
                ),
                "telegram.conflict",
                CONFLICT_WAIT,
            ),
            ApiError::Moved { what, .. } => later(what, "telegram.refused", patient),
            ApiError::Refused { what, retry_after, .. } => {
                later(format!("Telegram refused: {what}"), "telegram.refused", retry_after.unwrap_or(patient))
            }
            ApiError::Unreachable { why, .. } | ApiError::Unreadable { why } => {
                later(format!("Telegram cannot be reached: {why}"), "telegram.unreachable", patient)
            }
            ApiError::Garbage { why, .. } => {
                later(format!("Telegram answered strangely: {why}"), "telegram.garbage", patient)
            }
        }
    }
}

/// Returns the room of a chat with several people. Such chats have negative ids.
fn room_of(chat: &ChatId) -> Option<&str> {
    let room = chat.local().split('/').next().unwrap_or_default();
    room.starts_with('-').then_some(room)
}

/// Returns the address of a chat: `-100123/42` is topic 42 of room -100123.
fn address(chat: &ChatId) -> serde_json::Value {
    match chat.local().split_once('/') {
        Some((room, topic)) => {
            json!({ "chat_id": room.parse::<i64>().unwrap_or(0), "message_thread_id": topic.parse::<i64>().unwrap_or(0) })
        }
        None => json!({ "chat_id": chat.local().parse::<i64>().unwrap_or(0) }),
    }
}

#[async_trait]
impl Channel for Telegram {
    fn name(&self) -> ChannelName {
        NAME
    }

    async fn account(&self) -> Result<Account, ChannelError> {
        let me = self.me().await.map_err(|e| self.explain(e))?;
        Ok(Account { id: me.id.to_string(), name: format!("@{}", me.username) })
    }

    async fn next(&self, position: Option<String>) -> Result<Batch, ChannelError> {
        let batch = self.poll(position.as_deref()).await.map_err(|e| self.explain(e))?;
        self.failures.store(0, Ordering::Relaxed);
        Ok(batch)
    }

    async fn fetch(&self, handle: &str, most: u64) -> Result<Vec<u8>, FetchError> {
        self.api.download(handle, most).await
    }

    fn split(&self, markdown: &str) -> Vec<PartText> {
        split::parts(markdown)
    }

    fn takes_caption(&self, caption: &str) -> bool {
        split::is_caption(caption)
    }

    /// Telegram accepts no message id of ours.
    fn abilities(&self) -> Abilities {
        Abilities { own_id: false, edits: true }
    }

    fn pace(&self) -> Limits {
        self.pace
    }

    /// The topics of a room share one rate limit.
    fn room(&self, chat: &ChatId) -> Option<String> {
        room_of(chat).map(str::to_owned)
    }

    fn follows(&self, chat: &ChatId) -> Option<ChatId> {
        let (room, _) = chat.as_str().split_once('/').filter(|_| self.settings.topics == Topics::Follow)?;
        room.parse().ok()
    }

    async fn send(&self, part: &Part) -> Result<String, SendError> {
        self.send_part(part).await
    }

    fn takes_files(&self) -> bool {
        true
    }

    async fn send_file(&self, part: &Part, file: &SpooledFile, path: &Path) -> Result<String, SendError> {
        self.upload_part(part, file, path).await
    }

    fn has_buttons(&self) -> bool {
        true
    }

    async fn answer_press(&self, chat: &ChatId, press: &Press, answer: &PressAnswer) {
        self.answer_query(chat, press, answer).await;
    }

    async fn claim(&self, part: &Part) -> Result<String, SendError> {
        self.send_placeholder(part).await
    }

    async fn fill(&self, part: &Part, placeholder: &str) -> Result<(), SendError> {
        self.fill_placeholder(part, placeholder).await
    }

    async fn typing(&self, chat: &ChatId) {
        let mut ask = address(chat);
        ask["action"] = json!("typing");
        if let Err(e) = self.api.call::<bool>("sendChatAction", &ask, api::QUICK).await {
            tracing::debug!(%chat, "typing was not shown: {e}");
        }
    }

    /// Telegram shows drafts in direct chats only.
    fn takes_drafts(&self, chat: &ChatId) -> bool {
        self.settings.drafts && room_of(chat).is_none()
    }

    async fn draft(&self, chat: &ChatId, turn: TurnId, text: &str) -> Result<(), NotShown> {
        self.show_draft(chat, turn, text).await
    }

    fn reacts(&self) -> bool {
        true
    }

    async fn react(&self, chat: &ChatId, message: &str, emoji: Option<&str>) -> Result<(), ReactError> {
        self.set_reaction(chat, message, emoji).await
    }

    fn taken_mark(&self, chat: &ChatId) -> Option<&'static str> {
        self.settings.taken_reaction.mark(room_of(chat).is_some())
    }
}
