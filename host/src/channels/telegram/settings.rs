//! The settings `[channels.telegram]`, and how they build the channel.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NAME, Telegram, room_of};
use crate::channels::{BuildError, Channel, ChannelSettings, Scheme, Surroundings, TakenReaction};
use crate::domain::outbound::Delivery;
use crate::domain::settings_macro::settings;
use crate::domain::{ChannelName, ChatId, ChatKind, SecretSource};
use crate::policy::platform_pace::{Limit, Limits};

/// The setting `topics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Topics {
    /// A new topic of an admitted room belongs to the room's group.
    #[default]
    Follow,
    /// A new topic asks to be admitted, as any chat does.
    Ask,
}

settings! {
    /// Telegram. It is on when a token is found.
    TelegramSettings {
        /// `false` keeps it off even where a token is found.
        enabled: bool = true;
        /// A file of mode 0600 that holds the token; `TELEGRAM_BOT_TOKEN` is used where this is not set.
        #[schemars(example = &"secrets/telegram")]
        token_file: Option<String> = None;
        /// The Bot API's address.
        base_url: String = "https://api.telegram.org".into();
        /// What the host does with a part that may or may not have arrived: "resend" (never lost, seldom doubled),
        /// "edit" (a placeholder comes first, then its text; text is never doubled) or "hold" (the host asks the chat).
        delivery: Delivery = Delivery::default();
        /// A new topic of an admitted room belongs to the room's group ("follow") or asks to be admitted ("ask").
        topics: Topics = Topics::default();
        /// In direct chats, people see the reply while the agent writes it.
        drafts: bool = true;
        /// The bot reacts with 👀 to a message that the agent has begun to work on, and takes it back with the answer:
        /// in rooms ("rooms"), everywhere ("all") or nowhere ("off").
        taken_reaction: TakenReaction = TakenReaction::default();
        // https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
        /// How many calls in one chat may follow each other at once; on average it is one a second.
        chat_burst: u32 = 3, in 1..=1_000_000;
        /// How many calls a minute one room gets, all of its topics together.
        room_per_minute: u32 = 20, in 1..=1_000_000;
        /// How many calls a second all chats get together.
        bot_per_second: u32 = 30, in 1..=1_000_000;
    }
}

impl TelegramSettings {
    /// Returns the rate limits of the Bot API calls.
    fn pace(&self) -> Limits {
        let limit = |calls, seconds| Some(Limit { calls, within: Duration::from_secs(seconds) });
        Limits {
            chat: limit(self.chat_burst, self.chat_burst.into()),
            room: limit(self.room_per_minute, 60),
            all: limit(self.bot_per_second, 1),
            ..Limits::default()
        }
    }
}

impl ChannelSettings for TelegramSettings {
    fn name(&self) -> ChannelName {
        NAME
    }

    fn kind_of(&self, chat: &ChatId) -> ChatKind {
        if room_of(chat).is_some() { ChatKind::Room } else { ChatKind::Direct }
    }

    fn secret(&self) -> Option<SecretSource<'_>> {
        let source = SecretSource { file: self.token_file.as_deref(), variable: "TELEGRAM_BOT_TOKEN" };
        self.enabled.then_some(source)
    }

    fn urls(&self) -> Vec<(&'static str, &str, Scheme)> {
        vec![("base_url", &self.base_url, Scheme::Http)]
    }

    fn delivery(&self) -> Delivery {
        self.delivery
    }

    fn build(&self, host: &Surroundings<'_>) -> Result<Option<Arc<dyn Channel>>, BuildError> {
        let Some(token) = host.secret else { return Ok(None) };
        match Telegram::new(token.clone(), self.pace(), self.clone()) {
            Ok(channel) => Ok(Some(Arc::new(channel))),
            Err(why) => Err(BuildError { code: "telegram.start", what: NAME.to_string(), why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telegram_is_called_no_faster_than_it_documents() {
        let pace = TelegramSettings::default().pace();
        let limit = |calls, seconds| Some(Limit { calls, within: Duration::from_secs(seconds) });
        assert_eq!((pace.chat, pace.room, pace.all), (limit(3, 3), limit(20, 60), limit(30, 1)));
    }

    #[test]
    fn a_negative_id_is_a_room() {
        let kind = |chat: &str| TelegramSettings::default().kind_of(&chat.parse().unwrap());
        assert_eq!(kind("telegram:-100123/42"), ChatKind::Room);
        assert_eq!(kind("telegram:5"), ChatKind::Direct);
    }
}
