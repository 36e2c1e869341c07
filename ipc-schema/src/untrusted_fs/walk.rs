//! Walks a directory tree that a box made, is changing, or fills to slow the host down. The host measures, copies and
//! removes trees with it; the runner unlocks directories.
//!
//! The box chooses depth and breadth. So nothing recurses and no path grows: the walk holds a handle to one directory
//! and remembers the names and inode numbers of those above. It descends by one name beneath the handle and returns
//! by `..`, which counts only if it leads to the remembered inode; a directory that was moved meanwhile is looked up
//! again from the top, or given up. Few descriptors are open at any depth, and the number of entries bounds the work.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, chmod, fstat, lgetxattr, openat, readlinkat, removexattr, statat,
};
use rustix::io::Errno;

use super::{FileRequirements, UntrustedDir, UntrustedFile, open_beneath};
use crate::refusal::Refusal;

/// The disk usage of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk: allocated blocks and not file lengths. A file with several names counts once.
    pub bytes: u64,
    /// The number of names of any kind.
    pub entries: u64,
    /// Whether the walk reached its limit: the tree holds more.
    pub truncated: bool,
    /// The greatest depth; a file directly inside is at 1.
    pub deepest: u64,
    /// Directories that could not be read: no permission, or another filesystem. Their content is not counted.
    pub unread: u64,
}

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory. Its content follows in later steps.
    Folder,
    /// A symbolic link, which is never followed.
    Link,
    /// A FIFO, a socket or a device.
    Other,
}

/// One name in a tree, as it was when the walk reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file type.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner's user id.
    pub uid: u32,
    /// The owner's group id.
    pub gid: u32,
    /// The modification time in seconds since 1970. The owner can set it to anything.
    pub mtime: i64,
    /// The time of the last change of any kind in seconds since 1970. Nobody can set it.
    pub ctime: i64,
    /// The length in bytes. A sparse file may claim more than it stores.
    pub len: u64,
    /// The allocated bytes.
    pub on_disk: u64,
    /// The number of hard links.
    pub links: u64,
    /// The inode number, which all hard links share.
    pub inode: u64,
}

/// A step of a walk.
#[derive(Debug)]
pub enum WalkStep {
    /// A name. [`Walk::path`], [`Walk::file`], [`Walk::link`] and [`Walk::unlink`] refer to it until the next step.
    Entry(Entry),
    /// The walk leaves a directory after its last entry. [`Walk::unlink`] refers to it.
    Left,
    /// A name that could not be read or entered. [`Walk::path`] and [`Walk::owner`] refer to it.
    Unread(io::Error),
}

/// How many directories may be queued, because this process keeps their names in memory. Beyond that a directory is
/// entered as soon as it is met, while the listing above it stays open.
const WAITING: usize = 20_000;
/// How many listings may stay open that way, because each costs a descriptor. More end the walk.
const OPEN: usize = 64;

/// The mode of directories that the host shares with boxes.
const SHARED: u32 = 0o2770;
/// Setuid, setgid and sticky: no file that an agent keeps needs them.
const SPECIAL: u32 = 0o7000;
/// The extended attribute in which Linux stores a file's capabilities (capabilities(7)).
const CAPABILITIES: &str = "security.capability";
/// The extended attributes in which Linux stores access lists (xattr(7)).
const ACCESS_LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

#[derive(Debug)]
struct Frame {
    name: OsString,
    at: (u64, u64),
    listing: Option<Dir>,
    folders: Vec<OsString>,
}

/// A walk through everything below a directory. The order is undefined, except that a directory comes before its
/// content.
#[derive(Debug)]
pub struct Walk {
    top: OwnedFd,
    here: OwnedFd,
    dev: u64,
    frames: Vec<Frame>,
    name: OsString,
    left: u64,
    waiting: usize,
    /// The directory to enter before anything else.
    next: Option<OsString>,
    left_inode: u64,
    truncated: bool,
}

impl UntrustedDir {
    /// Starts a walk that visits at most `most` entries.
    ///
    /// # Errors
    /// What `openat(2)` says.
    pub fn walk(&self, most: u64) -> io::Result<Walk> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(&self.fd, ".", flags, Mode::empty())?;
        let here = openat(&self.fd, ".", flags, Mode::empty())?;
        let seen = fstat(&here)?;
        let frame = Frame {
            name: OsString::new(),
            at: (seen.st_dev, seen.st_ino),
            listing: Some(list(&here)?),
            folders: Vec::new(),
        };
        let (frames, name) = (vec![frame], OsString::new());
        Ok(Walk {
            top,
            here,
            dev: self.dev,
            frames,
            name,
            left: most,
            waiting: 0,
            next: None,
            left_inode: 0,
            truncated: false,
        })
    }

    /// Measures everything below, visiting at most `most` entries. Links are not followed, and other filesystems are
    /// not entered.
    ///
    /// # Errors
    /// What `openat(2)` says of the directory itself; trouble below is counted as `unread`.
    pub fn usage(&self, most: u64) -> io::Result<Usage> {
        let mut walk = self.walk(most)?;
        let mut usage = Usage::default();
        let mut shared = HashSet::new();
        while let Some(step) = walk.next() {
            match step {
                WalkStep::Entry(entry) => {
                    usage.entries += 1;
                    usage.deepest = usage.deepest.max(walk.depth());
                    let once = entry.kind == Kind::Folder || entry.links < 2 || shared.insert(entry.inode);
                    if once {
                        usage.bytes = usage.bytes.saturating_add(entry.on_disk);
                    }
                }
                WalkStep::Left => {}
                WalkStep::Unread(_) => usage.unread += 1,
            }
        }
        usage.truncated = walk.truncated();
        Ok(usage)
    }

    /// Inspects one name without following a link. `name` must be a single name and no path.
    ///
    /// # Errors
    /// What `fstatat(2)` says; a path, or what lies on another filesystem, is no name here.
    pub fn look(&self, name: &OsStr) -> io::Result<Entry> {
        if name.as_bytes().contains(&b'/') {
            return Err(Errno::INVAL.into());
        }
        Ok(look(&self.fd, self.dev, name)?)
    }

    /// Removes a name, and everything below it if it is a directory: at most `most` entries, without following links.
    /// A missing name is no error. A removal that stops at the limit continues with the next call.
    ///
    /// # Errors
    /// The first thing that could not be removed, after all others were; or that there is more than `most`.
    pub fn remove_tree(&self, name: &OsStr, most: u64) -> io::Result<()> {
        let tree = match self.folder(name.as_ref()) {
            Ok(tree) => tree,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // It is no directory, so there is only the name.
            Err(_) => return self.unlink(name),
        };
        let mut walk = tree.walk(most)?;
        let mut first = None;
        while let Some(step) = walk.next() {
            let removed = match step {
                WalkStep::Entry(entry) if entry.kind == Kind::Folder => Ok(()),
                WalkStep::Entry(_) | WalkStep::Left => walk.unlink(),
                WalkStep::Unread(e) => Err(e),
            };
            if let Err(e) = removed {
                first.get_or_insert(e);
            }
        }
        if walk.truncated() {
            return Err(io::Error::other(format!("it holds more than {most} entries")));
        }
        first.map_or_else(|| self.unlink(name), Err)
    }
}

impl Walk {
    /// The next step; `None` at the end, or at the limit.
    #[expect(
        clippy::should_implement_trait,
        reason = "between two steps the walk is asked about the last one"
    )]
    pub fn next(&mut self) -> Option<WalkStep> {
        loop {
            if self.truncated {
                return None;
            }
            if let Some(folder) = self.next.take() {
                match self.enter(folder.clone()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => {
                        self.name = folder;
                        return Some(WalkStep::Unread(e.into()));
                    }
                }
                continue;
            }
            let frame = self.frames.last_mut()?;
            if let Some(listing) = &mut frame.listing {
                match listing.next() {
                    Some(Ok(entry)) => {
                        let name = entry.file_name().to_bytes();
                        if name != b"." && name != b".." {
                            if self.left == 0 {
                                self.truncated = true;
                                return None;
                            }
                            self.left -= 1;
                            self.name = OsString::from_vec(name.to_vec());
                            match self.look() {
                                // It was removed during the walk.
                                Err(Errno::NOENT) => {}
                                Err(e) => return Some(WalkStep::Unread(e.into())),
                                Ok(entry) => return Some(WalkStep::Entry(entry)),
                            }
                        }
                    }
                    Some(Err(e)) => {
                        frame.listing = None;
                        return Some(WalkStep::Unread(e.into()));
                    }
                    None => frame.listing = None,
                }
                continue;
            }
            if let Some(folder) = frame.folders.pop() {
                self.waiting -= 1;
                self.next = Some(folder);
                continue;
            }
            let done = self.frames.pop()?;
            if self.frames.is_empty() {
                return None;
            }
            self.name = done.name;
            self.left_inode = done.at.1;
            return Some(match self.up() {
                Ok(()) => WalkStep::Left,
                Err(e) => WalkStep::Unread(e.into()),
            });
        }
    }

    /// Whether the walk stopped at its limit.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// The inode number of the directory of the last [`WalkStep::Left`].
    pub fn left_inode(&self) -> u64 {
        self.left_inode
    }

    /// The depth of the last step; 1 is directly inside.
    pub fn depth(&self) -> u64 {
        self.frames.len() as u64
    }

    /// The path of the last step, relative to the top.
    pub fn path(&self) -> PathBuf {
        self.frames.iter().map(|frame| &frame.name).chain([&self.name]).filter(|n| !n.is_empty()).collect()
    }

    /// Opens the entry of the last step, which must be a regular file of at most `cap` bytes.
    ///
    /// # Errors
    /// As [`UntrustedDir::file`]; it may be another thing by now.
    pub fn file(&self, cap: u64) -> Result<UntrustedFile, Refusal> {
        let wanted = FileRequirements { owner: None, single_link: false, cap };
        super::open_file(&self.here, self.dev, self.name.as_ref(), wanted, OFlags::RDONLY)
    }

    /// The target of the link of the last step.
    ///
    /// # Errors
    /// What `readlinkat(2)` says.
    pub fn link(&self) -> io::Result<PathBuf> {
        let target = readlinkat(&self.here, &self.name, Vec::new())?;
        Ok(OsStr::from_bytes(target.as_bytes()).into())
    }

    /// Removes the name of the last step; a directory only if it is empty.
    ///
    /// # Errors
    /// What `unlinkat(2)` says.
    pub fn unlink(&self) -> io::Result<()> {
        super::unlink(&self.here, &self.name)
    }

    /// The owner's user id of the last step's name, also of a directory that could not be entered.
    ///
    /// # Errors
    /// What `fstatat(2)` says.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(look(&self.here, self.dev, &self.name)?.uid)
    }

    /// Gives owner and group all rights on the directory of the last step, before the walk enters it: setgid is set,
    /// the sticky bit is cleared (it would keep the group from removing names), and access lists are removed (with
    /// one, the group's bits are only a mask: acl(5)). Only the owner and root can do this.
    ///
    /// # Errors
    /// What `openat2(2)`, `removexattr(2)` and `chmod(2)` say; no folder, and a link least of all, is
    /// [`Errno::NOTDIR`].
    pub fn share(&self) -> io::Result<()> {
        let (folder, _) = step_into(&self.here, &self.name)?;
        // fchmod(2) refuses an O_PATH handle, and the directory cannot be opened for reading yet. This path leads to
        // the inode that was opened, whatever its name refers to by now.
        let folder_itself = format!("/proc/self/fd/{}", folder.as_raw_fd());
        for list in ACCESS_LISTS {
            match removexattr(&folder_itself, list) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let mode = fstat(&folder)?.st_mode & 0o7777;
        let shared = (mode | SHARED) & !Mode::SVTX.bits();
        if mode != shared {
            chmod(&folder_itself, Mode::from_raw_mode(shared))?;
        }
        Ok(())
    }

    /// Takes setuid, setgid and sticky bits and capabilities from the file of the last step. Returns whether it had
    /// any. Only the owner and root can do this; capabilities only root.
    ///
    /// # Errors
    /// What `openat2(2)`, `removexattr(2)` and `chmod(2)` say.
    pub fn strip(&self, entry: &Entry) -> io::Result<bool> {
        if entry.kind != Kind::File || (entry.mode & SPECIAL == 0 && !self.has_capabilities()) {
            return Ok(false);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match open_beneath(&self.here, self.name.as_ref(), flags) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let seen = fstat(&file)?;
        // It may be another thing by now.
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let file_itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        match removexattr(&file_itself, CAPABILITIES) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            // Without the right to remove them, only files that have them fail.
            Err(Errno::PERM) if !self.has_capabilities() => {}
            Err(e) => return Err(e.into()),
        }
        let mode = seen.st_mode & 0o7777;
        if mode & SPECIAL != 0 {
            chmod(&file_itself, Mode::from_raw_mode(mode & !SPECIAL))?;
        }
        Ok(true)
    }

    /// Returns whether the name of the last step has capabilities. No link is followed.
    fn has_capabilities(&self) -> bool {
        let mut path = OsString::from(format!("/proc/self/fd/{}/", self.here.as_raw_fd()));
        path.push(&self.name);
        let found = lgetxattr(&path, CAPABILITIES, &mut [0_u8; 64]);
        matches!(found, Ok(_) | Err(Errno::RANGE))
    }

    fn look(&mut self) -> Result<Entry, Errno> {
        let entry = look(&self.here, self.dev, &self.name)?;
        if entry.kind == Kind::Folder {
            self.remember_folder();
        }
        Ok(entry)
    }

    fn remember_folder(&mut self) {
        if self.waiting < WAITING {
            if let Some(frame) = self.frames.last_mut() {
                frame.folders.push(self.name.clone());
                self.waiting += 1;
            }
        } else if self.frames.iter().filter(|frame| frame.listing.is_some()).count() < OPEN {
            self.next = Some(self.name.clone());
        } else {
            self.truncated = true;
        }
    }

    fn enter(&mut self, name: OsString) -> Result<(), Errno> {
        let (inside, at) = step_into(&self.here, &name)?;
        let listing = list(&inside)?;
        self.here = inside;
        self.frames.push(Frame { name, at, listing: Some(listing), folders: Vec::new() });
        Ok(())
    }

    /// Returns to the directory of the last frame.
    fn up(&mut self) -> Result<(), Errno> {
        let Some(at) = self.frames.last().map(|frame| frame.at) else { return Ok(()) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(above) = openat(&self.here, "..", flags, Mode::empty())
            && fstat(&above).is_ok_and(|seen| (seen.st_dev, seen.st_ino) == at)
        {
            self.here = above;
            return Ok(());
        }
        // The directory was moved or may not be searched. Each lookup from the top counts against the limit, so that
        // a box cannot make the host repeat it endlessly.
        let Some(left) = self.left.checked_sub(self.frames.len() as u64) else {
            self.truncated = true;
            return Err(Errno::NOENT);
        };
        self.left = left;
        let mut here = openat(&self.top, ".", flags, Mode::empty())?;
        let mut found = 1;
        for frame in self.frames.iter().skip(1) {
            match step_into(&here, &frame.name) {
                Ok((inside, at)) if at == frame.at => here = inside,
                _ => break,
            }
            found += 1;
        }
        self.here = here;
        if found == self.frames.len() {
            return Ok(());
        }
        let given_up = self.frames.drain(found..).map(|frame| frame.folders.len()).sum::<usize>();
        self.waiting -= given_up;
        Err(Errno::NOENT)
    }
}

fn look(dir: &OwnedFd, dev: u64, name: &OsStr) -> Result<Entry, Errno> {
    let seen = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if seen.st_dev != dev {
        return Err(Errno::XDEV);
    }
    let kind = match FileType::from_raw_mode(seen.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    };
    Ok(Entry {
        kind,
        mode: seen.st_mode & 0o7777,
        uid: seen.st_uid,
        gid: seen.st_gid,
        mtime: seen.st_mtime,
        ctime: seen.st_ctime,
        len: u64::try_from(seen.st_size).unwrap_or(0),
        on_disk: u64::try_from(seen.st_blocks).unwrap_or(0).saturating_mul(512),
        links: seen.st_nlink,
        inode: seen.st_ino,
    })
}

fn list(dir: &OwnedFd) -> Result<Dir, Errno> {
    Dir::new(openat(dir, ".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn step_into(dir: &OwnedFd, name: &OsStr) -> Result<(OwnedFd, (u64, u64)), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = open_beneath(dir, name.as_ref(), flags)?;
    let seen = fstat(&inside)?;
    Ok((inside, (seen.st_dev, seen.st_ino)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn tree() -> (tempfile::TempDir, UntrustedDir) {
        let dir = tempfile::tempdir().unwrap();
        let inside = UntrustedDir::open(dir.path()).unwrap();
        (dir, inside)
    }

    /// Built from the bottom up, because no path is long enough to build it from the top.
    fn shaft(root: &Path, depth: u32) {
        let deep = root.join("deep");
        fs::create_dir(&deep).unwrap();
        for n in 1..depth {
            let outer = root.join(format!("o{n}"));
            fs::create_dir(&outer).unwrap();
            fs::write(outer.join("f"), b"").unwrap();
            fs::rename(&deep, outer.join("d")).unwrap();
            fs::rename(&outer, &deep).unwrap();
        }
    }

    #[test]
    fn more_folders_than_may_wait_are_walked_all_the_same() {
        let (dir, inside) = tree();
        for n in 0..WAITING + 50 {
            fs::create_dir(dir.path().join(n.to_string())).unwrap();
        }
        for n in 0..100 {
            fs::write(dir.path().join(format!("{n}/file")), b"").unwrap();
            fs::write(dir.path().join(format!("{}/file", WAITING + 49 - n)), b"").unwrap();
        }
        let usage = inside.usage(1_000_000).unwrap();
        assert_eq!((usage.entries, usage.truncated), (WAITING as u64 + 250, false));
    }

    #[test]
    fn what_a_tree_takes_is_measured_by_blocks_and_each_file_once() {
        let (dir, inside) = tree();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let folders = inside.usage(100).unwrap().bytes;
        fs::write(dir.path().join("a/b/file"), vec![1; 40_000]).unwrap();
        let one = inside.usage(100).unwrap();
        assert!(one.bytes >= folders + 40_000 && one.bytes < folders + 80_000, "{one:?}");
        for name in ["x", "a/x", "a/b/x"] {
            fs::hard_link(dir.path().join("a/b/file"), dir.path().join(name)).unwrap();
        }
        fs::File::create(dir.path().join("a/hole")).unwrap().set_len(1 << 40).unwrap();
        symlink("/usr", dir.path().join("a/link")).unwrap();
        let usage = inside.usage(100).unwrap();
        assert_eq!((usage.entries, usage.deepest, usage.truncated, usage.unread), (8, 3, false, 0));
        assert!(usage.bytes < one.bytes + 16_384, "names, a hole and a link take next to nothing: {usage:?}");
    }

    #[test]
    fn a_walk_ends_at_its_limit_and_says_so() {
        let (dir, inside) = tree();
        for n in 0..10 {
            fs::create_dir(dir.path().join(format!("d{n}"))).unwrap();
        }
        assert!(!inside.usage(10).unwrap().truncated);
        let cut = inside.usage(9).unwrap();
        assert!(cut.truncated && cut.entries == 9, "{cut:?}");
        assert!(inside.remove_tree(OsStr::new("d1"), 0).is_ok(), "an empty one has no entries");
        fs::write(dir.path().join("d2/f"), b"").unwrap();
        let more = inside.remove_tree(OsStr::new("d2"), 0).unwrap_err();
        assert!(more.to_string().contains("more than 0"), "{more}");
    }

    #[test]
    fn a30_a_tree_deeper_than_any_stack_or_path_is_measured_and_removed() {
        let (dir, inside) = tree();
        shaft(dir.path(), 20_000);
        symlink("/etc", dir.path().join("deep/link")).unwrap();
        let usage = inside.usage(1_000_000).unwrap();
        assert_eq!((usage.entries, usage.deepest, usage.unread), (40_000, 20_000, 0));
        inside.remove_tree(OsStr::new("deep"), 1_000_000).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
        inside.remove_tree(OsStr::new("deep"), 1).unwrap();
    }

    #[test]
    fn a_folder_is_shared_before_the_walk_goes_in_and_nothing_else_is() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, inside) = tree();
        let outside = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/f"), b"").unwrap();
        fs::write(at("a/secret"), b"").unwrap();
        symlink(outside.path(), at("a/link")).unwrap();
        set(outside.path(), 0o700);
        set(&at("a/secret"), 0o600);
        // Entries of an access list: owner and mask may do all, the group nothing (acl(5), linux/posix_acl_xattr.h).
        let list = [(1_u16, 7_u16), (4, 0), (16, 7), (32, 0)].map(|(tag, rights)| {
            [tag.to_le_bytes().as_slice(), &rights.to_le_bytes(), &u32::MAX.to_le_bytes()].concat()
        });
        let list = [2_u32.to_le_bytes().as_slice(), &list.concat()].concat();
        let listed = rustix::fs::setxattr(at("a/b"), ACCESS_LISTS[0], &list, rustix::fs::XattrFlags::empty());
        assert!(matches!(listed, Ok(()) | Err(Errno::OPNOTSUPP)), "{listed:?}");
        set(&at("a/b"), 0o1070);
        set(&at("a"), 0o500);
        let mut walk = inside.walk(100).unwrap();
        let mut seen = Vec::new();
        while let Some(step) = walk.next() {
            let WalkStep::Entry(entry) = step else { continue };
            seen.push(walk.path());
            assert_eq!(walk.share().is_ok(), entry.kind == Kind::Folder, "{}", walk.path().display());
        }
        seen.sort();
        assert_eq!(seen, ["a", "a/b", "a/b/f", "a/link", "a/secret"].map(PathBuf::from));
        assert_eq!([mode(&at("a")), mode(&at("a/b")), mode(&at("a/secret"))], [0o2770, 0o2770, 0o600]);
        assert_eq!(mode(outside.path()), 0o700, "a link is not followed");
        let mut found = [0_u8; 100];
        let left = rustix::fs::getxattr(at("a/b"), ACCESS_LISTS[0], &mut found);
        assert!(matches!(left, Err(Errno::NODATA | Errno::OPNOTSUPP)), "{left:?}");
    }

    #[test]
    fn g2_files_lose_their_special_rights_and_nothing_else_changes() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, inside) = tree();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        fs::create_dir(at("a")).unwrap();
        for (name, rights) in [("a/both", 0o6755), ("a/all", 0o7777), ("plain", 0o640), ("capable", 0o755)] {
            fs::write(at(name), b"").unwrap();
            set(&at(name), rights);
        }
        set(&at("a"), 0o2770);
        set(outside.path(), 0o4755);
        symlink(outside.path(), at("link")).unwrap();
        // vfs_cap_data, revision 2, with every capability (capabilities(7)). Only root may set it.
        let all = [[1, 0, 0, 2].as_slice(), &[0xff; 16]].concat();
        let set = rustix::fs::setxattr(at("capable"), CAPABILITIES, &all, rustix::fs::XattrFlags::empty());
        let mut expected = vec!["a/all", "a/both"];
        expected.extend(set.is_ok().then_some("capable"));
        let mut walk = inside.walk(100).unwrap();
        let mut stripped = Vec::new();
        while let Some(step) = walk.next() {
            if let WalkStep::Entry(entry) = step
                && walk.strip(&entry).unwrap()
            {
                stripped.push(walk.path());
            }
        }
        stripped.sort();
        assert_eq!(stripped, expected.into_iter().map(PathBuf::from).collect::<Vec<_>>());
        let modes = ["a/both", "a/all", "plain", "capable", "a"].map(|name| mode(&at(name)));
        assert_eq!(modes, [0o755, 0o777, 0o640, 0o755, 0o2770]);
        assert_eq!(mode(outside.path()), 0o4755, "a link is not followed");
        let left = rustix::fs::getxattr(at("capable"), CAPABILITIES, &mut [0_u8; 64]);
        assert!(matches!(left, Err(Errno::NODATA | Errno::OPNOTSUPP)), "{left:?}");
    }

    #[test]
    fn a_link_that_takes_a_folders_place_is_not_entered() {
        let (dir, inside) = tree();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), b"x").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let mut walk = inside.walk(100).unwrap();
        assert!(matches!(walk.next(), Some(WalkStep::Entry(e)) if e.kind == Kind::Folder));
        fs::remove_dir(dir.path().join("a")).unwrap();
        symlink(outside.path(), dir.path().join("a")).unwrap();
        assert!(matches!(walk.next(), Some(WalkStep::Unread(_))));
        assert!(walk.next().is_none());
        inside.remove_tree(OsStr::new("a"), 100).unwrap();
        assert!(outside.path().join("secret").exists() && !dir.path().join("a").is_symlink());
    }

    #[test]
    fn the_way_up_leads_to_where_the_walk_came_from_or_nowhere() {
        let (dir, inside) = tree();
        let outside = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/f"), b"").unwrap();
        fs::write(outside.path().join("secret"), b"").unwrap();
        let mut walk = inside.walk(100).unwrap();
        let mut seen = Vec::new();
        while let Some(step) = walk.next() {
            if matches!(step, WalkStep::Entry(_)) {
                seen.push(walk.path());
                if walk.path() == Path::new("a/b/f") {
                    // Its `..` is now a directory that the walk never came through.
                    fs::rename(dir.path().join("a/b"), outside.path().join("b")).unwrap();
                }
            }
        }
        assert_eq!(seen, ["a", "a/b", "a/b/f"].map(PathBuf::from));
        let (dir, inside) = tree();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/f"), b"").unwrap();
        let mut walk = inside.walk(100).unwrap();
        while let Some(step) = walk.next() {
            match step {
                WalkStep::Entry(_) if walk.path() == Path::new("a/b/f") => {
                    fs::rename(dir.path().join("a/b"), outside.path().join("c")).unwrap();
                }
                // Back in `a`, by its name from the top: what was moved away is not what is removed here.
                WalkStep::Left => drop(walk.unlink()),
                _ => {}
            }
        }
        assert!(!dir.path().join("a").exists() && outside.path().join("c/f").exists());
    }
}
