//! Delays the gateway's answers to a box that sends too many requests. The gateway calls it for every answer that is
//! not a model's.
//!
//! Without a delay a box could use up the host's processor: one connection that repeats a refused request gets tens of
//! thousands of refusals a second. So each answer costs part of a budget (a leaky bucket) that refills with time. A
//! program with a few refused requests notices nothing.

use std::time::{Duration, Instant};

/// The cost of a refusal. Ten refusals a second never cause a delay.
pub const REFUSAL: Duration = Duration::from_millis(100);

/// The cost of a regular answer. A thousand answers a second never cause a delay.
pub const ANSWER: Duration = Duration::from_millis(1);

/// The level up to which the bucket causes no delay: a hundred refusals at once.
const FREE: Duration = Duration::from_secs(10);

/// The longest delay, and the level of the bucket that causes it.
const WAIT_MAX: Duration = Duration::from_secs(1);
const SPENT_MAX: Duration = Duration::from_secs(20);

/// The leaky bucket of one run, stored as the time at which it will be empty.
#[derive(Debug, Default)]
pub struct AnswerThrottle {
    empty_at: Option<Instant>,
}

impl AnswerThrottle {
    /// Adds `cost` and returns the delay of the answer. `now` is monotonic.
    pub fn spend(&mut self, now: Instant, cost: Duration) -> Duration {
        let spent = self.empty_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let spent = (spent + cost).min(SPENT_MAX);
        self.empty_at = Some(now + spent);
        let beyond = spent.saturating_sub(FREE);
        WAIT_MAX.mul_f64(beyond.div_duration_f64(SPENT_MAX.saturating_sub(FREE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_refused_a_few_times_does_not_wait() {
        let (mut patience, now) = (AnswerThrottle::default(), Instant::now());
        assert!((0..100).all(|_| patience.spend(now, REFUSAL).is_zero()));
        let later = |n: u64| now + Duration::from_secs(10) + Duration::from_millis(100 * n);
        assert!((0..1_000).all(|n| patience.spend(later(n), REFUSAL).is_zero()), "ten a second");
    }

    #[test]
    fn who_goes_on_waits_longer_and_longer_but_not_for_ever() {
        let (mut patience, now) = (AnswerThrottle::default(), Instant::now());
        patience.spend(now, 100 * REFUSAL);
        let waits: Vec<Duration> = (0..200).map(|_| patience.spend(now, REFUSAL)).collect();
        assert!(waits[0] > Duration::ZERO && waits.is_sorted());
        assert_eq!((waits[49], waits[99], waits[199]), (WAIT_MAX / 2, WAIT_MAX, WAIT_MAX));
        assert_eq!(patience.spend(now + SPENT_MAX, REFUSAL), Duration::ZERO, "and it is forgotten");
    }

    #[test]
    fn what_is_served_is_a_hundred_times_cheaper() {
        let (mut patience, now) = (AnswerThrottle::default(), Instant::now());
        assert!((0..10_000).all(|_| patience.spend(now, ANSWER).is_zero()));
        assert!(patience.spend(now, ANSWER) > Duration::ZERO);
    }
}
