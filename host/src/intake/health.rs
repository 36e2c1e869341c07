//! How a channel fares: the state that `status` and `doctor` show, and what the owner hears on another channel.

use std::time::Duration;

use tokio::time::Instant;

use crate::channels::{Account, ChannelError};
use crate::domain::{ChannelName, GroupName};
use crate::policy::channel_trouble;
use crate::services::Services;
use crate::store::ChannelState;
use crate::text;

pub(super) struct Health<'a> {
    services: &'a Services,
    channel: ChannelName,
    account: String,
    trouble: Option<Trouble>,
    /// Whether the store has the state.
    known: bool,
}

struct Trouble {
    code: &'static str,
    begun: Instant,
    /// The wall time of the begin, which distinguishes the notices of two troubles.
    since: i64,
    tries: u32,
    told: bool,
}

impl<'a> Health<'a> {
    pub(super) fn of(services: &'a Services, channel: ChannelName) -> Self {
        Self { services, channel, account: String::new(), trouble: None, known: false }
    }

    pub(super) async fn starting(&self) {
        self.store(Some(ChannelState::STARTING), "the platform has not answered yet".to_owned(), None).await;
    }

    /// Nothing can be read until a person links an account. That is no trouble: the channel may stay unused.
    pub(super) async fn not_linked(&mut self, why: String) {
        tracing::info!(channel = %self.channel, "{why}");
        (self.known, self.trouble) = (false, None);
        self.account.clear();
        self.store(Some(ChannelState::OFF), why, None).await;
    }

    /// The platform knows the account. If there was trouble before, only a read proves that it is over.
    pub(super) async fn answered(&mut self, account: &Account) {
        self.account.clone_from(&account.name);
        if !self.known && self.trouble.is_none() {
            self.known = true;
            self.store(None, String::new(), None).await;
        }
    }

    pub(super) async fn reads(&mut self) {
        let Some(trouble) = self.trouble.take() else { return };
        tracing::info!(channel = %self.channel, "the channel reads messages again");
        self.store(None, String::new(), None).await;
        if trouble.told {
            self.tell(
                &format!("again:{}", trouble.since),
                text::channel_again(self.channel.as_str(), &self.account),
            )
            .await;
        }
    }

    /// Notes a failed read, and returns how long the channel waits.
    pub(super) async fn failed(&mut self, error: ChannelError) -> Duration {
        let tries_again = !matches!(error, ChannelError::NeedsPerson { .. });
        let (why, code, asked) = match error {
            ChannelError::Later { why, code, wait } => (why, code, Some(wait)),
            ChannelError::Broken { why, code } | ChannelError::NeedsPerson { why, code } => (why, code, None),
        };
        let now = self.services.clock.wall();
        let mut trouble = self.trouble.take().unwrap_or_else(|| Trouble {
            code,
            begun: Instant::now(),
            since: now.0,
            tries: 0,
            told: false,
        });
        trouble.tries = if trouble.code == code { trouble.tries.saturating_add(1) } else { 1 };
        trouble.code = code;
        let wait = asked.unwrap_or_else(|| channel_trouble::wait_for_person(trouble.tries));
        match tries_again {
            true => tracing::warn!(channel = %self.channel, code, "{why}; again in {}", text::duration(wait)),
            false => tracing::warn!(channel = %self.channel, code, "{why}"),
        }
        if !trouble.told && channel_trouble::is_told(asked.is_none(), trouble.begun.elapsed()) {
            trouble.told = true;
            let text = text::channel_trouble(self.channel.as_str(), &why, tries_again);
            self.tell(&trouble.since.to_string(), text).await;
        }
        self.trouble = Some(trouble);
        self.store(Some(code), why, Some(wait).filter(|_| tries_again)).await;
        wait
    }

    /// Tells what a channel that works wants its operators to know.
    pub(super) async fn note(&self, note: &str) {
        tracing::warn!(channel = %self.channel, "{note}");
        let now = self.services.clock.wall().0;
        self.tell(&format!("note:{now}"), text::channel_note(note)).await;
    }

    async fn store(&self, trouble: Option<&str>, why: String, asks_in: Option<Duration>) {
        let now = self.services.clock.wall();
        let state = ChannelState {
            channel: self.channel.to_string(),
            account: self.account.clone(),
            trouble: trouble.map(str::to_owned),
            why,
            since: now,
            asks_at: asks_in.map(|wait| now.plus(wait)),
        };
        if let Err(e) = self.services.store.set_channel_state(state).await {
            tracing::warn!(channel = %self.channel, code = e.code(), "the channel's state is not stored: {e}");
        }
    }

    /// Tells the chats that `main` has on other channels.
    async fn tell(&self, word: &str, text: String) {
        let chats = self.services.store.chats().await.unwrap_or_default();
        let others = chats.into_iter().filter(|(chat, group, _)| {
            *group == GroupName::main()
                && chat.channel() != self.channel.as_str()
                && self.services.channels.of(chat).is_some()
        });
        for (chat, ..) in others {
            self.services.notice(&chat, &format!("channel:{}:{word}", self.channel), text.clone()).await;
        }
    }
}
