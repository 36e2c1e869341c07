//! The requirements of cases for which gVisor's kernel answers differently from Linux.
//!
//! There are three kinds of difference.
//! - The answer differs and is as safe: another error number, or success in a kernel that holds nothing of the host.
//!   Then the test inspects the processes that serve the box ([`confined`]).
//! - A limit counts differently. It must still be enforced ([`Expectation::Kept`]).
//! - A limit is not enforced. Then it must be a gap that `status` names ([`Case::by_loss`]).
//!
//! A case that is not listed here has the same requirements under every runtime.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::box_ends::resumed;
use super::cases::Case;
use super::expectation_kinds::{ENDED, Expectation, Seen};
use super::filesystem::is_empty;
use super::resources::left;
use Expectation::{AnyCode, Check, Code, Errno, Fact, Gone, Kept, Quiet};

/// gVisor's runtime name. The names of its other configurations begin with it.
const RUNSC: &str = "runsc";

const EBADF: i64 = 9;
const ENODEV: i64 = 19;
const EINVAL: i64 = 22;
const EOPNOTSUPP: i64 = 95;
const EAFNOSUPPORT: i64 = 97;

/// Calls that gVisor refuses with another error number than the host's seccomp filter.
const REFUSED: &[(&[&str], i64)] = &[
    // gVisor's network stack has unix, inet, inet6, netlink and packet sockets. It refuses every other family.
    (
        &[
            "c14_alg",
            "c14_vsock",
            "c14_vsock_datagram",
            "c15_appletalk",
            "c15_bluetooth",
            "c15_can",
            "c15_key",
            "c15_rds",
            "c15_tipc",
            "c15_xdp",
        ],
        EAFNOSUPPORT,
    ),
    // gVisor does not implement these, and answers with different numbers.
    (&["a10_file_capability", "c13_name_to_handle_at", "c13_open_by_handle_at", "c13_setns"], EOPNOTSUPP),
    (&["c13_perf_event_open"], ENODEV),
    (
        &[
            "c13_personality_no_randomize",
            "c13_personality_read_implies_exec",
            "c15_ambient_capability",
            "c15_realtime",
        ],
        EINVAL,
    ),
    (&["c14_io_uring_enter"], EBADF),
];

/// Calls that gVisor performs inside its own kernel: namespaces, device nodes, priorities, an invented kernel log.
const GRANTED: &[&str] = &[
    "c13_clone_user",
    "c13_mbind",
    "c13_ptrace_traceme",
    "c13_set_mempolicy",
    "c13_syslog",
    "c13_unshare_cgroup",
    "c13_unshare_mount",
    "c13_unshare_time",
    "c13_unshare_user",
    "c14_io_uring_setup",
    "c15_mknod_block",
    "c15_mknod_character",
    "c15_nice",
];

/// Adds gVisor's requirements to a case.
pub fn answers(case: Case) -> Case {
    if let Some((_, errno)) = REFUSED.iter().find(|(names, _)| names.contains(&case.name)) {
        let answer: &'static [i64] = std::slice::from_ref(errno);
        return case.under(RUNSC, vec![Errno("errno", answer)]);
    }
    if GRANTED.contains(&case.name) {
        return case.under(RUNSC, vec![Errno("errno", &[0]), Check("confined", confined)]);
    }
    match case.name {
        // gVisor keeps a FIFO or a socket of a mount in its memory, so the host only sees that a letter's number is
        // missing.
        "a6_fifo" | "a7_socket" => case.under(
            RUNSC,
            vec![Fact("made", |n| *n == 0), Code("ipc.gap"), Quiet, Check("not on the host", nothing_odd)],
        ),
        // Each call becomes several calls on the host, so the burst lasts longer, and the host may end the box for it.
        "a31_inotify_queue_overflows" => {
            case.under(RUNSC, vec![Check("goes on, or is ended for its noise", quiet_or_noisy)])
        }
        // The file belongs to root for a moment, until gVisor changes its owner to the box's user.
        "a34_written_in_place" => {
            case.under(RUNSC, vec![AnyCode(&["ipc.json", "ipc.schema", "ipc.owner"]), Gone, Quiet])
        }
        "b5_room_without_writing" => case.by_loss(
            RUNSC,
            "room-at-once",
            vec![Expectation::Ended(ENDED), Check("the limit is left", |seen| left(seen, 64))],
        ),
        "c1_fork_bomb" => case
            .by_loss(RUNSC, "pids-limit", vec![Check("goes on", bounded_or_over)])
            .under(RUNSC, vec![Kept("pids-limit"), Check("ended, and goes on", few_or_over)]),
        // Sleeping threads exist only in gVisor's memory, so the host counts only running ones.
        "c1_thread_bomb" => case
            .by_loss(RUNSC, "pids-limit", vec![Check("goes on", bounded_or_over)])
            .under(RUNSC, vec![Kept("pids-limit"), Kept("memory-limit"), Check("goes on", bounded_or_over)]),
        // The whole box is one process of the host, so running out of memory ends the box and not a child. The engine
        // may see the end before it sees the reason.
        "c2_memory_bomb" | "c2_memory_bomb_in_a_child" => case
            .by_loss(RUNSC, "memory-limit", vec![Check("goes on", bounded_or_over)])
            .under(RUNSC, vec![Kept("memory-limit"), Check("ended, and goes on", killed)]),
        // Under gVisor a process's clock counts the processor time that it requested. Only the host's kernel knows the
        // time that it got.
        "c3_processor_spin" => case
            .by_loss(RUNSC, "cpu-limit", vec![Check("goes on", bounded_or_over)])
            .under(RUNSC, vec![Kept("cpu-limit"), Check("held back", held_back)]),
        // gVisor's memory filesystems limit their size and not their number of names. The names count as the box's
        // memory.
        "c5_names_in_tmp" => {
            case.by_loss(RUNSC, "memory-filesystems", vec![Check("goes on", bounded_or_over)])
        }
        // gVisor's kernel has its own FUSE and network devices.
        "c11_no_device" => case.under(
            RUNSC,
            vec![
                Fact("odd", only_gvisors_own),
                Fact("opened", only_gvisors_own),
                Check("confined", confined),
            ],
        ),
        "c11_kernel_settings_cannot_be_written" => case.under(
            RUNSC,
            vec![
                Fact("opened", is_empty),
                Fact("writable", is_empty),
                Fact("tried", |n| n.as_u64().is_some_and(|n| n > 20)),
                Check("the host's killer is not moved", no_process_is_spared),
            ],
        ),
        // gVisor shows no mount source at all, which is stricter than required.
        "c16_host_paths_tell_nothing" => case.under(RUNSC, vec![Fact("roots", is_empty)]),
        _ => case,
    }
}

fn only_gvisors_own(value: &serde_json::Value) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(|path| path == "/dev/fuse" || path == "/dev/net/tun"))
}

/// Accepts that gVisor's kernel survives a bomb, or dies of it and the next box continues the turn.
fn bounded_or_over(seen: &Seen) -> Result<(), String> {
    let reported = seen.facts.is_object() && !seen.resumed;
    if reported { Ok(()) } else { resumed(seen) }
}

/// Like [`bounded_or_over`], for a bomb of processes. The host counts twelve tasks or more for each process; the limit
/// is 64.
fn few_or_over(seen: &Seen) -> Result<(), String> {
    let many = seen.facts["processes"].as_u64().filter(|n| *n >= 64 * 12 + 128);
    many.map_or_else(|| bounded_or_over(seen), |n| Err(format!("{n} processes were made")))
}

/// Accepts that the chat got nothing, or got the notice that the host ended the box for it.
fn quiet_or_noisy(seen: &Seen) -> Result<(), String> {
    match seen.heard.iter().find(|text| !text.contains("changed files in from-agent")) {
        None => Ok(()),
        Some(other) => Err(format!("the chat heard {other:?}")),
    }
}

/// Checks that the kernel ended the box and the next box continues the turn.
fn killed(seen: &Seen) -> Result<(), String> {
    let told = ["out of memory", "exit code 137"].iter().any(|words| seen.log.contains(words));
    if told { resumed(seen) } else { Err(format!("the kernel did not end it:\n{}", seen.log)) }
}

/// Checks that the kernel throttled the box's control group because the box used up its processor quota.
fn held_back(seen: &Seen) -> Result<(), String> {
    let (kernel, _) = serving(seen)?;
    let groups = fs::read_to_string(kernel.join("cgroup")).unwrap_or_default();
    // cgroups(7): `hierarchy:controllers:path`. The controllers are empty in version 2.
    let stats = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let tree = if controllers.is_empty() { String::new() } else { format!("/{controllers}") };
        let counts = controllers.is_empty() || controllers.split(',').any(|controller| controller == "cpu");
        counts.then(|| fs::read_to_string(format!("/sys/fs/cgroup{tree}{path}/cpu.stat")).ok())?
    });
    let throttled = |stat: String| {
        stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse::<u64>().ok())
    };
    let times = stats.filter_map(throttled).max();
    // The quota is one processor, so nothing is throttled on a machine that has only one.
    let one = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
    if one || times.is_some_and(|n| n > 0) {
        Ok(())
    } else {
        Err(format!("it was throttled {times:?} times"))
    }
}

/// Checks that gVisor's kernel keeps what it granted. On the host, each process that serves the box has its own network
/// and mount namespaces, a system call filter, and only the devices that every container has. The process that runs the
/// box's code is not root on the host. No device node is on the host's disk.
fn confined(seen: &Seen) -> Result<(), String> {
    nothing_odd(seen)?;
    let (kernel, all) = serving(seen)?;
    for process in &all {
        let told = |what: &str| Err(format!("process {} {what}", process.display()));
        let of = |base: &Path, name: &str| fs::read_link(base.join("ns").join(name)).ok();
        let ours = Path::new("/proc/self");
        if ["net", "mnt"]
            .iter()
            .any(|name| of(process, name).is_none() || of(process, name) == of(ours, name))
        {
            return told("shares a namespace with the host");
        }
        if field(process, "Seccomp") != "2" {
            return told("has no filter");
        }
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let harmless = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"].map(Path::new);
            if target.starts_with("/dev") && !harmless.contains(&target.as_path()) {
                return told(&format!("holds {}", target.display()));
            }
        }
    }
    let uids = field(&kernel, "Uid");
    let own_users = fs::read_link(kernel.join("ns/user")).ok() != fs::read_link("/proc/self/ns/user").ok();
    let nobody = !uids.is_empty() && uids.split_whitespace().all(|uid| uid != "0");
    if nobody && own_users {
        Ok(())
    } else {
        Err(format!("gVisor's kernel runs as {uids} of the host's users"))
    }
}

/// Checks that the host's kernel may kill the box's processes when memory is out, even if gVisor told the box that it
/// cannot.
fn no_process_is_spared(seen: &Seen) -> Result<(), String> {
    let (_, all) = serving(seen)?;
    for process in all {
        let score = fs::read_to_string(process.join("oom_score_adj")).unwrap_or_default();
        if score.trim().parse::<i32>().is_ok_and(|score| score < 0) {
            return Err(format!("process {} is spared: {}", process.display(), score.trim()));
        }
    }
    Ok(())
}

/// Returns the box's process as the engine knows it, which is gVisor's kernel, and all processes that serve the box:
/// the descendants of the engine's shim.
fn serving(seen: &Seen) -> Result<(PathBuf, Vec<PathBuf>), String> {
    let boxes = seen.harness.boxes_of(&seen.test_group.group);
    let name = boxes.first().ok_or("the box is gone")?;
    let output = seen.harness.docker().args(["inspect", "--format", "{{.State.Pid}}", name]).output();
    let pid = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let kernel = Path::new("/proc").join(&pid);
    let mut parents = vec![field(&kernel, "PPid")];
    if !matches!(parents[0].parse::<u32>(), Ok(parent) if parent > 1) {
        return Err(format!("the engine's process {pid:?} has no shim"));
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let table: Vec<(PathBuf, String)> = entries
        .map(|base| (base.clone(), field(&base, "PPid")))
        .filter(|(_, parent)| !parent.is_empty())
        .collect();
    let mut all = Vec::new();
    while let Some(parent) = parents.pop() {
        for (base, _) in table.iter().filter(|(_, its)| *its == parent) {
            parents.push(base.file_name().unwrap_or_default().to_string_lossy().into_owned());
            all.push(base.clone());
        }
    }
    // Skips processes that ended meanwhile.
    all.retain(|base| field(base, "State").starts_with(|state: char| state != 'Z' && state != 'X'));
    if all.contains(&kernel) && all.len() >= 2 {
        Ok((kernel, all))
    } else {
        Err(format!("of {name} only {all:?} is seen"))
    }
}

fn field(base: &Path, name: &str) -> String {
    let status = fs::read_to_string(base.join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Checks that no socket, FIFO or device node of a box is on the host's disk.
fn nothing_odd(seen: &Seen) -> Result<(), String> {
    let mut dirs = vec![seen.workspace(), seen.ipc()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            // The gateway's socket is the host's own, in a directory that no box may write.
            let own = path.ends_with("gateway.sock");
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_block_device()
                || kind.is_char_device()
                || kind.is_fifo()
                || (kind.is_socket() && !own)
            {
                return Err(format!("{} lies on the host's disk", path.display()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cases::cases;
    use super::*;

    #[test]
    fn every_answer_is_one_to_a_case_of_the_table() {
        let all = cases();
        let known = |name: &str| all.iter().any(|case| case.name == name);
        for name in REFUSED.iter().flat_map(|(names, _)| names.iter()).chain(GRANTED) {
            assert!(known(name), "{name} is not the name of a case");
        }
        let differ = all.iter().filter(|case| case.differs(Some(RUNSC))).count();
        let listed = REFUSED.iter().map(|(names, _)| names.len()).sum::<usize>() + GRANTED.len();
        assert_eq!(differ, listed + 15, "the match has a name that no case has");
        assert!(all.iter().all(|case| !case.differs(None) && !case.differs(Some("runc"))));
    }

    #[test]
    fn nothing_is_required_less_without_a_named_loss() {
        for case in cases().iter().filter(|case| case.differs(Some(RUNSC))) {
            let terms = case.terms(Some(RUNSC), &[]);
            assert!(terms.loss.is_none() && !terms.expectations.is_empty(), "{} requires nothing", case.name);
        }
    }
}
