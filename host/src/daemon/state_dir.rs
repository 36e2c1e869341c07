//! Prepares the state directory: its folders, its lock, the group that host and boxes share, and the install's id.

#![allow(clippy::disallowed_methods, reason = "the state folder itself, and what the machine says of it")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::StartError;
use crate::config::{Root, first, install_rights};
use crate::domain::RunId;
use crate::host_files;
use crate::store::{self, BALLAST};

/// Folders of `state/` in which boxes have what they use, or nothing. The engine mounts single folders of them as root.
const CLOSED: [&str; 13] = [
    "backups",
    "channels",
    "host",
    "inbox",
    "ipc",
    "letters",
    "passwd",
    "runner",
    "sessions",
    "spool",
    "trials",
    "volumes",
    "workspaces",
];
/// With fewer free bytes than this, the start would fail half-way.
const LITTLE: u64 = 4 << 20;

/// Makes the folders of an install. The umask set here keeps other users of the machine out of everything the host
/// makes.
pub(super) fn prepare(root: &Root) -> Result<(), StartError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    let failed = |path: &Path, e: io::Error| StartError::machine("state.dir", path.display().to_string(), e);
    refuse_open_install(root)?;
    make_room(root)?;
    first::lay_out(root).map_err(|e| failed(root.path(), e))?;
    let state = root.state();
    fs::create_dir_all(&state).map_err(|e| failed(&state, e))?;
    let private = root.host_socket_dir();
    fs::create_dir_all(&private).map_err(|e| failed(&private, e))?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).map_err(|e| failed(&private, e))
}

/// Refuses an install that another user of the machine could replace, and names what else lets others in.
fn refuse_open_install(root: &Root) -> Result<(), StartError> {
    let (refused, named): (Vec<_>, Vec<_>) =
        install_rights::of_install(root).into_iter().partition(|risk| risk.refused);
    for risk in named {
        tracing::warn!(code = "install.rights", "{risk}");
    }
    match refused.first() {
        Some(risk) => Err(StartError::machine("install.rights", root.path().display().to_string(), risk)),
        None => Ok(()),
    }
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
    Ok((install_id(root)?, shared_gid(&root.state())?))
}

/// Returns the group that host and boxes share, and closes `state/` to it and to everybody else: a process that has
/// the group and is no box reaches nothing. Without root, the host can only use the group of its state directory.
///
/// # Errors
/// The filesystem's error, the directory belongs to another user, or the group is root's.
pub fn shared_gid(state: &Path) -> Result<u32, StartError> {
    let failed = |e: io::Error| StartError::machine("state.gid", state.display().to_string(), e);
    let now = fs::metadata(state).map_err(failed)?;
    let root = rustix::process::geteuid().is_root();
    if !root && now.uid() != host_files::own_uid() {
        let why = format!(
            "belongs to the user {}, and must belong to the host's; `chown -R` it to that user",
            now.uid()
        );
        return Err(StartError::machine("state.owner", state.display().to_string(), why));
    }
    if !root {
        if now.gid() == 0 {
            let why = "belongs to the group root, which boxes must not have; `chgrp` it to a group of yours";
            return Err(StartError::machine("state.gid", state.display().to_string(), why));
        }
        close(state).map_err(failed)?;
        return Ok(now.gid());
    }
    let gid = install_rights::accounts().shared_group(now.gid());
    std::os::unix::fs::chown(state, Some(0), Some(gid)).map_err(failed)?;
    close(state).map_err(failed)?;
    Ok(gid)
}

/// Leaves `state/`, its folders and its files to the host alone. Earlier versions gave them to the shared group.
fn close(state: &Path) -> io::Result<()> {
    host_files::close(state)?;
    CLOSED.iter().try_for_each(|name| host_files::close(&state.join(name)))?;
    host_files::inside(state)
        .iter()
        .filter(|path| path.is_file())
        .try_for_each(|path| host_files::close(path))
}

/// Refuses a start that would make a new database although this install was in use: the next stranger would become its
/// owner.
pub(super) fn require_database(root: &Root) -> Result<(), StartError> {
    let database = root.database();
    if host_files::size(&database).is_ok_and(|bytes| bytes > 0) {
        return Ok(());
    }
    let left = what_is_left(root);
    if left.is_empty() {
        return Ok(());
    }
    let why = format!(
        "is missing, but this install was in use ({} in {}). To begin anew on purpose: lazaret up --begin-anew. \
         Otherwise {}",
        left.join(", "),
        root.state().display(),
        store::remedy(&database)
    );
    Err(StartError::machine("store.missing", database.display().to_string(), why))
}

/// What only a host with a database leaves behind.
fn what_is_left(root: &Root) -> Vec<String> {
    let name_of = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    let holds = |name: &&str| !host_files::inside(&root.state().join(name)).is_empty();
    let folders =
        ["sessions", "workspaces", "inbox", "letters", "volumes", "backups"].into_iter().filter(holds);
    let mut left: Vec<String> = folders.map(|name| format!("{name}/")).collect();
    let names = host_files::inside(&root.state()).into_iter().filter_map(name_of);
    let of_a_host = |name: &String| {
        let beside = name.strip_prefix("lazaret.db").unwrap_or_default();
        name == BALLAST || [".open", ".before-", ".replaced-", "-wal"].iter().any(|b| beside.starts_with(b))
    };
    left.extend(names.filter(of_a_host));
    left
}

/// Sets the whole state aside, as `state.before-TIME`. Only the install's id stays: the host removes the boxes that the
/// old state knew.
///
/// # Errors
/// A host is running, or the filesystem failed.
pub fn begin_anew(root: &Root, stamp: &str) -> Result<Option<PathBuf>, StartError> {
    let state = root.state();
    if !host_files::there(&state) {
        return Ok(None);
    }
    let _lock = take_lock(&root.lock())?;
    let aside = host_files::beside(&state, &format!(".before-{stamp}"));
    let failed = |e: io::Error| StartError::machine("state.dir", state.display().to_string(), e);
    fs::rename(&state, &aside).map_err(failed)?;
    fs::create_dir(&state).map_err(failed)?;
    match fs::copy(aside.join("install"), root.install_id()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(Some(aside)),
    }
}

/// Returns the id that labels the boxes of this install. It holds together with the place of `state/`: a copy of the
/// install gets an id of its own, because a host removes or adopts every box with its id. An install that was moved
/// keeps its id.
pub(super) fn install_id(root: &Root) -> Result<String, StartError> {
    let path = root.install_id();
    let failed = |e: io::Error| StartError::machine("state.install", path.display().to_string(), e);
    let here = Place::of(&root.state()).map_err(failed)?;
    let known = match fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().to_owned()).filter(|id| !id.is_empty()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed(e)),
    };
    let place_file = root.install_place();
    let place = fs::read_to_string(&place_file).ok().and_then(|text| Place::parse(&text));
    let copied = known.as_ref().zip(place.as_ref()).filter(|(id, place)| !place.is_still_of(id, &here));
    if let Some((_, place)) = copied {
        tracing::warn!(
            code = "install.copied",
            "this is a copy of the install in {}: it has an id of its own from now on, and leaves the boxes of the \
             other one alone",
            place.path.display()
        );
        // Without its mailbox no run of the other install is adopted here.
        match fs::remove_dir_all(root.ipc()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    let id = known.clone().filter(|_| copied.is_none()).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let put = |path: &Path, text: String| host_files::put(path, text.as_bytes(), 0o640, None);
    if known.as_ref() != Some(&id) {
        put(&path, format!("{id}\n")).map_err(failed)?;
    }
    if place.as_ref() != Some(&here) {
        put(&place_file, here.to_string()).map_err(failed)?;
    }
    Ok(id)
}

/// Where a `state/` lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
    path: PathBuf,
}

impl Place {
    fn of(state: &Path) -> io::Result<Self> {
        let about = fs::metadata(state)?;
        let path = fs::canonicalize(state)?;
        Ok(Self { device: about.dev(), inode: about.ino(), path })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.trim_end().splitn(3, ' ');
        let (device, inode) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { device, inode, path: words.next()?.into() })
    }

    /// Whether the install with this id, which lay in this place, is the one that lies `here` now.
    fn is_still_of(&self, id: &str, here: &Self) -> bool {
        if self.path == here.path || self.is_same_folder(here) {
            return true;
        }
        // A rename keeps the inode. On another filesystem, the install was moved if the old place does not have it.
        let is_there = fs::read_to_string(self.path.join("install")).is_ok_and(|there| there.trim() == id);
        !is_there && self.device != here.device
    }

    fn is_same_folder(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} {} {}", self.device, self.inode, self.path.display())
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

/// Returns where the copies of a run's letters lie. The client shows the path as it sees it.
pub(super) fn shown_letters(root: &Root, run: &RunId) -> String {
    let letters = root.state().join("letters");
    let groups = fs::read_dir(&letters).into_iter().flatten().flatten();
    let dir = groups.map(|g| g.path().join(run.as_str())).find(|d| d.exists()).unwrap_or(letters);
    dir.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install_in(dir: &Path) -> Root {
        let root = Root::new(dir).unwrap();
        fs::create_dir_all(root.state()).unwrap();
        root
    }

    fn copy_id(from: &Path, to: &Root) {
        for file in [to.install_id(), to.install_place()] {
            fs::copy(from.join(file.file_name().unwrap()), file).unwrap();
        }
    }

    #[test]
    fn a_copied_install_gets_an_id_of_its_own_and_a_moved_one_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let first = install_in(&dir.path().join("a"));
        let id = install_id(&first).unwrap();
        assert_eq!(install_id(&first).unwrap(), id);

        let copy = install_in(&dir.path().join("b"));
        copy_id(&first.state(), &copy);
        let other = install_id(&copy).unwrap();
        assert_ne!(other, id);
        assert_eq!(
            (install_id(&copy).unwrap(), install_id(&first).unwrap()),
            (other, id.clone()),
            "both stay"
        );

        fs::rename(first.path(), dir.path().join("moved")).unwrap();
        let moved = Root::new(&dir.path().join("moved")).unwrap();
        assert_eq!(install_id(&moved).unwrap(), id);
        // A copy that comes back to the place of the original is the original.
        fs::rename(moved.path(), dir.path().join("aside")).unwrap();
        let back = install_in(moved.path());
        copy_id(&dir.path().join("aside/state"), &back);
        assert_eq!(install_id(&back).unwrap(), id);
        // A host of an earlier version wrote no place.
        fs::remove_file(back.install_place()).unwrap();
        assert_eq!(install_id(&back).unwrap(), id);
        assert!(fs::read_to_string(back.install_place()).unwrap().ends_with("/moved/state\n"));
    }

    #[test]
    fn a_missing_database_is_no_new_install_if_a_host_has_worked_here() {
        let dir = tempfile::tempdir().unwrap();
        let root = install_in(dir.path());
        fs::write(root.lock(), "").unwrap();
        fs::create_dir_all(root.host_socket_dir()).unwrap();
        install_id(&root).unwrap();
        assert!(require_database(&root).is_ok(), "a first start was interrupted");
        for left in
            ["sessions/main/x", "workspaces/main", "backups/lazaret-20261118T110640Z.db", "lazaret.db.open"]
        {
            let path = root.state().join(left);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            let told = require_database(&root).unwrap_err();
            assert_eq!(told.code(), "store.missing");
            let told = told.to_string();
            assert!(told.contains("lazaret restore") && told.contains("lazaret up --begin-anew"), "{told}");
        }
        fs::write(root.database(), "").unwrap();
        assert!(require_database(&root).is_err(), "an empty file is no database");
        let id = install_id(&root).unwrap();
        let aside = begin_anew(&root, "NOW").unwrap().unwrap();
        assert!(require_database(&root).is_ok() && aside.join("sessions/main/x").exists());
        assert_eq!(install_id(&root).unwrap(), id, "the next host removes the old boxes");
    }
}
