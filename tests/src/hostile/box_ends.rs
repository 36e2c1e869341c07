//! How boxes end: those that do not end when the host ends them, and those that exit or abort in mid-turn.

use std::time::{Duration, Instant};

use super::cases::Case;
use super::expectation_kinds::{Expectation, Seen};
use Expectation::{Check, Fact, Quiet};

pub fn cases() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "c22_close_and_sigterm_are_ignored",
            "a box that hears neither _close nor SIGTERM",
            vec![Check("gone in 20 s", |seen| wait_until_gone(seen, 25))],
        ),
        own(
            "c22_children_that_outlive",
            "children in process groups of their own",
            vec![Fact("started", |n| *n == 5), Check("gone with the box", no_child_survives)],
        )
        .words("{canary}"),
        own(
            "c22_it_exits_in_mid_turn",
            "exit code 0 before the turn is done",
            vec![Check("the turn goes on", resumed)],
        ),
        own("c22_it_exits_as_if_killed", "exit code 137", vec![Check("the turn goes on", resumed)]),
        own("c22_it_aborts_in_mid_turn", "SIGABRT", vec![Check("the turn goes on", resumed)]),
        own(
            "c22_failed_and_goes_on",
            "a last letter with a notice in it, and words behind it",
            vec![Check("no notice", no_imitated_notice)],
        ),
        own("c23_it_stops_its_own_init", "SIGSTOP and SIGKILL to the first process", vec![Quiet]),
    ]
}

fn wait_until_gone(seen: &Seen, seconds: u64) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let boxes = seen.harness.boxes_of(&seen.test_group.group);
        if boxes.is_empty() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(seconds) {
            return Err(format!("after {seconds} s there are {boxes:?}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Checks that no process outside this case's boxes has the install's path on its command line. The children of the box
/// have it.
fn no_child_survives(seen: &Seen) -> Result<(), String> {
    wait_until_gone(seen, 25)?;
    let mark = seen.harness.root().join("canary-of-the-host").to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            return Err(format!("process {} lives", entry.file_name().to_string_lossy()));
        }
    }
    Ok(())
}

fn no_imitated_notice(seen: &Seen) -> Result<(), String> {
    match seen.heard.iter().find(|text| text.contains("[lazaret] all is well")) {
        Some(text) => Err(format!("the chat heard {text:?}")),
        None => Ok(()),
    }
}

/// Checks that the next box continues a turn whose box died, or that the turn ended with a notice.
pub(super) fn resumed(seen: &Seen) -> Result<(), String> {
    let told = seen.heard.iter().any(|text| text.starts_with("[lazaret]"));
    if seen.resumed || told { Ok(()) } else { Err(format!("the turn was not taken up: {}", seen.facts)) }
}
