//! Times for people and for letters. No decision in the runner may depend on the wall clock.
//!
//! The host writes each message's time in the group's zone; only the turn's "now" is computed here. The zone data are
//! those in the binary: an image may have none or old ones, and the host's binary has the same.

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};

/// The wall clock in the group's zone.
#[derive(Debug, Clone)]
pub struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// `zone` is an IANA name. An unknown one falls back to UTC, because a turn must not fail for its date.
    pub fn new(zone: &str) -> Self {
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap_or_else(|_| {
            tracing::warn!(zone, "unknown time zone; using UTC");
            TimeZone::UTC
        });
        Self { zone }
    }

    pub fn now(&self) -> Zoned {
        Timestamp::now().to_zoned(self.zone.clone())
    }
}

/// The `at` of letters and transcript entries: RFC 3339, UTC, milliseconds.
pub fn now_rfc3339() -> String {
    format!("{:.3}", Timestamp::now())
}

/// `Saturday, 2026-11-21 14:03 (Europe/Berlin, UTC+01:00)`
pub fn long_form(at: &Zoned) -> String {
    at.strftime("%A, %Y-%m-%d %H:%M (%Q, UTC%:z)").to_string()
}

/// A message's time as its frame shows it: `2026-11-21 14:03`. A text that is not an RFC 3339 time stays as it is.
pub fn to_the_minute(rfc3339: &str) -> String {
    match (rfc3339.parse::<Timestamp>(), rfc3339.parse::<DateTime>()) {
        (Ok(_), Ok(local)) => local.strftime("%Y-%m-%d %H:%M").to_string(),
        _ => rfc3339.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: &str) -> String {
        long_form(&text.parse::<Timestamp>().unwrap().to_zoned(Clock::new(zone).zone))
    }

    #[test]
    fn a_moment_is_spoken_in_the_groups_zone() {
        let berlin = |text| at(text, "Europe/Berlin");
        assert_eq!(berlin("2026-11-21T13:03:00Z"), "Saturday, 2026-11-21 14:03 (Europe/Berlin, UTC+01:00)");
        assert_eq!(berlin("2026-07-01T22:30:00Z"), "Thursday, 2026-07-02 00:30 (Europe/Berlin, UTC+02:00)");
        assert_eq!(at("2026-07-01T22:30:00Z", "UTC"), "Wednesday, 2026-07-01 22:30 (UTC, UTC+00:00)");
    }

    #[test]
    fn the_clock_changes_of_2026_are_known() {
        for (zone, told) in [
            ("America/Vancouver", "Tuesday, 2026-12-15 05:00 (America/Vancouver, UTC-07:00)"),
            ("America/Edmonton", "Tuesday, 2026-12-15 06:00 (America/Edmonton, UTC-06:00)"),
            ("Africa/Casablanca", "Tuesday, 2026-12-15 12:00 (Africa/Casablanca, UTC+00:00)"),
        ] {
            assert_eq!(at("2026-12-15T12:00:00Z", zone), told);
        }
    }

    #[test]
    fn an_unknown_zone_is_utc() {
        assert_eq!(Clock::new("Mars/Olympus").zone, TimeZone::UTC);
    }

    #[test]
    fn a_messages_time_keeps_its_own_offset() {
        assert_eq!(to_the_minute("2026-11-21T14:03:59+01:00"), "2026-11-21 14:03");
        assert_eq!(to_the_minute("2026-11-21T14:03:59"), "2026-11-21T14:03:59", "no offset: no time of ours");
        assert_eq!(to_the_minute("at tea"), "at tea");
    }
}
