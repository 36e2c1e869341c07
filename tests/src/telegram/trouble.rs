//! Failures between a bot and Telegram, and Telegram's rate limits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::State;

/// A failure that replaces the answer of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The call is performed, and the connection is cut without an answer.
    CutAfter,
    /// The call is not performed, and the connection is cut without an answer.
    CutBefore,
    /// The call is performed, and a proxy answers 502.
    BadGatewayAfter,
    /// The call is not performed, and a proxy answers 502.
    BadGatewayBefore,
    /// The call is performed, and no answer comes while the bot lives.
    HangsAfter,
    /// Somebody deletes the message just before the call edits it.
    DeletedBefore,
    /// Telegram refuses the call with 429 and asks the bot to wait a second.
    Busy,
    /// Telegram refuses the call.
    Refused(u16, String),
}

impl Trouble {
    /// Returns whether the call is performed.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::CutAfter | Self::BadGatewayAfter | Self::HangsAfter)
    }
}

/// A failure that waits for its call.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) method: &'static str,
    pub(super) words: String,
    pub(super) trouble: Trouble,
}

/// Telegram's rate limits: a number of calls, and the time in which they may happen.
const CHAT: (usize, Duration) = (3, Duration::from_secs(3));
const ROOM: (usize, Duration) = (20, Duration::from_secs(60));
const BOT: (usize, Duration) = (30, Duration::from_secs(1));

/// Measures the rate of the bot's calls.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) holds_to_pace: bool,
    calls: Vec<(Instant, i64, Option<i64>)>,
    /// By chat, the end of the wait after a 429.
    shut: HashMap<i64, Instant>,
}

impl State {
    /// Returns the failure that was planned for this call, or else a random one.
    pub(super) fn trouble(&mut self, method: &str, text: &str) -> Option<Trouble> {
        if let Some(at) = self.planned.iter().position(|p| p.method == method && text.contains(&p.words)) {
            return Some(self.planned.remove(at).trouble);
        }
        let troubles =
            self.troubles.as_mut().filter(|_| ["sendMessage", "editMessageText"].contains(&method))?;
        let roll = troubles.chance.f64();
        let (lost, busy) = (troubles.lost, troubles.lost + troubles.busy);
        match roll {
            _ if roll < lost => Some(Trouble::CutAfter),
            _ if roll < busy => Some(Trouble::Busy),
            _ if roll < busy + troubles.down => Some(Trouble::BadGatewayBefore),
            _ => None,
        }
    }

    /// Deletes a message of the bot, as a person would.
    pub(super) fn delete(&mut self, chat: i64, message_id: i64) {
        let message = self.sent.iter_mut().find(|m| (m.chat, m.message_id) == (chat, message_id));
        if let Some(message) = message {
            message.deleted = true;
        }
    }

    /// Records that a 429 asked the bot to wait in this chat.
    pub(super) fn asks_for_patience(&mut self, chat: i64, seconds: u64) {
        self.watch.shut.insert(chat, Instant::now() + Duration::from_secs(seconds));
    }

    /// Records a message or an edit, and checks the rate limits.
    pub(super) fn sees_call(&mut self, chat: i64, topic: Option<i64>) {
        let now = Instant::now();
        if self.watch.shut.get(&chat).is_some_and(|until| *until > now) {
            self.violations.push(format!("chat {chat} was to be left alone"));
        }
        self.watch.calls.push((now, chat, topic));
        if !self.watch.holds_to_pace {
            return;
        }
        let watch = &self.watch;
        let seen = |(most, within): (usize, Duration), here: &dyn Fn(i64, Option<i64>) -> bool| {
            let recent =
                watch.calls.iter().filter(|(at, c, t)| now.duration_since(*at) < within && here(*c, *t));
            recent.count() > most
        };
        let mut broken = Vec::new();
        if seen(CHAT, &|c, t| (c, t) == (chat, topic)) {
            broken.push(format!("chat {chat}/{topic:?} is called too often"));
        }
        if chat < 0 && seen(ROOM, &|c, _| c == chat) {
            broken.push(format!("room {chat} is called too often"));
        }
        if seen(BOT, &|_, _| true) {
            broken.push("the bot calls too often".to_owned());
        }
        self.violations.extend(broken);
    }
}
