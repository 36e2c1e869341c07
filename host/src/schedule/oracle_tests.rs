//! Fires against an oracle that walks minute by minute. It reads patterns by itself and asks a zone only for its offset
//! at an instant, so it shares neither `croner` nor the work with transitions.

use std::cell::Cell;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp, ToSpan};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Zones with one hour, half an hour and two hours of summer time, gaps at midnight, changes across midnight, odd
/// offsets, recent changes of law, and none.
const ZONES: [&str; 16] = [
    "America/New_York",
    "Europe/Berlin",
    "Europe/London",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Atlantic/Azores",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Beirut",
    "Antarctica/Troll",
    "Pacific/Chatham",
    "America/Vancouver",
    "America/Edmonton",
    "Africa/Casablanca",
    "UTC",
];

/// A pattern as the oracle reads it.
struct Pattern {
    minute: Vec<i8>,
    hour: Vec<i8>,
    day: String,
    month: Vec<i8>,
    weekday: String,
}

impl Pattern {
    fn read(text: &str) -> Self {
        let fields: Vec<&str> = text.split(' ').collect();
        let [minute, hour, day, month, weekday] = fields[..] else { panic!("{text}") };
        Self {
            minute: numbers(minute, 0, 59),
            hour: numbers(hour, 0, 23),
            day: day.to_owned(),
            month: numbers(month, 1, 12),
            weekday: weekday.to_owned(),
        }
    }

    fn matches(&self, at: DateTime) -> bool {
        self.minute.contains(&at.minute()) && self.hour.contains(&at.hour()) && self.matches_day(at)
    }

    fn matches_day(&self, at: DateTime) -> bool {
        let date = at.date();
        let weekday = date.weekday().to_sunday_zero_offset();
        let of_month = self.day.split(',').any(|value| {
            let last = date.days_in_month();
            match (value, value.strip_suffix('W')) {
                ("L", _) => date.day() == last,
                (_, Some(day)) => {
                    let Ok(wanted) = jiff::civil::Date::new(date.year(), date.month(), day.parse().unwrap())
                    else {
                        return false;
                    };
                    let moved = match wanted.weekday().to_sunday_zero_offset() {
                        6 if wanted.day() > 1 => -1,
                        6 => 2,
                        0 if wanted.day() < last => 1,
                        0 => -2,
                        _ => 0,
                    };
                    wanted.checked_add(moved.days()).unwrap() == date
                }
                _ => numbers(value, 1, 31).contains(&date.day()),
            }
        });
        let of_week =
            self.weekday.split(',').any(|value| match (value.split_once('#'), value.strip_suffix('L')) {
                (Some((day, nth)), _) => {
                    let nth: i8 = nth.parse().unwrap();
                    day.parse::<i8>().unwrap() % 7 == weekday && (date.day() - 1) / 7 + 1 == nth
                }
                (_, Some(day)) => {
                    day.parse::<i8>().unwrap() % 7 == weekday && date.day() + 7 > date.days_in_month()
                }
                _ => numbers(value, 0, 7).iter().any(|day| day % 7 == weekday),
            });
        let day = match (self.day == "*", self.weekday == "*") {
            (false, false) => of_month || of_week,
            _ => of_month && of_week,
        };
        day && self.month.contains(&date.month())
    }
}

fn numbers(field: &str, least: i8, most: i8) -> Vec<i8> {
    let values = field.split(',').flat_map(|value| {
        let (range, step) = value.split_once('/').unwrap_or((value, "1"));
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        (from..=to).step_by(step.parse().unwrap())
    });
    values.collect()
}

/// Every fire after `from` until `until`.
fn walk(pattern: &Pattern, zone: &Zone, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    const MINUTE: SignedDuration = SignedDuration::from_secs(60);
    let every_hour = (0..24).all(|hour| pattern.hour.contains(&hour));
    // Long enough that the highest time which clocks have shown is known at `from`.
    let mut at = from - SignedDuration::from_hours(6);
    let mut highest = zone.0.to_offset(at).to_datetime(at);
    let mut fires = Vec::new();
    while at < until {
        at += MINUTE;
        let shown = zone.0.to_offset(at).to_datetime(at);
        let mut fire = every_hour && pattern.matches(shown);
        while highest < shown {
            highest += 1.minute();
            fire |= !every_hour && pattern.matches(highest);
        }
        if fire && at > from {
            fires.push(at);
        }
    }
    fires
}

/// Compares the schedule with the oracle and returns how many fires both have.
pub(super) fn check(text: &str, zone: &Zone, from: Timestamp, length: SignedDuration) -> usize {
    let until = from + length;
    let schedule = parse(text, zone, from.into()).unwrap();
    assert_eq!(Schedule::from_canonical(&schedule.canonical()).as_ref(), Ok(&schedule), "{text}");
    let next = |after: &WallMs| schedule.next(zone, *after);
    let fires: Vec<WallMs> = std::iter::successors(next(&from.into()), next)
        .take_while(|fire| fire.timestamp() <= until)
        .collect();
    assert!(fires.is_sorted_by(|a, b| a < b), "{text} in {} goes back", zone.name());
    let expected: Vec<WallMs> =
        walk(&Pattern::read(text), zone, from, until).into_iter().map(WallMs::from).collect();
    if fires != expected {
        let same = fires.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let told =
            |fires: &[WallMs]| fires.iter().skip(same).take(3).map(|at| at.local(zone)).collect::<Vec<_>>();
        let after = WallMs::from(from).local(zone);
        panic!("{text} in {} after {after}: {:?}, not {:?}", zone.name(), told(&fires), told(&expected));
    }
    // A restart asks from any instant, and gets the same.
    for pair in fires.windows(2).take(20) {
        for after in
            [WallMs(pair[0].0 + 1), WallMs(pair[1].0 - 1), WallMs(i64::midpoint(pair[0].0, pair[1].0))]
        {
            assert_eq!(next(&after), Some(pair[1]), "{text} in {} after {}", zone.name(), after.local(zone));
        }
    }
    fires.len()
}

/// One value of a field: a number, a range, either with a step.
fn value(least: u8, most: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (least..=most).prop_map(|n| n.to_string()),
        2 => (least..=most, least..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (least..=most, least..=most, 1..9_u8).prop_map(|(a, b, n)| format!("{}-{}/{n}", a.min(b), a.max(b))),
        1 => (1..30_u8).prop_map(|n| format!("*/{n}")),
    ]
}

fn field(star: u32, value: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = String> {
    prop_oneof![
        star => Just("*".to_owned()),
        6 => prop::collection::vec(value, 1..4).prop_map(|values| values.join(",")),
    ]
}

fn patterns() -> impl Strategy<Value = String> {
    let day = prop_oneof![
        6 => value(1, 31), 1 => Just("L".to_owned()), 1 => (1..=31_u8).prop_map(|n| format!("{n}W"))
    ];
    let weekday = prop_oneof![
        6 => value(0, 7), 1 => (0..=7_u8, 1..=5_u8).prop_map(|(n, nth)| format!("{n}#{nth}")),
        1 => (0..=7_u8).prop_map(|n| format!("{n}L"))
    ];
    // Around clock changes, which are in the night.
    let hour = prop_oneof![value(0, 23), value(0, 4)];
    let fields =
        (field(1, value(0, 59)), field(4, hour), field(18, day), field(30, value(1, 12)), field(18, weekday));
    fields.prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

/// 15 hours, most of them around a clock change.
fn windows() -> impl Strategy<Value = (Zone, Timestamp, SignedDuration)> {
    (0..ZONES.len(), 0..3_650_i64, 0..720_i64, 0..5_u8).prop_map(|(zone, day, minute, chance)| {
        let zone = Zone::bundled(ZONES[zone]);
        let any = "2020-01-01T00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(day * 24);
        let change = zone.0.following(any).next().map(|change| change.timestamp());
        let around = change.filter(|_| chance > 0).map_or(any, |at| at - SignedDuration::from_hours(12));
        (zone, around + SignedDuration::from_mins(minute), SignedDuration::from_hours(15))
    })
}

#[test]
fn fires_are_those_of_a_walk_minute_by_minute() {
    let config = Config { failure_persistence: None, ..Config::default() };
    // `PROPTEST_CASES` asks for more.
    let wanted = config.cases.max(2_000);
    let (cases, fires) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: wanted, ..config });
    let result = runner.run(&(patterns(), windows()), |(pattern, (zone, from, length))| {
        match parse(&pattern, &zone, from.into()) {
            Ok(_) => fires.set(fires.get() + check(&pattern, &zone, from, length)),
            // 31 February is refused. The oracle would walk for ever.
            Err(e) => prop_assert!(matches!(e, ScheduleError::Never { .. }), "{pattern}: {e}"),
        }
        cases.set(cases.get() + 1);
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
    println!("{} cases, {} fires", cases.get(), fires.get());
    assert!(cases.get() >= wanted && fires.get() > 10 * wanted as usize);
}

/// Days of the month and weekdays over years; the times of day are rare.
#[test]
fn rare_days_are_found_over_two_years() {
    let zone = Zone::bundled("America/New_York");
    let from = "2027-01-15T00:00Z".parse().unwrap();
    for (pattern, fires) in [
        ("30 2 29 2 *", 1),
        ("30 2 L * *", 24),
        ("0 1 15W * *", 24),
        ("0 9 * * 5#5", 9),
        ("30 2 * 3,11 0#2,0#1", 8),
        ("0 9 31 * 1L", 35),
    ] {
        assert_eq!(check(pattern, &zone, from, SignedDuration::from_hours(24 * 731)), fires, "{pattern}");
    }
}
