//! Why a schedule cannot be used: what is wrong, where, and what would be right.

use std::time::Duration;

use super::MAX_BYTES;

/// The forms that [`super::parse`] understands, for whoever wrote something else.
pub const FORMS: &str = "\"daily 07:30\", \"weekdays 08:00\", \"weekends 10:00\", \"weekly mon 09:00\", \
    \"monthly 1 09:00\", \"hourly\", \"every 30 minutes\", \"every 2 days 09:00\", \"in 20 minutes\", \"today 18:00\", \
    \"tomorrow 9:00\", \"next monday 9:00\", \"2026-12-24 18:00\", or five fields of cron such as \"30 7 * * 1-5\"";

/// Why a text is no schedule, or a name no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("the schedule is empty; write one of: {FORMS}")]
    Empty,
    #[error("the schedule is {bytes} bytes long, and at most {MAX_BYTES} are read; write one of: {FORMS}")]
    TooLong { bytes: usize },
    #[error("{text:?} is not a schedule; write one of: {FORMS}")]
    NotUnderstood { text: String },
    #[error("the host's start is not a schedule; write when it happens, such as \"daily 07:30\"")]
    AtStart,
    #[error(
        "{text:?} has {fields} fields, and cron here has five: minute, hour, day of month, month, day of week. \
         There are no seconds and no years; write \"30 7 * * 1-5\""
    )]
    Fields { text: String, fields: usize },
    #[error("the field {} has {value:?}: {why}; write {}", field.name(), field.example())]
    Field { field: Field, value: String, why: FieldFault },
    #[error(
        "{text:?} never happens: no month in it has such a day; write a day that exists, such as \"0 9 28 2 *\""
    )]
    Never { text: String },
    #[error("{text:?} says no time of day; write \"{text} 09:00\" or \"{text} 9am\"")]
    NoTime { text: String },
    #[error("{value:?} is not a time of day; write \"09:00\", \"18:30\" or \"9am\"")]
    BadTime { value: String },
    #[error("there is no day {value:?}; write \"2026-12-24 18:00\" or \"24 dec 18:00\"")]
    NoSuchDay { value: String },
    #[error("{at} is in the past; write a later time, such as \"tomorrow 9:00\" or \"in 20 minutes\"")]
    Past { at: String },
    #[error("{text:?} is more than {} years away; write an earlier time", super::FARTHEST_YEARS)]
    TooFar { text: String },
    #[error("every {} is too often; the shortest interval is {}", told(every), told(&super::SHORTEST))]
    TooOften { every: Duration },
    #[error("{text:?} is too long an interval; write at most \"every 366 days\", or a date")]
    TooRare { text: String },
    #[error("there is no time zone {name:?}; {}", nearest_told(nearest))]
    NoZone { name: String, nearest: Vec<String> },
    #[error("{text:?} is not a stored schedule")]
    NotStored { text: String },
}

impl ScheduleError {
    /// The error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "schedule.empty",
            Self::TooLong { .. } => "schedule.too_long",
            Self::NotUnderstood { .. } => "schedule.not_understood",
            Self::AtStart => "schedule.at_start",
            Self::Fields { .. } => "schedule.fields",
            Self::Field { .. } => "schedule.field",
            Self::Never { .. } => "schedule.never",
            Self::NoTime { .. } => "schedule.no_time",
            Self::BadTime { .. } => "schedule.bad_time",
            Self::NoSuchDay { .. } => "schedule.no_such_day",
            Self::Past { .. } => "schedule.past",
            Self::TooFar { .. } => "schedule.too_far",
            Self::TooOften { .. } => "schedule.too_often",
            Self::TooRare { .. } => "schedule.too_rare",
            Self::NoZone { .. } => "schedule.no_zone",
            Self::NotStored { .. } => "schedule.not_stored",
        }
    }
}

/// What is wrong with one value of a cron field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    #[error("a step of 0 never moves on")]
    StepZero,
    #[error("a step needs \"*\" or a range before it")]
    StepWithoutRange,
    #[error("it is outside {0}-{1}")]
    Outside(u16, u16),
    #[error("the range runs backwards")]
    Backwards,
    #[error("a month has at most five of a weekday")]
    Nth,
    #[error("L and LW exclude each other")]
    LastTwice,
    #[error("it cannot be read")]
    Unreadable,
}

/// A field of a cron pattern, in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
}

impl Field {
    pub const ALL: [Self; 5] = [Self::Minute, Self::Hour, Self::Day, Self::Month, Self::Weekday];

    fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day of month",
            Self::Month => "month",
            Self::Weekday => "day of week",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Minute => "0-59, such as \"*/15\" or \"0,30\"",
            Self::Hour => "0-23, such as \"9\" or \"9-17/2\"",
            Self::Day => {
                "1-31, such as \"1,15\", \"15W\" (the workday nearest to the 15th) or \"L\" (the last day)"
            }
            Self::Month => "1-12 or jan-dec, such as \"jun-aug\"",
            Self::Weekday => {
                "0-7 or sun-sat, such as \"mon-fri\", \"fri#2\" (the second Friday) or \"5L\" (the last)"
            }
        }
    }
}

/// A length of time as a person says it: `90 minutes`, `2 days`.
pub(super) fn told(length: &Duration) -> String {
    let seconds = length.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) = units
        .into_iter()
        .find(|(size, _)| seconds >= *size && seconds.is_multiple_of(*size))
        .unwrap_or(units[3]);
    match seconds / size {
        1 => format!("1 {unit}"),
        n => format!("{n} {unit}s"),
    }
}

fn nearest_told(nearest: &[String]) -> String {
    match nearest {
        [] => "names look like \"Europe/Berlin\" or \"UTC\"".to_owned(),
        names => format!("did you mean {}? Names look like \"Europe/Berlin\" or \"UTC\"", names.join(" or ")),
    }
}

/// The beginning of what somebody wrote, for an error about it.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
