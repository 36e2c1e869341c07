//! Walking a tree that a box has made, is changing, or is filling to slow the host down.
//!
//! Its depth and its breadth are the box's choice. So nothing recurses and no path grows: the walk stands in one
//! directory, by a handle, and keeps of those above it the names and the inode numbers. It goes down by one name
//! beneath the handle and back up by `..`, which counts only if it leads to the inode that the walk came from; a
//! directory that was moved meanwhile is looked for again from the top, or given up. Few descriptors are open, whatever
//! the depth, and the work is bounded by the number of entries asked for.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, chmod, fstat, openat, openat2, readlinkat, removexattr, statat,
};
use rustix::io::Errno;

use super::{BENEATH, FileRequirements, UntrustedDir, UntrustedFile, retry_again};
use crate::refusal::Refusal;

/// What a tree takes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk: blocks, not claimed lengths, and a file with several names once.
    pub bytes: u64,
    /// Names of any kind.
    pub entries: u64,
    /// Whether the walk ended at its limit: there is more than is said here.
    pub truncated: bool,
    /// The longest way down; a file directly inside is at 1.
    pub deepest: u64,
    /// Directories that could not be looked into: they are locked, or lie on another filesystem. What they hold is not
    /// counted.
    pub unread: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory; what it holds follows later.
    Folder,
    /// A symbolic link, which is never followed.
    Link,
    /// A FIFO, a socket or a device.
    Other,
}

/// One name in a tree, as it was when the walk passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds since 1970 of its last change.
    pub mtime: i64,
    /// Seconds since 1970 of its last change of any kind, which nobody can set.
    pub ctime: i64,
    /// Its length in bytes, as it claims.
    pub len: u64,
    /// The bytes that it takes on the disk.
    pub on_disk: u64,
    /// How many names it has.
    pub links: u64,
    /// Its number, which all its names share.
    pub inode: u64,
}

/// A step of a walk.
#[derive(Debug)]
pub enum WalkStep {
    /// A name. [`Walk::path`], [`Walk::file`], [`Walk::link`] and [`Walk::unlink`] are about it until the next step.
    Entry(Entry),
    /// A directory whose entries have all been passed; [`Walk::unlink`] is about it.
    Left,
    /// Something that could not be looked at or into; [`Walk::path`] and [`Walk::owner`] are about it.
    Unread(io::Error),
}

/// So many folders may wait to be gone into: their names lie in this process's memory. Beyond that a folder is gone
/// into as soon as it is met, with the listing above it left open.
const WAITING: usize = 20_000;
/// So many listings may be open that way, which costs descriptors; more end the walk.
const OPEN: usize = 64;

/// As the host makes folders that it shares with boxes.
const SHARED: u32 = 0o2770;
/// Where Linux keeps access lists (xattr(7)).
const ACCESS_LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

#[derive(Debug)]
struct Frame {
    name: OsString,
    at: (u64, u64),
    listing: Option<Dir>,
    folders: Vec<OsString>,
}

/// A walk through everything below a directory, in no order, but a directory before what it holds.
#[derive(Debug)]
pub struct Walk {
    top: OwnedFd,
    here: OwnedFd,
    dev: u64,
    frames: Vec<Frame>,
    name: OsString,
    left: u64,
    waiting: usize,
    /// The folder to go into before anything else.
    next: Option<OsString>,
    left_inode: u64,
    truncated: bool,
}

impl UntrustedDir {
    /// A walk that passes at most `most` entries.
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

    /// What everything below takes of the disk, looking at no more than `most` entries. Nothing is followed, and other
    /// filesystems are not entered.
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

    /// What one name is, by itself: a link is not followed. `name` must be one name, not a path.
    ///
    /// # Errors
    /// What `fstatat(2)` says; a path, or what lies on another filesystem, is no name here.
    pub fn look(&self, name: &OsStr) -> io::Result<Entry> {
        if name.as_bytes().contains(&b'/') {
            return Err(Errno::INVAL.into());
        }
        Ok(look(&self.fd, self.dev, name)?)
    }

    /// Removes a name, and if it is a directory everything below it: at most `most` entries, nothing followed. A name
    /// that is gone is no error. What is cut short goes on with the next call.
    ///
    /// # Errors
    /// The first thing that could not be removed, after all others were; or that there is more than `most`.
    pub fn remove_tree(&self, name: &OsStr, most: u64) -> io::Result<()> {
        let tree = match self.folder(name.as_ref()) {
            Ok(tree) => tree,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // No directory: one name.
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
                                // It went while the tree was walked.
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

    /// Whether the walk ended before the tree did.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// The number of the directory that the last [`WalkStep::Left`] was about.
    pub fn left_inode(&self) -> u64 {
        self.left_inode
    }

    /// How far down the last step was; 1 is directly inside.
    pub fn depth(&self) -> u64 {
        self.frames.len() as u64
    }

    /// The path of the last step below the directory.
    pub fn path(&self) -> PathBuf {
        self.frames.iter().map(|frame| &frame.name).chain([&self.name]).filter(|n| !n.is_empty()).collect()
    }

    /// Opens the entry of the last step, which must be a regular file of at most `cap` bytes.
    ///
    /// # Errors
    /// As [`UntrustedDir::file`]; it may be another thing by now.
    pub fn file(&self, cap: u64) -> Result<UntrustedFile, Refusal> {
        let wanted = FileRequirements { owner: None, one_link: false, cap };
        super::open_file(&self.here, self.dev, self.name.as_ref(), wanted)
    }

    /// Where the link of the last step points to.
    ///
    /// # Errors
    /// What `readlinkat(2)` says.
    pub fn link(&self) -> io::Result<PathBuf> {
        let target = readlinkat(&self.here, &self.name, Vec::new())?;
        Ok(OsStr::from_bytes(target.as_bytes()).into())
    }

    /// Removes what the last step was about; a directory only when it is empty.
    ///
    /// # Errors
    /// What `unlinkat(2)` says.
    pub fn unlink(&self) -> io::Result<()> {
        super::unlink(&self.here, &self.name)
    }

    /// Whose the last step's name is, also one that could not be looked into.
    ///
    /// # Errors
    /// What `fstatat(2)` says.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(look(&self.here, self.dev, &self.name)?.uid)
    }

    /// Lets owner and group of the folder of the last step list, enter and change it, before the walk goes in: all
    /// rights for both, the group handed down to what is made in it, no sticky bit (it keeps the group from removing
    /// names), and no access list (with one, the group's bits are a mask over entries that may still say no: acl(5)). A
    /// folder that is so already is left as it is. Only its owner can, and root.
    ///
    /// # Errors
    /// What `openat2(2)`, `removexattr(2)` and `chmod(2)` say; no folder, and a link least of all, is
    /// [`Errno::NOTDIR`].
    pub fn share(&self) -> io::Result<()> {
        let (folder, _) = step_into(&self.here, &self.name)?;
        // fchmod(2) takes no such handle, and a handle that can read is what the rights do not give yet. This link
        // leads to the inode that was opened, whatever its name means by now.
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

    /// Back to the directory of the last frame.
    fn up(&mut self) -> Result<(), Errno> {
        let Some(at) = self.frames.last().map(|frame| frame.at) else { return Ok(()) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(above) = openat(&self.here, "..", flags, Mode::empty())
            && fstat(&above).is_ok_and(|seen| (seen.st_dev, seen.st_ino) == at)
        {
            self.here = above;
            return Ok(());
        }
        // It was moved, or may not be searched. Each such search counts: a box cannot make the host run up and down.
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
    let inside = retry_again(|| openat2(dir, name, flags, Mode::empty(), BENEATH))?;
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

    /// Built upside down, because no path is long enough for the other way.
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
