//! Attacks of part A: letters with hostile contents.

use serde_json::Value;

use super::cases::Case;
use super::expectation_kinds::{Expectation, Seen};
use super::letter_files::{nothing_of_the_host_was_read, the_log_is_printable};
use Expectation::{AnyCode, Check, Code, Fact, Gone, Quiet};

/// The run keeps listening, so that a letter after the turn's end can arrive.
const LISTENS: &str = "limits.idle_window = \"1m\"";

pub fn cases() -> Vec<Case> {
    let mut all = malformed();
    all.extend(replays_and_forgeries());
    all.extend(acknowledgements_and_ends());
    all.extend(files_of_the_host());
    all
}

fn refused(code: &'static str) -> Vec<Expectation> {
    vec![Code(code), Gone, Quiet]
}

/// Letters that are not valid JSON, or not a valid letter.
fn malformed() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "a20_depth_of_a_million",
            "brackets within brackets, and objects within objects",
            vec![AnyCode(&["ipc.json", "ipc.schema"]), Gone, Quiet],
        ),
        own(
            "a21_memory_blow_up",
            "forty letters that a tree of values would blow up to four gibibytes",
            vec![Code("ipc.schema"), Gone, Quiet, Check("<= 64 MiB more", |s| s.grew_less(64 << 10))],
        ),
        own("a22_duplicate_keys", "a field twice", refused("ipc.schema")),
        own("a22_unknown_field", "a field that no letter has", refused("ipc.schema")),
        own("a22_trailing_data", "a second value behind the letter", refused("ipc.schema")),
        own("a22_byte_order_mark", "a byte order mark before it", refused("ipc.schema")),
        own("a22_duplicate_number", "the envelope's number twice", refused("ipc.schema")),
        own("a22_an_array_for_an_object", "fields by position", refused("ipc.schema")),
        own("a23_invalid_utf8", "bytes that are no UTF-8", refused("ipc.json")),
        own("a23_lone_surrogate", "half a surrogate pair", refused("ipc.json")),
        own("a23_nul_in_a_string", "a NUL in a text", refused("ipc.json")),
        own("a23_a_number_too_large", "1e400", vec![AnyCode(&["ipc.json", "ipc.schema"]), Gone, Quiet]),
        own(
            "a23_control_characters",
            "bells, escapes and a right-to-left override in what the chat reads",
            vec![Gone, Check("stripped", chat_is_printable), Check("", the_log_is_printable)],
        ),
        own("a24_type_and_name_differ", "the name says draft, the letter message", refused("ipc.envelope")),
        own(
            "a24_number_and_name_differ",
            "two numbers",
            vec![AnyCode(&["ipc.schema", "ipc.envelope"]), Gone, Quiet],
        ),
        own("a25_empty_file", "a letter without a byte", refused("ipc.json")),
        own("a25_null", "a letter that is null", refused("ipc.schema")),
        own("a25_another_version", "version 2 of the protocol", refused("ipc.version")),
        own("a25_a_type_of_the_host", "an input letter, from the box", refused("ipc.schema")),
        own(
            "a25_a_number_beyond_64_bits",
            "twenty nines",
            vec![AnyCode(&["ipc.schema", "ipc.json"]), Gone, Quiet],
        ),
        own("a25_a_negative_acknowledgement", "ack -2", refused("ipc.schema")),
        own("a25_a_time_of_a_kilobyte", "a time that is none", refused("ipc.schema")),
        own("a25_a_time_for_a_terminal", "a time that drives terminals", refused("ipc.schema")),
    ]
}

/// Letters that repeat an earlier letter, or claim to be from another group, run or turn.
fn replays_and_forgeries() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "a26_the_same_letter_again",
            "a taken letter, byte by byte",
            vec![Gone, Check("said once", |s| said(s, "said once", 1))],
        ),
        own(
            "a26_other_bytes_under_a_used_number",
            "another text under a number that was used",
            vec![Code("ipc.replay"), Gone, Check("said once", |s| said(s, "said", 1))],
        ),
        own(
            "a26_the_same_id_under_a_new_number",
            "a new number with an old letter's id",
            vec![Code("ipc.replay"), Gone, Check("said once", |s| said(s, "said", 1))],
        ),
        own(
            "a26_the_same_request_again",
            "a request's id with other arguments",
            vec![Code("ipc.replay"), Check("the first verdict stands", same_verdict)],
        ),
        own("a27_a_forged_group", "a group and a chat in the letter", refused("ipc.schema")),
        own("a27_is_main_in_the_envelope", "isMain: true", refused("ipc.schema")),
        own("a27_a_forged_run", "another run's id", refused("ipc.envelope")),
        own("a27_a_forged_turn", "a turn that is not open here", refused("ipc.stale")),
        own("a27_an_id_of_another_turn", "an id of another turn than the letter's", refused("ipc.envelope")),
        own("a27_no_turn", "a message that belongs to no turn", refused("ipc.envelope")),
        own(
            "a27_a_personality_for_another_group",
            "update_personality with the name of another group",
            vec![Code("ipc.schema"), Gone, Check("main's stays", mains_personality_stays)],
        ),
        own(
            "a27_register_a_group",
            "a group with mounts of /",
            vec![Gone, Fact("verdict", is_refused), Check("no group", no_new_group)],
        ),
        own("a27_a_huge_personality", "65 KiB of instructions", vec![Gone, Fact("verdict", is_refused)]),
    ]
}

/// Acknowledgements and turn ends that do not match the host's letters.
fn acknowledgements_and_ends() -> Vec<Case> {
    let own = Case::own;
    vec![
        own("a29_acknowledges_what_was_not_written", "ack 1000", refused("ipc.ack")),
        own(
            "a29_acknowledgement_falls",
            "an acknowledgement below the last",
            vec![Code("ipc.ack"), Gone, Check("", |s| said(s, "a letter that acknowledges", 1))],
        ),
        own(
            "a29_a_turn_that_never_reads",
            "every turn is ended with an acknowledgement of nothing",
            vec![Check("<= 5 turns, a notice", turns_are_bounded)],
        )
        .with(LISTENS),
        own(
            "a33_two_ends_of_one_turn",
            "a second turn_done",
            vec![Code("ipc.stale"), Check("one end", |s| said(s, "a second end", 0))],
        )
        .with(LISTENS),
        own("a33_ready_again_and_again", "fifty letters that say ready", refused("ipc.replay")),
        own(
            "g9_an_end_with_the_id_of_a_message",
            "turn_done with an id that a message had: the reply is lost, and the chat is told",
            vec![
                Code("ipc.replay"),
                Check("a notice", |s| said(s, "could not be taken (ipc.replay)", 1)),
                Check("unheard", |s| said(s, "a second content", 0)),
            ],
        )
        .with(LISTENS),
        own(
            "g10_a_refused_letter_acknowledges_nothing",
            "a stale letter acknowledges the input, and the next letter does not",
            vec![
                Code("ipc.stale"),
                Gone,
                Fact("lies", |lies| *lies == true),
                Check("no ipc.ack", |s| match s.log.contains("ipc.ack") {
                    true => Err(format!("the refused letter was applied:\n{}", s.log)),
                    false => said(s, "not read yet", 1),
                }),
            ],
        ),
        own(
            "a35_a_letter_after_the_end",
            "messages of a turn that is over",
            vec![Code("ipc.stale"), Check("unheard", |s| said(s, "a late word", 0))],
        )
        .with(LISTENS),
        own(
            "a35_children_that_write_late",
            "a child in a process group of its own writes on behind the end",
            vec![Check("unheard", |s| said(s, "a late word", 0))],
        )
        .with(LISTENS),
    ]
}

/// Requests to send files that the box may not read.
fn files_of_the_host() -> Vec<Case> {
    let case = |(name, what)| {
        let refused =
            vec![Gone, Fact("verdict", is_refused), Quiet, Check("refused", nothing_of_the_host_was_read)];
        Case::own(name, what, refused)
    };
    let cases = [
        ("a37_send_file_climbs_out", "send_file ../../../etc/shadow"),
        ("a37_send_file_absolute", "send_file /etc/shadow"),
        ("a37_send_file_through_a_link", "send_file through a directory that is a link"),
        ("a37_send_file_that_is_a_link", "send_file of a link to /proc/self/environ"),
    ];
    cases.into_iter().map(case).collect()
}

fn said(seen: &Seen, words: &str, times: usize) -> Result<(), String> {
    let found = seen.times(words);
    if found == times { Ok(()) } else { Err(format!("{words:?} was heard {found} times: {:?}", seen.heard)) }
}

fn is_refused(verdict: &Value) -> bool {
    // The host refuses an invalid letter without a verdict.
    verdict["refused"].is_string() || *verdict == "none"
}

fn chat_is_printable(seen: &Seen) -> Result<(), String> {
    let odd = seen
        .heard
        .iter()
        .flat_map(|text| text.chars())
        .find(|c| (c.is_control() && !['\n', '\t'].contains(c)) || ('\u{202a}'..='\u{202e}').contains(c));
    match odd {
        Some(c) => Err(format!("the chat was sent {c:?}")),
        None if seen.heard.is_empty() => Err("the chat heard nothing".to_owned()),
        None => Ok(()),
    }
}

fn same_verdict(seen: &Seen) -> Result<(), String> {
    let (first, second) = (&seen.facts["first"]["verdict"], &seen.facts["second"]["verdict"]);
    if !first["ok"].is_object() || first != second {
        return Err(format!("first {first}, then {second}"));
    }
    let path = seen.harness.root().join("groups").join(&seen.test_group.group).join("CLAUDE.md");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if text.contains("twice") { Err("the second was performed, too".to_owned()) } else { Ok(()) }
}

fn mains_personality_stays(seen: &Seen) -> Result<(), String> {
    let text = std::fs::read_to_string(seen.harness.root().join("groups/main/CLAUDE.md")).unwrap_or_default();
    if text.contains("mine now") { Err("main's personality was changed".to_owned()) } else { Ok(()) }
}

fn no_new_group(seen: &Seen) -> Result<(), String> {
    let made = seen.harness.root().join("groups/evil").exists();
    if made { Err("a group was made".to_owned()) } else { Ok(()) }
}

fn turns_are_bounded(seen: &Seen) -> Result<(), String> {
    let turns = seen.facts["turns"].as_u64().unwrap_or(0);
    if turns > 5 {
        return Err(format!("{turns} turns in 4 s, and no end of it"));
    }
    let told = seen.heard.iter().any(|text| text.starts_with("[lazaret]"));
    if told { Ok(()) } else { Err("the chat was not told that its message was not read".to_owned()) }
}
