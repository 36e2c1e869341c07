//! The one clock. `domain` and the pure rooms never read it: they are given a [`Moment`].
//!
//! Wall time is not asked of the system each time. It is the system's time at the start plus what has passed since,
//! sleep included: somebody who sets the machine's clock, or a time server that corrects it, does not make a waiting
//! reply a year old between two lines. How the system's clock is followed all the same is [`Follower`]'s.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::domain::moment::{Moment, WallMs};

/// Wall time less the time since the machine was booted, in milliseconds. One for the process, because there is one
/// truth.
static OFFSET: AtomicI64 = AtomicI64::new(UNSET);
const UNSET: i64 = i64::MIN;

/// Reads wall and monotonic time together. Cheap to copy; the monotonic zero is the process's start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        // The first clock of the process decides; the others find it decided.
        let _ = OFFSET.compare_exchange(UNSET, system() - since_boot(), Ordering::AcqRel, Ordering::Acquire);
        Self { zero: Instant::now() }
    }

    /// Now, on both clocks.
    pub fn now(&self) -> Moment {
        Moment { wall: self.wall(), mono: self.zero.elapsed() }
    }

    /// When it was made, by what is known of the time now.
    pub fn began(&self) -> WallMs {
        let since = i64::try_from(self.zero.elapsed().as_millis()).unwrap_or(i64::MAX);
        WallMs(self.wall().0.saturating_sub(since))
    }

    /// Now, for rows and people.
    pub fn wall(&self) -> WallMs {
        WallMs(since_boot().saturating_add(OFFSET.load(Ordering::Acquire)).max(0))
    }

    /// Compares with the system's clock. Small differences are followed at once.
    pub fn check(&self, follower: &mut Follower) -> Option<Stepped> {
        let verdict = follower.compare(self.wall().0, system());
        if let Verdict::Follow(by) = verdict {
            self.adopt(by);
        }
        match verdict {
            Verdict::Stepped(stepped) => Some(stepped),
            Verdict::Follow(_) | Verdict::Same => None,
        }
    }

    /// Goes over to the system's time, `by` milliseconds away.
    pub fn adopt(&self, by: i64) {
        OFFSET.fetch_add(by, Ordering::AcqRel);
    }
}

/// Milliseconds since 1970 by the system. A clock before 1970 reads as 1970.
fn system() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since the machine was booted; a machine that sleeps goes on counting.
fn since_boot() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

/// What a time server corrects bit by bit, and nobody notices.
const SMALL: i64 = 2_000;

/// How the system's clock is followed.
///
/// Up to two seconds: at once. More was done by somebody, and it is not known who was wrong, the clock before (a
/// machine without a battery starts in 1970) or the clock now (a slip of the operator's, mended in a minute). So it
/// is told at once, and followed when the next look finds the same difference. The one who follows then moves the
/// times of what waits along, so that nothing has grown old by it.
#[derive(Debug, Default)]
pub struct Follower {
    seen: Option<i64>,
}

/// The system's clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stepped {
    /// By how many milliseconds it is ahead of ours; less than zero: behind.
    pub by: i64,
    /// It has stood so for a look: it is to be followed.
    pub stands: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Follow(i64),
    Stepped(Stepped),
}

impl Follower {
    fn compare(&mut self, ours: i64, system: i64) -> Verdict {
        let by = system.saturating_sub(ours);
        let before = self.seen.take();
        if by == 0 {
            return Verdict::Same;
        }
        if by.abs() <= SMALL {
            return Verdict::Follow(by);
        }
        let stands = before.is_some_and(|before| before.abs_diff(by) <= SMALL.unsigned_abs());
        if !stands {
            self.seen = Some(by);
        }
        Verdict::Stepped(Stepped { by, stands })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;
    const NOW: i64 = 1_795_000_000_000;

    #[test]
    fn a_clock_that_drifts_is_followed_at_once() {
        let mut follower = Follower::default();
        assert_eq!(follower.compare(NOW, NOW), Verdict::Same);
        assert_eq!(follower.compare(NOW, NOW + 1_500), Verdict::Follow(1_500));
        assert_eq!(follower.compare(NOW, NOW - 2_000), Verdict::Follow(-2_000));
    }

    #[test]
    fn a_clock_that_is_set_is_followed_when_it_stands() {
        for by in [HOUR, -HOUR, YEAR, -YEAR] {
            let mut follower = Follower::default();
            let told = follower.compare(NOW, NOW + by);
            assert_eq!(told, Verdict::Stepped(Stepped { by, stands: false }));
            // A minute on, both went on, and the new one is being corrected by a little.
            let told = follower.compare(NOW + 60_000, NOW + 60_000 + by + 900);
            assert_eq!(told, Verdict::Stepped(Stepped { by: by + 900, stands: true }));
        }
    }

    #[test]
    fn a_slip_that_is_mended_was_never_followed() {
        let mut follower = Follower::default();
        follower.compare(NOW, NOW + YEAR);
        assert_eq!(follower.compare(NOW + 60_000, NOW + 60_000), Verdict::Same);
        // And one that is replaced by another has to stand anew.
        follower.compare(NOW, NOW + YEAR);
        let told = follower.compare(NOW, NOW + HOUR);
        assert_eq!(told, Verdict::Stepped(Stepped { by: HOUR, stands: false }));
    }

    #[test]
    fn wall_time_goes_on_by_itself() {
        let clock = Clock::new();
        let (first, second) = (clock.wall(), clock.wall());
        assert!(second >= first && (first.0 - system()).abs() < 60_000);
    }
}
