//! `agent-runner unlock-dirs`: gives the shared group access to directories that an agent made private, and takes
//! setuid and setgid bits from its files.
//!
//! The host runs it in a container of the agent's user after the agent's container ended, so that a host without root
//! can measure and remove what lies in them: only root and the owner may change a directory's mode.
//!
//! It changes no other file. The directory's mode decides whether a file can be measured and removed; and changing a
//! file's mode changes its ctime, by which the host finds the newest files to remove.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use ipc_schema::untrusted_fs::{Kind, UntrustedDir, WalkStep};
use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::box_paths::BoxPaths;

/// Entries to visit below one directory: as many as the host visits when it removes files.
const ENTRIES: u64 = 4_000_000;
/// The bits with which others would run a file as its owner or in its group.
const SET_ID: u32 = 0o6000;
/// The time for all directories together. The lane's next container waits for this one.
const WITHIN: Duration = Duration::from_secs(20);

/// Why some directories may still be private.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The limit of entries or of time was reached below this directory.
    #[error("{0} holds more entries than could be visited in {within} s", within = WITHIN.as_secs())]
    TooMany(String),
    #[error("{path}: {source}")]
    Folder {
        /// The path as the agent knows it.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Unlocks every directory of this user below the directories that the box may write.
///
/// # Errors
/// The first directory that failed, after all others were unlocked.
pub fn unlock(places: &BoxPaths) -> Result<(), UnlockError> {
    let until = Instant::now() + WITHIN;
    let all = [places.ipc_from_agent(), places.workspace(), places.session(), places.global()];
    // A directory that is missing or read-only here cannot hold anything of this agent.
    let mine = all.iter().filter(|place| access(place.as_path(), Access::WRITE_OK).is_ok());
    mine.map(|place| below(places, place, ENTRIES, until)).fold(Ok(()), Result::and)
}

fn below(places: &BoxPaths, place: &Path, most: u64, until: Instant) -> Result<(), UnlockError> {
    let shown = |inside: &Path| places.shown(&place.join(inside));
    let failed = |inside: &Path, source| UnlockError::Folder { path: shown(inside), source };
    let me = geteuid().as_raw();
    let mut walk =
        UntrustedDir::open(place).and_then(|dir| dir.walk(most)).map_err(|e| failed(Path::new(""), e))?;
    let mut first = Ok(());
    while let Some(step) = walk.next() {
        if Instant::now() > until {
            return Err(UnlockError::TooMany(shown(Path::new(""))));
        }
        let opened = match step {
            WalkStep::Entry(entry) if entry.kind == Kind::Folder && entry.uid == me => walk.share(),
            WalkStep::Entry(entry) if entry.uid == me && entry.mode & SET_ID != 0 => {
                walk.strip(&entry).map(drop)
            }
            // This agent cannot have locked what lies on another file system or belongs to another user.
            WalkStep::Unread(e) if walk.owner().is_ok_and(|owner| owner == me) => Err(e),
            _ => Ok(()),
        };
        if let Err(e) = opened
            && first.is_ok()
        {
            first = Err(failed(&walk.path(), e));
        }
    }
    if walk.truncated() { Err(UnlockError::TooMany(shown(Path::new("")))) } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn agents() -> (tempfile::TempDir, BoxPaths) {
        let root = tempfile::tempdir().unwrap();
        let places = BoxPaths::below(root.path());
        for place in [places.ipc_from_agent(), places.workspace(), places.session()] {
            fs::create_dir_all(place).unwrap();
        }
        (root, places)
    }

    #[test]
    fn shut_folders_are_opened_wherever_the_agent_may_write() {
        let (_root, places) = agents();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("theirs")).unwrap();
        set(&outside.path().join("theirs"), 0o700);
        let (letters, deep) = (places.ipc_from_agent().join("x"), places.workspace().join("a"));
        let transcripts = places.session().join("s");
        fs::create_dir_all(deep.join("b/c")).unwrap();
        for (file, rights) in [("b/c/key", 0o600), ("b/run.sh", 0o4750)] {
            fs::write(deep.join(file), b"x").unwrap();
            set(&deep.join(file), rights);
        }
        symlink(outside.path(), deep.join("b/link")).unwrap();
        symlink(outside.path().join("theirs"), places.workspace().join("link")).unwrap();
        for (folder, rights) in [(deep.join("b/c"), 0o1777), (deep.join("b"), 0o500), (deep.clone(), 0)] {
            set(&folder, rights);
        }
        for folder in [&letters, &transcripts] {
            fs::create_dir(folder).unwrap();
            set(folder, 0o700);
        }
        unlock(&places).unwrap();
        let opened = |folder: &Path| mode(folder) & 0o1770 == 0o770;
        for folder in [&letters, &transcripts, &deep, &deep.join("b"), &deep.join("b/c")] {
            assert!(opened(folder), "{}: {:o}", folder.display(), mode(folder));
        }
        assert_eq!((mode(&deep.join("b/c/key")), mode(&deep.join("b/run.sh"))), (0o600, 0o750));
        assert_eq!(mode(&outside.path().join("theirs")), 0o700, "what a link leads to is not the agent's");
        unlock(&places).unwrap();
    }

    #[test]
    fn more_than_may_be_passed_is_told_with_the_place() {
        let (_root, places) = agents();
        let workspace = places.workspace();
        for n in 0..10 {
            fs::create_dir(workspace.join(n.to_string())).unwrap();
        }
        let later = Instant::now() + WITHIN;
        below(&places, &workspace, 10, later).unwrap();
        let told = |shut: Result<(), UnlockError>| shut.unwrap_err().to_string();
        assert_eq!(
            told(below(&places, &workspace, 9, later)),
            "/workspace holds more entries than could be visited in 20 s"
        );
        let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert!(told(below(&places, &workspace, 10, past)).starts_with("/workspace holds more"));
    }
}
