//! The host's clock. Everything that needs the time asks it, or gets a [`Moment`] from a caller, as `domain` and the
//! pure rooms do.
//!
//! The clock reads the system's wall time once, at the start, and adds the time that has passed since, sleep included.
//! So a waiting reply does not become a year old when somebody sets the machine's clock. [`Follower`] decides when the
//! host adopts the system's new time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::domain::moment::{Moment, WallMs};

/// Wall time less the time since boot, in milliseconds. All clocks of the process share it.
static OFFSET: AtomicI64 = AtomicI64::new(UNSET);
const UNSET: i64 = i64::MIN;

/// Reads wall and monotonic time together. Monotonic time counts from when the clock was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        // The first clock of the process sets the offset; the others use it.
        let _ = OFFSET.compare_exchange(UNSET, system() - since_boot(), Ordering::AcqRel, Ordering::Acquire);
        Self { zero: Instant::now() }
    }

    pub fn now(&self) -> Moment {
        Moment { wall: self.wall(), mono: self.zero.elapsed() }
    }

    /// The time for rows and people.
    pub fn wall(&self) -> WallMs {
        WallMs(own().saturating_add(driven::ahead()).max(0))
    }

    /// Compares this clock with the system's, and adopts a small difference. A large one is returned.
    pub fn check(&self, follower: &mut Follower) -> Option<Stepped> {
        let difference = follower.compare(own(), system());
        if let ClockStep::Small(by) = difference {
            self.adopt(by);
        }
        match difference {
            ClockStep::Stepped(stepped) => Some(stepped),
            ClockStep::Small(_) | ClockStep::None => None,
        }
    }

    /// Adopts the system's time, which is `by` milliseconds ahead.
    pub fn adopt(&self, by: i64) {
        OFFSET.fetch_add(by, Ordering::AcqRel);
    }
}

/// The wall time that the host has measured itself.
fn own() -> i64 {
    since_boot().saturating_add(OFFSET.load(Ordering::Acquire))
}

/// In the build for crash tests a test may set the clock ahead, while hosts come and go.
#[cfg(feature = "failpoints")]
pub mod driven {
    use ::failpoint::CLOCK;

    pub(super) fn ahead() -> i64 {
        let text = std::env::var_os(CLOCK).and_then(|path| std::fs::read_to_string(path).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Whether a test drives the clock. No timer notices it then, so who waits for a time looks again soon.
    pub fn is_driven() -> bool {
        std::env::var_os(CLOCK).is_some()
    }
}

#[cfg(not(feature = "failpoints"))]
mod driven {
    pub(super) fn ahead() -> i64 {
        0
    }
}

/// Milliseconds since 1970 by the system. A clock before 1970 reads as 1970.
fn system() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since boot, sleep included.
fn since_boot() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

/// Milliseconds that a time server may correct without anybody noticing.
const SMALL: i64 = 2_000;

/// Decides when the host adopts the system's time.
///
/// A difference of up to two seconds is adopted at once. Somebody has caused a larger one, and either clock may be
/// wrong: the host's (a machine without a battery starts in 1970) or the system's (a slip of the operator, corrected in
/// a minute). So the first comparison only reports it, and the next one that finds the same difference confirms it. The
/// caller then adopts it and moves the times of waiting work along, so that nothing becomes old by it.
#[derive(Debug, Default)]
pub struct Follower {
    seen: Option<i64>,
}

/// The system's clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stepped {
    /// How many milliseconds the system is ahead of the host; below zero: behind.
    pub by: i64,
    /// Whether two comparisons in a row have found this difference, so that the host adopts it.
    pub confirmed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockStep {
    None,
    Small(i64),
    Stepped(Stepped),
}

impl Follower {
    fn compare(&mut self, ours: i64, system: i64) -> ClockStep {
        let by = system.saturating_sub(ours);
        let before = self.seen.take();
        if by == 0 {
            return ClockStep::None;
        }
        if by.abs() <= SMALL {
            return ClockStep::Small(by);
        }
        let confirmed = before.is_some_and(|before| before.abs_diff(by) <= SMALL.unsigned_abs());
        if !confirmed {
            self.seen = Some(by);
        }
        ClockStep::Stepped(Stepped { by, confirmed })
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
        assert_eq!(follower.compare(NOW, NOW), ClockStep::None);
        assert_eq!(follower.compare(NOW, NOW + 1_500), ClockStep::Small(1_500));
        assert_eq!(follower.compare(NOW, NOW - 2_000), ClockStep::Small(-2_000));
    }

    #[test]
    fn a_clock_that_is_set_is_followed_at_the_second_look() {
        for by in [HOUR, -HOUR, YEAR, -YEAR] {
            let mut follower = Follower::default();
            let told = follower.compare(NOW, NOW + by);
            assert_eq!(told, ClockStep::Stepped(Stepped { by, confirmed: false }));
            // A minute on, both went on, and the new one is being corrected by a little.
            let told = follower.compare(NOW + 60_000, NOW + 60_000 + by + 900);
            assert_eq!(told, ClockStep::Stepped(Stepped { by: by + 900, confirmed: true }));
        }
    }

    #[test]
    fn a_slip_that_is_mended_was_never_followed() {
        let mut follower = Follower::default();
        follower.compare(NOW, NOW + YEAR);
        assert_eq!(follower.compare(NOW + 60_000, NOW + 60_000), ClockStep::None);
        // Another difference begins from the first comparison again.
        follower.compare(NOW, NOW + YEAR);
        let told = follower.compare(NOW, NOW + HOUR);
        assert_eq!(told, ClockStep::Stepped(Stepped { by: HOUR, confirmed: false }));
    }

    #[test]
    fn wall_time_goes_on_by_itself() {
        let clock = Clock::new();
        let (first, second) = (clock.wall(), clock.wall());
        assert!(second >= first && (first.0 - system()).abs() < 60_000);
    }
}
