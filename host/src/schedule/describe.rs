//! Schedules and instants in words: what was understood, shown back.

use std::time::Duration;

use super::cron::Cron;
use super::error::{Field, told};
use super::{Interval, Schedule, Step};
use crate::domain::{WallMs, Zone};

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Schedule {
    /// `every day at 07:30 Europe/Berlin`, `every 30 minutes`, `once, Tue 1 Dec 2026 09:00 Europe/Berlin`
    pub fn describe(&self, zone: &Zone) -> String {
        match self {
            Self::Cron(cron) => pattern(cron, zone),
            Self::Every(Interval { step: Step::Seconds(n), .. }) => every(Duration::from_secs((*n).into())),
            Self::Every(Interval { anchor, step: Step::Days(n) }) => {
                let time = anchor.timestamp().to_zoned(zone.0.clone()).strftime("%H:%M");
                let days = every(Duration::from_secs(u64::from(*n) * 86_400));
                format!("{days} at {time} {}", zone.name())
            }
            Self::Once(at) => format!("once, {}", local(*at, zone)),
        }
    }
}

/// `Tue 1 Dec 2026 09:00 Europe/Berlin`
pub fn local(at: WallMs, zone: &Zone) -> String {
    let local = at.timestamp().to_zoned(zone.0.clone());
    format!("{} {}", local.strftime("%a %-d %b %Y %H:%M"), zone.name())
}

/// `Mon 9 Nov 09:00 Europe/Berlin, in 2 days`. Another year than this one is named.
pub fn describe_instant(at: WallMs, zone: &Zone, now: WallMs) -> String {
    let (there, here) = (at.timestamp().to_zoned(zone.0.clone()), now.timestamp().to_zoned(zone.0.clone()));
    let year = if there.year() == here.year() { "" } else { " %Y" };
    let date = there.strftime(&format!("%a %-d %b{year} %H:%M")).to_string();
    let seconds = at.0.saturating_sub(now.0).unsigned_abs().div_ceil(1_000);
    let (minutes, hours) = ((seconds + 30) / 60, (seconds + 1_800) / 3_600);
    let days = there.date().since(here.date()).map_or(0, |span| u64::from(span.get_days().unsigned_abs()));
    let length = match seconds {
        0..60 => (seconds, "second"),
        _ if minutes < 60 => (minutes, "minute"),
        _ if hours < 24 => (hours, "hour"),
        _ => (days, "day"),
    };
    let length = format!("{} {}{}", length.0, length.1, if length.0 == 1 { "" } else { "s" });
    let distance = if at >= now { format!("in {length}") } else { format!("{length} ago") };
    format!("{date} {}, {distance}", zone.name())
}

/// `every hour`, `every 30 minutes`
fn every(length: Duration) -> String {
    let told = told(&length);
    format!("every {}", told.strip_prefix("1 ").unwrap_or(&told))
}

/// A cron pattern in words. The zone is named where a time of day or a day depends on it.
fn pattern(cron: &Cron, zone: &Zone) -> String {
    let (days, zone) = (days(cron), zone.name());
    let (minutes, hours) = (values(cron, Field::Minute), values(cron, Field::Hour));
    if minutes.len() * hours.len() <= 4 {
        let times = hours.iter().flat_map(|h| minutes.iter().map(move |m| format!("{h:02}:{m:02}")));
        let (days, times) =
            (days.unwrap_or_else(|| "every day".to_owned()), list(&times.collect::<Vec<_>>()));
        return format!("{days} at {times} {zone}");
    }
    let every_hour = cron.runs_every_hour();
    let count = u16::try_from(minutes.len()).unwrap_or(60);
    let even = 60 % count == 0 && minutes.iter().zip(0..).all(|(minute, n)| *minute == n * (60 / count));
    let of_hour = if every_hour { " of every hour" } else { "" };
    let mut told = match &minutes[..] {
        [0] if every_hour => "every hour".to_owned(),
        [minute] => format!("at minute {minute}{of_hour}"),
        _ if even => every(Duration::from_secs(3_600 / u64::from(count))),
        _ => format!("at minutes {}{of_hour}", ranges(&minutes)),
    };
    if !every_hour {
        told += &format!(" in the hours {}", ranges(&hours));
    }
    match days {
        Some(days) => format!("{told}, {days}, {zone}"),
        None if every_hour => told,
        None => format!("{told} {zone}"),
    }
}

/// The days on which a pattern matches; none if it matches on every day.
fn days(cron: &Cron) -> Option<String> {
    let of_month = (cron.fields[2] != "*").then(|| days_of_month(cron));
    let weekdays = (cron.fields[4] != "*").then(|| weekdays(cron));
    let months = (cron.fields[3] != "*").then(|| {
        let names =
            values(cron, Field::Month).iter().map(|n| name(&MONTHS, n - 1).to_owned()).collect::<Vec<_>>();
        list(&names)
    });
    let month = months.as_deref().unwrap_or("the month");
    match (of_month, weekdays) {
        (None, None) => months.map(|months| format!("every day in {months}")),
        (None, Some(weekdays)) => {
            Some(months.map_or(weekdays.clone(), |months| format!("{weekdays} in {months}")))
        }
        (Some(days), None) => Some(format!("on {days} of {month}")),
        (Some(days), Some(weekdays)) => {
            let within = months.as_deref().map(|months| format!(" in {months}")).unwrap_or_default();
            Some(format!("on {days} of {month} and also {weekdays}{within}"))
        }
    }
}

fn days_of_month(cron: &Cron) -> String {
    if let Some(values) = cron.values(Field::Day) {
        return format!("{} {}", if values.len() == 1 { "day" } else { "days" }, ranges(&values));
    }
    let told = cron.fields[2].split(',').map(|value| match (value, value.strip_suffix('W')) {
        ("L", _) => "the last day".to_owned(),
        ("LW", _) => "the last workday".to_owned(),
        (_, Some(day)) => format!("the workday nearest to day {day}"),
        _ => format!("day {value}"),
    });
    list(&told.collect::<Vec<_>>())
}

fn weekdays(cron: &Cron) -> String {
    match cron.values(Field::Weekday).as_deref() {
        Some([1, 2, 3, 4, 5]) => return "on weekdays".to_owned(),
        Some([0, 6]) => return "on weekends".to_owned(),
        Some(values) => {
            let names = values.iter().map(|n| name(&WEEKDAYS, *n).to_owned()).collect::<Vec<_>>();
            return format!("every {}", list(&names));
        }
        None => {}
    }
    let day = |n: &str| n.parse().map_or("", |n: u16| name(&WEEKDAYS, n % 7)).to_owned();
    let told =
        cron.fields[4].split(',').map(|value| match (value.strip_suffix('L'), value.split_once('#')) {
            (Some(n), _) => format!("the last {} of a month", day(n)),
            (_, Some((n, nth))) => {
                let nth = nth
                    .parse()
                    .map_or("", |nth: u16| name(&["first", "second", "third", "fourth", "fifth"], nth - 1));
                format!("the {nth} {} of a month", day(n))
            }
            _ => value.split('-').map(day).collect::<Vec<_>>().join("-"),
        });
    format!("on {}", list(&told.collect::<Vec<_>>()))
}

fn values(cron: &Cron, field: Field) -> Vec<u16> {
    cron.values(field).unwrap_or_default()
}

fn name(names: &[&'static str], n: u16) -> &'static str {
    names.get(usize::from(n)).copied().unwrap_or_default()
}

/// `a`, `a and b`, `a, b and c`
fn list(items: &[String]) -> String {
    match items {
        [most @ .., last] if !most.is_empty() => format!("{} and {last}", most.join(", ")),
        _ => items.concat(),
    }
}

/// `1-5, 9`
fn ranges(values: &[u16]) -> String {
    let mut out: Vec<(u16, u16)> = Vec::new();
    for &value in values {
        match out.last_mut() {
            Some((_, end)) if *end + 1 == value => *end = value,
            _ => out.push((value, value)),
        }
    }
    let told = out.iter().map(|(from, to)| match to - from {
        0 => from.to_string(),
        1 => format!("{from}, {to}"),
        _ => format!("{from}-{to}"),
    });
    told.collect::<Vec<_>>().join(", ")
}
