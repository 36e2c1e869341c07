//! Reads /proc and the control groups for the processes of a box. This shows what the engine has really done.

#![allow(clippy::disallowed_methods, reason = "/proc and control groups, which the kernel writes")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipc_schema::probe_report::Cgroup;

use crate::policy::posture::KernelView;

/// Namespaces that a box must not share with the host.
const NAMESPACES: [&str; 6] = ["net", "ipc", "pid", "uts", "mnt", "cgroup"];

/// The host reads at most this much of a shim's command line, which is shorter than a page.
const COMMAND_LINE: u64 = 16 * 1024;
/// The host reads at most this much of an environment or a command line of a box. execve(2) accepts less.
const TEXT: u64 = 8 << 20;

/// The control groups of process `pid`, if the process belongs to the container.
pub(super) fn groups(pid: i64, container: &str) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    (!container.is_empty() && groups.contains(container)).then_some(groups)
}

/// The kernel's view of process `pid`, if the process belongs to the container. It does not if the engine counts
/// processes in another namespace, because then the number means another process here.
pub(super) fn view(pid: i64, container: &str) -> Option<KernelView> {
    let base = Path::new("/proc").join(pid.to_string());
    let groups = groups(pid, container)?;
    let status = fs::read_to_string(base.join("status")).ok()?;
    let shared = NAMESPACES
        .into_iter()
        .filter(|name| {
            let of = |process: &Path| fs::read_link(process.join("ns").join(name));
            match (of(&base), of(Path::new("/proc/self"))) {
                (Ok(its), Ok(ours)) => its == ours,
                // The kernel has no such namespace, or the host may not read it.
                _ => false,
            }
        })
        .map(str::to_owned)
        .collect();
    let seen = |name: &str| field(&status, name);
    Some(KernelView {
        uids: seen("Uid").split_whitespace().filter_map(|uid| uid.parse().ok()).collect(),
        bounding: seen("CapBnd").to_owned(),
        no_new_privileges: seen("NoNewPrivs") == "1",
        seccomp: seen("Seccomp").parse().unwrap_or_default(),
        shared,
        cgroup: Cgroup::read(|controller, name| limit(&groups, controller, name)),
    })
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map_or("", str::trim)
}

/// Reads a file of a process's control group.
fn limit(groups: &str, controller: &str, name: &str) -> Option<String> {
    group_dirs(groups, controller).find_map(|dir| fs::read_to_string(dir.join(name)).ok())
}

/// The directories in which a process's control groups may have the files of a controller. A line of cgroups(7) is
/// `hierarchy:controllers:path`, without controllers in version 2.
pub(super) fn group_dirs<'a>(groups: &'a str, controller: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    groups.lines().filter_map(move |line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => Some(format!("/sys/fs/cgroup{path}").into()),
            list if list.split(',').any(|c| c == controller) => {
                Some(format!("/sys/fs/cgroup/{controller}{path}").into())
            }
            _ => None,
        }
    })
}

/// The environments and command lines of a box's processes, each with its path.
pub(super) fn texts(container: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for base in processes(container) {
        for file in ["environ", "cmdline"] {
            if let Ok(bytes) = beginning(&base.join(file), TEXT) {
                found.push((format!("{}/{file}", base.display()), bytes));
            }
        }
    }
    found
}

/// The beginning of a file. A limit is necessary, because a process chooses the size of its command line and
/// environment in /proc: prctl(2), `PR_SET_MM`, needs no privilege.
fn beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The processes of a box that this host sees: those in its control group, and the children of the engine's shim. The
/// shim is for a runtime that leaves its processes in another control group (gVisor with `--ignore-cgroups`). It has
/// the container's id on its command line. gVisor's processes hold the open files of the box.
fn processes(container: &str) -> Vec<PathBuf> {
    if container.is_empty() {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let numbered = |base: &PathBuf| {
        base.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok())
    };
    let all: Vec<PathBuf> = entries.filter(numbered).collect();
    let (mut own, others): (Vec<PathBuf>, Vec<PathBuf>) = all
        .into_iter()
        .partition(|base| fs::read_to_string(base.join("cgroup")).unwrap_or_default().contains(container));
    let shims: Vec<String> =
        others.iter().filter(|base| is_shim(base, container)).map(|b| number(b)).collect();
    let held = |base: &PathBuf| {
        let status = fs::read_to_string(base.join("status")).unwrap_or_default();
        shims.iter().any(|shim| shim == field(&status, "PPid"))
    };
    if !shims.is_empty() {
        own.extend(others.into_iter().filter(held));
    }
    own
}

/// Whether a process is the engine's shim for a container. It must be in the host's process namespace, because a
/// program in a box can choose its own command line. It must belong to root or the host's user. The host reads its
/// command line only then.
fn is_shim(base: &Path, container: &str) -> bool {
    let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    // The owner of the directory is no proof: it is root for any process that hides its memory.
    let users = |process: &Path| {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        field(&status, "Uid").split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let ours = Path::new("/proc/self");
    let trusted =
        |all: Vec<String>| !all.is_empty() && (all.iter().all(|uid| uid == "0") || all == users(ours));
    if namespace(base).is_none_or(|its| namespace(ours) != Some(its)) || !trusted(users(base)) {
        return false;
    }
    let line = beginning(&base.join("cmdline"), COMMAND_LINE).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == container.as_bytes())
}

fn number(base: &Path) -> String {
    base.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Bytes on the file system of `beside` in deleted files of a box that its processes have still open or mapped. A host
/// that is not root sees none of them.
pub fn unlinked(container: &str, beside: &Path) -> u64 {
    let Ok(dev) = fs::metadata(beside).map(|about| about.dev()) else { return 0 };
    let mut files = HashMap::new();
    for base in processes(container) {
        for table in ["fd", "map_files"] {
            for entry in fs::read_dir(base.join(table)).into_iter().flatten().flatten() {
                // Only stat(2), because opening it could block.
                if let Ok(about) = fs::metadata(entry.path())
                    && about.is_file()
                    && about.nlink() == 0
                    && about.dev() == dev
                {
                    files.insert(about.ino(), about.blocks().saturating_mul(512));
                }
            }
        }
    }
    files.into_values().fold(0, u64::saturating_add)
}

/// At most eight of this machine's addresses, without the loopback's. A box must not reach them.
pub(super) fn addresses() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    own_addresses(&table)
}

/// The local address is on the line before `/32 host LOCAL`.
fn own_addresses(table: &str) -> Vec<String> {
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let mut own: Vec<String> = lines
        .windows(2)
        .filter(|pair| matches!(pair, [_, next] if next.starts_with("/32 host LOCAL")))
        .filter_map(|pair| pair.first()?.strip_prefix("|-- ").map(str::to_owned))
        .filter(|address| !address.starts_with("127."))
        .collect();
    own.sort();
    own.dedup();
    own.truncate(8);
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_addresses_are_read_from_the_routing_table() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.0.0.7\n        \
                     /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert_eq!(own_addresses(table), ["10.0.0.7"]);
        assert_eq!(own_addresses(""), Vec::<String>::new());
    }

    /// A shell with the container's id on its command line plays the engine's shim, and its child plays the process
    /// that serves the box.
    #[test]
    fn a_file_without_a_name_is_found_where_the_runtime_keeps_its_processes_in_no_control_group() {
        use std::process::{Command, Stdio};
        let (dir, container) = (tempfile::tempdir().unwrap(), "feedfacefeedface0123456789abcdef");
        let file = dir.path().join("file");
        let serves = "exec 3>\"$0\"; rm \"$0\"; head -c 1048576 /dev/zero >&3; echo ready; read line; :";
        let mut shim = Command::new("sh")
            .args(["-c", "sh -c \"$2\" \"$1\"; :", container])
            .arg(&file)
            .arg(serves)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut told = std::io::BufReader::new(shim.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut told, &mut said).unwrap();
        assert_eq!(said.trim(), "ready");
        assert!(unlinked(container, dir.path()) >= 1 << 20);
        assert_eq!(unlinked("feedface", dir.path()), 0, "a part of the name is no name");
        assert_eq!(unlinked("", dir.path()), 0);
        drop(shim.stdin.take());
        shim.wait().unwrap();
        assert_eq!(unlinked(container, dir.path()), 0, "it went with who held it");
    }

    #[test]
    fn c4_what_a_process_says_of_its_own_length_is_not_believed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        assert_eq!(beginning(file.path(), 4096).unwrap().len(), 4096);
    }

    #[test]
    fn a_process_that_is_not_the_boxs_is_not_looked_at() {
        let own = std::process::id().into();
        assert_eq!(view(own, "0123456789abcdef"), None);
        assert_eq!(view(own, ""), None);
    }
}
