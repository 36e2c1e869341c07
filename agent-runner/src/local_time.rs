//! Times for people. Nothing in the runner is decided by a wall clock.

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;

/// The wall clock, with the group's zone.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zone: Tz,
}

impl Clock {
    /// A clock for an IANA zone. An unknown one falls back to UTC: a turn never fails for its date.
    pub fn new(zone: &str) -> Self {
        let zone = zone.parse().unwrap_or_else(|_| {
            tracing::warn!(zone, "unknown time zone, UTC is used");
            Tz::UTC
        });
        Self { zone }
    }

    pub fn now(&self) -> DateTime<Tz> {
        Utc::now().with_timezone(&self.zone)
    }
}

/// The `at` of letters and transcript entries: RFC 3339, UTC, milliseconds.
pub fn stamp() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `Saturday, 2026-11-21 14:03 (Europe/Berlin, UTC+01:00)`
pub fn spoken(at: DateTime<Tz>) -> String {
    format!("{} ({}, UTC{})", at.format("%A, %Y-%m-%d %H:%M"), at.timezone().name(), at.format("%:z"))
}

/// A message's time as its frame shows it: `2026-11-21 14:03`. What is no RFC 3339 time stays as it is.
pub fn minute(rfc3339: &str) -> String {
    DateTime::parse_from_rfc3339(rfc3339)
        .map_or_else(|_| rfc3339.to_owned(), |at| at.format("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn a_moment_is_spoken_in_the_groups_zone() {
        let zone = Clock::new("Europe/Berlin").zone;
        let winter = Utc.with_ymd_and_hms(2026, 11, 21, 13, 3, 0).unwrap().with_timezone(&zone);
        assert_eq!(spoken(winter), "Saturday, 2026-11-21 14:03 (Europe/Berlin, UTC+01:00)");
        let summer = Utc.with_ymd_and_hms(2026, 7, 1, 22, 30, 0).unwrap().with_timezone(&zone);
        assert_eq!(spoken(summer), "Thursday, 2026-07-02 00:30 (Europe/Berlin, UTC+02:00)");
    }

    #[test]
    fn an_unknown_zone_is_utc() {
        assert_eq!(Clock::new("Mars/Olympus").zone, Tz::UTC);
    }

    #[test]
    fn a_messages_time_keeps_its_own_offset() {
        assert_eq!(minute("2026-11-21T14:03:59+01:00"), "2026-11-21 14:03");
        assert_eq!(minute("at tea"), "at tea");
    }
}
