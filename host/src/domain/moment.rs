//! Time as data. Deadlines use monotonic time; people and rows use wall time.

use std::fmt;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMs(pub i64);

impl WallMs {
    /// The time `later` after this one.
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(later.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time that has passed since `earlier`; zero when the clock went back.
    pub fn since(self, earlier: WallMs) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds, for letters and logs.
    pub fn rfc3339(self) -> String {
        format!("{:.3}", self.timestamp())
    }

    /// RFC 3339 with the offset of `zone`, to the second: the time that people there read on their clocks.
    pub fn local(self, zone: &Zone) -> String {
        self.timestamp().to_zoned(zone.0.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// The day in a zone, as `2026-11-30`.
    pub fn day(self, zone: &Zone) -> String {
        self.timestamp().to_zoned(zone.0.clone()).date().to_string()
    }

    /// The day that lies so many days before this one in a zone.
    pub fn day_before(self, days: u32, zone: &Zone) -> String {
        let date = self.timestamp().to_zoned(zone.0.clone()).date();
        date.saturating_sub(jiff::Span::new().days(days)).to_string()
    }

    /// The same time for work with dates. A time outside the calendar is 1970.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_millisecond(self.0).unwrap_or_default()
    }
}

impl From<Timestamp> for WallMs {
    fn from(at: Timestamp) -> Self {
        Self(at.as_millisecond())
    }
}

impl fmt::Display for WallMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// A time zone with its rules. Only `config` looks up the rules; here they are data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(pub TimeZone);

impl Zone {
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// A zone from the data in the binary.
    #[cfg(test)]
    pub fn bundled(name: &str) -> Self {
        Self(jiff::tz::TimeZoneDatabase::bundled().get(name).unwrap())
    }
}

/// One instant in wall and monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub wall: WallMs,
    /// Time since the host's start. It never goes back, and stops while the machine sleeps.
    pub mono: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_makes_no_negative_time() {
        assert_eq!(WallMs(5).since(WallMs(9)), Duration::ZERO);
        assert_eq!(WallMs(9_000).since(WallMs(5_000)), Duration::from_secs(4));
        assert_eq!(WallMs(i64::MAX).plus(Duration::from_secs(1)), WallMs(i64::MAX));
    }

    #[test]
    fn people_read_their_own_time() {
        let t = WallMs(1_795_000_000_000);
        assert_eq!(t.rfc3339(), "2026-11-18T11:06:40.000Z");
        assert_eq!(t.local(&Zone::bundled("Europe/Berlin")), "2026-11-18T12:06:40+01:00");
        assert_eq!(t.local(&Zone::utc()), "2026-11-18T11:06:40+00:00");
    }
}
