//! The key canary: this install's own secrets are looked for, byte by byte, wherever a box or its reader could come upon
//! them. What is found is told by place; a secret is never printed, and never goes into a box to be looked for there.

#![allow(
    clippy::disallowed_methods,
    reason = "the host's own files and folders; what an agent may write is walked by untrusted_fs"
)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use ipc_schema::untrusted_fs::UntrustedDir;

use crate::config::Install;
use crate::disk;
use crate::domain::GroupName;

/// A secret that is shorter could be a word.
const SHORTEST: usize = 8;
/// Files below an agent's directories are read whole, up to this size.
const FILE_MAX: u64 = 16 << 20;
/// So many names of an agent's are looked at: a million files must not hold the operator up.
const NAMES_MAX: usize = 20_000;
/// Host-owned files are read in pieces of this size.
const PIECE: usize = 1 << 20;

/// What was looked for, and where.
#[derive(Debug)]
pub(super) struct Canary {
    secrets: Vec<Vec<u8>>,
    /// Places that were read to their end.
    pub(super) read: usize,
    /// What could not be read, and why.
    pub(super) unread: Vec<String>,
    /// Where a secret was found.
    pub(super) hits: Vec<String>,
}

impl Canary {
    /// Of every key and token that the install knows.
    pub(super) fn of(install: &Install) -> Self {
        let keys = install.providers.values().filter_map(|provider| provider.key.as_ref());
        let tokens = install.telegram.as_ref().map(|telegram| &telegram.token);
        let secrets = keys.chain(tokens).map(|secret| secret.expose().as_bytes().to_vec());
        Self {
            secrets: secrets.filter(|secret| secret.len() >= SHORTEST).collect(),
            read: 0,
            unread: Vec::new(),
            hits: Vec::new(),
        }
    }

    /// How many secrets there are to find.
    pub(super) fn secrets(&self) -> usize {
        self.secrets.len()
    }

    /// Looks through bytes.
    pub(super) fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.read += 1;
        let found = |secret: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == secret);
        if self.secrets.iter().any(found) {
            self.hits.push(place.to_owned());
        }
    }

    /// Looks through what the host alone writes, links not followed.
    pub(super) fn own(&mut self, path: &Path) {
        let Ok(about) = fs::symlink_metadata(path) else { return };
        if about.is_dir() {
            let mut below: Vec<PathBuf> =
                fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            below.sort();
            below.iter().for_each(|path| self.own(path));
        } else if about.is_file() {
            match self.file(path) {
                Ok(true) => self.hits.push(path.display().to_string()),
                Ok(false) => {}
                Err(e) => self.unread.push(format!("{}: {e}", path.display())),
            }
        }
    }

    /// Pieces overlap by a secret's length, so that none falls between two.
    fn file(&mut self, path: &Path) -> std::io::Result<bool> {
        let overlap = self.secrets.iter().map(Vec::len).max().unwrap_or(1);
        let (mut file, mut window) = (File::open(path)?, Vec::new());
        loop {
            let kept = window.len().min(overlap);
            window.drain(..window.len() - kept);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut window)?;
            let found = |secret: &Vec<u8>| window.windows(secret.len()).any(|w| w == secret);
            if self.secrets.iter().any(found) {
                self.read += 1;
                return Ok(true);
            }
            if read == 0 {
                self.read += 1;
                return Ok(false);
            }
        }
    }

    /// Looks through a directory that an agent may write, by the one way that is safe. `owner` is the box's user.
    pub(super) fn of_agent(&mut self, path: &Path, owner: u32) {
        let top = match UntrustedDir::open(path) {
            Ok(top) => top,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => return self.unread.push(format!("{}: {e}", path.display())),
        };
        let mut left = NAMES_MAX;
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let shown = |name: &Path| format!("{}/{}", path.display(), name.display());
            let opened = if folder.as_os_str().is_empty() { None } else { Some(top.folder(&folder)) };
            let listed = match &opened {
                None => top.names(left),
                Some(Ok(dir)) => dir.names(left),
                // No directory, and then it is a file; or one that nobody but the agent may enter.
                Some(Err(_)) => continue,
            };
            let Ok(names) = listed else {
                self.unread.push(shown(&folder));
                continue;
            };
            left = left.saturating_sub(names.names.len());
            if names.truncated {
                self.unread.push(format!("{}: more than {NAMES_MAX} names", path.display()));
            }
            for name in names.names {
                self.name_of_agent(&top, &folder, &name, owner, &mut folders, path);
            }
        }
    }

    fn name_of_agent(
        &mut self,
        top: &UntrustedDir,
        folder: &Path,
        name: &OsString,
        owner: u32,
        folders: &mut Vec<PathBuf>,
        path: &Path,
    ) {
        let name = folder.join(name);
        match top.read(&name, owner, FILE_MAX) {
            Ok(bytes) => self.bytes(&format!("{}/{}", path.display(), name.display()), &bytes),
            Err(_) if top.folder(&name).is_ok() => folders.push(name),
            Err(refusal) => self.unread.push(refusal.reason),
        }
    }

    /// Everything of an install that a group's box, or a reader of it, comes upon.
    pub(super) fn install(&mut self, install: &Install, group: &GroupName, uid: u32) {
        let root = &install.root;
        let database = root.database();
        for side in ["", "-wal", "-shm"] {
            self.own(&disk::beside(&database, side));
        }
        for path in [root.state().join("letters"), root.runners(), root.passwd(), root.inbox(group)] {
            self.own(&path);
        }
        for path in [root.workspace(group), root.sessions(group)] {
            self.of_agent(&path, uid);
        }
        // Only the agent of `main` writes there; another group's box reads it.
        if group.is_main() {
            self.of_agent(&root.global(), uid);
        }
        // What a host that crashed would leave, where it was started and where it lives.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn canary() -> Canary {
        Canary { secrets: vec![b"sk-a-long-secret".to_vec()], read: 0, unread: vec![], hits: vec![] }
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
        assert_eq!((own.read, own.hits.len()), (2, 1), "{own:?}");
        assert!(own.hits[0].ends_with("over-the-edge"));
        let mut agents = canary();
        agents.of_agent(dir.path(), std::fs::metadata(dir.path()).unwrap().uid());
        assert_eq!((agents.read, agents.hits.len(), agents.unread.len()), (2, 1, 0), "{agents:?}");
    }

    #[test]
    fn an_agents_link_leads_nowhere_and_is_told() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        std::fs::write(outside.path(), "sk-a-long-secret").unwrap();
        symlink(outside.path(), dir.path().join("link")).unwrap();
        let mut canary = canary();
        canary.of_agent(dir.path(), std::fs::metadata(dir.path()).unwrap().uid());
        assert_eq!((canary.read, canary.hits.len(), canary.unread.len()), (0, 0, 1), "{canary:?}");
    }
}
