//! `lazaret tasks preview` tells anybody when a schedule fires, without a host and without an install.

#![cfg(test)]

use std::path::PathBuf;
use std::process::{Command, Output};

fn preview(args: &[&str]) -> Output {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/lazaret"));
    let binary = std::env::var_os("LAZARET_BIN").map_or(beside, PathBuf::from);
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary);
    let command = command.args(["tasks", "preview"]).args(args).current_dir(empty.path()).env_clear();
    let output = command.env("HOME", empty.path()).output().unwrap();
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "it left something behind");
    output
}

#[test]
fn the_instants_are_right_across_a_clock_change_in_an_empty_directory() {
    let from = ["--tz", "America/New_York", "--from", "2026-03-06T00:00", "--count", "5"];
    let output = preview(&[&["--json", "30 2 * * *"], &from[..]].concat());
    let fires: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    let expected = [
        "2026-03-06T02:30:00-05:00",
        "2026-03-07T02:30:00-05:00",
        "2026-03-08T03:00:00-04:00",
        "2026-03-09T02:30:00-04:00",
        "2026-03-10T02:30:00-04:00",
    ];
    assert_eq!(fires, expected);
}

#[test]
fn people_read_what_was_understood() {
    let output =
        preview(&["every", "weekday", "at", "8am", "--tz", "europe/berlin", "--from", "2026-12-04 12:00"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.starts_with(
            "understood: on weekdays at 08:00 Europe/Berlin\n  Mon 7 Dec 2026 08:00:00 +01:00\n"
        ),
        "{told}"
    );
    assert_eq!(told.lines().count(), 6);
}

#[test]
fn a_schedule_that_cannot_be_used_is_refused_with_its_reason() {
    let long = "x".repeat(10_240);
    for (schedule, zone, told) in [
        ("*/0 * * * *", "UTC", "a step of 0"),
        ("60 * * * *", "UTC", "outside 0-59"),
        ("0 0 30 2 *", "UTC", "never happens"),
        ("30 Feb", "UTC", "there is no day"),
        (&long, "UTC", "10240 bytes"),
        ("9999-01-01 00:00", "UTC", "50 years"),
        ("2020-01-01 00:00", "UTC", "in the past"),
        ("every 1s", "UTC", "too often"),
        ("0 30 7 * * *", "UTC", "has 6 fields"),
        ("daily 07:30", "Europe/Berln", "did you mean Europe/Berlin"),
    ] {
        let output = preview(&[schedule, "--tz", zone]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(told) && error.contains("[schedule."), "{error}");
    }
}
