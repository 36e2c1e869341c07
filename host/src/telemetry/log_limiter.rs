//! Counts lines of one kind, and says which of them may be written. The gateway limits with it, too, how often it
//! stores the counts of a box's refusals.

use std::time::{Duration, Instant};

/// This many lines of a kind are written within a [`WINDOW`]. The others are only counted.
const TOLD: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// The lines of one kind. Times are monotonic.
#[derive(Debug, Default)]
pub struct LogLimiter {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl LogLimiter {
    /// `Some(skipped)` if the caller may log one more line now. `skipped` lines were suppressed before it.
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

    /// How many lines were suppressed since the last logged one, for a line that says so.
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
