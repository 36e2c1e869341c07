//! Limits calls to a platform: per chat, per room and for the whole channel, each over a sliding window. `delivery`
//! asks it before each call.
//!
//! A window counts a call from its end and not from its beginning: the platform has received it by then, so it never
//! sees more calls in a window than allowed, however long a call takes. Times are monotonic.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Above this number of windows the host drops those of quiet chats.
const KEPT: usize = 1024;

/// At most `calls` within any period of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub calls: u32,
    pub within: Duration,
}

/// A channel's limits; an absent one means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub chat: Option<Limit>,
    /// Per room, all topics together.
    pub room: Option<Limit>,
    /// For all chats of the channel together.
    pub all: Option<Limit>,
    /// How long the channel rests after a call, at most. Each rest is random: at least half of it.
    pub pause: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub chat: String,
    /// Set if the platform limits rooms.
    pub room: Option<String>,
}

/// What the caller must wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaceWait {
    Until(Duration),
    /// Until a call in progress ends.
    AnEnd,
}

/// Sliding windows of a channel's calls.
#[derive(Debug, Default)]
pub struct Pacer {
    limits: Limits,
    chats: HashMap<String, Window>,
    rooms: HashMap<String, Window>,
    all: Window,
    rests_until: Duration,
}

#[derive(Debug, Default)]
struct Window {
    under_way: u32,
    ended: VecDeque<Duration>,
    /// The end of the platform's Retry-After.
    shut_until: Duration,
}

impl Window {
    fn wait(&self, limit: Option<Limit>, now: Duration) -> Option<PaceWait> {
        if self.shut_until > now {
            return Some(PaceWait::Until(self.shut_until));
        }
        let Limit { calls, within } = limit?;
        let calls = usize::try_from(calls.max(1)).unwrap_or(usize::MAX);
        let under_way = usize::try_from(self.under_way).unwrap_or(usize::MAX);
        let first = self.ended.partition_point(|end| *end + within <= now);
        let counted = self.ended.len() - first + under_way;
        if counted < calls {
            return None;
        }
        // Enough ended calls must leave the window; if there are too few, a call in progress must end first.
        match self.ended.get(first + counted - calls) {
            Some(end) => Some(PaceWait::Until(*end + within)),
            None => Some(PaceWait::AnEnd),
        }
    }

    fn end(&mut self, limit: Option<Limit>, now: Duration, called: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(limit) = limit else { return };
        if called {
            self.ended.push_back(now);
        }
        while self.ended.front().is_some_and(|end| *end + limit.within <= now) {
            self.ended.pop_front();
        }
    }

    fn idle(&self, limit: Option<Limit>, now: Duration) -> bool {
        let over = |end: &Duration| limit.is_none_or(|limit| *end + limit.within <= now);
        self.under_way == 0 && self.shut_until <= now && self.ended.back().is_none_or(over)
    }
}

impl Pacer {
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Starts a call, or returns what to wait for before the next try.
    ///
    /// # Errors
    /// What prevents the call. It was not counted.
    pub fn begin(&mut self, place: &Destination, now: Duration) -> Result<(), PaceWait> {
        let chat = self.chats.entry(place.chat.clone()).or_default();
        let room = place.room.as_ref().map(|room| self.rooms.entry(room.clone()).or_default());
        let mut waits = vec![chat.wait(self.limits.chat, now), self.all.wait(self.limits.all, now)];
        waits.extend(room.as_ref().map(|room| room.wait(self.limits.room, now)));
        waits.push((self.rests_until > now).then_some(PaceWait::Until(self.rests_until)));
        let until = waits.iter().filter_map(|wait| match wait {
            Some(PaceWait::Until(until)) => Some(*until),
            _ => None,
        });
        if let Some(until) = until.max() {
            return Err(PaceWait::Until(until));
        }
        if waits.contains(&Some(PaceWait::AnEnd)) {
            return Err(PaceWait::AnEnd);
        }
        chat.under_way += 1;
        self.all.under_way += 1;
        if let Some(room) = room {
            room.under_way += 1;
        }
        Ok(())
    }

    /// Whether a call could begin now.
    pub fn is_free(&self, place: &Destination, now: Duration) -> bool {
        let free = |window: Option<&Window>, limit| window.is_none_or(|w| w.wait(limit, now).is_none());
        free(self.chats.get(&place.chat), self.limits.chat)
            && free(place.room.as_ref().and_then(|room| self.rooms.get(room)), self.limits.room)
            && free(Some(&self.all), self.limits.all)
            && self.rests_until <= now
    }

    /// Ends a call. `called` is false if the call was not made.
    pub fn end(&mut self, place: &Destination, now: Duration, called: bool) {
        let Limits { chat, room, all, .. } = self.limits;
        if let Some(window) = self.chats.get_mut(&place.chat) {
            window.end(chat, now, called);
        }
        if let Some(window) = place.room.as_ref().and_then(|name| self.rooms.get_mut(name)) {
            window.end(room, now, called);
        }
        self.all.end(all, now, called);
        if self.chats.len() > KEPT {
            self.chats.retain(|_, window| !window.idle(chat, now));
        }
        if self.rooms.len() > KEPT {
            self.rooms.retain(|_, window| !window.idle(room, now));
        }
    }

    /// Begins the rest after a call. `random` lies in `0.0..1.0`.
    pub fn rest(&mut self, now: Duration, random: f64) {
        self.rests_until = now + self.limits.pause.mul_f64((1.0 + random) / 2.0);
    }

    /// Notes the platform's request to wait. The platform does not say for which chat. So it applies to the room (or
    /// the direct chat), and to the whole channel if another room or chat must wait already.
    pub fn shut(&mut self, place: &Destination, now: Duration, wait: Duration) {
        let until = now + wait;
        let here = match &place.room {
            Some(room) => self.rooms.entry(room.clone()).or_default(),
            None => self.chats.entry(place.chat.clone()).or_default(),
        };
        here.shut_until = here.shut_until.max(until);
        let shut =
            |windows: &HashMap<String, Window>| windows.values().filter(|w| w.shut_until > now).count();
        if shut(&self.chats) + shut(&self.rooms) > 1 {
            self.all.shut_until = self.all.shut_until.max(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn place(chat: &str, room: Option<&str>) -> Destination {
        Destination { chat: chat.into(), room: room.map(str::to_owned) }
    }

    fn limit(calls: u32, seconds: u64) -> Option<Limit> {
        Some(Limit { calls, within: S(seconds) })
    }

    /// Makes calls as fast as the pacer allows, each of duration `took`. Returns the times of their ends.
    fn calls(pacer: &mut Pacer, place: &Destination, count: usize, took: Duration) -> Vec<Duration> {
        let (mut now, mut ends) = (Duration::ZERO, Vec::new());
        while ends.len() < count {
            match pacer.begin(place, now) {
                Ok(()) => {
                    now += took;
                    pacer.end(place, now, true);
                    ends.push(now);
                }
                Err(PaceWait::Until(until)) => {
                    assert!(until > now, "a wait that is over is a busy loop");
                    now = until;
                }
                Err(PaceWait::AnEnd) => panic!("none is under way"),
            }
        }
        ends
    }

    #[test]
    fn no_window_ever_holds_more_than_is_allowed() {
        let limits =
            Limits { chat: limit(3, 3), room: limit(20, 60), all: limit(30, 1), ..Limits::default() };
        for took in [Duration::ZERO, Duration::from_millis(400), S(2)] {
            let ends = calls(&mut Pacer::new(limits), &place("r/1", Some("r")), 70, took);
            for (calls, within) in [(3, S(3)), (20, S(60))] {
                // The platform sees a call at some time between its beginning and its end.
                for window in ends.windows(calls + 1) {
                    assert!(window[calls] - took >= window[0] + within, "{took:?} {window:?}");
                }
            }
        }
    }

    #[test]
    fn a_short_burst_goes_at_once() {
        let mut pacer = Pacer::new(Limits { chat: limit(3, 3), ..Limits::default() });
        let ends = calls(&mut pacer, &place("a", None), 4, Duration::ZERO);
        assert_eq!(ends, [S(0), S(0), S(0), S(3)]);
    }

    #[test]
    fn a_channel_that_rests_calls_at_uneven_times() {
        let mut pacer = Pacer::new(Limits { pause: S(4), ..Limits::default() });
        let (one, other) = (place("a", None), place("b", None));
        let (mut now, mut gaps) = (S(10), Vec::new());
        for random in [0.0, 0.5, 0.9] {
            assert_eq!(pacer.begin(&one, now), Ok(()));
            pacer.end(&one, now, true);
            pacer.rest(now, random);
            assert!(!pacer.is_free(&other, now), "a person writes in one chat at a time");
            let Err(PaceWait::Until(until)) = pacer.begin(&other, now) else { panic!("it rests") };
            gaps.push(until - now);
            now = until;
        }
        assert_eq!(gaps, [S(2), S(3), Duration::from_millis(3_800)]);
        assert!(pacer.is_free(&other, now));
    }

    #[test]
    fn topics_share_their_room_and_chats_the_channel() {
        let mut pacer =
            Pacer::new(Limits { chat: None, room: limit(1, 60), all: limit(2, 5), ..Limits::default() });
        let (one, two, other) = (place("r/1", Some("r")), place("r/2", Some("r")), place("direct", None));
        assert_eq!(pacer.begin(&one, S(0)), Ok(()));
        assert_eq!(
            pacer.begin(&two, S(0)),
            Err(PaceWait::AnEnd),
            "the call of the other topic may still arrive"
        );
        assert!(!pacer.is_free(&two, S(0)) && pacer.is_free(&other, S(0)));
        assert_eq!(pacer.begin(&other, S(0)), Ok(()));
        assert!(!pacer.is_free(&place("third", None), S(0)), "the channel has no room");
        pacer.end(&one, S(1), true);
        assert_eq!(pacer.begin(&two, S(1)), Err(PaceWait::Until(S(61))));
        assert_eq!(pacer.begin(&other, S(1)), Err(PaceWait::Until(S(6))));
        pacer.end(&other, S(2), false);
        assert_eq!(pacer.begin(&other, S(2)), Ok(()), "a call that was not made counts nowhere");
    }

    #[test]
    fn a_room_that_asked_for_patience_is_shut_and_two_of_them_shut_the_channel() {
        let mut pacer = Pacer::new(Limits::default());
        let (one, two, other) = (place("r/1", Some("r")), place("r/2", Some("r")), place("direct", None));
        pacer.shut(&one, S(10), S(7));
        assert_eq!(pacer.begin(&two, S(16)), Err(PaceWait::Until(S(17))));
        assert_eq!(pacer.begin(&other, S(16)), Ok(()));
        pacer.shut(&other, S(16), S(30));
        assert_eq!(pacer.begin(&two, S(17)), Err(PaceWait::Until(S(46))));
        assert_eq!(pacer.begin(&two, S(46)), Ok(()));
    }

    #[test]
    fn quiet_chats_are_let_go() {
        let mut pacer = Pacer::new(Limits { chat: limit(3, 3), ..Limits::default() });
        for n in 0..5_000u64 {
            let chat = place(&n.to_string(), None);
            pacer.begin(&chat, S(n)).unwrap();
            pacer.end(&chat, S(n), true);
        }
        assert!(pacer.chats.len() <= KEPT + 1, "{}", pacer.chats.len());
    }
}
