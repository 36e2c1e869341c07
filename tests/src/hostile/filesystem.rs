//! Attacks on the filesystem of the box, and on what a box sees of the host.

use serde_json::Value;

use super::cases::Case;
use super::expectation_kinds::{ENDED, Expectation, Seen};
use super::letter_files::{every_fact_is_refused, nothing_of_the_host_was_read};
use super::resources::{expect_notice, filled, left};
use crate::model::KEY;
use Expectation::{Check, Errno, Fact, Quiet};

pub fn cases() -> Vec<Case> {
    let mut all = filesystem();
    all.extend(host_views());
    all.extend(archives());
    all
}

/// What a group's files become in an archive of the whole install.
fn archives() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "g1_many_names_and_holes_in_an_archive",
            "a file of 60 names, and 10 GiB of holes",
            vec![
                Errno("made", &[0]),
                Fact("linked", |n| *n == 59),
                Fact("holes", |n| *n == 20),
                Check("8 MiB in the archive", one_file_is_written_once),
            ],
        )
        .with("limits.idle_window = 0\nlimits.workspace_mib = 64"),
        own(
            "g2_setuid_in_an_archive",
            "a program with every special bit",
            vec![
                Errno("made", &[0]),
                Errno("marked", &[0]),
                Check("no special bit in the archive", no_special_bit),
            ],
        )
        .with("limits.idle_window = 0"),
    ]
}

/// Archives the install. Returns what the command said, and the archive's entries below the group's workspace, as tar
/// lists them.
fn archived(seen: &Seen) -> Result<(String, Vec<String>), String> {
    let archive = seen.harness.root().join(format!("{}.tar", seen.test_group.group));
    let name = archive.to_string_lossy().into_owned();
    let backup = async || seen.harness.world.lazaret(&["backup", "--all", &name]).await;
    let told = tokio::runtime::Handle::current().block_on(backup());
    let listed =
        std::process::Command::new("tar").args(["-tvf", &name]).output().map_err(|e| e.to_string())?;
    let _ = std::fs::remove_file(archive);
    let own = format!(" state/workspaces/{}/", seen.test_group.group);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let lines: Vec<String> = text.lines().filter(|line| line.contains(&own)).map(str::to_owned).collect();
    if lines.is_empty() {
        Err(format!("the archive has nothing of the group: {told}"))
    } else {
        Ok((told, lines))
    }
}

fn one_file_is_written_once(seen: &Seen) -> Result<(), String> {
    let (told, lines) = archived(seen)?;
    let size = |line: &String| line.split_whitespace().nth(2)?.parse::<u64>().ok();
    let bytes: u64 = lines.iter().filter_map(size).sum();
    let links = lines.iter().filter(|line| line.starts_with('h')).count();
    if links != 59 || !(8 << 20..9 << 20).contains(&bytes) {
        return Err(format!("{bytes} bytes and {links} links are in the archive"));
    }
    let hole = format!("state/workspaces/{}/hole", seen.test_group.group);
    let left = told.lines().filter(|line| line.contains(&hole) && line.contains("are holes")).count();
    if left == 20 { Ok(()) } else { Err(format!("{left} of 20 files with holes are named: {told}")) }
}

fn no_special_bit(seen: &Seen) -> Result<(), String> {
    let (_, lines) = archived(seen)?;
    let files: Vec<&String> = lines.iter().filter(|line| !line.starts_with('d')).collect();
    let mode = |line: &str| line.chars().take(10).any(|c| "sStT".contains(c));
    match files.iter().find(|line| mode(line)) {
        Some(line) => Err(format!("the archive has {line}")),
        None if files.is_empty() => Err("the archive has no file of the group".to_owned()),
        None => Ok(()),
    }
}

fn filesystem() -> Vec<Case> {
    let (own, shared) = (Case::own, Case::shared);
    vec![
        own(
            "b1_personality_and_memory_are_links",
            "CLAUDE.md, memory and transcripts become links to the host's files",
            vec![
                Fact("made", |n| n.as_u64().is_some_and(|n| n >= 5)),
                Check("never read", nothing_of_the_host_was_read),
                Quiet,
            ],
        )
        .with("limits.idle_window = 0"),
        shared(
            "b2_workspace_is_replaced",
            "the box's places are renamed and removed",
            vec![Check("impossible", no_fact_is_true)],
        ),
        shared(
            "b3_no_mount_below_what_the_box_writes",
            "what is mounted below a place that the box may write",
            vec![Fact("below", |below| below == "[]"), Fact("mounts", |n| n.as_u64().is_some_and(|n| n > 5))],
        ),
        own(
            "b5_a_file_beyond_the_limit",
            "one file that grows without end",
            vec![Fact("signal", |n| *n == 25), Check("512 MiB", big_file_is_bounded)],
        )
        .with("limits.idle_window = 0"),
        own(
            "b5_workspace_without_end",
            "the workspace is filled",
            filled("the limit is left", |seen| left(seen, 64)),
        )
        .with("limits.idle_window = 0\nlimits.workspace_mib = 64"),
        own(
            "b5_session_without_end",
            "the transcripts' place is filled",
            filled("told", |seen| expect_notice(seen, "transcripts")),
        )
        .with("limits.idle_window = 0\nlimits.session_mib = 16"),
        own(
            "b5_a_file_without_a_name",
            "a file grows that is in no directory any more",
            vec![Expectation::Ended(ENDED), Check("", |seen| expect_notice(seen, "filled its workspace"))],
        )
        .with("limits.idle_window = 0\nlimits.workspace_mib = 64"),
        own(
            "b5_room_without_writing",
            "256 MiB of the disk are taken in one call",
            vec![Errno("errno", &[1, 38, 95]), Quiet],
        )
        .with("limits.idle_window = 0\nlimits.workspace_mib = 64"),
        shared(
            "b6_read_only_places",
            "files are made in every place that is not the box's",
            vec![Check("EROFS|EACCES", every_fact_is_refused)],
        ),
        own(
            "b8_workspace_with_a_tree_of_traps",
            "loops, links to /, sockets, newlines and 400 directories in each other",
            vec![Fact("depth", |n| n.as_u64().is_some_and(|n| n >= 100)), Quiet],
        ),
    ]
}

/// The box's view of the host: sockets, devices, kernel files, keys, other processes.
fn host_views() -> Vec<Case> {
    let shared = Case::shared;
    vec![
        shared(
            "c11_no_engine_socket",
            "every socket that the box can see",
            vec![
                Fact("sockets", |all| all.as_array().is_some_and(|all| all.iter().all(own_socket))),
                Fact("seen", |n| n.as_u64().is_some_and(|n| n > 100)),
            ],
        ),
        shared(
            "c11_no_device",
            "every device that the box can see",
            vec![Fact("odd", is_empty), Fact("opened", is_empty)],
        ),
        shared(
            "c11_kernel_settings_cannot_be_written",
            "core_pattern, release_agent, sysrq, cgroups and all of /proc/sys",
            vec![
                Fact("opened", is_empty),
                Fact("writable", is_empty),
                Fact("tried", |n| n.as_u64().is_some_and(|n| n > 100)),
                Errno("oom_score", &[1, 13]),
            ],
        ),
        shared(
            "c16_host_paths_tell_nothing",
            "the sources of the box's mounts, as mountinfo tells them",
            vec![Check("no other group", no_other_group_is_named)],
        ),
        shared(
            "c16_masked_kernel_files",
            "/proc/kcore, keys, timers, addresses, firmware",
            vec![Fact("told", is_empty), Fact("firmware", |n| *n == 0)],
        ),
        shared(
            "c17_no_key_in_reach",
            "every file, environment and command line is searched for the host's keys",
            vec![
                Fact("hits", is_empty),
                Fact("env", |found| *found == false),
                Fact("files", |n| n.as_u64().is_some_and(|n| n > 20)),
                Check("0 hits", no_key_outside),
            ],
        ),
        shared(
            "c19_only_its_own_socket",
            "the folder of the gateway's socket and the one above it",
            vec![Fact("names", |names| *names == serde_json::json!(["gateway.sock"]))],
        ),
        shared(
            "c20_no_other_process",
            "every process that the box can see",
            vec![Fact("commands", |all| all.as_array().is_some_and(|all| !all.is_empty() && all.len() <= 4))],
        ),
        shared(
            "c20_no_abstract_socket_of_the_host",
            "every socket of the box's network, by name",
            vec![
                Fact("named", |all| all.as_array().is_some_and(|all| all.iter().all(own_socket))),
                Fact("read", |read| *read == true),
            ],
        ),
    ]
}

fn no_fact_is_true(seen: &Seen) -> Result<(), String> {
    let facts = seen.facts.as_object().ok_or("the box said nothing")?;
    let done: Vec<&String> = facts.iter().filter(|(_, done)| **done == true).map(|(name, _)| name).collect();
    if done.is_empty() && !facts.is_empty() { Ok(()) } else { Err(format!("the box could replace {done:?}")) }
}

fn big_file_is_bounded(seen: &Seen) -> Result<(), String> {
    let bytes = std::fs::metadata(seen.workspace().join("big")).map_err(|e| e.to_string())?.len();
    let _ = std::fs::remove_file(seen.workspace().join("big"));
    if bytes <= 512 << 20 { Ok(()) } else { Err(format!("the file has {bytes} bytes")) }
}

fn no_other_group_is_named(seen: &Seen) -> Result<(), String> {
    let roots = seen.list("roots");
    let install = std::fs::read_to_string(seen.harness.root().join("state/install")).unwrap_or_default();
    let foreign = roots.iter().find(|root| {
        ["neighbour", "/c1", "/home/", "group.toml"].iter().any(|word| root.contains(word))
            || (!install.trim().is_empty() && root.contains(install.trim()))
    });
    match foreign {
        Some(root) => Err(format!("a mount's source is {root}")),
        None if roots.is_empty() => Err("no mount's source was seen".to_owned()),
        None => Ok(()),
    }
}

/// Checks from outside that neither the engine's description nor its log of the box holds a key.
fn no_key_outside(seen: &Seen) -> Result<(), String> {
    for name in seen.harness.boxes_of(&seen.test_group.group) {
        for verb in ["inspect", "logs"] {
            let output = seen.harness.docker().args([verb, &name]).output().map_err(|e| e.to_string())?;
            let text = [output.stdout, output.stderr].concat();
            if text.windows(KEY.len()).any(|window| window == KEY.as_bytes()) {
                return Err(format!("the key stands in docker {verb}"));
            }
        }
    }
    if seen.harness.world.log().contains(KEY) {
        Err("the key stands in the host's log".to_owned())
    } else {
        Ok(())
    }
}

pub(super) fn own_socket(path: &Value) -> bool {
    // The box owns the sockets that earlier cases bound.
    let own = ["/run/lazaret/", "/workspace/", "/ipc/from-agent/", "/tmp/", "@"];
    path.as_str()
        .is_some_and(|path| path == "/gateway.sock" || own.iter().any(|place| path.starts_with(place)))
}

pub(super) fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}
