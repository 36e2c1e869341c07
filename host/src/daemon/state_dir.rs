//! Prepares the state directory: its folders, its lock, the group that host and boxes share, and the install's id.

#![allow(clippy::disallowed_methods, reason = "the state folder itself, and what the machine says of it")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StartError;
use crate::config::{Root, first};
use crate::domain::RunId;
use crate::host_files;
use crate::store::BALLAST;

/// The id of the group that host and boxes share, if the host runs as root and the machine has no group `lazaret`.
const FALLBACK_GID: u32 = 20_000;
/// With fewer free bytes than this, the start would fail half-way.
const LITTLE: u64 = 4 << 20;

/// Makes the folders of an install. The umask set here keeps other users of the machine out of everything the host
/// makes.
pub(super) fn prepare(root: &Root) -> Result<(), StartError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    let failed = |path: &Path, e: io::Error| StartError::machine("state.dir", path.display().to_string(), e);
    make_room(root)?;
    first::lay_out(root).map_err(|e| failed(root.path(), e))?;
    let state = root.state();
    fs::create_dir_all(&state).map_err(|e| failed(&state, e))?;
    let private = root.host_socket_dir();
    fs::create_dir_all(&private).map_err(|e| failed(&private, e))?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).map_err(|e| failed(&private, e))
}

/// Reports a read-only disk before anything fails on it. On a full disk, removes the ballast, which frees enough room
/// to start and to report the full disk.
fn make_room(root: &Root) -> Result<(), StartError> {
    let state = root.state();
    let there = [state.as_path(), root.path()].into_iter().find(|path| path.exists());
    let Some(Ok(room)) = there.map(host_files::room) else { return Ok(()) };
    if room.read_only {
        let why =
            "lies on a disk that is mounted read-only; make it writable, or choose another LAZARET_ROOT";
        return Err(StartError::machine("disk.read_only", root.path().display().to_string(), why));
    }
    let ballast = state.join(BALLAST);
    if room.free < LITTLE && ballast.exists() {
        tracing::warn!(code = "disk.full", "the disk is full: the ballast is given back");
        host_files::remove(&ballast)
            .map_err(|e| StartError::machine("disk.full", ballast.display().to_string(), e))?;
    }
    Ok(())
}

/// Takes the lock that makes this the only host of its state. The kernel releases it with the process.
pub(super) fn take_lock(path: &Path) -> Result<File, StartError> {
    let failed = |e: io::Error| StartError::machine("host.lock", path.display().to_string(), e);
    let mut file =
        File::options().create(true).truncate(false).write(true).read(true).open(path).map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(StartError::Locked { path: path.to_owned(), holder: holder_of(&file) });
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// Asks the kernel who holds the lock (proc_locks(5)). The file's content is not used: it names the last host until the
/// new one has written into it. If the kernel shows no holder, for example across pid namespaces, this returns `None`.
fn holder_of(file: &File) -> Option<u32> {
    let about = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", about.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&place.as_str());
        ours.then(|| fields.get(4)?.parse().ok()).flatten()
    })
}

/// Holds the lock of an install's state for a command that must not run beside a host. Makes the directory if it is
/// missing.
///
/// # Errors
/// A host is running, or the filesystem failed.
pub fn hold(root: &Root) -> Result<File, StartError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    let state = root.state();
    fs::create_dir_all(&state)
        .map_err(|e| StartError::machine("state.dir", state.display().to_string(), e))?;
    take_lock(&root.lock())
}

/// Returns an install's id and its shared group, for a command that works beside the host.
///
/// # Errors
/// The filesystem's error.
pub fn identity(root: &Root) -> Result<(String, u32), StartError> {
    Ok((install_id(&root.state().join("install"))?, shared_gid(&root.state())?))
}

/// Returns the group that host and boxes share. As root, the host uses the group `lazaret`, or a fixed number if there
/// is none. Without root, the host can only use the group of its state directory.
pub(super) fn shared_gid(state: &Path) -> Result<u32, StartError> {
    let failed = |e: io::Error| StartError::machine("state.gid", state.display().to_string(), e);
    let now = fs::metadata(state).map_err(failed)?;
    if !rustix::process::geteuid().is_root() {
        if now.gid() == 0 {
            let why = "belongs to the group root, which boxes must not have; `chgrp` it to a group of yours";
            return Err(StartError::machine("state.gid", state.display().to_string(), why));
        }
        return Ok(now.gid());
    }
    let gid = group_named("lazaret").unwrap_or(FALLBACK_GID);
    std::os::unix::fs::chown(state, None, Some(gid)).map_err(failed)?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o2770)).map_err(failed)?;
    Ok(gid)
}

fn group_named(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

pub(super) fn install_id(path: &Path) -> Result<String, StartError> {
    let failed = |e: io::Error| StartError::machine("state.install", path.display().to_string(), e);
    match fs::read_to_string(path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        _ => {
            let id = uuid::Uuid::now_v7().to_string();
            fs::write(path, format!("{id}\n")).map_err(failed)?;
            Ok(id)
        }
    }
}

/// Returns the shared group that an earlier start has set.
pub(super) fn known_gid(root: &Root) -> Result<u32, StartError> {
    let state = root.state();
    let known = fs::metadata(&state);
    known
        .map(|about| about.gid())
        .map_err(|e| StartError::machine("state.gid", state.display().to_string(), e))
}

/// Returns where the copies of a run's letters lie, for people.
pub(super) fn shown_letters(root: &Root, run: &RunId) -> String {
    let letters = root.state().join("letters");
    let groups = fs::read_dir(&letters).into_iter().flatten().flatten();
    let dir = groups.map(|g| g.path().join(run.as_str())).find(|d| d.exists()).unwrap_or(letters);
    crate::config::shown_path(&dir)
}
