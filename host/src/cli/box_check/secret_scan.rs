//! The key canary: searches, byte by byte, every place that a box or its reader can see for this install's own secrets.
//! The report names the place. The search never prints a secret and never puts one into a box in order to search there.

#![allow(
    clippy::disallowed_methods,
    reason = "the host's own files and folders; what an agent may write is walked by untrusted_fs"
)]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ipc_schema::names_and_paths::{FROM_AGENT, TO_AGENT};
use ipc_schema::text_sanitize;
use ipc_schema::untrusted_fs::{Kind, UntrustedDir, Walk, WalkStep};

use crate::config::Install;
use crate::domain::GroupName;
use crate::host_files;

/// A shorter secret could be an ordinary word.
const SHORTEST: usize = 8;
/// The search reads a whole file below an agent's directories up to this size.
const FILE_MAX: u64 = 16 << 20;
/// The search looks at this many names of an agent, so that an agent with a million files cannot hold up the operator.
const NAMES_MAX: u64 = 20_000;
/// The search reads this many bytes of an agent's files.
const BYTES_MAX: u64 = 512 << 20;
/// The report names this many places with this many characters each. An agent can make more and longer names than
/// anybody reads.
const NAMED: usize = 20;
const NAME_MAX: usize = 200;
/// The search reads host-owned files in pieces of this size.
const PIECE: usize = 1 << 20;

/// Places: the first ones by name, the others as a count.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// The first [`NAMED`] places.
    pub(super) named: Vec<String>,
    /// The number of further places.
    pub(super) more: usize,
}

impl Places {
    fn note(&mut self, place: &str) {
        if self.named.len() < NAMED {
            self.named.push(text_sanitize::line(place, NAME_MAX))
        } else {
            self.more += 1
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Formats the places as one line.
    pub(super) fn shown(&self) -> String {
        let more = (self.more > 0).then(|| format!(" and {} more", self.more));
        format!("{}{}", self.named.join(", "), more.unwrap_or_default())
    }
}

/// The secrets to search for, and the result so far.
#[derive(Debug)]
pub(super) struct Canary {
    secrets: Vec<Vec<u8>>,
    /// The number of places that were read to their end.
    pub(super) read: usize,
    /// The places that could not be read, each with the reason.
    pub(super) unread: Places,
    /// The places where a secret was found.
    pub(super) hits: Places,
}

impl Canary {
    /// Searches for every key and token that the install knows.
    pub(super) fn of(install: &Install) -> Self {
        let speech = install.transcription.iter().filter_map(|endpoint| endpoint.key.as_ref());
        let keys = install.providers.values().filter_map(|provider| provider.key.as_ref()).chain(speech);
        let secrets =
            keys.chain(install.channel_secrets.values()).map(|secret| secret.expose().as_bytes().to_vec());
        Self {
            secrets: secrets.filter(|secret| secret.len() >= SHORTEST).collect(),
            read: 0,
            unread: Places::default(),
            hits: Places::default(),
        }
    }

    pub(super) fn secrets(&self) -> usize {
        self.secrets.len()
    }

    /// Searches bytes.
    pub(super) fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.read += 1;
        if self.stands_in(bytes) {
            self.hits.note(place);
        }
    }

    fn stands_in(&self, bytes: &[u8]) -> bool {
        let found = |secret: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == secret);
        self.secrets.iter().any(found)
    }

    /// Searches files that only the host writes, without following links.
    pub(super) fn own(&mut self, path: &Path) {
        let Ok(about) = fs::symlink_metadata(path) else { return };
        if about.is_dir() {
            let mut below: Vec<PathBuf> =
                fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            below.sort();
            below.iter().for_each(|path| self.own(path));
        } else if about.is_file() {
            match self.file(path) {
                Ok(true) => self.hits.note(&path.display().to_string()),
                Ok(false) => {}
                Err(e) => self.unread.note(&format!("{}: {e}", path.display())),
            }
        }
    }

    /// Pieces overlap by the length of a secret, so that no secret is cut by a piece's end.
    fn file(&mut self, path: &Path) -> std::io::Result<bool> {
        let overlap = self.secrets.iter().map(Vec::len).max().unwrap_or(1);
        let (mut file, mut window) = (File::open(path)?, Vec::new());
        loop {
            let kept = window.len().min(overlap);
            window.drain(..window.len() - kept);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut window)?;
            if self.stands_in(&window) {
                self.read += 1;
                return Ok(true);
            }
            if read == 0 {
                self.read += 1;
                return Ok(false);
            }
        }
    }

    /// Searches a directory that an agent can write, through the hardened walk: file contents, names and the targets of
    /// links. It follows no link.
    pub(super) fn of_agent(&mut self, path: &Path) {
        let walk = UntrustedDir::open(path).and_then(|top| top.walk(NAMES_MAX));
        let mut walk = match walk {
            Ok(walk) => walk,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => return self.unread.note(&format!("{}: {e}", path.display())),
        };
        let (mut left, mut seen) = (BYTES_MAX, HashSet::new());
        while let Some(step) = walk.next() {
            let read = match step {
                WalkStep::Entry(entry) => {
                    let name = walk.path();
                    if self.stands_in(name.file_name().unwrap_or(OsStr::new("")).as_bytes()) {
                        self.hits.note(&format!("a name in {}", path.display()));
                    }
                    // A file with several names is read once.
                    if entry.kind == Kind::File && !seen.insert(entry.inode) {
                        continue;
                    }
                    of_entry(&walk, entry.kind, left)
                }
                WalkStep::Left => Ok(None),
                WalkStep::Unread(e) => Err(e.to_string()),
            };
            match read {
                Ok(Some(bytes)) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    self.read += 1;
                    if self.stands_in(&bytes) {
                        let place = self.place(path, &walk);
                        self.hits.note(&place);
                    }
                }
                Ok(None) => {}
                Err(why) => {
                    let place = self.place(path, &walk);
                    self.unread.note(&format!("{place}: {why}"));
                }
            }
        }
        if walk.truncated() {
            self.unread.note(&format!("{}: more than {NAMES_MAX} names", path.display()));
        }
    }

    /// Names the place of the walk. A name that holds a secret is not printed.
    fn place(&self, top: &Path, walk: &Walk) -> String {
        let inside = walk.path();
        match self.stands_in(inside.as_os_str().as_bytes()) {
            true => format!("{}, below a name that holds it", top.display()),
            false => format!("{}/{}", top.display(), inside.display()),
        }
    }

    /// Searches the letters that lie in a group's directories now.
    fn letters(&mut self, runs: &Path) {
        for run in host_files::inside(runs) {
            self.own(&run.join(TO_AGENT));
            self.of_agent(&run.join(FROM_AGENT));
        }
    }

    /// Searches everything of an install that a group's box, or a reader of it, can see.
    pub(super) fn install(&mut self, install: &Install, group: &GroupName) {
        let root = &install.root;
        let database = root.database();
        for side in ["", "-wal", "-shm"] {
            self.own(&host_files::beside(&database, side));
        }
        for path in
            [root.state().join("letters"), root.spool(), root.runners(), root.passwd(), root.inbox(group)]
        {
            self.own(&path);
        }
        self.letters(&root.ipc().join(group.as_str()));
        for path in [root.workspace(group), root.sessions(group), root.global()] {
            self.of_agent(&path);
        }
        // A host that crashed can leave a core file where it was started or where it lives.
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        for dir in [root.path(), root.state().as_path(), here.as_path()] {
            let names = fs::read_dir(dir).into_iter().flatten().flatten();
            let cores = names.filter(|e| {
                let name = e.file_name();
                let name = name.to_string_lossy();
                name == "core" || name.strip_prefix("core.").is_some_and(|pid| pid.parse::<u32>().is_ok())
            });
            for core in cores {
                self.own(&core.path());
            }
        }
    }
}

/// Returns what there is to read of an entry, with at most `left` bytes.
fn of_entry(walk: &Walk, kind: Kind, left: u64) -> Result<Option<Vec<u8>>, String> {
    match kind {
        Kind::Folder | Kind::Other => Ok(None),
        Kind::Link => {
            walk.link().map(|to| Some(to.as_os_str().as_bytes().to_vec())).map_err(|e| e.to_string())
        }
        Kind::File => {
            let mut bytes = Vec::new();
            if left == 0 {
                return Err(format!("beyond the {} MiB that are read", BYTES_MAX >> 20));
            }
            let file = walk.file(FILE_MAX.min(left)).map_err(|refusal| refusal.reason)?;
            file.copy(&mut bytes).map_err(|e| e.to_string())?;
            Ok(Some(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn canary() -> Canary {
        Canary {
            secrets: vec![b"sk-a-long-secret".to_vec()],
            read: 0,
            unread: Places::default(),
            hits: Places::default(),
        }
    }

    #[test]
    fn a_secret_is_found_wherever_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let mut far = vec![b'x'; PIECE - 5];
        far.extend_from_slice(b"sk-a-long-secret");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/over-the-edge"), far).unwrap();
        std::fs::write(dir.path().join("clean"), "sk-a-long-secre").unwrap();
        let mut own = canary();
        own.own(dir.path());
        assert_eq!((own.read, own.hits.named.len()), (2, 1), "{own:?}");
        assert!(own.hits.named[0].ends_with("over-the-edge"));
        let mut agents = canary();
        agents.of_agent(dir.path());
        assert_eq!((agents.read, agents.hits.named.len()), (2, 1), "{agents:?}");
        assert!(agents.unread.is_empty(), "{agents:?}");
    }

    #[test]
    fn an_agents_link_leads_nowhere_and_its_words_are_read() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        std::fs::write(outside.path(), "sk-a-long-secret").unwrap();
        symlink(outside.path(), dir.path().join("link")).unwrap();
        let mut clean = canary();
        clean.of_agent(dir.path());
        assert_eq!(
            (clean.read, clean.hits.is_empty(), clean.unread.is_empty()),
            (1, true, true),
            "{clean:?}"
        );
        symlink("to/sk-a-long-secret", dir.path().join("words")).unwrap();
        std::fs::create_dir(dir.path().join("is-sk-a-long-secret")).unwrap();
        let mut canary = canary();
        canary.of_agent(dir.path());
        assert_eq!(canary.hits.named.len(), 2, "{canary:?}");
    }

    #[test]
    fn an_agent_cannot_fill_the_table() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..30 {
            std::fs::write(dir.path().join(n.to_string()), "sk-a-long-secret").unwrap();
            std::fs::File::create(dir.path().join(format!("{n}-large"))).unwrap().set_len(17 << 20).unwrap();
        }
        let mut canary = canary();
        canary.of_agent(dir.path());
        for places in [&canary.hits, &canary.unread] {
            assert_eq!((places.named.len(), places.more), (20, 10));
            assert!(places.shown().ends_with(" and 10 more"));
        }
    }

    #[test]
    fn a_secret_is_not_printed_as_a_name_nor_a_name_at_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("sk-a-long-secret");
        std::fs::create_dir(&named).unwrap();
        std::fs::write(named.join("copy"), "sk-a-long-secret").unwrap();
        std::fs::File::create(named.join("large")).unwrap().set_len(17 << 20).unwrap();
        let deep = (0..30).fold(dir.path().to_owned(), |path, _| path.join("d".repeat(100)));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("\u{202e}key"), "sk-a-long-secret").unwrap();
        let mut canary = canary();
        canary.of_agent(dir.path());
        let all = format!("{:?} {:?}", canary.hits, canary.unread);
        assert!(!all.contains("sk-a-long-secret") && all.len() < 2_000 && !all.contains('\u{202e}'), "{all}");
        assert_eq!((canary.hits.named.len(), canary.unread.named.len()), (3, 1), "{all}");
    }

    #[test]
    fn one_file_of_many_names_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("one"), "nothing").unwrap();
        (0..50).for_each(|n| {
            std::fs::hard_link(dir.path().join("one"), dir.path().join(n.to_string())).unwrap()
        });
        let mut canary = canary();
        canary.of_agent(dir.path());
        assert_eq!(canary.read, 1);
    }
}
