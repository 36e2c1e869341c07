//! What people and agents write, how it is understood, and what is refused.

use super::*;

/// Wednesday, 4 November 2026, 10:00 in Berlin.
const NOW: &str = "2026-11-04T10:00:00+01:00";

fn berlin() -> Zone {
    Zone::bundled("Europe/Berlin")
}

fn now() -> WallMs {
    local_time(NOW, &berlin()).unwrap()
}

fn read(text: &str) -> Result<Schedule, ScheduleError> {
    parse(text, &berlin(), now())
}

fn refused(text: &str) -> String {
    let error = read(text).expect_err(text);
    format!("{}: {error}", error.code())
}

#[test]
fn schedules_are_read_as_people_write_them() {
    for (text, understood, first) in [
        ("daily 07:30", "every day at 07:30 Europe/Berlin", "2026-11-05T07:30"),
        ("Every  DAY at 7:30", "every day at 07:30 Europe/Berlin", "2026-11-05T07:30"),
        ("every day at 8", "every day at 08:00 Europe/Berlin", "2026-11-05T08:00"),
        ("tomorrow at 18", "once, Thu 5 Nov 2026 18:00 Europe/Berlin", "2026-11-05T18:00"),
        ("7:30 pm daily", "every day at 19:30 Europe/Berlin", "2026-11-04T19:30"),
        ("weekdays 08:00", "on weekdays at 08:00 Europe/Berlin", "2026-11-05T08:00"),
        ("every weekday at 8am", "on weekdays at 08:00 Europe/Berlin", "2026-11-05T08:00"),
        ("weekends 10:00", "on weekends at 10:00 Europe/Berlin", "2026-11-07T10:00"),
        ("weekly mon 09:00", "every Monday at 09:00 Europe/Berlin", "2026-11-09T09:00"),
        ("Mondays, 9 am", "every Monday at 09:00 Europe/Berlin", "2026-11-09T09:00"),
        (
            "every mon, wed and fri at 9:00",
            "every Monday, Wednesday and Friday at 09:00 Europe/Berlin",
            "2026-11-06T09:00",
        ),
        ("monthly 1 09:00", "on day 1 of the month at 09:00 Europe/Berlin", "2026-12-01T09:00"),
        (
            "every month on the 3rd at noon",
            "on day 3 of the month at 12:00 Europe/Berlin",
            "2026-12-03T12:00",
        ),
        ("monthly last 18:00", "on the last day of the month at 18:00 Europe/Berlin", "2026-11-30T18:00"),
        ("yearly 24 dec 09:00", "on day 24 of December at 09:00 Europe/Berlin", "2026-12-24T09:00"),
        ("hourly", "every hour", "2026-11-04T11:00"),
        ("every 30m", "every 30 minutes", "2026-11-04T10:30"),
        ("every 2 hours", "every 2 hours", "2026-11-04T12:00"),
        ("every hour", "every hour", "2026-11-04T11:00"),
        ("every 1h30m", "every 90 minutes", "2026-11-04T11:30"),
        ("every other day at 9:00", "every 2 days at 09:00 Europe/Berlin", "2026-11-05T09:00"),
        ("every 2 weeks 18:00", "every 14 days at 18:00 Europe/Berlin", "2026-11-04T18:00"),
        ("every 3 days", "every 3 days at 10:00 Europe/Berlin", "2026-11-07T10:00"),
        ("in 20 minutes", "once, Wed 4 Nov 2026 10:20 Europe/Berlin", "2026-11-04T10:20"),
        ("In an hour", "once, Wed 4 Nov 2026 11:00 Europe/Berlin", "2026-11-04T11:00"),
        ("in 2 days at 8:00", "once, Fri 6 Nov 2026 08:00 Europe/Berlin", "2026-11-06T08:00"),
        ("tomorrow 9:00", "once, Thu 5 Nov 2026 09:00 Europe/Berlin", "2026-11-05T09:00"),
        ("today 18:00", "once, Wed 4 Nov 2026 18:00 Europe/Berlin", "2026-11-04T18:00"),
        ("day after tomorrow 9:00", "once, Fri 6 Nov 2026 09:00 Europe/Berlin", "2026-11-06T09:00"),
        ("9:00", "once, Thu 5 Nov 2026 09:00 Europe/Berlin", "2026-11-05T09:00"),
        ("mon 9:00", "once, Mon 9 Nov 2026 09:00 Europe/Berlin", "2026-11-09T09:00"),
        ("wed 18:00", "once, Wed 4 Nov 2026 18:00 Europe/Berlin", "2026-11-04T18:00"),
        ("wed 9:00", "once, Wed 11 Nov 2026 09:00 Europe/Berlin", "2026-11-11T09:00"),
        ("next wednesday 18:00", "once, Wed 11 Nov 2026 18:00 Europe/Berlin", "2026-11-11T18:00"),
        ("24 dec 18:00", "once, Thu 24 Dec 2026 18:00 Europe/Berlin", "2026-12-24T18:00"),
        ("March 1st, 2028 at 6 p.m.", "once, Wed 1 Mar 2028 18:00 Europe/Berlin", "2028-03-01T18:00"),
        ("29 feb 9:00", "once, Tue 29 Feb 2028 09:00 Europe/Berlin", "2028-02-29T09:00"),
        ("2026-12-24 18:00", "once, Thu 24 Dec 2026 18:00 Europe/Berlin", "2026-12-24T18:00"),
        ("2026-12-24T18:00:00+05:00", "once, Thu 24 Dec 2026 14:00 Europe/Berlin", "2026-12-24T14:00"),
        ("2026-12-24T18:00Z", "once, Thu 24 Dec 2026 19:00 Europe/Berlin", "2026-12-24T19:00"),
        ("30 7 * * 1-5", "on weekdays at 07:30 Europe/Berlin", "2026-11-05T07:30"),
        (
            "0 9 * jan-mar MON,thu",
            "every Monday and Thursday in January, February and March at 09:00 Europe/Berlin",
            "2027-01-04T09:00",
        ),
        ("*/15 9-17 * * *", "every 15 minutes in the hours 9-17 Europe/Berlin", "2026-11-04T10:15"),
        ("*/15 * * * *", "every 15 minutes", "2026-11-04T10:15"),
        (
            "5,35 * * * sat-sun",
            "at minutes 5, 35 of every hour, on weekends, Europe/Berlin",
            "2026-11-07T00:05",
        ),
        (
            "0 9 13 * 5",
            "on day 13 of the month and also every Friday at 09:00 Europe/Berlin",
            "2026-11-06T09:00",
        ),
        ("0 9 LW * *", "on the last workday of the month at 09:00 Europe/Berlin", "2026-11-30T09:00"),
        ("0 9 ? * fri#2", "on the second Friday of a month at 09:00 Europe/Berlin", "2026-11-13T09:00"),
        ("@daily", "every day at 00:00 Europe/Berlin", "2026-11-05T00:00"),
    ] {
        let schedule = read(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(schedule.describe(&berlin()), understood, "{text}");
        let fire = schedule.next(&berlin(), now()).map(|fire| fire.local(&berlin())[..16].to_owned());
        assert_eq!(fire.as_deref(), Some(first), "{text}");
        assert_eq!(Schedule::from_canonical(&schedule.canonical()), Ok(schedule), "{text}");
    }
}

#[test]
fn each_refusal_says_what_is_wrong_where_and_what_would_be_right() {
    for (text, code, told) in [
        ("", "empty", "daily 07:30"),
        (&"x".repeat(10_000), "too_long", "10000 bytes"),
        (&" ".repeat(10_000), "too_long", "at most 200"),
        ("whenever you like", "not_understood", "\"every 30 minutes\""),
        ("every blue moon", "not_understood", "\"weekly mon 09:00\""),
        ("daily 7:30 9:30", "not_understood", "daily"),
        ("2026-12-24T18:00[Mars/Base]", "bad_time", "18:00[mars/base]"),
        ("@reboot", "at_start", "daily 07:30"),
        ("*/0", "field", "the field minute has \"*/0\": a step of 0"),
        ("*/0 * * * *", "field", "the field minute has \"*/0\": a step of 0"),
        ("60 * * * *", "field", "the field minute has \"60\": it is outside 0-59"),
        ("0 24 * * *", "field", "the field hour has \"24\": it is outside 0-23"),
        ("0 0 32 * *", "field", "the field day of month has \"32\""),
        ("0 0 * 13 *", "field", "the field month has \"13\""),
        ("0 0 * * 8", "field", "the field day of week has \"8\""),
        ("0 0 * * montue", "field", "\"montue\": it cannot be read"),
        ("0 9 * * fri-mon", "field", "runs backwards"),
        ("5/15 * * * *", "field", "a step needs \"*\" or a range"),
        ("0 9 * * 5#6", "field", "at most five"),
        ("0 9 * * L", "field", "\"L\": it cannot be read"),
        ("0 9 L,LW * *", "field", "L and LW exclude each other"),
        ("1,,2 * * * *", "field", "\"\": it cannot be read"),
        ("-1 * * * *", "field", "\"-1\": it cannot be read"),
        ("* * * *", "fields", "has 4 fields"),
        ("0 30 7 * * 1-5", "fields", "There are no seconds"),
        ("0 0 12 1 1 * 2027", "fields", "has 7 fields"),
        ("0 0 30 2 *", "never", "never happens"),
        ("0 0 31 4,6,9,11 *", "never", "never happens"),
        ("30 Feb", "no_such_day", "\"30 feb\""),
        ("2027-02-29 9:00", "no_such_day", "2027-02-29"),
        ("daily", "no_time", "write \"daily 09:00\""),
        ("2026-12-24", "no_time", "2026-12-24"),
        ("daily 25:00", "bad_time", "\"25:00\""),
        ("tomorrow 13pm", "bad_time", "\"13pm\""),
        ("today 8:00", "past", "Wed 4 Nov 2026 08:00 Europe/Berlin is in the past"),
        ("2020-01-01 09:00", "past", "in 20 minutes"),
        ("in 0 minutes", "past", "is in the past"),
        ("9999-01-01 00:00", "too_far", "more than 50 years away"),
        ("in 999999999 days", "too_far", "more than 50 years away"),
        ("in 999999999 hours", "too_far", "more than 50 years away"),
        ("every 1s", "too_often", "every 1 second is too often; the shortest interval is 1 minute"),
        ("every 0 days", "too_often", "every 0 seconds"),
        ("every 999999999 hours", "too_rare", "at most \"every 366 days\""),
    ] {
        let error = refused(text);
        assert!(error.starts_with(&format!("schedule.{code}: ")), "{text}: {error}");
        assert!(error.contains(told), "{text}: {error}");
        assert!(error.len() < 700, "{error}");
    }
}

#[test]
fn a_grid_is_not_shifted_by_who_asks_when() {
    let at = |text| local_time(text, &berlin()).unwrap();
    let every = read("every 25 minutes").unwrap();
    let fires: Vec<_> =
        std::iter::successors(Some(now()), |after| every.next(&berlin(), *after)).take(100).collect();
    for pair in fires.windows(2) {
        assert_eq!(pair[1].since(pair[0]), Duration::from_secs(25 * 60));
        assert_eq!(every.next(&berlin(), WallMs(pair[1].0 - 1)), Some(pair[1]));
    }
    assert_eq!(every.next(&berlin(), at("2020-01-01T00:00")), Some(fires[1]), "none before it was made");
    let days = read("every 2 days 09:00").unwrap();
    let fires: Vec<_> =
        std::iter::successors(Some(now()), |after| days.next(&berlin(), *after)).skip(1).take(400).collect();
    assert!(fires.iter().all(|fire| fire.local(&berlin()).contains("T09:00:00")));
    assert_eq!(fires[399].local(&berlin()), "2029-01-11T09:00:00+01:00");
}

#[test]
fn the_shortest_gap_is_what_the_quota_asks_for() {
    let gap = |text| read(text).unwrap().shortest_gap(&berlin(), now()).map(|gap| gap.as_secs());
    assert_eq!(gap("* * * * *"), Some(60));
    assert_eq!(gap("0,5 9 * * *"), Some(300));
    assert_eq!(gap("every 90s"), Some(90));
    assert_eq!(gap("every 2 days"), Some(44 * 3_600));
    assert_eq!(gap("tomorrow 9:00"), None);
}

#[test]
fn an_instant_is_told_with_its_distance() {
    let told = |text| describe_instant(local_time(text, &berlin()).unwrap(), &berlin(), now());
    assert_eq!(told("2026-11-04T10:00:30"), "Wed 4 Nov 10:00 Europe/Berlin, in 30 seconds");
    assert_eq!(told("2026-11-04T10:20"), "Wed 4 Nov 10:20 Europe/Berlin, in 20 minutes");
    assert_eq!(told("2026-11-04T11:00"), "Wed 4 Nov 11:00 Europe/Berlin, in 1 hour");
    assert_eq!(told("2026-11-05T09:00"), "Thu 5 Nov 09:00 Europe/Berlin, in 23 hours");
    assert_eq!(told("2026-11-06T09:00"), "Fri 6 Nov 09:00 Europe/Berlin, in 2 days");
    assert_eq!(told("2027-11-04T09:00"), "Thu 4 Nov 2027 09:00 Europe/Berlin, in 365 days");
    assert_eq!(told("2026-11-02T09:00"), "Mon 2 Nov 09:00 Europe/Berlin, 2 days ago");
}

#[test]
fn a_stored_text_that_nobody_wrote_is_refused() {
    for text in [
        "",
        "cron",
        "cron 60 * * * *",
        "once",
        "once tomorrow",
        "every 5s from 2026-01-01T00:00:00Z",
        "every 0d from 2026-01-01T00:00:00Z",
        "every 60s",
        "never x",
    ] {
        assert!(Schedule::from_canonical(text).is_err(), "{text}");
    }
}
