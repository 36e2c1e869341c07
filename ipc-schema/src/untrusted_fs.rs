//! The only way for the host to access a path that an agent may write.
//!
//! The box owns every byte and every name below its writable mounts, and can change them between any two system
//! calls. So the host holds a handle to the *directory*, opened through parents that only it can write, and never
//! walks a path again. It reads one file as follows:
//!
//! 1. `openat2(O_PATH | O_NOFOLLOW)` beneath the handle, no links, no magic links, no other filesystem (openat2(2)).
//!    `O_PATH` first, because the `open` of a device or FIFO must not run.
//! 2. `fstat`: a regular file, on the same device, with one link, of the expected owner, within the size limit.
//! 3. reopen `/proc/self/fd/N` for reading: the inode that was checked.
//! 4. read at most limit + 1 bytes, once, into a private buffer, and parse only that buffer. No `mmap` (a truncation
//!    would raise SIGBUS) and no second read (the writer may still have the file open).
//!
//! A file too large for a buffer is copied in the same single pass to a file of the host ([`UntrustedFile::copy`]).
//! [`Walk`] walks, measures and removes whole trees.

#![allow(clippy::disallowed_methods, reason = "this is the way")]

mod replace;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub use replace::{DirLock, Stamp};
pub use walk::{Entry, Kind, Usage, Walk, WalkStep};

use crate::refusal::{Refusal, RefusalCode, quote};

/// A directory whose content an agent may write.
#[derive(Debug)]
pub struct UntrustedDir {
    fd: OwnedFd,
    dev: u64,
}

/// What a file must be before the host reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRequirements {
    /// The required owner's user id; any owner if absent.
    pub owner: Option<u32>,
    /// Whether a second hard link is refused. This detects replays and is no security boundary, because a box may
    /// remove the link before the check. The mount is the boundary: no hard link leads out of it (link(2), EXDEV).
    pub single_link: bool,
    /// The largest size in bytes.
    pub cap: u64,
}

/// The names in a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// At most as many names as asked for, in no order.
    pub names: Vec<OsString>,
    /// Whether the directory holds more names.
    pub truncated: bool,
}

impl UntrustedDir {
    /// Opens the directory at `path`, whose last component must not be a link. The path is walked only here, so call
    /// this before the box starts, or with parents that only the host can write.
    ///
    /// # Errors
    /// What `open(2)` and `fstat(2)` say.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = fs::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let dev = fs::fstat(&fd)?.st_dev;
        Ok(Self { fd, dev })
    }

    /// Opens a directory below, by a relative path without links and on the same filesystem.
    ///
    /// # Errors
    /// What `openat2(2)` says.
    pub fn folder(&self, path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open_beneath(&self.fd, path, flags)?;
        Ok(Self { fd, dev: self.dev })
    }

    /// Reads the whole file at `name` (a relative path without links), which must belong to `owner`.
    ///
    /// # Errors
    /// [`RefusalCode::Gone`] when there is no such file; [`RefusalCode::NotRegular`], [`RefusalCode::Nlink`],
    /// [`RefusalCode::Owner`], [`RefusalCode::Device`] or [`RefusalCode::TooBig`] for a file that is not taken;
    /// [`RefusalCode::Io`] when the host itself failed.
    pub fn read(&self, name: &Path, owner: u32, cap: u64) -> Result<Vec<u8>, Refusal> {
        let file = self.file(name, FileRequirements { owner: Some(owner), single_link: true, cap })?;
        let mut bytes = Vec::with_capacity(usize::try_from(file.size).unwrap_or(0));
        file.copy(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens the file at `name` (a relative path without links), if it meets the requirements.
    ///
    /// # Errors
    /// As [`UntrustedDir::read`].
    pub fn file(&self, name: &Path, wanted: FileRequirements) -> Result<UntrustedFile, Refusal> {
        open_file(&self.fd, self.dev, name, wanted, OFlags::RDONLY)
    }

    /// Opens the file at `name` for appending too. Its owner gets the rights to it, if this process is the owner.
    ///
    /// # Errors
    /// As [`UntrustedDir::read`].
    pub fn appendable(&self, name: &Path, wanted: FileRequirements) -> Result<UntrustedFile, Refusal> {
        open_file(&self.fd, self.dev, name, wanted, OFlags::RDWR | OFlags::APPEND)
    }

    /// Lists at most `limit` names. The work is bounded however many there are.
    ///
    /// # Errors
    /// What `openat(2)` and `getdents(2)` say.
    pub fn names(&self, limit: usize) -> io::Result<Listing> {
        // Listing needs a handle of its own: everyone who lists through one handle shares its position.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = fs::openat(&self.fd, ".", flags, Mode::empty())?;
        let mut seen = Listing::default();
        for entry in fs::Dir::new(own)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if seen.names.len() == limit {
                seen.truncated = true;
                break;
            }
            seen.names.push(OsString::from_vec(name));
        }
        Ok(seen)
    }

    /// Opens the directory with this name, and first makes it for the group if it does not exist.
    ///
    /// # Errors
    /// What `mkdirat(2)`, `openat2(2)` and `fchmod(2)` say.
    pub fn shared_folder(&self, name: &OsStr) -> io::Result<Self> {
        let made = fs::mkdirat(&self.fd, name, Mode::RWXU);
        let folder = self.folder(name.as_ref())?;
        if made.is_ok() {
            // mkdirat(2) applies the umask.
            fs::fchmod(&folder.fd, Mode::from_raw_mode(0o2770))?;
        }
        Ok(folder)
    }

    /// Gives one name another name in this directory, whatever it is. Nothing is followed.
    ///
    /// # Errors
    /// What `renameat2(2)` says; also if the new name is taken.
    pub fn rename(&self, name: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(fs::renameat_with(&self.fd, name, &self.fd, to, fs::RenameFlags::NOREPLACE)?)
    }

    /// Moves one name into another directory, whatever it is. Nothing is followed. A name that is gone is no error; if
    /// `to` has the name, both stay.
    ///
    /// # Errors
    /// What `renameat2(2)` says.
    pub fn move_name(&self, name: &OsStr, to: &Self) -> io::Result<()> {
        match fs::renameat_with(&self.fd, name, &to.fd, name, fs::RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT | Errno::EXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes one name. A directory is removed only when empty; a name that is gone is no error. Nothing is
    /// followed, and nothing below a directory is touched.
    ///
    /// # Errors
    /// What `unlinkat(2)` says.
    pub fn unlink(&self, name: &OsStr) -> io::Result<()> {
        unlink(&self.fd, name)
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens a path below a directory, without links and on the same file system.
///
/// A runner under gVisor has no openat2(2). It opens only names in a directory, and for one name openat(2) with
/// `O_NOFOLLOW` does the same, but for a file system that is mounted there; a box cannot mount one.
fn open_beneath(dir: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    match retry_again(|| fs::openat2(&dir, path, flags, Mode::empty(), BENEATH)) {
        Err(Errno::NOSYS) if is_one_name(path) => {
            fs::openat(&dir, path, flags | OFlags::NOFOLLOW, Mode::empty())
        }
        opened => opened,
    }
}

fn is_one_name(path: &Path) -> bool {
    let mut parts = path.components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == path.as_os_str())
}

fn open_file(
    dir: impl AsFd,
    dev: u64,
    name: &Path,
    wanted: FileRequirements,
    access: OFlags,
) -> Result<UntrustedFile, Refusal> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let looked_at = open_beneath(&dir, name, flags).map_err(|e| refuse_open(name, e))?;
    let stat = fs::fstat(&looked_at).map_err(|e| io_refusal(name, e))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Err(refuse(RefusalCode::NotRegular, name, &format!("is a {}", kind_name(kind))));
    }
    if stat.st_dev != dev {
        return Err(refuse(RefusalCode::Device, name, "is on another filesystem"));
    }
    match stat.st_nlink {
        0 => return Err(refuse(RefusalCode::Gone, name, "does not exist any more")),
        links if links > 1 && wanted.single_link => {
            return Err(refuse(RefusalCode::Nlink, name, &format!("has {links} hard links")));
        }
        _ => {}
    }
    if let Some(owner) = wanted.owner
        && stat.st_uid != owner
    {
        let reason = format!("belongs to user {}, not to the box's user {owner}", stat.st_uid);
        return Err(refuse(RefusalCode::Owner, name, &reason));
    }
    let (size, cap) = (u64::try_from(stat.st_size).unwrap_or(u64::MAX), wanted.cap);
    if size > cap {
        return Err(refuse(RefusalCode::TooBig, name, &format!("has {size} bytes, at most {cap}")));
    }
    // The reopened descriptor refers to the inode that was checked, whatever the name refers to by now.
    let again = format!("/proc/self/fd/{}", looked_at.as_raw_fd());
    if access != OFlags::RDONLY && stat.st_mode & 0o600 != 0o600 {
        // Only its owner may do that. For others the next call says what is wrong.
        let _ = fs::chmod(&again, Mode::from_raw_mode(0o660));
    }
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(fs::open(again, flags, Mode::empty()).map_err(|e| refuse_open(name, e))?);
    Ok(UntrustedFile { file, shown: shown(name), size, cap })
}

fn unlink(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    match fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => match fs::unlinkat(&dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        },
        Err(e) => Err(e.into()),
    }
}

/// A file of the box that passed the checks and may be read once.
#[derive(Debug)]
pub struct UntrustedFile {
    file: File,
    shown: String,
    size: u64,
    cap: u64,
}

impl UntrustedFile {
    /// Its size in bytes at the check. It may grow or shrink while it is read.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Copies it in one pass and in pieces; returns how many bytes. What is copied, and nothing that is read again,
    /// is the file from now on.
    ///
    /// # Errors
    /// [`RefusalCode::TooBig`] when it grew past its cap meanwhile; [`RefusalCode::Io`] when it cannot be read, or `to`
    /// not be written. What was copied until then is of no use.
    pub fn copy(self, to: &mut impl Write) -> Result<u64, Refusal> {
        let failed = |what: &str, e: io::Error| {
            Refusal::new(RefusalCode::Io, format!("{} cannot be {what}: {e}", self.shown))
        };
        let mut from = (&self.file).take(self.cap.saturating_add(1));
        let mut piece = vec![0; usize::try_from(self.size).unwrap_or(PIECE).clamp(1, PIECE)];
        let mut copied = 0;
        loop {
            let read = match from.read(&mut piece) {
                Ok(0) => return Ok(copied),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(failed("read", e)),
            };
            copied += read as u64;
            if copied > self.cap {
                let reason = format!("{} grew past {} bytes while it was read", self.shown, self.cap);
                return Err(Refusal::new(RefusalCode::TooBig, reason));
            }
            to.write_all(piece.get(..read).unwrap_or_default()).map_err(|e| failed("copied", e))?;
        }
    }

    /// The open file, for a reader that limits how much it reads.
    pub fn into_file(self) -> File {
        self.file
    }
}

/// Bytes copied at a time.
const PIECE: usize = 64 << 10;

/// Retries a call a few times: `openat2` fails with EAGAIN when a rename raced with its check (openat2(2)).
fn retry_again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..8 {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    call()
}

fn refuse_open(name: &Path, error: Errno) -> Refusal {
    match error {
        Errno::NOENT => refuse(RefusalCode::Gone, name, "does not exist any more"),
        Errno::LOOP | Errno::NOTDIR | Errno::NXIO => {
            refuse(RefusalCode::NotRegular, name, "is a symbolic link or leads over one")
        }
        Errno::XDEV => refuse(RefusalCode::Device, name, "leads out of its directory"),
        other => io_refusal(name, other),
    }
}

fn io_refusal(name: &Path, error: Errno) -> Refusal {
    refuse(RefusalCode::Io, name, &format!("cannot be inspected: {error}"))
}

fn refuse(code: RefusalCode, name: &Path, what: &str) -> Refusal {
    Refusal::new(code, format!("{} {what}", shown(name)))
}

fn shown(name: &Path) -> String {
    quote(&name.to_string_lossy(), 80)
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "file of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Fixture {
        dir: tempfile::TempDir,
        inside: UntrustedDir,
        me: u32,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let me = std::fs::metadata(dir.path()).unwrap().uid();
        Fixture { inside: UntrustedDir::open(dir.path()).unwrap(), dir, me }
    }

    impl Fixture {
        fn path(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join(name)
        }
        fn read(&self, name: &str) -> Result<Vec<u8>, RefusalCode> {
            self.inside.read(Path::new(name), self.me, 1024).map_err(|r| r.code)
        }
    }

    #[test]
    fn a_plain_file_is_read_once() {
        let w = fixture();
        std::fs::write(w.path("a"), b"hello").unwrap();
        assert_eq!(w.read("a").unwrap(), b"hello");
        assert_eq!(w.read("missing"), Err(RefusalCode::Gone));
    }

    #[test]
    fn a1_a2_links_are_never_followed() {
        let w = fixture();
        for (name, target) in
            [("abs", "/etc/passwd"), ("rel", "../../etc/passwd"), ("env", "/proc/self/environ")]
        {
            symlink(target, w.path(name)).unwrap();
            assert_eq!(w.read(name), Err(RefusalCode::NotRegular), "{name}");
        }
        symlink("/etc", w.path("dir")).unwrap();
        assert_eq!(w.read("dir/passwd"), Err(RefusalCode::NotRegular));
    }

    #[test]
    fn a37_a_path_cannot_climb_out() {
        let w = fixture();
        assert_eq!(w.read("../../etc/passwd"), Err(RefusalCode::Device));
        assert_eq!(w.read("/etc/passwd"), Err(RefusalCode::Device));
    }

    #[test]
    fn a5_hard_links_are_a_replay() {
        let w = fixture();
        std::fs::write(w.path("a"), b"x").unwrap();
        std::fs::hard_link(w.path("a"), w.path("b")).unwrap();
        assert_eq!(w.read("a"), Err(RefusalCode::Nlink));
        assert_eq!(w.read("b"), Err(RefusalCode::Nlink));
    }

    #[test]
    fn a6_a7_fifos_sockets_and_directories_do_not_block() {
        let w = fixture();
        fs::mknodat(fs::CWD, w.path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(w.path("socket")).unwrap();
        std::fs::create_dir(w.path("dir")).unwrap();
        for name in ["fifo", "socket", "dir"] {
            assert_eq!(w.read(name), Err(RefusalCode::NotRegular), "{name}");
        }
    }

    #[test]
    fn a11_a12_size_is_known_before_reading() {
        let w = fixture();
        File::create(w.path("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(w.read("sparse"), Err(RefusalCode::TooBig));
        std::fs::write(w.path("edge"), vec![b'x'; 1024]).unwrap();
        assert_eq!(w.read("edge").unwrap().len(), 1024);
        std::fs::write(w.path("over"), vec![b'x'; 1025]).unwrap();
        assert_eq!(w.read("over"), Err(RefusalCode::TooBig));
    }

    #[test]
    fn a_file_of_another_user_is_not_the_boxs() {
        let w = fixture();
        std::fs::write(w.path("a"), b"x").unwrap();
        let other = w.inside.read(Path::new("a"), w.me + 1, 1024).unwrap_err();
        assert_eq!(other.code, RefusalCode::Owner);
    }

    #[test]
    fn a15_a_swap_in_a_tight_loop_never_leaks() {
        let w = fixture();
        std::fs::write(w.path("secret"), b"host secret").unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), b"host secret").unwrap();
        std::fs::write(w.path("file"), b"mine").unwrap();
        symlink(outside.path(), w.path("link")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::renameat_with(
                        fs::CWD,
                        w.path("file"),
                        fs::CWD,
                        w.path("link"),
                        fs::RenameFlags::EXCHANGE,
                    );
                }
            });
            let mut reads = 0;
            for _ in 0..20_000 {
                if let Ok(bytes) = w.read("file") {
                    assert_eq!(bytes, b"mine");
                    reads += 1;
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(reads > 0, "the race never let a plain file through");
        });
    }

    /// Plays over and over beside `tries` looks, and more until one look has seen the file: a machine with other
    /// things to do may give the players their turns as it likes.
    fn race(tries: u32, play: impl Fn() + Sync, mut look: impl FnMut() -> bool) {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    play();
                }
            });
            // A look that fails must not leave the player playing.
            let _stop = Stop(&stop);
            let (mut tried, mut seen) = (0, false);
            while tried < tries || !seen {
                seen |= look();
                tried += 1;
            }
        });
    }

    #[test]
    fn a15_a_folder_in_the_middle_of_a_path_may_be_swapped_for_a_link() {
        let w = fixture();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outside.path().join("b")).unwrap();
        std::fs::write(outside.path().join("b/f"), b"host secret").unwrap();
        std::fs::create_dir_all(w.path("a/b")).unwrap();
        std::fs::write(w.path("a/b/f"), b"mine").unwrap();
        symlink(outside.path(), w.path("link")).unwrap();
        let swap = || {
            let (one, two) = (w.path("a"), w.path("link"));
            let _ = fs::renameat_with(fs::CWD, one, fs::CWD, two, fs::RenameFlags::EXCHANGE);
        };
        let look = || match w.read("a/b/f") {
            Ok(bytes) => {
                assert_eq!(bytes, b"mine");
                true
            }
            Err(code) => {
                assert!(
                    [RefusalCode::NotRegular, RefusalCode::Gone, RefusalCode::Io].contains(&code),
                    "{code}"
                );
                false
            }
        };
        race(4_000, swap, look);
    }

    #[test]
    fn a15_a_file_may_become_a_fifo_or_a_second_name_under_the_hand() {
        let w = fixture();
        std::fs::write(w.path("twin"), b"mine").unwrap();
        let play = || {
            let _ = std::fs::remove_file(w.path("f"));
            let _ = std::fs::hard_link(w.path("twin"), w.path("f"));
            let _ = std::fs::remove_file(w.path("f"));
            let _ = fs::mknodat(fs::CWD, w.path("f"), FileType::Fifo, Mode::from_raw_mode(0o600), 0);
            let _ = std::fs::remove_file(w.path("f"));
            let _ = std::fs::write(w.path("new"), b"mine");
            let _ = std::fs::rename(w.path("new"), w.path("f"));
        };
        let look = || match w.read("f") {
            Ok(bytes) => {
                assert_eq!(bytes, b"mine");
                true
            }
            Err(_) => false,
        };
        race(4_000, play, look);
    }

    #[test]
    fn a14_a16_what_grows_and_shrinks_while_it_is_read_is_cut_at_the_cap() {
        let w = fixture();
        let file = File::create(w.path("f")).unwrap();
        let play = || {
            for length in [0, 900, 1 << 20, 1024, 3] {
                let _ = file.set_len(length);
            }
        };
        let look = || match w.read("f") {
            Ok(bytes) => {
                assert!(bytes.len() <= 1024);
                true
            }
            Err(code) => {
                assert_eq!(code, RefusalCode::TooBig);
                false
            }
        };
        race(4_000, play, look);
        file.set_len(1024).unwrap();
        let wanted = FileRequirements { owner: None, single_link: true, cap: 1024 };
        let looked_at = w.inside.file(Path::new("f"), wanted).unwrap();
        file.set_len(1 << 30).unwrap();
        let mut taken = Vec::new();
        assert_eq!(looked_at.copy(&mut taken).unwrap_err().code, RefusalCode::TooBig);
        assert!(taken.len() <= 1024, "nothing beyond the cap was written");
    }

    #[test]
    fn a_listing_is_bounded_and_repeatable() {
        let w = fixture();
        for i in 0..50 {
            std::fs::write(w.path(&format!("f{i}")), b"").unwrap();
        }
        let some = w.inside.names(20).unwrap();
        assert!(some.truncated && some.names.len() == 20);
        let all = w.inside.names(100).unwrap();
        assert!(!all.truncated && all.names.len() == 50);
        assert_eq!(w.inside.names(100).unwrap().names.len(), 50, "a second pass sees them again");
    }

    #[test]
    fn unlink_takes_one_name_and_follows_nothing() {
        let w = fixture();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), w.path("link")).unwrap();
        std::fs::create_dir_all(w.path("dir/sub")).unwrap();
        w.inside.unlink(OsStr::new("link")).unwrap();
        assert!(outside.path().exists() && !w.path("link").is_symlink());
        assert!(w.inside.unlink(OsStr::new("dir")).is_err(), "not empty");
        assert!(w.inside.unlink(OsStr::new("nothing")).is_ok());
    }
}
