//! Attacks on memory, processor, processes, disk and logs.

use std::time::{Duration, Instant};

use super::box_ends::resumed;
use super::cases::Case;
use super::expectation_kinds::{ENDED, Expectation, Seen};
use super::letter_files::the_log_is_printable;
use Expectation::{Check, Errno, Fact, Quiet};

pub fn cases() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "c1_fork_bomb",
            "processes until there are no more",
            vec![Errno("errno", &[11]), Fact("processes", |n| n.as_u64().is_some_and(|n| n < 64))],
        )
        .with("limits.idle_window = 0\nlimits.pids = 64"),
        own(
            "c1_thread_bomb",
            "threads until there are no more",
            vec![Fact("said", |n| n.as_str().and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n < 64))],
        )
        .with("limits.idle_window = 0\nlimits.pids = 64"),
        own(
            "c2_memory_bomb",
            "memory until the kernel ends the agent",
            vec![Check("out of memory", out_of_memory_is_told)],
        )
        .with("limits.idle_window = 0\nlimits.memory_mib = 64"),
        own(
            "c2_memory_bomb_in_a_child",
            "memory until the kernel ends a child: the agent goes on",
            vec![Fact("signal", |n| *n == 9), Quiet],
        )
        .with("limits.idle_window = 0\nlimits.memory_mib = 128"),
        own(
            "c2_tmpfs_counts",
            "/tmp is filled",
            vec![Errno("errno", &[28]), Fact("mib", |n| n.as_u64().is_some_and(|n| n <= 256))],
        ),
        own(
            "c2_shared_memory",
            "/dev/shm is filled",
            vec![Errno("errno", &[28]), Fact("mib", |n| n.as_u64().is_some_and(|n| n <= 16))],
        ),
        own(
            "c3_processor_spin",
            "four processes spin for two seconds",
            vec![Check("one processor", one_processor)],
        )
        .with("limits.idle_window = \"1m\""),
        own(
            "c3_a_turn_without_end",
            "a turn of a minute, where four seconds are allowed, that does not hear",
            vec![Expectation::Ended("longer than its time limit")],
        )
        .with("limits.idle_window = 0\nlimits.turn = \"4s\""),
        own("c4_output_flood", "32 MiB on standard output", vec![Check("log capped", engine_log_is_small)])
            .with("limits.idle_window = \"1m\""),
        own(
            "c4_output_with_escapes",
            "the last words of a box are escapes and a forged log line",
            vec![Check("escaped", the_log_is_printable), Check("", no_forged_line)],
        ),
        own(
            "c5_names_in_tmp",
            "400,000 files in /tmp",
            vec![Errno("errno", &[28, 12]), Fact("names", |n| n.as_u64().is_some_and(|n| n < 400_000))],
        ),
        own(
            "c5_tmp_can_be_used",
            "a file in /tmp, whatever mode the image's own has: what is closed too far is worked around",
            vec![Errno("errno", &[0])],
        ),
        own(
            "c12_descriptors",
            "open files until there are no more",
            vec![Errno("errno", &[24]), Fact("open", |n| n.as_u64().is_some_and(|n| n <= 1_024))],
        ),
        own(
            "c25_core_dump",
            "a program aborts",
            vec![
                Fact("signal", |n| *n == 6),
                Fact("core", |core| *core == false),
                Fact("files", |n| *n == 0),
            ],
        ),
        own("c25_abort", "a program aborts, and the agent goes on", vec![Fact("signal", |n| *n == 6), Quiet]),
    ]
}

fn out_of_memory_is_told(seen: &Seen) -> Result<(), String> {
    let logged = seen.log.contains("out of memory");
    if !logged {
        return Err(format!("the operator was not told that it ran out of memory:\n{}", seen.log));
    }
    resumed(seen)
}

fn one_processor(seen: &Seen) -> Result<(), String> {
    let (cpu, wall) =
        (seen.facts["cpu_ms"].as_f64().unwrap_or(0.0), seen.facts["wall_ms"].as_f64().unwrap_or(1.0));
    if cpu > 0.0 && cpu <= wall * 1.3 {
        Ok(())
    } else {
        Err(format!("{cpu} ms of processor time in {wall} ms"))
    }
}

/// Checks how much of the box's output the engine keeps on the host's disk.
fn engine_log_is_small(seen: &Seen) -> Result<(), String> {
    let kib = seen.facts["kib"].as_u64().unwrap_or(0);
    let names = seen.harness.boxes_of(&seen.test_group.group);
    let Some(name) = names.first() else { return Err("the box is gone".to_owned()) };
    let inspected = seen
        .harness
        .docker()
        .args(["inspect", "--format", "{{.Id}} {{.HostConfig.LogConfig}}", name])
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&inspected.stdout).into_owned();
    let id = text.split(' ').next().unwrap_or_default();
    let output = seen.harness.docker().args(["info", "--format", "{{.DockerRootDir}}"]).output();
    let root = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let dir = std::path::Path::new(&root).join("containers").join(id);
    let (mut bytes, mut dirs) = (0, vec![dir.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() { dirs.push(entry.path()) } else { bytes += about.len() }
        }
    }
    if !dir.is_dir() {
        return Err(format!("{} cannot be looked at", dir.display()));
    }
    if kib >= 32 * 1024 && bytes <= 4 << 20 {
        return Ok(());
    }
    Err(format!("of {kib} KiB the engine keeps {bytes} bytes ({})", text.trim()))
}

fn no_forged_line(seen: &Seen) -> Result<(), String> {
    let forged = seen.harness.world.log().lines().any(|line| {
        line.contains("code=\"ipc.forged\"")
            && !line.contains("said")
            && line.trim_start().starts_with("WARN")
    });
    if forged { Err("a box has written a line of the host's log".to_owned()) } else { resumed(seen) }
}

pub(super) fn filled(word: &'static str, more: super::expectation_kinds::Check) -> Vec<Expectation> {
    // A quota answers with ENOSPC or EDQUOT. Without a quota, a watchdog ends the box and removes what exceeds the
    // limit.
    let stopped = |seen: &Seen| match seen.facts.is_null() {
        true => Expectation::Ended(ENDED).met(seen),
        false => Errno("errno", &[28, 122]).met(seen),
    };
    vec![Check("stopped", stopped), Check(word, more)]
}

pub(super) fn expect_notice(seen: &Seen, words: &str) -> Result<(), String> {
    let told = seen.heard.iter().any(|text| text.contains(words)) || !seen.facts.is_null();
    if told { Ok(()) } else { Err(format!("the chat was told {:?}", seen.heard)) }
}

/// Checks that the workspace holds no more than the limit after the newest files were removed.
pub(super) fn left(seen: &Seen, mib: u64) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let entries = std::fs::read_dir(seen.workspace()).into_iter().flatten().flatten();
        let bytes: u64 = entries.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum();
        if bytes <= mib << 20 {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(20) {
            return Err(format!("{} MiB are left, of {mib}", bytes >> 20));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
