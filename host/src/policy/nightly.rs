//! Decides when the nightly work is due. `maintenance` calls it.

use std::time::Duration;

use jiff::civil::Date;

use crate::domain::{WallMs, Zone};

/// If the last copy is older than this, the next one is due at once.
const OVERDUE: Duration = Duration::from_secs(24 * 3600);
/// The range of [`spread`], so that hosts on one disk or machine do not all copy in the same minute.
pub const SPREAD: Duration = Duration::from_secs(30 * 60);

/// Whether the next copy is due. It is due once per night, at `hour` in `zone` plus `spread`. It is due at once if
/// there is no last copy or if that is more than a day old. A `last` in the future counts as none, because the clock
/// was wrong then.
pub fn due(now: WallMs, zone: &Zone, hour: u8, spread: Duration, last: Option<WallMs>) -> bool {
    let Some(last) = last.filter(|last| *last <= now) else { return true };
    if now.since(last) > OVERDUE {
        return true;
    }
    let tonight = begin_of_night(now, zone, hour).plus(spread);
    // Before tonight's hour, yesterday's run counts, and the last copy (less than a day old) was made after it.
    last < tonight && now >= tonight
}

/// Whether a copy holds so many more messages than the newest one that it must stay: the database was lost or exchanged
/// since. `None`: a copy that cannot be read.
pub fn is_fuller(copy: Option<u64>, newest: Option<u64>) -> bool {
    copy.is_some_and(|messages| {
        messages / 2 > newest.unwrap_or(0) || messages > 0 && newest.unwrap_or(0) == 0
    })
}

/// The configured hour on the zone's current day.
fn begin_of_night(now: WallMs, zone: &Zone, hour: u8) -> WallMs {
    at_hour(zone.0.to_datetime(now.timestamp()).date(), zone, hour)
}

/// The first moment of an hour that comes twice. For an hour that the clock change skips, the moment after the skip.
fn at_hour(day: Date, zone: &Zone, hour: u8) -> WallMs {
    let hour = i8::try_from(hour).unwrap_or(0).min(23);
    let at = zone.0.to_ambiguous_timestamp(day.at(hour, 0, 0, 0)).compatible().unwrap_or_default();
    WallMs(at.as_millisecond())
}

/// How much later than the hour this install starts. It is derived from the install's id.
pub fn spread(install: &str) -> Duration {
    let sum = install.bytes().fold(0_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    Duration::from_secs(sum % SPREAD.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Duration = Duration::ZERO;

    fn berlin() -> Zone {
        Zone::bundled("Europe/Berlin")
    }

    fn at(text: &str) -> WallMs {
        WallMs(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn a_copy_of_more_than_twice_the_messages_is_fuller() {
        assert!(is_fuller(Some(1), Some(0)) && is_fuller(Some(1), None) && is_fuller(Some(1_000), Some(499)));
        assert!(!is_fuller(Some(1_000), Some(500)), "old messages were cleared away");
        assert!(!is_fuller(Some(0), Some(0)) && !is_fuller(None, Some(5)));
    }

    #[test]
    fn once_a_night_at_three_in_the_zone() {
        let last = Some(at("2026-11-20T03:00:10+01:00"));
        let due = |now: &str, last| due(at(now), &berlin(), 3, ZERO, last);
        assert!(!due("2026-11-20T03:01:00+01:00", last));
        assert!(!due("2026-11-21T02:59:59+01:00", last));
        assert!(due("2026-11-21T03:00:00+01:00", last));
        assert!(!due("2026-11-21T03:01:00+01:00", Some(at("2026-11-21T03:00:20+01:00"))));
        // A copy that somebody made yesterday evening does not count for tonight.
        assert!(due("2026-11-21T03:00:00+01:00", Some(at("2026-11-20T22:00:00+01:00"))));
    }

    #[test]
    fn what_was_missed_is_made_up_for() {
        let due = |now: &str, last: Option<&str>| due(at(now), &berlin(), 3, ZERO, last.map(at));
        assert!(due("2026-11-21T12:00:00+01:00", None));
        assert!(due("2026-11-21T12:00:00+01:00", Some("2026-11-20T03:00:00+01:00")));
        assert!(!due("2026-11-21T12:00:00+01:00", Some("2026-11-21T03:00:00+01:00")));
        // The clock was a year ahead when this copy was made.
        assert!(due("2026-11-21T12:00:00+01:00", Some("2027-11-21T03:00:00+01:00")));
    }

    #[test]
    fn the_night_that_has_no_three_o_clock_and_the_one_that_has_two_have_one_copy_each() {
        // The clocks go from 02:00 to 03:00 on 29 March 2026, and from 03:00 to 02:00 on 25 October.
        for (hour, night) in [(2, "2026-03-29T03:00:00+02:00"), (2, "2026-10-25T02:00:00+02:00")] {
            let night = at(night);
            let before = Some(WallMs(night.0 - 20 * 3_600_000));
            assert!(!due(WallMs(night.0 - 1), &berlin(), hour, ZERO, before));
            assert!(due(night, &berlin(), hour, ZERO, before));
            assert!(!due(night.plus(Duration::from_secs(3_600)), &berlin(), hour, ZERO, Some(night)));
        }
    }

    #[test]
    fn installs_do_not_all_begin_at_once() {
        assert!(spread("a") != spread("b") && spread("019ab000") < SPREAD);
        let last = Some(at("2026-11-20T12:00:00+01:00"));
        assert!(!due(at("2026-11-21T03:04:59+01:00"), &berlin(), 3, Duration::from_secs(300), last));
        assert!(due(at("2026-11-21T03:05:00+01:00"), &berlin(), 3, Duration::from_secs(300), last));
    }
}
