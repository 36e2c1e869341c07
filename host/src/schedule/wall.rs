//! Wall time and instants, across clock changes.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

const TICK: SignedDuration = SignedDuration::from_nanos(1);

/// The first instant at which clocks in `zone` show `wall` or a later time: the end of the gap for a time that clocks
/// skip, and the first of the two for a time that they show twice. A later wall time never has an earlier instant.
pub fn first_instant(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(wall).ok()
        }
        AmbiguousOffset::Gap { before, .. } => {
            let beyond = before.to_timestamp(wall).ok()?.checked_add(TICK).ok()?;
            zone.preceding(beyond).next().map(|change| change.timestamp())
        }
    }
}

/// The latest wall time that clocks have shown until `at`, and whether it is only the end of what they have shown.
/// Behind a change back, this is the time that the change took back: those times have had their instant.
pub fn highest_until(zone: &TimeZone, at: Timestamp) -> (DateTime, bool) {
    let shown = zone.to_datetime(at);
    let before_change =
        at.checked_add(TICK).ok().and_then(|now| zone.preceding(now).next()).and_then(|change| {
            let last = change.timestamp().checked_sub(TICK).ok()?;
            Some(zone.to_offset(last).to_datetime(change.timestamp()))
        });
    before_change.filter(|before| *before > shown).map_or((shown, false), |before| (before, true))
}
