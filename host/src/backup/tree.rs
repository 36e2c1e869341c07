//! Reads the folders of an install for an archive. Agents can write in some of them, so it follows no link. It lists
//! anything other than a file, folder or link as left out.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use ipc_schema::refusal::quote;
use ipc_schema::untrusted_fs::{Entry, FileRequirements, Kind, UntrustedDir, UntrustedFile, Walk, WalkStep};

/// A copy takes at most this many entries.
const ENTRIES: u64 = 20_000_000;
/// The longest path that can be restored (path_resolution(7)), with room for the path of its destination.
const PATH_MAX: usize = 3_000;
/// A copy takes at most this many bytes of holes. An archive stores holes as zeros, and a box can make a hole of any
/// length.
const HOLES: u64 = 1 << 30;

/// The list names this many left-out entries and counts the rest, because an agent decides how many there are.
const NAMED: usize = 1_000;
/// The list shows this many characters of a left-out path.
const NAMED_LENGTH: usize = 300;

/// Entries that are not in the copy, because they could not be read or are secrets.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// The first entries, each with the reason.
    pub(super) named: Vec<String>,
    /// How many more there are.
    pub(super) more: u64,
}

impl LeftOut {
    /// Adds an entry. Its name is quoted, because an agent may have chosen it.
    pub(super) fn note(&mut self, path: &Path, why: &str) {
        if self.named.len() < NAMED {
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
    File { file: File, bytes: u64 },
}

pub(super) struct Tree<'a> {
    walk: Walk,
    holes: u64,
    /// The directory's name in the copy.
    name: &'a Path,
    /// Other file systems directly below the directory. The walk does not enter them.
    pub(super) mounted: Vec<PathBuf>,
}

impl<'a> Tree<'a> {
    pub(super) fn open(dir: &Path, name: &'a Path) -> io::Result<Self> {
        let walk = UntrustedDir::open(dir)?.walk(ENTRIES)?;
        Ok(Self { walk, holes: 0, name, mounted: Vec::new() })
    }

    /// Returns the next entry. It notes and skips what cannot be read, because an agent must not be able to prevent the
    /// copy.
    pub(super) fn next(&mut self, left_out: &mut LeftOut) -> Option<Found> {
        loop {
            let Some(step) = self.walk.next() else {
                if self.walk.truncated() {
                    self.leave(left_out, &format!("more than {ENTRIES} entries: the rest"));
                }
                return None;
            };
            match step {
                WalkStep::Left => {}
                WalkStep::Unread(e)
                    if e.kind() == io::ErrorKind::CrossesDevices && self.walk.depth() == 1 =>
                {
                    self.mounted.push(self.walk.path());
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

    fn what(&mut self, entry: &Entry) -> Result<Option<What>, String> {
        if self.walk.path().as_os_str().len() > PATH_MAX {
            return Err(format!("its path has more than {PATH_MAX} bytes"));
        }
        match entry.kind {
            Kind::Folder => Ok(Some(What::Folder)),
            Kind::Link => self.walk.link().map(|target| Some(What::Link(target))).map_err(|e| e.to_string()),
            Kind::Other => Err("neither a file nor a folder nor a link".into()),
            Kind::File => {
                let hole = entry.len.saturating_sub(entry.on_disk);
                if self.holes.saturating_add(hole) > HOLES {
                    return Err(format!(
                        "its length is {} bytes, of which the disk has {}",
                        entry.len, entry.on_disk
                    ));
                }
                self.holes += hole;
                match self.walk.file(entry.len) {
                    Ok(file) => Ok(Some(of_file(file))),
                    Err(refusal) if refusal.code == ipc_schema::RefusalCode::Gone => Ok(None),
                    Err(refusal) => Err(refusal.reason),
                }
            }
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
    Ok(found(PathBuf::new(), of_file(file), &entry))
}

fn of_file(file: UntrustedFile) -> What {
    let bytes = file.size();
    What::File { file: file.into_file(), bytes }
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
        let mut tree = Tree::open(dir.path(), Path::new("t")).unwrap();
        let (mut kept, mut left_out) = (Vec::new(), LeftOut::default());
        while let Some(found) = tree.next(&mut left_out) {
            let what = match found.what {
                What::Folder => "folder",
                What::Link(_) => "link",
                What::File { .. } => "file",
            };
            kept.push((found.path.to_string_lossy().into_owned(), what));
        }
        kept.sort();
        let expected = [("a", "folder"), ("a/b", "folder"), ("a/b/f", "file"), ("link", "link")];
        assert_eq!(kept, expected.map(|(path, what)| (path.to_owned(), what)));
        left_out.named.sort();
        let [socket, sparse] = left_out.named.as_slice() else { panic!("{left_out:?}") };
        assert!(socket.starts_with(r#""t/socket" (neither a file"#), "{socket}");
        assert!(sparse.starts_with(r#""t/sparse" (its length is 1099511627776 bytes"#), "{sparse}");
    }

    #[test]
    fn names_of_what_is_left_out_are_quoted_and_their_number_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let name = "f\u{1b}]0;PWNED\u{7}\u{202e}\nforged: all good";
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join(name)).unwrap();
        let mut left_out = LeftOut::default();
        assert!(Tree::open(dir.path(), Path::new("t")).unwrap().next(&mut left_out).is_none());
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
        assert_eq!((left_out.named.len(), left_out.more), (1_000, 4_001));
        assert!(bytes < 1_000 * 400, "{bytes}");
    }
}
