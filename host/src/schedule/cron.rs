//! Five-field cron patterns. `croner` knows which days and times match; this file checks what a person wrote, so that
//! an error names the field and the value, and finds the instants.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::error::{Field, FieldFault, ScheduleError, quoted};
use super::wall;

/// A pattern that matches at least one day of the calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// The five fields with numbers in the place of names.
    pub(super) fields: [String; 5],
    matcher: croner::Cron,
}

impl Cron {
    /// # Errors
    /// The first field that cannot be used, another number of fields than five, or a day that never comes.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let wrong_count = || ScheduleError::Fields { text: quoted(text), fields: words.len() };
        if words.len() > 5 {
            return Err(wrong_count());
        }
        let mut fields: [String; 5] = Default::default();
        for ((field, word), out) in Field::ALL.into_iter().zip(&words).zip(&mut fields) {
            *out = canonical_field(field, word)?;
        }
        if words.len() != 5 {
            return Err(wrong_count());
        }
        let unreadable = |_| ScheduleError::NotUnderstood { text: quoted(text) };
        let matcher = croner::parser::CronParser::builder()
            .seconds(croner::parser::Seconds::Disallowed)
            .year(croner::parser::Year::Disallowed)
            .build()
            .parse(&fields.join(" "))
            .map_err(unreadable)?;
        let cron = Self { fields, matcher };
        // The calendar repeats after 400 years, and the search goes on for longer than that.
        match cron.next_civil(DateTime::constant(2000, 1, 1, 0, 0, 0, 0), true) {
            Some(_) => Ok(cron),
            None => Err(ScheduleError::Never { text: quoted(text) }),
        }
    }

    /// The first instant after `after`. The rules of clock changes are those of [`super`].
    pub fn next(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        if self.runs_every_hour() { self.next_elapsed(zone, after) } else { self.next_once(zone, after) }
    }

    /// Whether every hour of a day matches.
    pub(super) fn runs_every_hour(&self) -> bool {
        self.matcher.pattern.hours.values().len() == 24
    }

    /// The values of a field that has no `L`, `W` or `#`.
    pub(super) fn values(&self, field: Field) -> Option<Vec<u16>> {
        let pattern = &self.matcher.pattern;
        let component = match field {
            Field::Minute => &pattern.minutes,
            Field::Hour => &pattern.hours,
            Field::Day => &pattern.days,
            Field::Month => &pattern.months,
            Field::Weekday => &pattern.days_of_week,
        };
        (!component.has_modifiers()).then(|| component.values())
    }

    /// Each wall time once, at the first instant at which clocks show it or a later time.
    fn next_once(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let (reached, inclusive) = wall::highest_until(zone, after);
        wall::first_instant(zone, self.next_civil(reached, inclusive)?)
    }

    /// Each instant at which clocks show a matching time, so one wall time can come twice. Between two changes of its
    /// offset, a zone's wall time runs as the time does.
    fn next_elapsed(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        loop {
            let offset = zone.to_offset(from);
            let at = offset.to_timestamp(self.next_civil(offset.to_datetime(from), inclusive)?).ok()?;
            match zone.following(from).next() {
                Some(change) if change.timestamp() <= at => (from, inclusive) = (change.timestamp(), true),
                _ => return Some(at),
            }
        }
    }

    /// The first matching time of a calendar without clock changes.
    fn next_civil(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        // The search works in whole seconds and reads 07:29:59.5 as 07:29:59.
        self.matcher.find_next_occurrence(&from, inclusive).ok()
    }
}

/// One field in numbers, checked value by value.
fn canonical_field(field: Field, word: &str) -> Result<String, ScheduleError> {
    let word = if word == "?" && matches!(field, Field::Day | Field::Weekday) { "*" } else { word };
    let values = word.split(',').map(|value| {
        let fault = |why| ScheduleError::Field { field, value: quoted(value), why };
        canonical_value(field, &value.to_ascii_lowercase()).map_err(fault)
    });
    let values = values.collect::<Result<Vec<_>, _>>()?;
    if ["L", "LW"].iter().all(|last| values.iter().any(|value| value == last)) {
        return Err(ScheduleError::Field { field, value: quoted(word), why: FieldFault::LastTwice });
    }
    Ok(values.join(","))
}

/// `*`, `*/15`, `5`, `1-5`, `1-5/2`; for days of the month `L`, `LW` and `15W`; for weekdays `5L` and `5#2`.
fn canonical_value(field: Field, value: &str) -> Result<String, FieldFault> {
    match (field, value) {
        (Field::Day, "l" | "lw") => return Ok(value.to_ascii_uppercase()),
        (Field::Day, _) if value.ends_with('w') => {
            return Ok(format!("{}W", number(field, value.trim_end_matches('w'))?));
        }
        (Field::Weekday, _) if value.len() > 1 && value.ends_with('l') => {
            return Ok(format!("{}L", number(field, &value[..value.len() - 1])?));
        }
        _ => {}
    }
    if let Some((day, nth)) = value.split_once('#').filter(|_| field == Field::Weekday) {
        let nth = digits(nth)?;
        return if (1..=5).contains(&nth) {
            Ok(format!("{}#{nth}", number(field, day)?))
        } else {
            Err(FieldFault::Nth)
        };
    }
    let Some((range, step)) = value.split_once('/') else { return range_of(field, value) };
    let step = digits(step)?;
    if step == 0 {
        return Err(FieldFault::StepZero);
    }
    let range = range_of(field, range)?;
    if range == "*" || range.contains('-') {
        Ok(format!("{range}/{step}"))
    } else {
        Err(FieldFault::StepWithoutRange)
    }
}

fn range_of(field: Field, text: &str) -> Result<String, FieldFault> {
    let Some((from, to)) = text.split_once('-') else {
        return if text == "*" { Ok(text.to_owned()) } else { Ok(number(field, text)?.to_string()) };
    };
    let (from, mut to) = (number(field, from)?, number(field, to)?);
    if field == Field::Weekday && to == 0 && from > 0 {
        to = 7;
    }
    if from > to { Err(FieldFault::Backwards) } else { Ok(format!("{from}-{to}")) }
}

/// A number of the field, or one of its names.
fn number(field: Field, text: &str) -> Result<u16, FieldFault> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let (least, most, names): (u16, u16, &[&str]) = match field {
        Field::Minute => (0, 59, &[]),
        Field::Hour => (0, 23, &[]),
        Field::Day => (1, 31, &[]),
        Field::Month => (1, 12, &MONTHS),
        Field::Weekday => (0, 7, &WEEKDAYS),
    };
    let named = names.iter().zip(least..).find(|(name, _)| **name == text).map(|(_, n)| n);
    let n = named.map_or_else(|| digits(text), Ok)?;
    if (least..=most).contains(&n) { Ok(n) } else { Err(FieldFault::Outside(least, most)) }
}

/// Up to four digits and no sign.
fn digits(text: &str) -> Result<u16, FieldFault> {
    let all_digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| all_digits).ok_or(FieldFault::Unreadable)
}

/// The shortest time between the next fires.
pub(super) fn shortest_gap(cron: &Cron, zone: &TimeZone, from: Timestamp) -> Option<SignedDuration> {
    const FIRES: usize = 200;
    let fires: Vec<Timestamp> =
        std::iter::successors(cron.next(zone, from), |fire| cron.next(zone, *fire)).take(FIRES).collect();
    fires.windows(2).map(|pair| pair[1].duration_since(pair[0])).min()
}
