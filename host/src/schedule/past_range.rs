//! Reads a range of past time as people and agents write it: "yesterday", "last week", "1 nov to 5 nov". Days begin and
//! weeks begin (on Monday) as the zone's clocks say, also on the days on which clocks change.

use jiff::civil::{Date, Time, Weekday};
use jiff::{SignedDuration, Span, Timestamp, ToSpan, Zoned};

use super::describe::local;
use super::error::quoted;
use super::phrase::{begins_with_date, day_and_month, month_number, time_of_day, weekday};
use super::{MAX_BYTES, wall};
use crate::domain::{WallMs, Zone};

/// The forms that [`past_range`] understands.
const FORMS: &str = "\"today\", \"yesterday\", \"monday\", \"last monday\", \"this week\", \"last week\", \
    \"this month\", \"last month\", \"last 3 days\", \"3 days ago\", \"2 weeks ago\", \"2026-11-03\", \"3 nov\", \
    \"november\", \"2026-11\", \"2026-11-03 14:00 to 2026-11-03 18:00\", \"1 nov to 5 nov\", \"since friday\", \
    \"before 2026-10-01\"";

/// Nothing was said before 1970.
const EARLIEST: WallMs = WallMs(0);

/// From the first instant to before the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    pub from: WallMs,
    pub to: WallMs,
}

/// Why a text is no range of past time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("{text:?} is not a range of time here; write one of: {FORMS}")]
    NotUnderstood { text: String },
    #[error("the range is {bytes} bytes long, and at most {MAX_BYTES} are read; write one of: {FORMS}")]
    TooLong { bytes: usize },
    #[error("{text:?} begins in the future, and now it is {now}; write one of: {FORMS}")]
    Future { text: String, now: String },
    #[error("{text:?} ends before it begins; write the earlier time first, as in \"1 nov to 5 nov\"")]
    Backwards { text: String },
}

/// Understands a range that somebody writes at `now` in `zone`. It ends at `now` at the latest.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn past_range(text: &str, zone: &Zone, now: WallMs) -> Result<TimeRange, RangeError> {
    if text.len() > MAX_BYTES {
        return Err(RangeError::TooLong { bytes: text.len() });
    }
    let reader = Reader { zone, now: now.timestamp().to_zoned(zone.0.clone()) };
    let plain = text.to_lowercase().replace([',', '–', '—'], " ").replace("..", " to ");
    let words: Vec<&str> = plain.split_whitespace().collect();
    let range = reader.range(&words).ok_or_else(|| RangeError::NotUnderstood { text: quoted(text) })?;
    if range.from > now {
        return Err(RangeError::Future { text: quoted(text), now: local(now, zone) });
    }
    if range.from >= range.to {
        return Err(RangeError::Backwards { text: quoted(text) });
    }
    Ok(TimeRange { to: range.to.min(after(&reader.now)), ..range })
}

struct Reader<'a> {
    zone: &'a Zone,
    now: Zoned,
}

#[derive(Clone, Copy)]
enum Unit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Reader<'_> {
    fn range(&self, words: &[&str]) -> Option<TimeRange> {
        match words {
            ["since" | "after", rest @ ..] => Some(TimeRange { to: after(&self.now), ..self.span(rest)? }),
            ["until" | "till", rest @ ..] | ["up", "to", rest @ ..] => {
                Some(TimeRange { from: EARLIEST, to: self.span(rest)?.to })
            }
            ["before", rest @ ..] => Some(TimeRange { from: EARLIEST, to: self.span(rest)?.from }),
            ["between", rest @ ..] => self.two(rest, &["and", "to"]),
            ["from", rest @ ..] => self.two(rest, &["to", "until", "till", "-"]),
            _ => self.two(words, &["to", "until", "till", "-"]).or_else(|| self.span(words)),
        }
    }

    /// `A to B`: all of both.
    fn two(&self, words: &[&str], between: &[&str]) -> Option<TimeRange> {
        let at = words.iter().position(|word| between.contains(word))?;
        let (from, to) = (self.span(&words[..at])?, self.span(&words[at + 1..])?);
        Some(TimeRange { from: from.from, to: to.to })
    }

    /// A day, week, month, year or minute.
    fn span(&self, words: &[&str]) -> Option<TimeRange> {
        const FILLERS: [&str; 7] = ["on", "the", "in", "of", "during", "at", "all"];
        let words: Vec<&str> = words.iter().copied().filter(|word| !FILLERS.contains(word)).collect();
        let today = self.now.date();
        match &words[..] {
            ["now"] => Some(self.minute(self.now.timestamp())),
            ["today"] => self.day(today),
            ["yesterday"] => self.day(today.yesterday().ok()?),
            ["day", "before", "yesterday"] => self.day(self.days_ago(2)?),
            ["this", word] if unit(word).is_some() => self.whole(unit(word)?, 0),
            ["last" | "past" | "previous", word] if unit(word).is_some() => self.whole(unit(word)?, 1),
            ["last" | "past" | "previous", n, word] => self.latest(unit(word)?, number(n)?),
            [n, word, "ago"] => self.whole(unit(word)?, number(n)?),
            ["last" | "past" | "previous", day] => self.weekday(weekday(day)?, 1),
            ["this", day] => self.weekday(weekday(day)?, 0),
            [day] if weekday(day).is_some() => self.weekday(weekday(day)?, 0),
            [iso, rest @ ..] if begins_with_date(iso) => self.iso(iso, rest),
            [day @ .., time] if !day.is_empty() && time_of_day(time).is_some() => {
                let date = self.one_day(day)?;
                Some(self.minute(wall::first_instant(&self.zone.0, date.to_datetime(time_of_day(time)??))?))
            }
            [month] => self.month(month),
            [month, year] if month_number(month).is_some() && year.len() == 4 => {
                let first = Date::new(year.parse().ok()?, month_number(month)?, 1).ok()?;
                self.days(first, first.checked_add(1.month()).ok()?)
            }
            [date @ .., year] if date.len() == 2 => {
                let (day, month) = day_and_month(date)?;
                self.day(Date::new(year.parse().ok().filter(|_| year.len() == 4)?, month, day).ok()?)
            }
            date => {
                let (day, month) = day_and_month(date)?;
                // The latest such day; leap days are at most eight years apart.
                let mut years = (today.year().checked_sub(8)?..=today.year()).rev();
                let in_year = |year| Date::new(year, month, day).ok().filter(|date| *date <= today);
                self.day(years.find_map(in_year)?)
            }
        }
    }

    /// `2026-11-03`, with a time of day in the next word or behind a `T`, or an instant of RFC 3339.
    fn iso(&self, iso: &str, rest: &[&str]) -> Option<TimeRange> {
        if let (Ok(at), []) = (iso.to_uppercase().parse::<Timestamp>(), rest) {
            return Some(self.minute(at));
        }
        let (date, time) = iso.split_at(10);
        let date: Date = date.parse().ok()?;
        let time = time.strip_prefix('t').filter(|time| !time.is_empty());
        match (time, rest) {
            (None, []) if iso.len() == 10 => self.day(date),
            (Some(time), []) | (None, &[time]) => {
                let time = time_of_day(time)??;
                Some(self.minute(wall::first_instant(&self.zone.0, date.to_datetime(time))?))
            }
            _ => None,
        }
    }

    /// `2026`, `2026-11`, or the latest November.
    fn month(&self, word: &str) -> Option<TimeRange> {
        let year = |word: &str| word.parse::<i16>().ok().filter(|_| word.len() == 4);
        if let Some(year) = year(word) {
            return self.days(Date::new(year, 1, 1).ok()?, Date::new(year.checked_add(1)?, 1, 1).ok()?);
        }
        let first = match word.split_once('-') {
            Some((year_of, month)) => Date::new(year(year_of)?, month.parse().ok()?, 1).ok()?,
            None => {
                let (today, month) = (self.now.date(), month_number(word)?);
                let year = if month > today.month() { today.year().checked_sub(1)? } else { today.year() };
                Date::new(year, month, 1).ok()?
            }
        };
        self.days(first, first.checked_add(1.month()).ok()?)
    }

    /// The calendar's day, week, month or year that lies `n` of them back; with hours, everything since then.
    fn whole(&self, unit: Unit, n: i64) -> Option<TimeRange> {
        let today = self.now.date();
        match unit {
            Unit::Minute | Unit::Hour => self.latest(unit, n.max(1)),
            Unit::Day => self.day(self.days_ago(n)?),
            Unit::Week => {
                let monday = i64::from(today.weekday().to_monday_zero_offset());
                let first = self.days_ago(n.checked_mul(7)?.checked_add(monday)?)?;
                self.days(first, first.checked_add(7.days()).ok()?)
            }
            Unit::Month => {
                let first = today.first_of_month().checked_sub(Span::new().try_months(n).ok()?).ok()?;
                self.days(first, first.checked_add(1.month()).ok()?)
            }
            Unit::Year => {
                let year = today.year().checked_sub(i16::try_from(n).ok()?)?;
                self.days(Date::new(year, 1, 1).ok()?, Date::new(year.checked_add(1)?, 1, 1).ok()?)
            }
        }
    }

    /// From so long ago until now. Days are whole.
    fn latest(&self, unit: Unit, n: i64) -> Option<TimeRange> {
        let ago = |seconds: i64| {
            let length = SignedDuration::from_secs(n.checked_mul(seconds)?);
            self.now.timestamp().checked_sub(length).ok().map(WallMs::from)
        };
        let months = |months: i64| {
            let length = Span::new().try_months(n.checked_mul(months)?).ok()?;
            self.day(self.now.date().checked_sub(length).ok()?).map(|day| day.from)
        };
        let days = |days: i64| self.day(self.days_ago(n.checked_mul(days)?)?).map(|day| day.from);
        let from = match unit {
            Unit::Minute => ago(60),
            Unit::Hour => ago(3_600),
            Unit::Day => days(1),
            Unit::Week => days(7),
            Unit::Month => months(1),
            Unit::Year => months(12),
        };
        Some(TimeRange { from: from?, to: after(&self.now) })
    }

    /// The latest such day, at least `least` days ago.
    fn weekday(&self, wanted: Weekday, least: i64) -> Option<TimeRange> {
        let days = i64::from(wanted.until(self.now.date().weekday()));
        self.day(self.days_ago(if days < least { days + 7 } else { days })?)
    }

    fn one_day(&self, words: &[&str]) -> Option<Date> {
        let from = self.span(words)?.from.timestamp().to_zoned(self.zone.0.clone()).date();
        (self.day(from)? == self.span(words)?).then_some(from)
    }

    fn days_ago(&self, days: i64) -> Option<Date> {
        self.now.date().checked_sub(Span::new().try_days(days).ok()?).ok()
    }

    fn minute(&self, from: Timestamp) -> TimeRange {
        let from = WallMs::from(from);
        TimeRange { from, to: WallMs(from.0.saturating_add(60_000)) }
    }

    fn day(&self, date: Date) -> Option<TimeRange> {
        self.days(date, date.tomorrow().ok()?)
    }

    fn days(&self, from: Date, to: Date) -> Option<TimeRange> {
        let begins = |date: Date| wall::first_instant(&self.zone.0, date.to_datetime(Time::midnight()));
        Some(TimeRange { from: begins(from)?.into(), to: begins(to)?.into() })
    }
}

/// The end of a range that holds this instant.
fn after(now: &Zoned) -> WallMs {
    WallMs(now.timestamp().as_millisecond().saturating_add(1))
}

fn unit(word: &str) -> Option<Unit> {
    Some(match word {
        "minute" | "minutes" | "min" | "mins" => Unit::Minute,
        "hour" | "hours" => Unit::Hour,
        "day" | "days" => Unit::Day,
        "week" | "weeks" => Unit::Week,
        "month" | "months" => Unit::Month,
        "year" | "years" => Unit::Year,
        _ => return None,
    })
}

fn number(word: &str) -> Option<i64> {
    match word {
        "a" | "an" | "one" => Some(1),
        "two" => Some(2),
        "three" => Some(3),
        digits => digits.parse().ok().filter(|n| (1..=100_000).contains(n)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::local_time;

    /// Wednesday, 4 November 2026, 10:00 in Berlin.
    const NOW: &str = "2026-11-04T10:00:00+01:00";

    fn berlin() -> Zone {
        Zone::bundled("Europe/Berlin")
    }

    fn at(text: &str) -> WallMs {
        local_time(text, &berlin()).unwrap()
    }

    fn read(text: &str) -> Result<TimeRange, RangeError> {
        past_range(text, &berlin(), at(NOW))
    }

    #[test]
    fn ranges_are_read_as_people_write_them() {
        const TILL_NOW: &str = "";
        for (text, from, to) in [
            ("today", "2026-11-04", TILL_NOW),
            ("Yesterday", "2026-11-03", "2026-11-04"),
            ("the day before yesterday", "2026-11-02", "2026-11-03"),
            ("this week", "2026-11-02", TILL_NOW),
            ("last week", "2026-10-26", "2026-11-02"),
            ("this month", "2026-11-01", TILL_NOW),
            ("last month", "2026-10-01", "2026-11-01"),
            ("last year", "2025-01-01", "2026-01-01"),
            ("3 days ago", "2026-11-01", "2026-11-02"),
            ("a week ago", "2026-10-26", "2026-11-02"),
            ("2 months ago", "2026-09-01", "2026-10-01"),
            ("2 hours ago", "2026-11-04T08:00", TILL_NOW),
            ("last 3 days", "2026-11-01", TILL_NOW),
            ("past two weeks", "2026-10-21", TILL_NOW),
            ("last hour", "2026-11-04T09:00", TILL_NOW),
            ("monday", "2026-11-02", "2026-11-03"),
            ("on Wednesday", "2026-11-04", TILL_NOW),
            ("last wednesday", "2026-10-28", "2026-10-29"),
            ("last thursday", "2026-10-29", "2026-10-30"),
            ("2026-11-03", "2026-11-03", "2026-11-04"),
            ("2026-11-03 14:00", "2026-11-03T14:00", "2026-11-03T14:01"),
            ("2026-11-03T14:00", "2026-11-03T14:00", "2026-11-03T14:01"),
            ("2026-11-03T13:00:00Z", "2026-11-03T14:00", "2026-11-03T14:01"),
            ("3 nov", "2026-11-03", "2026-11-04"),
            ("nov 3rd, 2025", "2025-11-03", "2025-11-04"),
            ("24 December", "2025-12-24", "2025-12-25"),
            ("29 feb", "2024-02-29", "2024-03-01"),
            ("in november", "2026-11-01", TILL_NOW),
            ("december", "2025-12-01", "2026-01-01"),
            ("december 2024", "2024-12-01", "2025-01-01"),
            ("2026-09", "2026-09-01", "2026-10-01"),
            ("2025", "2025-01-01", "2026-01-01"),
            ("1 nov to 3 nov", "2026-11-01", "2026-11-04"),
            ("2026-10-01..2026-10-05", "2026-10-01", "2026-10-06"),
            ("2026-10-01 - 2026-10-05", "2026-10-01", "2026-10-06"),
            ("from last week until yesterday", "2026-10-26", "2026-11-04"),
            ("between 1 oct and 5 oct", "2026-10-01", "2026-10-06"),
            ("yesterday 14:00 to yesterday 18:00", "2026-11-03T14:00", "2026-11-03T18:01"),
            ("2026-11-03 14:00 to now", "2026-11-03T14:00", TILL_NOW),
            ("since friday", "2026-10-30", TILL_NOW),
            ("yesterday to tomorrow", "", ""),
        ] {
            if from.is_empty() {
                assert!(read(text).is_err(), "{text}");
                continue;
            }
            let day = |text: &str| if text.len() == 10 { format!("{text}T00:00") } else { text.to_owned() };
            let to = if to == TILL_NOW { WallMs(at(NOW).0 + 1) } else { at(&day(to)) };
            assert_eq!(read(text), Ok(TimeRange { from: at(&day(from)), to }), "{text}");
        }
        assert_eq!(
            read("before 2026-10-01").unwrap(),
            TimeRange { from: EARLIEST, to: at("2026-10-01T00:00") }
        );
        assert_eq!(read("until yesterday").unwrap().to, at("2026-11-04T00:00"));
    }

    #[test]
    fn days_on_which_clocks_change_are_as_long_as_they_are() {
        let hours = |text: &str, zone: &str, now: &str| {
            let zone = Zone::bundled(zone);
            let range = past_range(text, &zone, local_time(now, &zone).unwrap()).unwrap();
            (range.to.0 - range.from.0) as f64 / 3_600_000.0
        };
        assert_eq!(hours("yesterday", "Europe/Berlin", "2026-10-26T10:00"), 25.0);
        assert_eq!(hours("2026-03-29", "Europe/Berlin", "2026-10-26T10:00"), 23.0);
        assert_eq!(hours("last week", "Europe/Berlin", "2026-10-26T10:00"), 169.0);
        // In Cairo clocks skip midnight: the day begins at one.
        assert_eq!(hours("2026-04-24", "Africa/Cairo", "2026-05-01T10:00"), 23.0);
        assert_eq!(hours("2026-10-04", "Australia/Lord_Howe", "2026-11-01T10:00"), 23.5);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_forms_that_are() {
        for text in [
            "",
            "whenever",
            "tomorrow",
            "32 nov",
            "2026-13-01",
            "2026-11-03 25:00",
            "0 days ago",
            "to",
            "-5 days ago",
            "999999999999 days ago",
            "100000 years ago",
            "last",
            "30 feb",
            "2026-11-03x",
            "nov 2026 to",
            "\0",
            "🎂",
        ] {
            let refused = read(text).unwrap_err().to_string();
            assert!(
                refused.contains("\"last week\"") && refused.contains("\"2026-11-03\""),
                "{text}: {refused}"
            );
        }
        assert!(matches!(read(&"x".repeat(201)), Err(RangeError::TooLong { bytes: 201 })));
        assert!(matches!(read("2026-12-24"), Err(RangeError::Future { .. })));
        assert!(matches!(read("yesterday to 1 oct"), Err(RangeError::Backwards { .. })));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC{0,40}|([a-z]{1,9} |[0-9-]{1,10} |last |ago |to |nov |days |T|:){0,6}") {
            if let Ok(range) = read(&text) {
                prop_assert!(range.from < range.to && range.to <= WallMs(at(NOW).0 + 1));
            }
        }
    }
}
