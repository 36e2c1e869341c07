//! What happens when clocks change: written out for the cases that people ask about, and compared with the walk
//! minute by minute for the others.

use jiff::SignedDuration;

use super::oracle_tests::check;
use super::*;

fn fires(text: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let zone = Zone::bundled(zone);
    let from = local_time(from, &zone).unwrap();
    let schedule = parse(text, &zone, from).unwrap();
    let fires = std::iter::successors(schedule.next(&zone, from), |fire| schedule.next(&zone, *fire));
    fires.take(count).map(|fire| fire.local(&zone)).collect()
}

#[test]
fn a_skipped_time_fires_once_at_the_end_of_the_gap() {
    for (text, zone, from, expected) in [
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00",
            ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"],
        ),
        (
            "*/15 2 * * *",
            "America/New_York",
            "2026-03-07T12:00",
            ["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"],
        ),
        (
            "0 */2 * * *",
            "America/New_York",
            "2026-03-08T00:30",
            ["2026-03-08T03:00:00-04:00", "2026-03-08T04:00:00-04:00"],
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00",
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        ),
        (
            "30 1 * * *",
            "Europe/London",
            "2026-03-28T12:00",
            ["2026-03-29T02:00:00+01:00", "2026-03-30T01:30:00+01:00"],
        ),
        (
            "30 2 * * *",
            "Australia/Sydney",
            "2026-10-03T12:00",
            ["2026-10-04T03:00:00+11:00", "2026-10-05T02:30:00+11:00"],
        ),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00",
            ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
        ),
        (
            "0 0 * * *",
            "America/Santiago",
            "2026-09-05T12:00",
            ["2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"],
        ),
        (
            "every 1 day 02:30",
            "Europe/Berlin",
            "2026-03-28T12:00",
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        ),
    ] {
        assert_eq!(fires(text, zone, from, 2), expected, "{text} in {zone}");
    }
    assert_eq!(
        fires("2026-03-29 02:30", "Europe/Berlin", "2026-03-28T12:00", 2),
        ["2026-03-29T03:00:00+02:00"]
    );
}

#[test]
fn a_time_that_clocks_show_twice_fires_at_the_first() {
    for (text, zone, from, expected) in [
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00",
            ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
        ),
        (
            "0,30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00",
            ["2026-11-01T01:00:00-04:00", "2026-11-01T01:30:00-04:00"],
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00",
            ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
        ),
        (
            "30 1 * * *",
            "Europe/London",
            "2026-10-24T12:00",
            ["2026-10-25T01:30:00+01:00", "2026-10-26T01:30:00+00:00"],
        ),
        (
            "30 2 * * *",
            "Australia/Sydney",
            "2026-04-04T12:00",
            ["2026-04-05T02:30:00+11:00", "2026-04-06T02:30:00+10:00"],
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T12:00",
            ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
        ),
        (
            "30 23 * * *",
            "America/Santiago",
            "2026-04-04T12:00",
            ["2026-04-04T23:30:00-03:00", "2026-04-05T23:30:00-04:00"],
        ),
    ] {
        assert_eq!(fires(text, zone, from, 2), expected, "{text} in {zone}");
    }
}

#[test]
fn what_runs_every_hour_follows_the_time_that_passes() {
    assert_eq!(
        fires("30 * * * *", "America/New_York", "2026-03-08T01:00", 2),
        ["2026-03-08T01:30:00-05:00", "2026-03-08T03:30:00-04:00"]
    );
    assert_eq!(
        fires("30 * * * *", "America/New_York", "2026-11-01T01:00", 3),
        ["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00", "2026-11-01T02:30:00-05:00"]
    );
    let quarters = fires("*/15 * * * *", "Europe/Berlin", "2026-10-25T01:59", 9);
    assert_eq!(
        quarters[4..],
        quarters[..4]
            .iter()
            .map(|q| q.replace("+02", "+01"))
            .chain(["2026-10-25T03:00:00+01:00".to_owned()])
            .collect::<Vec<_>>()
    );
    assert_eq!(
        fires("every 40 minutes", "Europe/Berlin", "2026-03-29T01:00", 3),
        ["2026-03-29T01:40:00+01:00", "2026-03-29T03:20:00+02:00", "2026-03-29T04:00:00+02:00"]
    );
}

#[test]
fn laws_of_2026_are_known() {
    for (zone, expected) in [
        ("America/Vancouver", "2026-12-01T09:00:00-07:00"),
        ("America/Edmonton", "2026-12-01T09:00:00-06:00"),
        ("Africa/Casablanca", "2026-12-01T09:00:00+00:00"),
    ] {
        assert_eq!(fires("0 9 * * *", zone, "2026-12-01T00:00", 1), [expected]);
    }
    // British Columbia keeps its summer time.
    let vancouver = fires("30 1 * * *", "America/Vancouver", "2026-10-31T12:00", 2);
    assert_eq!(vancouver, ["2026-11-01T01:30:00-07:00", "2026-11-02T01:30:00-07:00"]);
}

#[test]
fn twelve_schedules_in_nine_zones_are_right_across_every_change_of_a_year() {
    let schedules = [
        "30 2 * * *",
        "0 0 * * *",
        "30 23 * * *",
        "15 1,2,3 * * *",
        "*/15 * * * *",
        "0 * * * *",
        "30 */2 * * *",
        "*/20 0-4 * * *",
        "0 2 * * 0",
        "59 1 1-8 * *",
        "0 3 * * 1-5",
        "45 1,2 L * 6",
    ];
    let zones = [
        "America/New_York",
        "Europe/Berlin",
        "Europe/London",
        "Australia/Sydney",
        "Australia/Lord_Howe",
        "America/Santiago",
        "America/Vancouver",
        "America/Edmonton",
        "Africa/Casablanca",
    ];
    let mut fires = 0;
    for zone in zones.map(Zone::bundled) {
        let year = "2026-01-01T00:00Z".parse().unwrap();
        let within = |at: &jiff::Timestamp| at.duration_since(year) < SignedDuration::from_hours(24 * 470);
        let changes: Vec<_> =
            zone.0.following(year).map(|change| change.timestamp()).take_while(within).collect();
        let december = "2026-12-15T00:00Z".parse().unwrap();
        for around in changes.into_iter().chain([december]) {
            let from = around - SignedDuration::from_hours(36);
            fires += schedules
                .iter()
                .map(|text| check(text, &zone, from, SignedDuration::from_hours(72)))
                .sum::<usize>();
        }
    }
    println!("{fires} fires");
    assert!(fires > 10_000, "{fires}");
}
