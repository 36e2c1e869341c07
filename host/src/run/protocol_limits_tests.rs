//! The limits in the protocol's document are those of the code: a second implementation has no other source.

use std::collections::BTreeMap;
use std::time::Duration;

use ipc_schema::requests::{
    AskPermission, AskPerson, React, SearchHistory, SendFile, UpdatePersonality, grouped, tasks,
};
use ipc_schema::{LETTER_MAX_BYTES, LetterId};

use super::letters_from_agent::{DEADLINE_MAX, MOST_PARTS};
use super::{READY_WITHIN, SILENCE, end};
use crate::config::schema::HostFile;
use crate::dispatch::{CLOSE_GRACE, STOP_GRACE, TIME_GRACE};
use crate::domain::limits::RunLimits;
use crate::mailbox::{FAR_AHEAD, GAP_SCANS};
use crate::policy::turn_output_limits::ASKING_ON;
use crate::turns::{ATTEMPTS, RETURNS};

const PAGE: &str = include_str!("../../../ipc-schema/README.md");

/// The table of limits: what is limited, and how.
fn table() -> BTreeMap<&'static str, &'static str> {
    let section = PAGE.split("\n## Limits\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        (cells.next().unwrap(), cells.next().unwrap())
    })
    .collect()
}

fn number(n: impl TryInto<usize>) -> String {
    n.try_into().map(grouped).unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

fn characters(n: usize) -> String {
    format!("{} characters", grouped(n))
}

fn bytes(n: usize) -> String {
    format!("{} bytes", grouped(n))
}

#[test]
fn the_table_of_limits_is_true() {
    let limits = RunLimits::default();
    let minutes = |time: Duration| format!("{} min", time.as_secs() / 60);
    let short = "`schedule`, `when`, `chat`, `zone`, `catch_up`, `until`, `model`, `task`, `range`";
    assert_eq!(SearchHistory::SHORT_MAX_BYTES, tasks::SCHEDULE_MAX_BYTES, "one row states both");
    assert_eq!(ASKING_ON, 2, "the page says: beyond twice as many");
    let code = [
        ("a letter", size(LETTER_MAX_BYTES)),
        ("an id", format!("{} to {}", LetterId::MIN_LEN, characters(LetterId::MAX_LEN))),
        ("how far a number may be ahead of the next one", number(FAR_AHEAD)),
        ("further scans that wait for a missing number", number(GAP_SCANS)),
        ("names in `from-agent` at one time (`limits.letters_names`)", number(limits.letters().names)),
        ("bytes in `from-agent` at one time (`limits.letters_mib`)", size(limits.letters().bytes)),
        ("letters of a turn, with refused files (`limits.turn_letters`)", number(limits.turn_letters)),
        ("bytes of a turn's letters (`limits.turn_mib`)", size(limits.turn_bytes())),
        ("what a turn sends to its chat before its end (`limits.messages`)", number(limits.messages)),
        ("requests of a turn (`limits.requests`)", number(limits.requests)),
        ("parts of one reply", number(MOST_PARTS)),
        ("from the start of the box to `ready`", seconds(READY_WITHIN)),
        ("silence while a turn is open, beyond `deadline_s`", seconds(SILENCE)),
        ("`deadline_s`", seconds(DEADLINE_MAX)),
        ("from `interrupt` to SIGKILL: `stop`", seconds(STOP_GRACE)),
        ("from `interrupt` to SIGKILL: `time`", seconds(TIME_GRACE)),
        ("from `_close` to SIGTERM", seconds(CLOSE_GRACE)),
        ("from SIGTERM to SIGKILL", seconds(end::TERM_GRACE)),
        ("a turn (`limits.turn`)", minutes(limits.turn.0)),
        ("a run, checked between turns (`limits.run`)", format!("{} h", limits.run.0.as_secs() / 3600)),
        ("a box without a turn (`limits.idle_window`)", minutes(limits.idle_window.0)),
        (
            "a box that waits for a person (`host.question_wait`)",
            minutes(HostFile::default().question_wait.0),
        ),
        ("crashes and silences of a turn", number(ATTEMPTS)),
        ("turns that acknowledge none of their messages", number(RETURNS)),
        ("`question`", characters(AskPerson::QUESTION_MAX_CHARS)),
        (
            "`choices`, each",
            format!("{}, {}", AskPerson::CHOICES_MAX, characters(AskPerson::CHOICE_MAX_CHARS)),
        ),
        (
            "`detail` and `commands`, together, a line counts two more",
            characters(AskPermission::SHOWN_MAX_CHARS),
        ),
        ("`caption`", characters(SendFile::CAPTION_MAX_CHARS)),
        ("`path` of `send_file`", bytes(SendFile::PATH_MAX_BYTES)),
        (
            "files that a turn sends, and together as many of the largest size",
            format!("{}, {}", SendFile::FILES_PER_TURN, SendFile::LARGEST_FILES_PER_TURN),
        ),
        ("`emoji`", characters(React::EMOJI_MAX_CHARS)),
        (
            "`text` of `update_personality`, and as JSON writes it",
            format!(
                "{}, {}",
                size(UpdatePersonality::TEXT_MAX_BYTES as u64),
                size(UpdatePersonality::ESCAPED_MAX_BYTES as u64)
            ),
        ),
        ("`name` of a task", characters(tasks::NAME_MAX_CHARS)),
        (short, bytes(tasks::SCHEDULE_MAX_BYTES)),
        ("`prompt` of a task", characters(tasks::PROMPT_MAX_CHARS)),
        ("`gate`", bytes(tasks::GATE_MAX_BYTES)),
        ("`text` of `remind`", characters(tasks::REMINDER_MAX_CHARS)),
        ("`count` of `task_history`", number(tasks::HISTORY_MAX)),
        ("`query`", characters(SearchHistory::QUERY_MAX_CHARS)),
        (
            "`count` and `page` of `search_history`",
            format!("{}, {}", SearchHistory::COUNT_MAX, number(SearchHistory::PAGE_MAX)),
        ),
    ];
    let code: BTreeMap<&str, &str> = code.iter().map(|(what, limit)| (*what, limit.as_str())).collect();
    assert_eq!(table(), code, "each row of ipc-schema/README.md, and no other");
}
