//! How much of what a box has refused to it is told to the operator: a box must not write the operator's log.

use std::time::{Duration, Instant};

/// So many refusals are told one by one within a [`WINDOW`]; the others are counted.
const TOLD: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// How much of a run's refusals was told lately. Times are monotonic.
#[derive(Debug, Default)]
pub struct LogLimiter {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl LogLimiter {
    /// Whether one more may be told now, and how many were not told before it.
    pub fn turn(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now - since >= WINDOW) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told == TOLD {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }

    /// How many were not told after the last one that was: for the line at the end.
    pub fn rest(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_a_box_does_not_write_the_operators_log() {
        let (mut telling, start) = (LogLimiter::default(), Instant::now());
        let told = (0..1_000).filter(|_| telling.turn(start).is_some()).count();
        assert_eq!(told, 20);
        assert_eq!(telling.turn(start + WINDOW), Some(980), "and says how much it kept to itself");
        assert_eq!(telling.turn(start + WINDOW), Some(0));
    }

    #[test]
    fn what_was_kept_is_said_once_at_the_end() {
        let (mut telling, start) = (LogLimiter::default(), Instant::now());
        assert_eq!((0..25).filter(|_| telling.turn(start).is_some()).count(), 20);
        assert_eq!((telling.rest(), telling.rest()), (5, 0));
    }
}
