//! Walking what an agent may have made: every name is opened below one handle, nothing is followed, and what is neither
//! file, folder nor link is told and left.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

/// One thing in a tree.
#[derive(Debug)]
pub(super) struct Found {
    /// Its path below the tree.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) what: What,
    /// Its permission bits.
    pub(super) mode: u32,
    /// Its owner.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// Seconds since 1970 of its last change.
    pub(super) mtime: u64,
}

#[derive(Debug)]
pub(super) enum What {
    Folder,
    Link(PathBuf),
    File { file: File, bytes: u64 },
}

/// A directory that is walked, breadth first: depth costs no stack, and one descriptor is open at a time.
pub(super) struct Tree {
    root: OwnedFd,
    folders: VecDeque<PathBuf>,
    names: Vec<PathBuf>,
    /// What was passed over, and why.
    pub(super) left_out: Vec<String>,
}

impl Tree {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = openat(CWD, dir, flags, Mode::empty())?;
        Ok(Self { root, folders: VecDeque::from([PathBuf::new()]), names: Vec::new(), left_out: Vec::new() })
    }

    /// The next thing. What cannot be read is noted, not fatal: an agent's unreadable file must not cost the copy.
    pub(super) fn next(&mut self) -> Option<Found> {
        loop {
            let Some(path) = self.names.pop() else {
                let folder = self.folders.pop_front()?;
                if let Err(e) = self.list(&folder) {
                    self.left_out.push(format!("{} ({e})", folder.display()));
                }
                continue;
            };
            match self.look(&path) {
                Ok(Some(found)) => {
                    if matches!(found.what, What::Folder) {
                        self.folders.push_back(path);
                    }
                    return Some(found);
                }
                Ok(None) => self.left_out.push(format!("{} (no file, folder or link)", path.display())),
                // It went while the tree was walked.
                Err(Errno::NOENT) => {}
                Err(e) => self.left_out.push(format!("{} ({e})", path.display())),
            }
        }
    }

    /// One file or link of the tree itself.
    pub(super) fn one(&self, name: &Path) -> io::Result<Found> {
        let found = self.look(name)?;
        found.ok_or_else(|| io::Error::other(format!("{} is no file, folder or link", name.display())))
    }

    fn below(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
    }

    fn list(&mut self, folder: &Path) -> rustix::io::Result<()> {
        let dir = self.below(folder, OFlags::DIRECTORY | OFlags::RDONLY)?;
        for entry in Dir::new(dir)? {
            let entry = entry?;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.names.push(folder.join(name));
            }
        }
        Ok(())
    }

    fn look(&self, path: &Path) -> rustix::io::Result<Option<Found>> {
        let parent = self.below(path.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY)?;
        let name = path.file_name().unwrap_or_default();
        let seen = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (what, seen) = match FileType::from_raw_mode(seen.st_mode) {
            FileType::Directory => (What::Folder, seen),
            FileType::Symlink => {
                let target = readlinkat(&parent, name, Vec::new())?;
                (What::Link(std::ffi::OsStr::from_bytes(target.as_bytes()).into()), seen)
            }
            FileType::RegularFile => {
                // It may be another thing by now: a FIFO would hold the open, so it does not wait.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let file = self.below(path, flags)?;
                let seen = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
                    return Ok(None);
                }
                (What::File { file: file.into(), bytes: u64::try_from(seen.st_size).unwrap_or(0) }, seen)
            }
            _ => return Ok(None),
        };
        Ok(Some(Found {
            path: path.to_owned(),
            what,
            mode: seen.st_mode & 0o7777,
            uid: seen.st_uid,
            gid: seen.st_gid,
            mtime: u64::try_from(seen.st_mtime).unwrap_or(0),
        }))
    }
}
