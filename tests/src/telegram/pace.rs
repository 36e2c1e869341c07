//! Telegram's rate limits: records the bot's calls and notes each one that comes too soon.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::State;

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
