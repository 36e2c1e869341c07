//! Writes letters: a dot-file created exclusively, then a rename that replaces nothing. Host and runner use it.
//!
//! The reader therefore sees a name only when all bytes are there. There is no fsync: after a crash the host writes a
//! letter again from its store, the runner from its transcript. Writing equal bytes again counts as success.

#![allow(
    clippy::disallowed_methods,
    reason = "writes into a folder that no box writes, through a handle of it; in the box, the runner's own"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A directory of letters. Only this process may write into it.
#[derive(Debug)]
pub struct LetterDir {
    fd: OwnedFd,
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The letter was written.
    New,
    /// The same bytes already exist under this name.
    Already,
}

/// The letter was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another letter has this name. Letters are never replaced.
    #[error("{name} already exists with other content")]
    Conflict {
        /// The file name of the letter.
        name: String,
    },
    /// The filesystem failed.
    #[error("cannot write {name}: {source}")]
    Io {
        /// The file name of the letter.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
}

/// Readable by the group that host and box share.
const LETTER_MODE: Mode = Mode::from_raw_mode(0o640);

impl LetterDir {
    /// Opens a directory for writing letters. The last component must not be a link.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: fs::open(path, flags, Mode::empty())? })
    }

    /// Writes `bytes` under `name`.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when other bytes already stand there; [`WriteError::Io`] for the rest.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<Written, WriteError> {
        let failed = |source: Errno| WriteError::Io { name: name.to_owned(), source: source.into() };
        let part = format!(".{name}.part");
        let mut file = self.create_exclusively(&part).map_err(failed)?;
        let written = file.write_all(bytes);
        drop(file);
        let renamed = match written {
            Ok(()) => self.rename_new(&part, name),
            Err(source) => {
                self.remove(&part);
                return Err(WriteError::Io { name: name.to_owned(), source });
            }
        };
        match renamed {
            Ok(()) => Ok(Written::New),
            Err(Errno::EXIST) => {
                self.remove(&part);
                match self.holds(name, bytes) {
                    Ok(true) => Ok(Written::Already),
                    Ok(false) => Err(WriteError::Conflict { name: name.to_owned() }),
                    Err(source) => Err(WriteError::Io { name: name.to_owned(), source }),
                }
            }
            Err(e) => {
                self.remove(&part);
                Err(failed(e))
            }
        }
    }

    /// Removes a dot-file that an earlier process left behind: there is one writer per directory, so nobody else uses
    /// it.
    fn create_exclusively(&self, part: &str) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match fs::openat(&self.fd, part, flags, LETTER_MODE) {
            Err(Errno::EXIST) => {
                self.remove(part);
                fs::openat(&self.fd, part, flags, LETTER_MODE)?
            }
            other => other?,
        };
        // The umask must not decide whether the other side can read.
        fs::fchmod(&fd, LETTER_MODE)?;
        Ok(File::from(fd))
    }

    fn rename_new(&self, part: &str, name: &str) -> Result<(), Errno> {
        match fs::renameat_with(self.fd.as_fd(), part, self.fd.as_fd(), name, RenameFlags::NOREPLACE) {
            // The filesystem has no RENAME_NOREPLACE (renameat2(2), EINVAL). Checking first is no race, because there
            // is one writer per directory.
            Err(Errno::INVAL | Errno::NOSYS) => match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => fs::renameat(&self.fd, part, &self.fd, name),
                Err(e) => Err(e),
            },
            other => other,
        }
    }

    fn holds(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(fs::openat(&self.fd, name, flags, Mode::empty())?);
        let mut there = Vec::new();
        file.take(bytes.len() as u64 + 1).read_to_end(&mut there)?;
        Ok(there == bytes)
    }

    fn remove(&self, name: &str) {
        // Best effort: a dot-file that stays is never read, and the next write under its name removes it.
        let _ = fs::unlinkat(&self.fd, name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_appears_whole_and_its_repeat_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let letters = LetterDir::open(dir.path()).unwrap();
        assert_eq!(letters.put("0000000001-ready.json", b"one").unwrap(), Written::New);
        assert_eq!(letters.put("0000000001-ready.json", b"one").unwrap(), Written::Already);
        assert!(matches!(letters.put("0000000001-ready.json", b"two"), Err(WriteError::Conflict { .. })));
        assert!(matches!(letters.put("0000000001-ready.json", b"on"), Err(WriteError::Conflict { .. })));
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["0000000001-ready.json"], "no draft is left behind");
    }

    #[test]
    fn a_draft_of_a_killed_writer_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".0000000001-ready.json.part"), b"torn").unwrap();
        let letters = LetterDir::open(dir.path()).unwrap();
        assert_eq!(letters.put("0000000001-ready.json", b"whole").unwrap(), Written::New);
        assert_eq!(std::fs::read(dir.path().join("0000000001-ready.json")).unwrap(), b"whole");
    }

    #[test]
    fn a_link_is_no_letter_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("l")).unwrap();
        assert!(LetterDir::open(&dir.path().join("l")).is_err());
    }
}
