//! Decides when a worker that panicked starts again, and when the host ends instead.
//!
//! `workers` calls it after each panic. A single panic costs its worker a short wait. Repeated panics mean that the
//! state in memory is wrong. Then the host ends, because a new host starts from the database.

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::doubling;

/// This many panics within [`WINDOW`] end the host.
const LIMIT: usize = 5;
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// The wait after the first panic within [`WINDOW`]. It doubles with each one that follows.
const FIRST_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterPanic {
    /// The worker starts again after this wait.
    Restart(Duration),
    /// The host ends, and the next one recovers.
    EndHost,
}

/// The panics of the last ten minutes, of all workers together.
#[derive(Debug, Default)]
pub struct RecentPanics(VecDeque<Duration>);

impl RecentPanics {
    /// Notes a panic at `now` (monotonic) and decides what follows it.
    pub fn note(&mut self, now: Duration) -> AfterPanic {
        while self.0.front().is_some_and(|at| now.saturating_sub(*at) >= WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        if self.0.len() >= LIMIT {
            return AfterPanic::EndHost;
        }
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        AfterPanic::Restart(doubling(FIRST_WAIT, count, WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_and_the_fifth_panic_in_ten_minutes_ends_the_host() {
        let mut recent = RecentPanics::default();
        let decisions: Vec<AfterPanic> = [0, 1, 3, 7, 599].map(|second| recent.note(at(second))).into();
        let waits = [1, 2, 4, 8].map(|seconds| AfterPanic::Restart(at(seconds)));
        assert_eq!(decisions[..4], waits);
        assert_eq!(decisions[4], AfterPanic::EndHost);
    }

    #[test]
    fn panics_that_are_rare_never_end_the_host() {
        let mut recent = RecentPanics::default();
        assert!((0..100).all(|n| recent.note(at(n * 150)) != AfterPanic::EndHost));
        let mut recent = RecentPanics::default();
        for second in [0, 1, 2, 3] {
            recent.note(at(second));
        }
        assert_eq!(recent.note(at(600)), AfterPanic::Restart(at(8)), "the first one is ten minutes old");
        assert_eq!(recent.note(at(5_000)), AfterPanic::Restart(at(1)), "all of them are");
    }
}
