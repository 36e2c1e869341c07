//! What can go wrong between a bot and Telegram, and what Telegram sees of the bot's pace.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::State;

/// What happens to one call instead of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It is done, and the connection is cut without an answer.
    CutAfter,
    /// It is not done, and the connection is cut without an answer.
    CutBefore,
    /// It is done, and a proxy answers 502.
    BadGatewayAfter,
    /// It is not done, and a proxy answers 502.
    BadGatewayBefore,
    /// It is done, and no answer comes for as long as the bot lives.
    HangsAfter,
    /// Somebody deletes the message that it would edit, just before.
    DeletedBefore,
    /// It is refused with a 429 and a second's patience.
    Busy,
    /// It is refused.
    Refused(u16, String),
}

impl Trouble {
    /// Whether the call is obeyed.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::CutAfter | Self::BadGatewayAfter | Self::HangsAfter)
    }
}

/// A trouble that waits for its call.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) method: &'static str,
    pub(super) words: String,
    pub(super) trouble: Trouble,
}

/// What Telegram allows: calls, and within which time.
const CHAT: (usize, Duration) = (3, Duration::from_secs(3));
const ROOM: (usize, Duration) = (20, Duration::from_secs(60));
const BOT: (usize, Duration) = (30, Duration::from_secs(1));

/// Telegram's own watch over the bot.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) holds_to_pace: bool,
    calls: Vec<(Instant, i64, Option<i64>)>,
    /// Until when a chat must be left alone, after a 429.
    shut: HashMap<i64, Instant>,
}

impl State {
    /// Takes the trouble that was planned for this call, else what chance has for it.
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

    /// Somebody deletes a message of the bot's.
    pub(super) fn delete(&mut self, chat: i64, message_id: i64) {
        let message = self.sent.iter_mut().find(|m| (m.chat, m.message_id) == (chat, message_id));
        if let Some(message) = message {
            message.deleted = true;
        }
    }

    /// A 429 was answered here.
    pub(super) fn asks_for_patience(&mut self, chat: i64, seconds: u64) {
        self.watch.shut.insert(chat, Instant::now() + Duration::from_secs(seconds));
    }

    /// A message or an edit has come.
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
