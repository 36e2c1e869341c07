//! Floods: a box writes too much. Each budget ends the box with a notice, or is a limit that holds.

use super::cases::Case;
use super::expectation_kinds::{ENDED, Expectation, Seen};
use super::letter_files::nothing_is_left_of_the_run;
use Expectation::{Check, Code, Ended, Fact, Gone, Quiet};

pub fn cases() -> Vec<Case> {
    let own = Case::own;
    let flood =
        || vec![Check("ipc.flood or ENOSPC", ended_or_full), Check("nothing is left", few_files_are_left)];
    vec![
        own("a17_bytes_in_drafts", "dot-files of 4 MiB, one after the other", flood()),
        own("a17_one_draft_that_grows", "one dot-file, 4 MiB more each time", flood()),
        own(
            "a17_bytes_below_a_dot_directory",
            "the same below a directory, where no name is a letter's",
            flood(),
        ),
        own("a18_empty_files", "empty files, as fast as the kernel makes them", flood()),
        own("a18_empty_drafts", "empty dot-files", flood()),
        own("a18_names_below_a_dot_directory", "empty files below a directory", flood()),
        own(
            "a18_directories_within_directories",
            "2,000 directories, each in the other",
            vec![Check("nothing is left", nothing_is_left_of_the_run)],
        ),
        own(
            "a19_interim_messages",
            "interim replies without end",
            vec![Check("ipc.rate, <= 100 heard", |seen| {
                Expectation::AnyCode(&["ipc.rate", "ipc.flood"]).met(seen)?;
                at_most(seen.times("message "), 100, "messages reached the chat")
            })],
        ),
        own("a19_drafts", "3,000 drafts in one turn: coalesced", vec![Gone, Quiet]),
        own("a19_drafts_of_the_largest_size", "100 drafts of 200 KiB: coalesced", vec![Gone, Quiet]),
        own("a19_status_letters", "3,000 status letters: coalesced", vec![Gone, Quiet]),
        own("a19_a_deadline_for_ever", "a status that announces 136 years of silence", vec![Gone, Quiet]),
        own(
            "a19_letters_without_end",
            "valid letters, until the host has had enough",
            vec![Code("ipc.flood"), Ended(ENDED)],
        )
        .with("limits.turn_letters = 2000\nlimits.idle_window = 0"),
        own(
            "a19_requests",
            "1,000 requests in one turn",
            vec![Check("ipc.rate, <= 450 answers", requests_are_bounded)],
        ),
        own(
            "a19_one_request_for_ever",
            "one request, a thousand times",
            vec![Check("<= 450 answers", answers_are_bounded)],
        ),
        own(
            "a19_refused_letters_without_end",
            "letters that are none, until the host has had enough",
            vec![Code("ipc.flood"), Ended(ENDED), Check("<= 256 KiB of log", log_is_bounded)],
        ),
        own(
            "n4_refusals_do_not_fill_the_log",
            "3,000 names of 200 bytes that are no letter's",
            vec![Code("ipc.name"), Check("<= 256 KiB of log", log_is_bounded)],
        ),
        own(
            "g4_ready_without_end",
            "9,000 letters that say ready, each with 1,000 control characters",
            vec![Code("ipc.replay"), Gone, Quiet, Check("<= 100 lines of log", few_lines_of_log)],
        ),
        own(
            "g4_refused_acknowledgements_without_end",
            "9,000 letters that acknowledge what the host never wrote",
            vec![Code("ipc.ack"), Gone, Quiet, Check("<= 100 lines of log", few_lines_of_log)],
        ),
        own(
            "g4_requests_with_long_names",
            "390 requests whose name has 14,000 characters",
            vec![Code("ipc.rate"), Gone, Quiet, Check("<= 100 lines of log", few_lines_of_log)],
        ),
        own(
            "g8_questions_without_end",
            "190 questions from one turn, which ends at once",
            vec![
                Gone,
                Fact("refused", |n| n.as_u64().is_some_and(|n| n >= 130)),
                Check("<= 50 questions", |seen| {
                    at_most(seen.times("question for nobody"), 50, "questions reached the chat")
                }),
            ],
        )
        .with("limits.idle_window = \"1m\""),
        own("a31_inotify_queue_overflows", "60,000 events, and one letter that counts", vec![Quiet]),
        own(
            "a32_inotify_instances",
            "as many inotify instances as the kernel gives",
            vec![Fact("errno", |n| *n == 24), Quiet],
        ),
    ]
}

/// If the host may mount, the box fills a filesystem of its own and can free space. Otherwise a watchdog ends the box.
fn ended_or_full(seen: &Seen) -> Result<(), String> {
    match seen.facts["errno"].as_i64() {
        Some(28) => Ok(()),
        Some(_) => Err(format!("nothing stopped it: {}", seen.facts)),
        None => Expectation::Ended(ENDED).met(seen),
    }
}

fn at_most(found: usize, most: usize, what: &str) -> Result<(), String> {
    if found <= most { Ok(()) } else { Err(format!("{found} {what}, at most {most}")) }
}

fn log_is_bounded(seen: &Seen) -> Result<(), String> {
    at_most(seen.logged, 256 << 10, "bytes of log")
}

/// The lines about the case's runs. Other cases run at the same time, so only these are counted.
fn few_lines_of_log(seen: &Seen) -> Result<(), String> {
    let (lines, bytes) = (seen.log.lines().count(), seen.log.len());
    println!("        {lines} lines, {bytes} bytes of log about {}", seen.test_group.group);
    at_most(lines, 100, "lines of log")?;
    at_most(bytes, 64 << 10, "bytes of log")
}

/// Counts the host's letters to the group: a box must not make it write without limit.
fn answers(seen: &Seen) -> usize {
    let runs = std::fs::read_dir(seen.letters()).into_iter().flatten().flatten();
    let letters =
        runs.flat_map(|run| std::fs::read_dir(run.path().join("to-agent")).into_iter().flatten().flatten());
    letters.filter(|e| e.file_name().to_string_lossy().contains("-response")).count()
}

fn answers_are_bounded(seen: &Seen) -> Result<(), String> {
    at_most(answers(seen), 450, "answers were written")
}

fn requests_are_bounded(seen: &Seen) -> Result<(), String> {
    Expectation::Code("ipc.rate").met(seen)?;
    answers_are_bounded(seen)
}

/// Waits until the host has removed the flood's files with the run.
fn few_files_are_left(seen: &Seen) -> Result<(), String> {
    let mut left = 0;
    for _ in 0..200 {
        left = count(&seen.ipc());
        if left <= 64 {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(format!("{left} files are left"))
}

/// Counts everything below a directory.
pub fn count(dir: &std::path::Path) -> usize {
    let (mut seen, mut dirs) = (0, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            seen += 1;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            }
        }
    }
    seen
}
