//! Reads a schedule as people and agents write it. Case, commas and words such as "at" do not matter. What is not
//! understood is refused with the forms that are: a guess would fire at the wrong time.

use std::time::Duration;

use jiff::civil::{Date, Time, Weekday};
use jiff::{Span, Timestamp, Zoned};

use super::cron::Cron;
use super::describe::local;
use super::error::{ScheduleError, quoted};
use super::{FARTHEST_YEARS, Interval, MAX_BYTES, SHORTEST, Schedule, Step, wall};
use crate::domain::{WallMs, Zone};

const DAY: u64 = 86_400;
const LONGEST_DAYS: u64 = 366;

/// Understands a schedule that somebody writes at `now` in `zone`.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn parse(text: &str, zone: &Zone, now: WallMs) -> Result<Schedule, ScheduleError> {
    if text.len() > MAX_BYTES {
        return Err(ScheduleError::TooLong { bytes: text.len() });
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(ScheduleError::Empty);
    }
    // Times that follow from now ("in 20 minutes") are whole seconds.
    let whole = WallMs(now.0 - now.0.rem_euclid(1_000));
    let reader = Reader { text, zone, now: whole.timestamp().to_zoned(zone.0.clone()) };
    let schedule = reader.read()?;
    if let Schedule::Once(at) = schedule {
        if at <= now {
            return Err(ScheduleError::Past { at: local(at, zone) });
        }
        let farthest = reader.now.checked_add(Span::new().years(FARTHEST_YEARS));
        if farthest.is_ok_and(|farthest| at > WallMs::from(farthest.timestamp())) {
            return Err(reader.too_far());
        }
    }
    Ok(schedule)
}

struct Reader<'a> {
    text: &'a str,
    zone: &'a Zone,
    now: Zoned,
}

type Read<T> = Result<T, ScheduleError>;

impl Reader<'_> {
    fn read(&self) -> Read<Schedule> {
        if let Some(nickname) = self.text.strip_prefix('@') {
            return self.nickname(&nickname.to_ascii_lowercase());
        }
        if begins_with_date(self.text) {
            return self.iso();
        }
        if looks_like_cron(self.text) {
            return Ok(Schedule::Cron(Box::new(Cron::parse(self.text)?)));
        }
        self.phrase()
    }

    fn nickname(&self, name: &str) -> Read<Schedule> {
        let days = match name {
            "hourly" => "0 * * * *",
            "daily" | "midnight" => "0 0 * * *",
            "weekly" => "0 0 * * 0",
            "monthly" => "0 0 1 * *",
            "yearly" | "annually" => "0 0 1 1 *",
            "reboot" => return Err(ScheduleError::AtStart),
            _ => return Err(self.not_understood()),
        };
        Ok(Schedule::Cron(Box::new(Cron::parse(days)?)))
    }

    /// `2026-12-24 18:00` in the zone, or RFC 3339 with an offset.
    fn iso(&self) -> Read<Schedule> {
        if let Ok(at) = self.text.parse::<Timestamp>() {
            return Ok(Schedule::Once(at.into()));
        }
        let (date, time) = self.text.split_at(10);
        let date: Date = date.parse().map_err(|_| ScheduleError::NoSuchDay { value: date.to_owned() })?;
        let time = time.strip_prefix(['T', 't']).unwrap_or(time).to_lowercase();
        let (time, rest) = self.words(&time)?;
        if rest.is_empty() { self.once(date, time) } else { Err(self.not_understood()) }
    }

    /// Splits a phrase into its time of day and the words that matter.
    fn words(&self, phrase: &str) -> Read<(Option<Time>, Vec<String>)> {
        const FILLERS: [&str; 7] = ["at", "on", "the", "and", "of", "o'clock", "@"];
        let (mut time, mut words) = (None, Vec::<String>::new());
        let phrase = phrase.replace(',', " ");
        let (mut rest, mut at) = (phrase.split_whitespace().peekable(), false);
        while let Some(word) = rest.next() {
            if FILLERS.contains(&word) {
                at = matches!(word, "at" | "@");
                continue;
            }
            let half = rest.next_if(|next| ["am", "pm", "a.m.", "p.m."].contains(next)).unwrap_or_default();
            // "at 8" is a time of day, and "8" alone is none.
            let is_hour = at && half.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
            let word = if is_hour { format!("{word}:00") } else { format!("{word}{half}") };
            at = false;
            match time_of_day(&word) {
                None => words.push(word),
                Some(Some(read)) if time.is_none() => time = Some(read),
                Some(Some(_)) => return Err(self.not_understood()),
                Some(None) => return Err(ScheduleError::BadTime { value: quoted(&word) }),
            }
        }
        Ok((time, words))
    }

    fn phrase(&self) -> Read<Schedule> {
        let (time, words) = self.words(&self.text.to_lowercase())?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let today = self.now.date();
        match &words[..] {
            [] => {
                let at = self.once(today, time)?;
                let over = matches!(at, Schedule::Once(at) if at.timestamp() <= self.now.timestamp());
                if over { self.once(self.days_from(today, 1)?, time) } else { Ok(at) }
            }
            ["today"] => self.once(today, time),
            ["tomorrow"] => self.once(self.days_from(today, 1)?, time),
            ["day", "after", "tomorrow"] => self.once(self.days_from(today, 2)?, time),
            ["in", length @ ..] => self.after(length, time),
            ["hourly"] if time.is_none() => {
                self.cron(Time::midnight(), |minute, _| format!("{minute} * * * *"))
            }
            ["daily" | "everyday"] => self.days(time, "* * *"),
            ["weekdays" | "workdays"] => self.days(time, "* * 1-5"),
            ["weekends"] => self.days(time, "* * 0,6"),
            ["weekly", days @ ..] => self.weekly(days, time),
            ["monthly", day] => self.monthly(day, time),
            ["yearly", date @ ..] => self.yearly(date, time),
            ["every" | "each", rest @ ..] => self.every(rest, time),
            [day] | ["this", day] if weekday(day).is_some() => self.on_weekday(day, 0, time),
            ["next", day] if weekday(day).is_some() => self.on_weekday(day, 1, time),
            days if days.iter().all(|day| plural_weekday(day).is_some()) => self.weekly(days, time),
            [_, _] => self.on_date(&words, None, time),
            [date @ .., year] => match year.parse() {
                Ok(year) if year >= 1_000 => self.on_date(date, Some(year), time),
                _ => Err(self.not_understood()),
            },
        }
    }

    fn every(&self, words: &[&str], time: Option<Time>) -> Read<Schedule> {
        match words {
            ["day"] if time.is_some() => self.days(time, "* * *"),
            ["weekday" | "weekdays" | "workday"] => self.days(time, "* * 1-5"),
            ["weekend" | "weekends"] => self.days(time, "* * 0,6"),
            ["month", day] | [day, "month"] => self.monthly(day, time),
            ["year", date @ ..] => self.yearly(date, time),
            ["other", "day"] => self.interval(0, 2, time),
            [_, ..] if words.iter().all(|day| weekday(day).or(plural_weekday(day)).is_some()) => {
                self.weekly(words, time)
            }
            _ => {
                let (seconds, days) = length(words).ok_or_else(|| self.not_understood())?;
                self.interval(seconds, days, time)
            }
        }
    }

    fn interval(&self, seconds: u64, days: u64, time: Option<Time>) -> Read<Schedule> {
        if days > LONGEST_DAYS || seconds > LONGEST_DAYS * DAY {
            return Err(ScheduleError::TooRare { text: quoted(self.text) });
        }
        let now = WallMs::from(self.now.timestamp());
        if seconds > 0 || days == 0 {
            let every = Duration::from_secs(seconds + days * DAY);
            if every < SHORTEST {
                return Err(ScheduleError::TooOften { every });
            }
            let seconds = u32::try_from(every.as_secs()).ok().filter(|_| time.is_none());
            let step = Step::Seconds(seconds.ok_or_else(|| self.not_understood())?);
            return Ok(Schedule::Every(Interval { anchor: now, step }));
        }
        let step = u16::try_from(days).map_err(|_| self.not_understood())?;
        // With a time of day, the first fire is at the next such time.
        let anchor = match time {
            None => now,
            Some(time) => {
                let today = self.at(self.now.date(), time)?;
                let back = if today > now { step } else { step - 1 };
                self.at(self.days_from(self.now.date(), -i64::from(back))?, time)?
            }
        };
        Ok(Schedule::Every(Interval { anchor, step: Step::Days(step) }))
    }

    /// "in 20 minutes"; "in 2 days" is the same time of day, or the given one.
    fn after(&self, words: &[&str], time: Option<Time>) -> Read<Schedule> {
        let (seconds, days) = length(words).ok_or_else(|| self.not_understood())?;
        let date = self.days_from(self.now.date(), i64::try_from(days).unwrap_or(i64::MAX))?;
        if time.is_some() {
            return if seconds == 0 { self.once(date, time) } else { Err(self.not_understood()) };
        }
        let from = if days == 0 { self.now.timestamp().into() } else { self.at(date, self.now.time())? };
        Ok(Schedule::Once(from.plus(Duration::from_secs(seconds))))
    }

    fn days(&self, time: Option<Time>, days: &str) -> Read<Schedule> {
        self.cron(time.ok_or_else(|| self.no_time())?, |minute, hour| format!("{minute} {hour} {days}"))
    }

    fn cron(&self, time: Time, fields: impl Fn(i8, i8) -> String) -> Read<Schedule> {
        if time.second() != 0 {
            return Err(ScheduleError::BadTime { value: time.to_string() });
        }
        Ok(Schedule::Cron(Box::new(Cron::parse(&fields(time.minute(), time.hour()))?)))
    }

    fn weekly(&self, days: &[&str], time: Option<Time>) -> Read<Schedule> {
        let read = |day: &&str| weekday(day).or(plural_weekday(day)).map(|day| day.to_sunday_zero_offset());
        let mut numbers =
            days.iter().map(read).collect::<Option<Vec<_>>>().ok_or_else(|| self.not_understood())?;
        if numbers.is_empty() {
            return Err(self.not_understood());
        }
        numbers.sort_unstable();
        numbers.dedup();
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        self.days(time, &format!("* * {}", numbers.join(",")))
    }

    fn monthly(&self, day: &str, time: Option<Time>) -> Read<Schedule> {
        let day = match day {
            "last" => "L".to_owned(),
            day => day_of_month(day).ok_or_else(|| self.not_understood())?.to_string(),
        };
        self.days(time, &format!("{day} * *"))
    }

    fn yearly(&self, date: &[&str], time: Option<Time>) -> Read<Schedule> {
        let (day, month) = day_and_month(date).ok_or_else(|| self.not_understood())?;
        self.days(time, &format!("{day} {month} *"))
    }

    /// The next such weekday, at least `least` days from today.
    fn on_weekday(&self, day: &str, least: i64, time: Option<Time>) -> Read<Schedule> {
        let wanted = weekday(day).ok_or_else(|| self.not_understood())?;
        let today = self.now.date();
        let days = i64::from(today.weekday().until(wanted));
        let at = self.once(self.days_from(today, days)?, time)?;
        let over = matches!(at, Schedule::Once(at) if at.timestamp() <= self.now.timestamp());
        if over || days < least { self.once(self.days_from(today, days + 7)?, time) } else { Ok(at) }
    }

    /// "24 dec 18:00": in the given year, or in the first that has this day to come.
    fn on_date(&self, date: &[&str], year: Option<i16>, time: Option<Time>) -> Read<Schedule> {
        let (day, month) = day_and_month(date).ok_or_else(|| self.not_understood())?;
        let first = year.unwrap_or(self.now.year());
        // Leap days are at most eight years apart.
        let years = first..=if year.is_some() { first } else { first.saturating_add(8) };
        let dates: Vec<Date> = years.filter_map(|year| Date::new(year, month, day).ok()).collect();
        let no_such_day = || ScheduleError::NoSuchDay { value: quoted(&date.join(" ")) };
        let to_come = |date: &&Date| {
            let at = time.map_or(Ok(WallMs(i64::MAX)), |time| self.at(**date, time));
            year.is_some() || at.is_ok_and(|at| at.timestamp() > self.now.timestamp() || time.is_none())
        };
        self.once(*dates.iter().find(to_come).ok_or_else(no_such_day)?, time)
    }

    fn once(&self, date: Date, time: Option<Time>) -> Read<Schedule> {
        Ok(Schedule::Once(self.at(date, time.ok_or_else(|| self.no_time())?)?))
    }

    fn at(&self, date: Date, time: Time) -> Read<WallMs> {
        let at = wall::first_instant(&self.zone.0, date.to_datetime(time));
        at.map(WallMs::from).ok_or_else(|| self.too_far())
    }

    fn days_from(&self, date: Date, days: i64) -> Read<Date> {
        let days = Span::new().try_days(days).map_err(|_| self.too_far())?;
        date.checked_add(days).map_err(|_| self.too_far())
    }

    fn not_understood(&self) -> ScheduleError {
        ScheduleError::NotUnderstood { text: quoted(self.text) }
    }

    fn no_time(&self) -> ScheduleError {
        ScheduleError::NoTime { text: quoted(self.text) }
    }

    fn too_far(&self) -> ScheduleError {
        ScheduleError::TooFar { text: quoted(self.text) }
    }
}

/// `2026-12-24…`
pub(super) fn begins_with_date(text: &str) -> bool {
    let digit_or_dash =
        |(n, byte): (usize, u8)| if matches!(n, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() >= 10 && text.bytes().take(10).enumerate().all(digit_or_dash)
}

fn looks_like_cron(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let numeric = |word: &&str| word.chars().all(|c| c.is_ascii_digit() || "*/,-".contains(c));
    let with_star = text.contains('*') && (words.len() >= 5 || words.first().is_some_and(numeric));
    let two_numbers = !text.contains(':') && words.len() >= 2 && words.iter().take(2).all(numeric);
    with_star || two_numbers
}

/// None if the word is no time of day, and `Some(None)` if it is a wrong one.
pub(super) fn time_of_day(word: &str) -> Option<Option<Time>> {
    match word {
        "noon" | "midday" => return Some(Some(Time::constant(12, 0, 0, 0))),
        "midnight" => return Some(Some(Time::midnight())),
        _ => {}
    }
    let half = [("am", 0), ("a.m.", 0), ("pm", 12), ("p.m.", 12)];
    let half = half.into_iter().find_map(|(suffix, hours)| Some((word.strip_suffix(suffix)?, hours)));
    let half = half.filter(|(digits, _)| digits.starts_with(|c: char| c.is_ascii_digit()));
    let digits = half.map_or(word, |(digits, _)| digits);
    if half.is_none() && !digits.contains(':') {
        return None;
    }
    let read = || {
        let part = |text: &str| {
            let plain = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<i8>().ok().filter(|_| plain)
        };
        let parts = digits.split(':').map(part).collect::<Option<Vec<i8>>>()?;
        let (hour, minute, second) = match parts[..] {
            [hour] => (hour, 0, 0),
            [hour, minute] => (hour, minute, 0),
            [hour, minute, second] => (hour, minute, second),
            _ => return None,
        };
        let hour = match half {
            None => hour,
            Some((_, hours)) if (1..=12).contains(&hour) => hour % 12 + hours,
            Some(_) => return None,
        };
        Time::new(hour, minute, second, 0).ok()
    };
    Some(read())
}

/// Seconds and days of "20 minutes", "1h30m", "an hour", "2 weeks". A unit alone is one of it.
fn length(words: &[&str]) -> Option<(u64, u64)> {
    let one =
        |word: &&str| if ["a", "an", "one"].contains(word) { "1".to_owned() } else { (*word).to_owned() };
    let text: String = words.iter().map(one).collect();
    let mut rest = if text.starts_with(|c: char| c.is_alphabetic()) { format!("1{text}") } else { text };
    let (mut seconds, mut days) = (0_u64, 0_u64);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit())?;
        let n: u64 = rest[..unit_at].parse().ok().filter(|n| *n < 1_000_000_000)?;
        let unit = rest.split_off(unit_at);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        match &unit[..end] {
            "s" | "sec" | "secs" | "second" | "seconds" => seconds += n,
            "m" | "min" | "mins" | "minute" | "minutes" => seconds += n * 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => seconds += n * 3_600,
            "d" | "day" | "days" => days += n,
            "w" | "week" | "weeks" => days += n * 7,
            _ => return None,
        }
        rest = unit[end..].to_owned();
    }
    (!words.is_empty()).then_some((seconds, days))
}

pub(super) fn weekday(word: &str) -> Option<Weekday> {
    Some(match word {
        "sun" | "sunday" => Weekday::Sunday,
        "mon" | "monday" => Weekday::Monday,
        "tue" | "tues" | "tuesday" => Weekday::Tuesday,
        "wed" | "wednesday" => Weekday::Wednesday,
        "thu" | "thur" | "thurs" | "thursday" => Weekday::Thursday,
        "fri" | "friday" => Weekday::Friday,
        "sat" | "saturday" => Weekday::Saturday,
        _ => return None,
    })
}

fn plural_weekday(word: &str) -> Option<Weekday> {
    word.strip_suffix('s').filter(|word| word.ends_with("day")).and_then(weekday)
}

/// `24`, `24th`, `24.`
fn day_of_month(word: &str) -> Option<i8> {
    let word =
        ["st", "nd", "rd", "th", "."].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word);
    let plain = word.bytes().all(|b| b.is_ascii_digit());
    word.parse().ok().filter(|day| plain && (1..=31).contains(day))
}

pub(super) fn day_and_month(words: &[&str]) -> Option<(i8, i8)> {
    let [first, second] = words else { return None };
    let read = |day: &str, month: &str| Some((day_of_month(day)?, month_number(month)?));
    read(first, second).or_else(|| read(second, first))
}

pub(super) fn month_number(word: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let fits = |(_, name): &(i8, &str)| {
        *name == word || name[..3] == *word || word == "sept" && *name == "september"
    };
    (1..).zip(MONTHS).find(fits).map(|(number, _)| number)
}

/// An instant as a person writes it: a local time such as `2026-03-06T00:00`, or RFC 3339 with an offset.
///
/// # Errors
/// The text is no such time.
pub fn local_time(text: &str, zone: &Zone) -> Result<WallMs, ScheduleError> {
    let reader = Reader { text, zone, now: Timestamp::UNIX_EPOCH.to_zoned(zone.0.clone()) };
    match begins_with_date(text).then(|| reader.iso()).transpose()? {
        Some(Schedule::Once(at)) => Ok(at),
        _ => Err(ScheduleError::NoSuchDay { value: quoted(text) }),
    }
}
