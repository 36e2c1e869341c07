//! Files, folders and free space, for every room of the host. The paths are the host's own: files that an agent can
//! write are read through `ipc_schema::untrusted_fs`, never from here.

#![allow(
    clippy::disallowed_methods,
    reason = "paths of the host's own, for rooms that should not open any by themselves"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::task::JoinError;

/// The free space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be written.
    pub free: u64,
    /// Files that may still be made; very many where the file system has no fixed number.
    pub names: u64,
    /// All files that the file system was made for.
    pub all_names: u64,
    pub read_only: bool,
}

/// The free space of the file system that holds `path`.
///
/// # Errors
/// What statvfs(3) says.
pub fn room(path: &Path) -> io::Result<Room> {
    let told = statvfs(path)?;
    let read_only = told.f_flag.contains(StatVfsMountFlags::RDONLY);
    let limited = |names: u64| if told.f_files == 0 { u64::MAX } else { names };
    Ok(Room {
        free: told.f_bavail.saturating_mul(told.f_frsize),
        names: limited(told.f_favail),
        all_names: limited(told.f_files),
        read_only,
    })
}

/// Writes a file into a directory and removes it. After a disk error ext4 refuses writes (`emergency_ro`), but
/// statvfs(3) still calls it writable; only a write finds out.
///
/// # Errors
/// What open(2) and write(2) say.
pub fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(".probe");
    let written = fs::write(&path, [0; 4096]);
    let removed = remove(&path);
    written.and(removed)
}

/// Whether an error means that nothing can be stored at all: no space, no quota, a read-only disk.
pub fn refuses_everything(e: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(e.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// Makes a file's bytes and then its name durable.
///
/// # Errors
/// What fsync(2) says.
pub fn sync(file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    sync_dir(file.parent().unwrap_or(Path::new(".")))
}

/// Makes a directory's names durable.
///
/// # Errors
/// What fsync(2) says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A path with `more` appended to its name: `lazaret.db` and `-wal`.
pub fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// Removes a file. A missing file is no error.
///
/// # Errors
/// What unlink(2) says.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Whether something has this name.
pub fn there(path: &Path) -> bool {
    path.exists()
}

/// Whether it is a folder, or a link to one.
pub fn is_dir(path: &Path) -> bool {
    path.is_dir()
}

/// A whole file.
///
/// # Errors
/// What read(2) says.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// A whole file of text.
///
/// # Errors
/// What read(2) says, or that it is no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// When a file was last changed.
///
/// # Errors
/// What stat(2) says.
pub fn changed(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

/// When a file was made; not every file system knows.
///
/// # Errors
/// What statx(2) says.
pub fn born(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.created()
}

/// What tells a file from the one that takes its place and from itself after a change, without reading it. The change
/// time (ctime) cannot be set back, as the modification time can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_ns: i128,
}

impl Version {
    /// Whether every later change shows in the version. A file system may count time in steps of two seconds, so a
    /// second change within such a step can leave the version as it is.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        i128::try_from(now).is_ok_and(|now| now - self.changed_ns > 2_000_000_000)
    }
}

/// The version of a file; `None` where there is none.
///
/// # Errors
/// What stat(2) says.
pub fn version(path: &Path) -> io::Result<Option<Version>> {
    match fs::metadata(path) {
        Ok(m) => Ok(Some(Version {
            device: m.dev(),
            inode: m.ino(),
            bytes: m.len(),
            changed_ns: i128::from(m.ctime()) * 1_000_000_000 + i128::from(m.ctime_nsec()),
        })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A file's length in bytes.
///
/// # Errors
/// What stat(2) says.
pub fn size(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.len())
}

/// The paths in a folder.
///
/// # Errors
/// What opendir(3) says.
pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect())
}

/// Whether others than the owner may do something with a file.
pub fn is_open(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.mode() & 0o077 != 0)
}

/// Who owns a file, and who may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// The owner of a file or folder. A link is followed.
///
/// # Errors
/// What stat(2) says.
pub fn owner(path: &Path) -> io::Result<Owner> {
    let about = fs::metadata(path)?;
    Ok(Owner { uid: about.uid(), gid: about.gid(), mode: about.mode() })
}

/// The owner of a link; `None` for everything else.
pub fn link_owner(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_symlink).map(|link| link.uid())
}

/// The user of this process.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The path without links, if it exists.
pub fn resolved(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// Takes every right to `path` from everybody but its owner. A link is left alone, and so is a path that is missing.
///
/// # Errors
/// What lstat(2) and chmod(2) say.
pub fn close(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_symlink() || about.mode() & 0o7077 == 0 => Ok(()),
        Ok(about) => fs::set_permissions(path, fs::Permissions::from_mode(about.mode() & 0o700)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// As [`list`]; empty where the folder cannot be read.
pub fn inside(dir: &Path) -> Vec<PathBuf> {
    list(dir).unwrap_or_default()
}

/// Runs work that waits for the disk on a thread where that is allowed. A panic of the work goes on in the caller, so
/// that it counts as the worker's.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime ends, and the caller with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Passes on what is written through it, and takes its SHA-256.
pub struct Digesting<W> {
    to: W,
    digest: Sha256,
}

impl<W> Digesting<W> {
    pub fn new(to: W) -> Self {
        Self { to, digest: Sha256::new() }
    }

    /// The writer, and the digest in lower-case hex.
    pub fn done(self) -> (W, String) {
        (self.to, hex(self.digest))
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A digest in lower-case hex.
pub fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Replaces a file in one step, so that nobody ever reads half of it. Of two callers the last one wins. The file
/// belongs to `gid` where one is given.
///
/// # Errors
/// What open(2), write(2), chown(2) and rename(2) say.
pub fn put(path: &Path, bytes: &[u8], mode: u32, gid: Option<u32>) -> io::Result<()> {
    let staged = path.with_file_name(format!(".{}.part", uuid::Uuid::new_v4()));
    let put = fs::write(&staged, bytes)
        .and_then(|()| fs::set_permissions(&staged, fs::Permissions::from_mode(mode)))
        .and_then(|()| chown(&staged, None, gid))
        .and_then(|()| fs::rename(&staged, path));
    put.inspect_err(|_| drop(remove(&staged)))
}

/// Makes a folder with this mode, whatever the umask is.
///
/// # Errors
/// What mkdir(2) and chmod(2) say.
pub fn dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes a folder that the group `gid` may use. A set-group-id bit in `mode` gives that group to every file that the
/// host makes in it (inode(7)).
///
/// # Errors
/// What mkdir(2), chown(2) and chmod(2) say.
pub fn shared_dir(path: &Path, gid: u32, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    // chown(2) comes first, because it may clear the set-group-id bit.
    chown(path, None, Some(gid))?;
    dir(path, mode)
}

/// Whether the ballast at `path` has `bytes` allocated on the disk.
pub fn holds(path: &Path, bytes: u64) -> bool {
    // stat(2) counts blocks of 512 bytes on every file system.
    fs::metadata(path).is_ok_and(|m| m.len() == bytes && m.blocks().saturating_mul(512) >= bytes)
}

/// Makes the ballast out of allocated blocks, not of a hole. A ballast that does not fit is removed again.
///
/// # Errors
/// What fallocate(2) says.
pub fn make_ballast(path: &Path, bytes: u64) -> io::Result<()> {
    if bytes == 0 || holds(path, bytes) {
        return if bytes == 0 { remove(path) } else { Ok(()) };
    }
    remove(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let made = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file, bytes),
        made => made.map_err(io::Error::from),
    };
    made.inspect_err(|_| drop(remove(path)))
}

/// Writes zeros, for file systems without fallocate(2). This does not work where the file system compresses.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(zeros.get(..piece).unwrap_or_default())?;
        left -= piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ballast_takes_the_room_that_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ballast");
        make_ballast(&path, 3 << 20).unwrap();
        assert!(holds(&path, 3 << 20));
        // A hole of the same length would give nothing back.
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(3 << 20).unwrap();
        assert!(!holds(&path, 3 << 20));
        make_ballast(&path, 3 << 20).unwrap();
        assert!(holds(&path, 3 << 20));
        make_ballast(&path, 0).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_ballast_that_does_not_fit_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ballast");
        assert!(make_ballast(&path, 1 << 60).is_err());
        assert!(!path.exists());
    }
}
