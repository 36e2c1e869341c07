//! Builds a box's files: a small root in memory, and the spec's mounts over it. Runs in the box's own mount namespace.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use rustix::process::{chdir, pivot_root, umask};

use super::spawn::Order;
use super::spec::BoxSpec;

/// The step that failed, and the error.
pub(super) type Failed = String;

/// The character devices of `/dev`: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A mount over a target.
enum Over<'a> {
    Bind { source: &'a Path, writable: bool },
    Memory { options: &'a str },
}

/// Builds the root and makes it the root of this process.
pub(super) fn enter(order: &Order) -> Result<(), Failed> {
    let (root, spec) = (order.root.as_path(), &order.spec);
    umask(Mode::from_raw_mode(0o022));
    memory(root, MountFlags::NODEV | MountFlags::NOSUID, "mode=755,size=1m")?;
    for dir in ["etc", "root", "usr/bin"] {
        make_dir(&root.join(dir))?;
    }
    make_dir(&in_root(root, &spec.working_dir))?;
    proc(root)?;
    dev(root, spec.shm_bytes)?;
    bind(&order.image_bin, &root.join("bin"), false)?;
    fs::copy(&order.image_passwd, root.join("etc/passwd")).map_err(|e| format!("etc/passwd: {e}"))?;
    for (target, over) in by_depth(spec) {
        let target = in_root(root, target);
        match over {
            Over::Bind { source, writable } => bind(source, &target, writable)?,
            Over::Memory { options } => {
                let (flags, data) = read_options(options);
                memory(&target, flags, &data)?;
            }
        }
    }
    if spec.read_only_root {
        done("the root", root, mount_remount(root, MountFlags::BIND | MountFlags::RDONLY, ""))?;
    }
    leave_the_old_root(root)
}

/// Returns the spec's mounts, outer ones first, so that no mount hides another.
fn by_depth(spec: &BoxSpec) -> Vec<(&str, Over<'_>)> {
    let binds = spec
        .binds
        .iter()
        .map(|b| (b.target.as_str(), Over::Bind { source: b.source.as_path(), writable: b.writable }));
    let tmpfs = spec.tmpfs.iter().map(|(target, options)| (target.as_str(), Over::Memory { options }));
    let mut all: Vec<_> = tmpfs.chain(binds).collect();
    all.sort_by_key(|(target, _)| Path::new(target).components().count());
    all
}

fn in_root(root: &Path, target: &str) -> PathBuf {
    root.join(target.trim_start_matches('/'))
}

fn done(what: &str, path: &Path, result: rustix::io::Result<()>) -> Result<(), Failed> {
    result.map_err(|e| format!("{what} at {}: {e}", path.display()))
}

fn make_dir(path: &Path) -> Result<(), Failed> {
    fs::create_dir_all(path).map_err(|e| format!("the directory {}: {e}", path.display()))
}

fn memory(target: &Path, flags: MountFlags, data: &str) -> Result<(), Failed> {
    make_dir(target)?;
    let data = CString::new(data).map_err(|e| format!("tmpfs options {data:?}: {e}"))?;
    done("tmpfs", target, mount("tmpfs", target, "tmpfs", flags, data.as_c_str()))
}

fn bind(source: &Path, target: &Path, writable: bool) -> Result<(), Failed> {
    let about = fs::metadata(source).map_err(|e| format!("the mount source {}: {e}", source.display()))?;
    if about.is_dir() {
        make_dir(target)?;
    } else {
        target.parent().map_or(Ok(()), make_dir)?;
        let file = fs::File::options().create(true).append(true).open(target);
        file.map_err(|e| format!("the mount target {}: {e}", target.display()))?;
    }
    done("bind", target, mount_bind(source, target))?;
    if writable {
        return Ok(());
    }
    // The kernel ignores flags of a new bind mount, so a remount sets them.
    done("read-only", target, mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, ""))
}

fn proc(root: &Path) -> Result<(), Failed> {
    let target = root.join("proc");
    make_dir(&target)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    done("proc", &target, mount("proc", &target, "proc", flags, None))
}

fn dev(root: &Path, shm_bytes: u64) -> Result<(), Failed> {
    let dev = root.join("dev");
    memory(&dev, MountFlags::NOSUID | MountFlags::NOEXEC, "mode=755,size=64k")?;
    // All users may open the devices.
    let usual = umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
        let path = dev.join(name);
        done("device", &path, mknodat(CWD, &path, kind, mode, makedev(major, minor)))?;
    }
    umask(usual);
    for (name, to) in LINKS {
        symlink(to, dev.join(name)).map_err(|e| format!("dev/{name}: {e}"))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    memory(&dev.join("shm"), flags | MountFlags::NODEV, &format!("mode=1777,size={shm_bytes}"))?;
    let pts = dev.join("pts");
    make_dir(&pts)?;
    let data = c"newinstance,ptmxmode=0666,mode=0620";
    done("devpts", &pts, mount("devpts", &pts, "devpts", flags, data))
}

/// Reads mount options like the engine: words of mount(8) change the engine's default flags, and a word that is not a
/// flag is an option of the filesystem.
fn read_options(options: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut data = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => flags -= MountFlags::RDONLY,
            "exec" => flags -= MountFlags::NOEXEC,
            "noexec" => flags |= MountFlags::NOEXEC,
            "suid" => flags -= MountFlags::NOSUID,
            "nosuid" => flags |= MountFlags::NOSUID,
            "dev" => flags -= MountFlags::NODEV,
            "nodev" => flags |= MountFlags::NODEV,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// Changes the root with the same directory for both arguments. The old root then lies over the new one, and is
/// unmounted (pivot_root(2), NOTES).
fn leave_the_old_root(root: &Path) -> Result<(), Failed> {
    let steps = chdir(root)
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| unmount(".", UnmountFlags::DETACH))
        .and_then(|()| chdir("/"));
    done("the change of the root", root, steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_are_flags_and_the_rest() {
        let (flags, data) = read_options("rw,exec,nosuid,nodev,mode=1777,uid=7,gid=7,size=268435456");
        assert_eq!(flags, MountFlags::NOSUID | MountFlags::NODEV);
        assert_eq!(data, "mode=1777,uid=7,gid=7,size=268435456");
    }
}
