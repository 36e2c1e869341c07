//! What an agent may have made, for a copy: nothing is followed, and what is neither file, folder nor link is told and
//! left.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use ipc_schema::untrusted_fs::{Entry, Kind, Step, UntrustedDir, UntrustedFile, Walk, Wanted};

/// More entries than this are more than a copy is for.
const ENTRIES: u64 = 20_000_000;
/// The longest path that can be put back (path_resolution(7)), with room for where it is put.
const PATH_MAX: usize = 3_000;
/// Holes that a copy takes in, all together, in bytes: they are zeros in an archive, and a box can claim any length.
const HOLES: u64 = 1 << 30;

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
pub(super) struct Tree {
    walk: Walk,
    holes: u64,
    /// What was passed over, and why.
    pub(super) left_out: Vec<String>,
    /// Other file systems directly inside, which are not entered.
    pub(super) mounted: Vec<PathBuf>,
}

impl Tree {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            walk: UntrustedDir::open(dir)?.walk(ENTRIES)?,
            holes: 0,
            left_out: Vec::new(),
            mounted: Vec::new(),
        })
    }

    /// The next thing. What cannot be read is noted, not fatal: an agent's unreadable file must not cost the copy.
    pub(super) fn next(&mut self) -> Option<Found> {
        loop {
            let Some(step) = self.walk.next() else {
                if self.walk.truncated() {
                    self.leave(&format!("more than {ENTRIES} entries: the rest"));
                }
                return None;
            };
            match step {
                Step::Left => {}
                Step::Unread(e) if e.kind() == io::ErrorKind::CrossesDevices && self.walk.depth() == 1 => {
                    self.mounted.push(self.walk.path());
                }
                Step::Unread(e) => self.leave(&e.to_string()),
                Step::Entry(entry) => match self.what(&entry) {
                    Ok(Some(what)) => return Some(found(self.walk.path(), what, &entry)),
                    // It went while the tree was walked.
                    Ok(None) => {}
                    Err(why) => self.leave(&why),
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

    fn leave(&mut self, why: &str) {
        let path: String = self.walk.path().to_string_lossy().chars().take(PATH_MAX).collect();
        self.left_out.push(format!("{path} ({why})"));
    }
}

/// One file in a folder.
pub(super) fn one(dir: &Path, name: &std::ffi::OsStr) -> io::Result<Found> {
    let dir = UntrustedDir::open(dir)?;
    let entry = dir.look(name)?;
    let wanted = Wanted { owner: None, one_link: false, cap: entry.len };
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
        let mut tree = Tree::open(dir.path()).unwrap();
        let mut kept = Vec::new();
        while let Some(found) = tree.next() {
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
        tree.left_out.sort();
        let [socket, sparse] = tree.left_out.as_slice() else { panic!("{:?}", tree.left_out) };
        assert!(socket.starts_with("socket (no file") || sparse.starts_with("socket (no file"));
        assert!(tree.left_out.iter().any(|left| left.starts_with("sparse (it claims 1099511627776")));
    }
}
