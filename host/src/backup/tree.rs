//! Reads the folders of an install for an archive. Agents can write in some of them, so it follows no link. It lists
//! anything other than a file, folder or link as left out.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipc_schema::refusal::quote;
use ipc_schema::untrusted_fs::{Entry, FileRequirements, Kind, UntrustedDir, UntrustedFile, Walk, WalkStep};

/// The longest path that can be restored (path_resolution(7)), with room for the path of its destination.
const PATH_MAX: usize = 3_000;

/// The list names this many left-out entries and counts the rest, because an agent decides how many there are: of one
/// tree, so that no agent hides what another tree lacks, and of all together.
const NAMED_OF_TREE: usize = 100;
const NAMED: usize = 10_000;
/// The list shows this many characters of a left-out path.
const NAMED_LENGTH: usize = 300;

/// Entries that are not in the copy, because they could not be read or are secrets.
#[derive(Debug)]
pub(super) struct LeftOut {
    /// The first entries, each with the reason.
    pub(super) named: Vec<String>,
    /// How many more there are.
    pub(super) more: u64,
    /// How many may still be named of this tree.
    left: usize,
}

impl Default for LeftOut {
    fn default() -> Self {
        Self { named: Vec::new(), more: 0, left: NAMED_OF_TREE }
    }
}

impl LeftOut {
    /// Begins the next tree.
    pub(super) fn begin_tree(&mut self) {
        self.left = NAMED_OF_TREE.min(NAMED - self.named.len());
    }

    /// Adds an entry. Its name is quoted, because an agent may have chosen it.
    pub(super) fn note(&mut self, path: &Path, why: &str) {
        if self.left > 0 {
            self.left -= 1;
            self.named.push(format!("{} ({why})", quote(&path.to_string_lossy(), NAMED_LENGTH)));
        } else {
            self.more += 1;
        }
    }
}

#[derive(Debug)]
pub(super) struct Found {
    /// The path below the tree.
    pub(super) path: PathBuf,
    pub(super) what: What,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The last change, in seconds since 1970.
    pub(super) mtime: u64,
}

#[derive(Debug)]
pub(super) enum What {
    Folder,
    Link(PathBuf),
    File {
        file: File,
        bytes: u64,
        /// How many of the bytes are holes.
        holes: u64,
        /// Which file it is, if it has several names.
        shared: Option<SharedInode>,
    },
}

/// A file with several names, as it was when it was opened. A file that was changed is another one, so that no name
/// gets the content that another file with the same number had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SharedInode {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

pub(super) struct Tree<'a> {
    walk: Walk,
    /// The most entries that it takes.
    most: u64,
    /// The directory's name in the copy.
    name: &'a Path,
}

impl<'a> Tree<'a> {
    pub(super) fn open(dir: &Path, name: &'a Path, most: u64) -> io::Result<Self> {
        let walk = UntrustedDir::open(dir)?.walk(most)?;
        Ok(Self { walk, most, name })
    }

    /// Returns the next entry. It notes and skips what cannot be read, because an agent must not be able to prevent the
    /// copy.
    pub(super) fn next(&mut self, left_out: &mut LeftOut) -> Option<Found> {
        loop {
            let Some(step) = self.walk.next() else {
                if self.walk.truncated() {
                    self.leave(left_out, &format!("more than {} entries: the rest", self.most));
                }
                return None;
            };
            match step {
                WalkStep::Left => {}
                WalkStep::Unread(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                    self.leave(left_out, "another file system");
                }
                WalkStep::Unread(e) => self.leave(left_out, &e.to_string()),
                WalkStep::Entry(entry) => match self.what(&entry) {
                    Ok(Some(what)) => return Some(found(self.walk.path(), what, &entry)),
                    // The entry was removed during the walk.
                    Ok(None) => {}
                    Err(why) => self.leave(left_out, &why),
                },
            }
        }
    }

    fn what(&self, entry: &Entry) -> Result<Option<What>, String> {
        if self.walk.path().as_os_str().len() > PATH_MAX {
            return Err(format!("its path has more than {PATH_MAX} bytes"));
        }
        match entry.kind {
            Kind::Folder => Ok(Some(What::Folder)),
            Kind::Link => self.walk.link().map(|target| Some(What::Link(target))).map_err(|e| e.to_string()),
            Kind::Other => Err("neither a file nor a folder nor a link".into()),
            Kind::File => match self.walk.file(entry.len) {
                Ok(file) => of_file(file).map(Some).map_err(|e| e.to_string()),
                Err(refusal) if refusal.code == ipc_schema::RefusalCode::Gone => Ok(None),
                Err(refusal) => Err(refusal.reason),
            },
        }
    }

    fn leave(&self, left_out: &mut LeftOut, why: &str) {
        left_out.note(&self.name.join(self.walk.path()), why);
    }
}

/// Returns a single file of a folder.
pub(super) fn one(dir: &Path, name: &std::ffi::OsStr) -> io::Result<Found> {
    let dir = UntrustedDir::open(dir)?;
    let entry = dir.look(name)?;
    let wanted = FileRequirements { owner: None, single_link: false, cap: entry.len };
    let file = dir.file(name.as_ref(), wanted).map_err(io::Error::other)?;
    Ok(found(PathBuf::new(), of_file(file)?, &entry))
}

fn of_file(file: UntrustedFile) -> io::Result<What> {
    let file = file.into_file();
    let seen = file.metadata()?;
    let (inode, bytes) = (seen.ino(), seen.len());
    let shared = SharedInode { inode, bytes, changed: (seen.mtime(), seen.mtime_nsec()) };
    // stat(2) counts blocks of 512 bytes.
    let holes = bytes.saturating_sub(seen.blocks().saturating_mul(512));
    Ok(What::File { file, bytes, holes, shared: (seen.nlink() > 1).then_some(shared) })
}

fn found(path: PathBuf, what: What, entry: &Entry) -> Found {
    let mtime = u64::try_from(entry.mtime).unwrap_or(0);
    Found { path, what, mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_an_agent_may_have_made_costs_a_copy_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/f"), "kept").unwrap();
        symlink(outside.path(), dir.path().join("link")).unwrap();
        File::create(dir.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let mut tree = Tree::open(dir.path(), Path::new("t"), 100).unwrap();
        let (mut kept, mut left_out) = (Vec::new(), LeftOut::default());
        while let Some(found) = tree.next(&mut left_out) {
            let what = match found.what {
                What::Folder => "folder",
                What::Link(_) => "link",
                What::File { holes: 0, .. } => "file",
                What::File { .. } => "file with holes",
            };
            kept.push((found.path.to_string_lossy().into_owned(), what));
        }
        kept.sort();
        let expected = [
            ("a", "folder"),
            ("a/b", "folder"),
            ("a/b/f", "file"),
            ("link", "link"),
            ("sparse", "file with holes"),
        ];
        assert_eq!(kept, expected.map(|(path, what)| (path.to_owned(), what)));
        let [socket] = left_out.named.as_slice() else { panic!("{left_out:?}") };
        assert!(socket.starts_with(r#""t/socket" (neither a file"#), "{socket}");
    }

    #[test]
    fn names_of_what_is_left_out_are_quoted_and_their_number_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let name = "f\u{1b}]0;PWNED\u{7}\u{202e}\nforged: all good";
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join(name)).unwrap();
        let mut left_out = LeftOut::default();
        assert!(Tree::open(dir.path(), Path::new("t"), 100).unwrap().next(&mut left_out).is_none());
        let [told] = left_out.named.as_slice() else { panic!("{left_out:?}") };
        assert!(
            told.starts_with(r#""t/f\u{1b}]0;"#) && told.chars().all(|c| c.is_ascii_graphic() || c == ' '),
            "{told}"
        );
        let long = "d/".repeat(1_400);
        for _ in 0..5_000 {
            left_out.note(Path::new(&long), "neither a file nor a folder nor a link");
        }
        let bytes: usize = left_out.named.iter().map(String::len).sum();
        assert_eq!((left_out.named.len(), left_out.more), (100, 4_901));
        assert!(bytes < 100 * 400, "{bytes}");
        left_out.begin_tree();
        left_out.note(Path::new("other"), "a secret");
        assert_eq!(left_out.named.last().unwrap(), r#""other" (a secret)"#, "each tree is named");
    }
}
