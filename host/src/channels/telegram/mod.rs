//! The Telegram channel. It reads the Bot API (<https://core.telegram.org/bots/api>) by long poll.
//!
//! The position is the next `offset`. A call with it acknowledges every earlier update, so only the call after a
//! batch's transaction acknowledges the batch. The channel parses each update separately, so that it can skip an update
//! of an unknown kind and the queue does not get stuck.

mod api;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod markdown;
mod rendered_part;
mod send;
mod settings;
mod split;
mod update;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::OnceCell;

use super::{Account, Batch, Channel, ChannelError, FetchError, SendError};
use crate::domain::message::Command;
use crate::domain::outbound::{Part, SpooledFile};
use crate::domain::{ChannelName, ChatId, Secret};
use crate::policy::backoff::doubling;
use crate::policy::delivery::Abilities;
use crate::policy::platform_pace::Limits;
use crate::text;
use api::{Api, ApiError};
pub use settings::TelegramSettings;
use update::Me;

const NAME: ChannelName = ChannelName::new("telegram");
/// How long Telegram holds an empty poll, in seconds.
const POLL_SECONDS: u64 = 50;
/// How long the channel waits for another poller of the same bot to go away.
const CONFLICT_WAIT: Duration = Duration::from_secs(30);

pub struct Telegram {
    api: Api,
    me: OnceCell<Me>,
    failures: AtomicU32,
    pace: Limits,
}

impl Telegram {
    /// Makes a client for one bot with the rate limits `pace`. It makes no call yet.
    ///
    /// # Errors
    /// The HTTPS client cannot be built, because this machine has no CA certificates.
    pub fn new(token: Secret, base_url: String, pace: Limits) -> Result<Self, String> {
        let api = Api::new(token, base_url)?;
        Ok(Self { api, me: OnceCell::new(), failures: AtomicU32::new(0), pace })
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

    /// Gives Telegram the commands that it shows people while they type. The bot works without the list.
    async fn list_commands(&self) {
        let describe =
            |(command, what): &(Command, &str)| json!({ "command": command.word(), "description": what });
        let commands: Vec<_> = text::COMMAND_LIST.iter().map(describe).collect();
        let listed =
            self.api.call::<bool>("setMyCommands", &json!({ "commands": commands }), api::QUICK).await;
        if let Err(e) = listed {
            tracing::warn!(code = "telegram.commands", "Telegram did not take the list of commands: {e}");
        }
    }

    async fn poll(&self, position: Option<&str>) -> Result<Batch, ApiError> {
        let me = self.me().await?.clone();
        // After a failure the host wants to know soon whether the trouble is over.
        let timeout = if self.failures.load(Ordering::Relaxed) > 0 { 0 } else { POLL_SECONDS };
        let offset: i64 = position.and_then(|p| p.parse().ok()).unwrap_or(0);
        let ask = json!({
            "offset": offset,
            "timeout": timeout,
            "allowed_updates": ["message", "edited_message"],
        });
        let within = Duration::from_secs(POLL_SECONDS + 20);
        let updates: Vec<Box<serde_json::value::RawValue>> =
            self.api.call("getUpdates", &ask, within).await?;
        let mut inbound = Vec::new();
        let mut newest = None;
        for raw in updates {
            let read = update::read(raw.get(), &me);
            newest = newest.max(read.update_id);
            match read.message {
                Ok(Some(message)) => inbound.push(message),
                Ok(None) => {}
                Err(e) => tracing::warn!(code = "telegram.update", "an update was passed over: {e}"),
            }
        }
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
        let position = (next != offset).then(|| next.to_string());
        Ok(Batch { inbound, position, committed: None })
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

    fn split(&self, markdown: &str) -> Vec<String> {
        split::parts(markdown)
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

    async fn send(&self, part: &Part) -> Result<String, SendError> {
        self.send_part(part).await
    }

    fn takes_files(&self) -> bool {
        true
    }

    async fn send_file(&self, part: &Part, file: &SpooledFile, path: &Path) -> Result<String, SendError> {
        self.upload_part(part, file, path).await
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
}
