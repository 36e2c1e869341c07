//! Replaces a file in a directory that others change too: under a lock, whole, and only if the file is still the one
//! that was read. The runner's memory tools and `lazaret memory rm` write with it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{self, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::{FileRequirements, UntrustedDir};
use crate::refusal::{Refusal, RefusalCode};

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
    owner: (u32, u32),
}

impl From<&Metadata> for Stamp {
    fn from(of: &Metadata) -> Self {
        Self {
            inode: of.ino(),
            len: of.len(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
            mode: of.mode() & 0o777,
            owner: (of.uid(), of.gid()),
        }
    }
}

impl Stamp {
    /// A number that is another one for another state of the file, for an index.
    pub fn modified_ns(&self) -> i64 {
        self.modified.0.saturating_mul(1_000_000_000).saturating_add(self.modified.1)
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Holds the lock of a directory until it is dropped.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "closing the descriptor releases the lock")] OwnedFd);

/// How often a lock that another one holds is tried again, with [`LOCK_PAUSE`] between.
const LOCK_TRIES: u32 = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl UntrustedDir {
    /// Locks the directory against everyone else who calls this, in any process: flock(2) on the directory itself, so
    /// there is no lock file. `None` if another one still holds the lock after five seconds.
    ///
    /// # Errors
    /// What `openat(2)` and `flock(2)` say.
    pub fn lock(&self) -> io::Result<Option<DirLock>> {
        // A description of its own: a lock belongs to the description and not to the process.
        let own = fs::openat(&self.fd, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for _ in 0..LOCK_TRIES {
            match fs::flock(&own, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(DirLock(own))),
                Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Reads a whole regular file of any owner, with its stamp.
    ///
    /// # Errors
    /// As [`UntrustedDir::read`].
    pub fn read_stamped(&self, name: &Path, cap: u64) -> Result<(Vec<u8>, Stamp), Refusal> {
        let file = self.file(name, FileRequirements { owner: None, single_link: false, cap })?;
        let failed = |e: io::Error| Refusal::new(RefusalCode::Io, format!("{}: {e}", super::shown(name)));
        let file = file.into_file();
        let stamp = Stamp::from(&file.metadata().map_err(failed)?);
        let mut bytes = Vec::new();
        (&file).take(cap.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > cap {
            let reason = format!("{} grew past {cap} bytes while it was read", super::shown(name));
            return Err(Refusal::new(RefusalCode::TooBig, reason));
        }
        Ok((bytes, stamp))
    }

    /// Opens the directory with this name, and makes it if it does not exist. The umask applies.
    ///
    /// # Errors
    /// What `mkdirat(2)` and `openat2(2)` say.
    pub fn made_folder(&self, name: &OsStr) -> io::Result<Self> {
        match fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => self.folder(name.as_ref()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the file `name` whole: a new file beside it, on disk, renamed over it. Mode and owner stay as far as
    /// this process may set them. Returns whether it wrote: not if the file is another one than `seen`, or exists
    /// although `seen` is absent.
    ///
    /// # Errors
    /// What the system says; the file is as it was then.
    pub fn replace(&self, name: &OsStr, bytes: &[u8], seen: Option<&Stamp>) -> io::Result<bool> {
        let part = [OsStr::new("."), name, OsStr::new(".part")].into_iter().collect::<OsString>();
        // Left by a box that was killed. Under the lock nobody else writes it.
        self.unlink(&part)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.fd, &part, flags, Mode::from_raw_mode(0o666))?);
        let written = file.write_all(bytes).and_then(|()| {
            if let Some(seen) = seen {
                let (uid, gid) = seen.owner;
                // Only root may give a file away; the others keep what they can.
                let _ = fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                let _ = fs::fchmod(&file, Mode::from_raw_mode(seen.mode));
            }
            file.sync_all()?;
            self.rename_if(&part, name, seen)
        });
        if !matches!(written, Ok(true)) {
            let _ = self.unlink(&part);
        }
        written
    }

    /// Removes the file `name` if it is still `seen`. Returns whether it did.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_seen(&self, name: &OsStr, seen: &Stamp) -> io::Result<bool> {
        let same = self.is_still(name, seen)?;
        if same {
            self.unlink(name)?;
        }
        Ok(same)
    }

    fn rename_if(&self, part: &OsStr, name: &OsStr, seen: Option<&Stamp>) -> io::Result<bool> {
        let renamed = match seen {
            Some(seen) if !self.is_still(name, seen)? => return Ok(false),
            Some(_) => fs::renameat(&self.fd, part, &self.fd, name),
            None => match fs::renameat_with(&self.fd, part, &self.fd, name, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => return Ok(false),
                other => other,
            },
        };
        renamed?;
        // A directory of some filesystems cannot be synced; the file is.
        let _ =
            fs::openat(&self.fd, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).and_then(fs::fsync);
        Ok(true)
    }

    fn is_still(&self, name: &OsStr, seen: &Stamp) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(there) => Ok(Stamp::from(&File::from(there).metadata()?) == *seen),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
