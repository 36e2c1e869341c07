//! The file-system part of the probe: mounts, directories and files that must not be writable, and files that must
//! not be readable.

use std::path::Path;

use ipc_schema::probe_report::{Attempt, Mounted};
use rustix::fs::{self, Access, Mode, OFlags};
use rustix::io::Errno;

use super::attempt;

/// Bounds the report, whatever an image mounts.
const MOST: usize = 200;

/// Tried in addition to every mount point.
const DIRECTORIES: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/dev/shm",
    "/etc",
    "/home",
    "/ipc",
    "/lib",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/proc/sys",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/sys/fs/cgroup",
    "/usr",
    "/usr/local",
    "/var",
    "/var/tmp",
];

/// Files that would let a container escape if it could write them.
const ESCAPE_FILES: [&str; 11] = [
    "/etc/passwd",
    "/etc/shadow",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/cgroup.procs",
];

/// Kernel files that expose the memory of other processes, and engine sockets, which give root.
const SECRETS: [&str; 12] = [
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/sys/firmware/dmi/tables/DMI",
    "/dev/mem",
    "/dev/kmsg",
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
];

pub(super) fn mounts() -> Vec<Mounted> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().take(MOST).filter_map(mounted).collect()
}

/// proc_pid_mountinfo(5): `id parent dev root target options [fields] - kind source superoptions`
fn mounted(line: &str) -> Option<Mounted> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, target, options) = (mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (kind, superoptions) = (filesystem.next()?, filesystem.nth(1)?);
    let size = || fs::statvfs(target).ok().map(|about| about.f_blocks.saturating_mul(about.f_frsize));
    Some(Mounted {
        target: target.to_owned(),
        root: root.to_owned(),
        kind: kind.to_owned(),
        // If a filesystem and its mount differ, "read-only" of either one holds. The mount's own options come first.
        options: format!("{options},{superoptions}"),
        bytes: if kind == "tmpfs" { size() } else { None },
    })
}

/// Tries to create a file in every mount point and usual directory, and to open the escape files for writing.
pub(super) fn places(mounts: &[Mounted]) -> Vec<Attempt> {
    let mut all: Vec<&str> = mounts.iter().map(|m| m.target.as_str()).chain(DIRECTORIES).collect();
    all.sort_unstable();
    all.dedup();
    let mut tried: Vec<Attempt> = all
        .into_iter()
        .filter(|place| Path::new(place).exists())
        .map(|place| {
            attempt(place, if Path::new(place).is_dir() { new_file_in(place) } else { writable(place) })
        })
        .collect();
    let escapes = ESCAPE_FILES
        .into_iter()
        .filter(|file| Path::new(file).exists() && !tried.iter().any(|t| t.what == *file));
    let escapes: Vec<Attempt> = escapes.map(|file| attempt(file, writable(file))).collect();
    tried.extend(escapes);
    tried
}

/// Creates a file without a name, so that nothing stays behind. On a filesystem without `O_TMPFILE` it asks for the
/// permission instead: a kill must not leave a file in a group's workspace.
fn new_file_in(directory: &str) -> Result<(), Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match fs::open(directory, flags, Mode::from_raw_mode(0o600)) {
        Ok(_) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
            fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
        }
        Err(e) => Err(e),
    }
}

/// Opens a file for writing and writes nothing. A file that the engine covers with `/dev/null` counts as not
/// writable.
fn writable(file: &str) -> Result<(), Errno> {
    let open = fs::open(file, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    if is_null(&fs::fstat(&open)?) { Err(Errno::NODEV) } else { Ok(()) }
}

fn is_null(about: &fs::Stat) -> bool {
    about.st_rdev != 0 && fs::stat("/dev/null").is_ok_and(|null| null.st_rdev == about.st_rdev)
}

/// A file that the engine covers with `/dev/null` or an empty directory counts as unreadable.
pub(super) fn secrets() -> Vec<Attempt> {
    SECRETS
        .into_iter()
        .filter(|file| Path::new(file).exists())
        .map(|file| attempt(file, readable(file)))
        .collect()
}

fn readable(file: &str) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = match fs::open(file, flags, Mode::empty()) {
        // A socket cannot be opened, but whoever sees it can usually connect.
        Err(Errno::NXIO) => return Ok(()),
        open => open?,
    };
    let null = is_null(&fs::fstat(&open)?);
    let mut one = [0];
    match rustix::io::read(&open, &mut one) {
        _ if null => Err(Errno::NODEV),
        Ok(0) => Err(Errno::NODATA),
        Ok(_) => Ok(()),
        Err(e) => Err(e),
    }
}

pub(super) fn names(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.take(4096).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_what_it_shows_of_the_host() {
        let line = "1263 1239 254:0 /srv/state/workspaces/family /workspace rw,relatime shared:1 - ext4 /dev/root rw,x";
        let mount = mounted(line).unwrap();
        assert_eq!(
            (mount.root.as_str(), mount.target.as_str()),
            ("/srv/state/workspaces/family", "/workspace")
        );
        assert_eq!((mount.kind.as_str(), mount.options.as_str()), ("ext4", "rw,relatime,rw,x"));
        assert_eq!(mount.bytes, None);
        assert_eq!(mounted("nonsense"), None);
    }

    #[test]
    fn a_place_is_tried_without_leaving_anything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(new_file_in(path), Ok(()));
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
        assert!(writable(path).is_err(), "a directory is no file");
    }

    #[test]
    fn a_covered_file_tells_nothing() {
        assert_eq!((readable("/dev/null"), writable("/dev/null")), (Err(Errno::NODEV), Err(Errno::NODEV)));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(readable(file.path().to_str().unwrap()), Err(Errno::NODATA));
        std::fs::write(file.path(), "key").unwrap();
        assert_eq!(readable(file.path().to_str().unwrap()), Ok(()));
    }
}
