//! When scheduled work fires: what a person or an agent wrote, understood, and the instants that follow from it. The
//! store keeps the canonical text, the scheduler asks for the next instant, and the command line, chats and tools show
//! the description. This module reads no clock: callers pass the time.
//!
//! **When clocks change.** A time of day has one instant: the first at which clocks show that time or a later one.
//!
//! - Clocks skip 02:30: the work fires once, at the end of the gap (03:00). Several times in one gap are one fire.
//! - Clocks show 01:30 twice: the work fires once, at the first.
//! - A cron pattern that runs in every hour (`*/15 * * * *`, `30 * * * *`) follows the time that passes instead: it
//!   fires whenever clocks show a matching time. It loses no hour when clocks go back and gains none when they go
//!   forward. Vixie cron does the same.
//! - An interval ("every 30 minutes") counts real time from its anchor. One of whole days keeps its time of day.
//!
//! Day of month and day of week are alternatives if both are given, as in cron: `0 9 13 * 5` is each 13th and each
//! Friday.

mod cron;
mod describe;
mod error;
mod past_range;
mod phrase;
mod wall;

#[cfg(test)]
mod clock_change_tests;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod phrase_tests;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use cron::Cron;
pub use describe::{describe_instant, local};
pub use error::ScheduleError;
pub use past_range::past_range;
pub use phrase::{local_time, parse};

use crate::domain::{WallMs, Zone};
use error::quoted;

/// A longer text is refused unread.
pub const MAX_BYTES: usize = 200;
/// Work fires at most once a minute.
pub const SHORTEST: Duration = Duration::from_secs(60);
/// A later time is a slip: nobody plans work for the year 9999.
const FARTHEST_YEARS: i16 = 50;

/// When work fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    Cron(Box<Cron>),
    Every(Interval),
    Once(WallMs),
}

/// A grid that begins at a fixed instant, so that no restart shifts it. The first fire is one step after the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub anchor: WallMs,
    pub step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Real time, whatever clocks do.
    Seconds(u32),
    /// Days of the calendar, at the anchor's time of day.
    Days(u16),
}

impl Schedule {
    /// The first fire after `after`.
    pub fn next(&self, zone: &Zone, after: WallMs) -> Option<WallMs> {
        match self {
            Self::Cron(cron) => cron.next(&zone.0, after.timestamp()).map(WallMs::from),
            Self::Every(interval) => interval.next(zone, after),
            Self::Once(at) => Some(*at).filter(|at| *at > after),
        }
    }

    /// The text that is stored. [`Schedule::from_canonical`] reads it back.
    pub fn canonical(&self) -> String {
        match self {
            Self::Cron(cron) => format!("cron {}", cron.fields.join(" ")),
            Self::Every(Interval { anchor, step: Step::Seconds(n) }) => {
                format!("every {n}s from {}", anchor.timestamp())
            }
            Self::Every(Interval { anchor, step: Step::Days(n) }) => {
                format!("every {n}d from {}", anchor.timestamp())
            }
            Self::Once(at) => format!("once {}", at.timestamp()),
        }
    }

    /// # Errors
    /// The text was not written by [`Schedule::canonical`].
    pub fn from_canonical(text: &str) -> Result<Self, ScheduleError> {
        let damaged = || ScheduleError::NotStored { text: quoted(text) };
        let instant = |text: &str| text.parse::<Timestamp>().map(WallMs::from).map_err(|_| damaged());
        match text.split_once(' ').filter(|_| text.len() <= MAX_BYTES).ok_or_else(damaged)? {
            ("cron", fields) => Ok(Self::Cron(Box::new(Cron::parse(fields)?))),
            ("once", at) => Ok(Self::Once(instant(at)?)),
            ("every", grid) => {
                let (step, anchor) = grid.split_once(" from ").ok_or_else(damaged)?;
                let step = match step.strip_suffix('s') {
                    Some(n) => n.parse().ok().filter(|n| *n >= SHORTEST.as_secs() as u32).map(Step::Seconds),
                    None => {
                        step.strip_suffix('d').and_then(|n| n.parse().ok()).filter(|n| *n > 0).map(Step::Days)
                    }
                };
                Ok(Self::Every(Interval { anchor: instant(anchor)?, step: step.ok_or_else(damaged)? }))
            }
            _ => Err(damaged()),
        }
    }

    /// The shortest time between two fires, as far as the next 200 show. None for a single fire.
    pub fn shortest_gap(&self, zone: &Zone, from: WallMs) -> Option<Duration> {
        match self {
            Self::Cron(cron) => {
                cron::shortest_gap(cron, &zone.0, from.timestamp()).map(SignedDuration::unsigned_abs)
            }
            Self::Every(Interval { step: Step::Seconds(n), .. }) => Some(Duration::from_secs((*n).into())),
            // A day has at least 22 hours.
            Self::Every(Interval { step: Step::Days(n), .. }) => {
                Some(Duration::from_secs(u64::from(*n) * 22 * 3_600))
            }
            Self::Once(_) => None,
        }
    }
}

impl Interval {
    fn next(&self, zone: &Zone, after: WallMs) -> Option<WallMs> {
        let since = after.0.saturating_sub(self.anchor.0);
        match self.step {
            Step::Seconds(n) => {
                let step = i64::from(n) * 1_000;
                let steps = since.div_euclid(step).max(0) + 1;
                self.anchor.0.checked_add(steps.checked_mul(step)?).map(WallMs)
            }
            Step::Days(n) => {
                let anchor = zone.0.to_datetime(self.anchor.timestamp());
                // Two steps early: days differ in length, and the anchor's can begin in a gap.
                let first = (since / (i64::from(n) * 86_400_000) - 2).max(0) + 1;
                (first..first + 5).find_map(|step| {
                    let days = jiff::Span::new().try_days(step.checked_mul(n.into())?).ok()?;
                    let at = wall::first_instant(&zone.0, anchor.checked_add(days).ok()?)?;
                    Some(WallMs::from(at)).filter(|at| *at > after)
                })
            }
        }
    }
}
