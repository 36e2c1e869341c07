//! Attacks of part A: files of every kind in a letter's place.

use super::cases::Case;
use super::expectation_kinds::{Expectation, Seen};
use Expectation::{AnyCode, Check, Code, Errno, Fact, Gone, Quiet};

/// Error numbers with which a kernel refuses.
pub const DENIED: &[i64] = &[1, 13, 38];

pub fn cases() -> Vec<Case> {
    let mut all = file_types();
    all.extend(sizes_and_races());
    all.extend(names_and_modes());
    all
}

/// Links, FIFOs, sockets, directories and devices in a letter's place.
fn file_types() -> Vec<Case> {
    let own = Case::own;
    let link = || vec![Code("ipc.not_regular"), Gone, Quiet, Check("", nothing_of_the_host_was_read)];
    vec![
        own("a1_symlink_to_host_file", "a letter is a link to /etc/shadow", link()),
        own("a1_symlink_relative", "a letter is a link that climbs to /etc/passwd", link()),
        own("a1_symlink_to_a_host_path", "a letter is a link to a file of the install", link())
            .words("{canary}"),
        own(
            "a1_symlink_to_a_letter_of_its_own",
            "a letter is a link to a valid letter in the workspace",
            link(),
        ),
        own("a1_symlink_in_a_chain", "a letter is a link to a link to a link", link()),
        own(
            "a2_symlink_to_the_hosts_environment",
            "a letter is a link to /proc/self/environ, where keys are",
            link(),
        ),
        own(
            "a2_symlink_to_a_host_descriptor",
            "a letter is a link to an open descriptor of its reader",
            link(),
        ),
        own(
            "a4_letter_directory_is_replaced",
            "rename, rmdir, exchange and links over the letter directories",
            vec![Check("EBUSY|EROFS|EXDEV", every_fact_is_refused), Quiet],
        ),
        own(
            "a5_hard_links_of_one_letter",
            "one letter under many names",
            vec![Code("ipc.nlink"), Gone, Quiet],
        ),
        own(
            "a5_hard_link_from_another_mount",
            "a file of the workspace is linked into the letter directory",
            vec![Errno("errno", &[18, 1]), Quiet],
        ),
        own(
            "a6_fifo",
            "a letter is a FIFO, which would block its reader",
            vec![Check("ipc.not_regular or EPERM", refused_or_not_made), Gone, Quiet],
        ),
        own("a7_socket", "a letter is a socket", vec![Code("ipc.not_regular"), Gone, Quiet]),
        own("a7_directory", "a letter is a directory", vec![Code("ipc.not_regular"), Gone, Quiet]),
        own(
            "a7_directory_with_files",
            "a letter is a directory that cannot be unlinked",
            vec![Code("ipc.not_regular"), Quiet, Check("told once", logged_at_most_thrice)],
        ),
        own(
            "a7_directory_without_a_number",
            "a directory with files under a name that is no letter's",
            vec![Code("ipc.name"), Quiet, Check("told once", logged_at_most_thrice)],
        ),
        own(
            "a8_character_device",
            "a letter is a node of /dev/zero's kind",
            vec![Errno("made", &[1]), Quiet],
        ),
        own("a8_block_device", "a letter is a node of the host's disk", vec![Errno("made", &[1]), Quiet]),
        own(
            "a10_setuid_root_binary",
            "a setuid-root program is left in the workspace",
            vec![Errno("chown", DENIED), Check("never root's", nothing_of_roots)],
        ),
        own("a10_file_capability", "a file is given capabilities", vec![Errno("errno", DENIED)]),
    ]
}

/// Letters of every size, and letters that change while the host reads them.
fn sizes_and_races() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "a11_sparse_file",
            "a letter claims 400 MiB and takes none",
            vec![Code("ipc.too_big"), Gone, Quiet],
        ),
        own("a12_two_mebibytes", "a letter of 2 MiB", vec![Code("ipc.too_big"), Gone, Quiet]),
        own(
            "a12_one_byte_too_many",
            "a valid letter of 256 KiB and one byte",
            vec![Code("ipc.too_big"), Gone, Quiet],
        ),
        own(
            "a12_the_largest_letter_is_taken",
            "a valid letter of exactly 256 KiB: the limit is no lower than it says",
            vec![Gone, Check("taken", nothing_was_refused)],
        ),
        own(
            "a14_truncated_while_read",
            "200 letters are cut while the host reads them",
            vec![AnyCode(&["ipc.json", "ipc.schema"]), Gone, Quiet],
        ),
        own(
            "a15_swapped_in_a_tight_loop",
            "a letter and a link to a host's file change places in a tight loop",
            vec![
                Code("ipc.not_regular"),
                Fact("rounds", |n| n.as_u64().is_some_and(|n| n > 3)),
                Check("0 leaks", nothing_of_the_host_was_read),
            ],
        )
        .words("{canary} 1500"),
        own(
            "a15_swapped_with_a_fifo_and_a_link",
            "the same with a socket or FIFO and a file of two names",
            vec![
                AnyCode(&["ipc.not_regular", "ipc.nlink"]),
                Fact("rounds", |n| n.as_u64().is_some_and(|n| n > 3)),
                Check("0 leaks", nothing_of_the_host_was_read),
            ],
        )
        .words("{canary} 1500"),
        own(
            "a16_rewritten_after_the_rename",
            "letters are written over while they are read: what is kept is what was said",
            vec![Gone, Check("one read", said_is_what_was_kept)],
        ),
    ]
}

/// Names, modes, and letters that are written, replaced or removed in the wrong way.
fn names_and_modes() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "a24_a_name_of_every_kind",
            "newlines, escapes, -rf, ..%2f, no UTF-8, 255 bytes, foreign digits",
            vec![Code("ipc.name"), Gone, Quiet, Check("escaped", the_log_is_printable)],
        ),
        own(
            "a24_name_beyond_the_counter",
            "a letter with the number 9,999,999,999",
            vec![Code("ipc.envelope"), Gone, Quiet],
        ),
        own("a24_numbers_are_left_out", "a hundred numbers are never written", vec![Code("ipc.gap"), Quiet]),
        own("a28_a_forged_close", "the box writes _close", vec![Code("ipc.name"), Gone, Quiet]),
        own(
            "a28_the_hosts_letters_cannot_be_changed",
            "create, open, unlink, chmod, chown, times, xattr, rename in to-agent",
            vec![Check("EROFS", every_fact_is_refused)],
        ),
        own(
            "a28_the_socket_cannot_be_replaced",
            "the gateway's socket is unlinked, renamed, bound beside",
            vec![Check("EROFS", every_fact_is_refused)],
        ),
        own(
            "a30_file_without_rights",
            "a letter of mode 000",
            vec![Check("taken or refused", one_way_or_the_other), Gone],
        ),
        own(
            "a30_directory_without_rights",
            "trees of mode 000 among the letters and in the workspace",
            vec![Errno("made", &[0]), Check("nothing is left", nothing_is_left_of_the_run)],
        ),
        own(
            "a34_written_in_place",
            "half a letter under its final name, the other half later",
            vec![AnyCode(&["ipc.json", "ipc.schema"]), Gone, Quiet],
        ),
        own(
            "a36_removed_before_it_is_read",
            "letters that are there and gone again, 2,000 times",
            vec![Quiet],
        ),
        own(
            "a38_a_letter_that_is_the_runner",
            "the host's runner is linked into the letter directory",
            vec![Errno("errno", &[1, 13, 18, 30])],
        ),
    ]
}

/// Checks that the host kept no bytes of its own files. If a reader followed a link, the bytes would be in `rejected/`,
/// which holds copies of refused letters.
pub fn nothing_of_the_host_was_read(seen: &Seen) -> Result<(), String> {
    let mut dirs = vec![seen.letters()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            for secret in ["root:", "this is the host's own canary", "LAZARET_ROOT=", "-canary-7f3a"] {
                if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                    return Err(format!("{secret:?} stands in {}", path.display()));
                }
            }
        }
    }
    let leaked = seen.log.contains("this is the host's own canary") || seen.log.contains("root:x:");
    if leaked { Err("a host's file stands in the log".to_owned()) } else { Ok(()) }
}

/// Checks that every fact is an error number other than 0.
pub fn every_fact_is_refused(seen: &Seen) -> Result<(), String> {
    let facts = seen.facts.as_object().ok_or("the box sent no report")?;
    let done: Vec<&String> = facts.iter().filter(|(_, errno)| **errno == 0).map(|(name, _)| name).collect();
    if done.is_empty() && !facts.is_empty() { Ok(()) } else { Err(format!("the box could {done:?}")) }
}

fn refused_or_not_made(seen: &Seen) -> Result<(), String> {
    if seen.facts["made"] == 0 {
        Expectation::Code("ipc.not_regular").met(seen)
    } else {
        Expectation::Errno("made", DENIED).met(seen)
    }
}

fn logged_at_most_thrice(seen: &Seen) -> Result<(), String> {
    let told = seen.log.lines().filter(|line| line.contains(" refused")).count();
    // The host scans the directory with every letter and every second, and must not log the same file each time.
    if told <= 3 { Ok(()) } else { Err(format!("one directory was refused {told} times")) }
}

fn nothing_of_roots(seen: &Seen) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(seen.workspace().join("suid")) {
        Ok(about) if about.uid() == 0 => Err("a file of the box belongs to root".to_owned()),
        Ok(_) => Ok(()),
        Err(e) => Err(format!("the file was not made: {e}")),
    }
}

fn nothing_was_refused(seen: &Seen) -> Result<(), String> {
    if seen.log.contains("refused") { Err(format!("refused:\n{}", seen.log)) } else { Ok(()) }
}

/// Checks that each text in the chat is the text of a kept letter.
fn said_is_what_was_kept(seen: &Seen) -> Result<(), String> {
    let mut kept = Vec::new();
    for run in std::fs::read_dir(seen.letters()).into_iter().flatten().flatten() {
        for letter in std::fs::read_dir(run.path().join("from-agent")).into_iter().flatten().flatten() {
            kept.push(std::fs::read_to_string(letter.path()).unwrap_or_default());
        }
    }
    let rounds: Vec<&String> = seen.heard.iter().filter(|text| text.starts_with("round ")).collect();
    for text in &rounds {
        if !kept.iter().any(|letter| letter.contains(text.trim())) {
            return Err(format!("{text:?} was said, and no letter that was kept says so"));
        }
    }
    let mut numbers: Vec<&str> = rounds.iter().filter_map(|text| text.split(' ').nth(1)).collect();
    let said = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() == said { Ok(()) } else { Err(format!("a letter was said twice: {rounds:?}")) }
}

/// Checks that no control character of a name reaches the operator's terminal.
pub fn the_log_is_printable(seen: &Seen) -> Result<(), String> {
    let log = seen.harness.world.log();
    let odd = log.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    match odd {
        Some(c) => Err(format!("the log holds {c:?}")),
        None if log.lines().any(|line| line.starts_with("line.json")) => {
            Err("a name broke a log line".to_owned())
        }
        None => Ok(()),
    }
}

fn one_way_or_the_other(seen: &Seen) -> Result<(), String> {
    // A host that runs as root reads it. A host that is not root cannot read it, and must not wait for it.
    if seen.times("unreadable") == 1 {
        Ok(())
    } else {
        Expectation::AnyCode(&["ipc.io", "ipc.not_regular"]).met(seen)
    }
}

/// Waits until the host has removed the run's directories.
pub fn nothing_is_left_of_the_run(seen: &Seen) -> Result<(), String> {
    let mut left = Vec::new();
    for _ in 0..300 {
        left = std::fs::read_dir(seen.ipc()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        if left.is_empty() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(format!("left behind: {left:?}"))
}
