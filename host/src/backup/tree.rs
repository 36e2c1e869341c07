//! What an agent may have made, for a copy: nothing is followed, and what is neither file, folder nor link is told and
//! left.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use ipc_schema::refusal::quote;
use ipc_schema::untrusted_fs::{Entry, FileRequirements, Kind, UntrustedDir, UntrustedFile, Walk, WalkStep};

/// More entries than this are more than a copy is for.
const ENTRIES: u64 = 20_000_000;
/// The longest path that can be put back (path_resolution(7)), with room for where it is put.
const PATH_MAX: usize = 3_000;
/// Holes that a copy takes in, all together, in bytes: they are zeros in an archive, and a box can claim any length.
const HOLES: u64 = 1 << 30;

/// What was passed over is named so often; the rest is counted. An agent chooses how many there are.
const NAMED: usize = 1_000;
/// Characters of a path that are named.
const NAMED_LENGTH: usize = 300;

/// What could not be taken in, or is a secret.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// The first of them, and why.
    pub(super) named: Vec<String>,
    /// How many came after those.
    pub(super) more: u64,
}

impl LeftOut {
    /// Notes one. The name is an agent's choice: it is quoted.
    pub(super) fn note(&mut self, path: &Path, why: &str) {
        if self.named.len() < NAMED {
            self.named.push(format!("{} ({why})", quote(&path.to_string_lossy(), NAMED_LENGTH)));
        } else {
            self.more += 1;
        }
    }
}

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

/// A directory that is walked.
pub(super) struct Tree<'a> {
    walk: Walk,
    holes: u64,
    /// Its name in the copy.
    name: &'a Path,
    /// Other file systems directly inside, which are not entered.
    pub(super) mounted: Vec<PathBuf>,
}

impl<'a> Tree<'a> {
    pub(super) fn open(dir: &Path, name: &'a Path) -> io::Result<Self> {
        let walk = UntrustedDir::open(dir)?.walk(ENTRIES)?;
        Ok(Self { walk, holes: 0, name, mounted: Vec::new() })
    }

    /// The next thing. What cannot be read is noted, not fatal: an agent's unreadable file must not cost the copy.
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
                    // It went while the tree was walked.
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
            Kind::Other => Err("no file, folder or link".into()),
            Kind::File => {
                let hole = entry.len.saturating_sub(entry.on_disk);
                if self.holes.saturating_add(hole) > HOLES {
                    return Err(format!("it claims {} bytes and has {}", entry.len, entry.on_disk));
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

/// One file in a folder.
pub(super) fn one(dir: &Path, name: &std::ffi::OsStr) -> io::Result<Found> {
    let dir = UntrustedDir::open(dir)?;
    let entry = dir.look(name)?;
    let wanted = FileRequirements { owner: None, one_link: false, cap: entry.len };
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
        assert!(socket.starts_with(r#""t/socket" (no file"#), "{socket}");
        assert!(sparse.starts_with(r#""t/sparse" (it claims 1099511627776"#), "{sparse}");
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
            left_out.note(Path::new(&long), "no file, folder or link");
        }
        let bytes: usize = left_out.named.iter().map(String::len).sum();
        assert_eq!((left_out.named.len(), left_out.more), (1_000, 4_001));
        assert!(bytes < 1_000 * 400, "{bytes}");
    }
}
