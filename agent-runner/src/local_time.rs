//! Times for people and for letters. No decision in the runner may depend on the wall clock.

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;

/// The wall clock in the group's zone.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zone: Tz,
}

impl Clock {
    /// `zone` is an IANA name. An unknown one falls back to UTC, because a turn must not fail for its date.
    pub fn new(zone: &str) -> Self {
        let zone = zone.parse().unwrap_or_else(|_| {
            tracing::warn!(zone, "unknown time zone; using UTC");
            Tz::UTC
        });
        Self { zone }
    }

    pub fn now(&self) -> DateTime<Tz> {
        Utc::now().with_timezone(&self.zone)
    }
}

/// The `at` of letters and transcript entries: RFC 3339, UTC, milliseconds.
pub fn now_rfc3339() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `Saturday, 2026-11-21 14:03 (Europe/Berlin, UTC+01:00)`
pub fn long_form(at: DateTime<Tz>) -> String {
    format!("{} ({}, UTC{})", at.format("%A, %Y-%m-%d %H:%M"), at.timezone().name(), at.format("%:z"))
}

/// A message's time as its frame shows it: `2026-11-21 14:03`. Text that is not RFC 3339 stays as it is.
pub fn to_the_minute(rfc3339: &str) -> String {
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
        assert_eq!(long_form(winter), "Saturday, 2026-11-21 14:03 (Europe/Berlin, UTC+01:00)");
        let summer = Utc.with_ymd_and_hms(2026, 7, 1, 22, 30, 0).unwrap().with_timezone(&zone);
        assert_eq!(long_form(summer), "Thursday, 2026-07-02 00:30 (Europe/Berlin, UTC+02:00)");
    }

    #[test]
    fn an_unknown_zone_is_utc() {
        assert_eq!(Clock::new("Mars/Olympus").zone, Tz::UTC);
    }

    #[test]
    fn a_messages_time_keeps_its_own_offset() {
        assert_eq!(to_the_minute("2026-11-21T14:03:59+01:00"), "2026-11-21 14:03");
        assert_eq!(to_the_minute("at tea"), "at tea");
    }
}
