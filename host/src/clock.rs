//! The one clock. `domain` and the pure rooms never read it: they are given a [`Moment`].

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::domain::moment::{Moment, WallMs};

/// Reads wall and monotonic time together. Cheap to copy; the monotonic zero is the process's start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { zero: Instant::now() }
    }

    /// Now, on both clocks.
    pub fn now(&self) -> Moment {
        Moment { wall: self.wall(), mono: self.zero.elapsed() }
    }

    /// Now, for rows and people. A clock before 1970 reads as 1970.
    pub fn wall(&self) -> WallMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
