//! Gives each session a folder of its own below the group's transcripts. A box mounts the folder of its session only.
//! So after `/new` no box can read or write what was said before, and the transcripts of ended sessions need no copy.
//! The nightly retention removes them. `launch` calls this module before it makes a box.
//!
//! Only a session that a run has used can have a transcript. What lies under the name of a new one is moved aside.
//!
//! Earlier versions kept all transcripts of a group in one folder, and their boxes mounted it. What lies there may be
//! anything that an agent made, so the host follows no link in it and only renames.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use ipc_schema::untrusted_fs::{Kind, UntrustedDir};

use crate::domain::Session;
use crate::host_files::shared_dir;

/// The texts that compaction replaced.
const ARCHIVE: &str = "archive";
/// The host looks at this many names for those of a session.
const NAMES: usize = 100_000;

/// Makes the folder of `session` below `sessions`.
///
/// # Errors
/// It cannot be made.
pub(super) fn make(sessions: &Path, session: &Session, gid: u32) -> io::Result<PathBuf> {
    let (folder, name) = (sessions.join(&session.name), OsStr::new(&session.name));
    let parent = UntrustedDir::open(sessions)?;
    match parent.look(name) {
        Ok(entry) if session.begun && entry.kind == Kind::Folder => {
            // An agent may have made it in the time of an earlier version, and only the owner can change its rights.
            if entry.uid != rustix::process::geteuid().as_raw() {
                let _ = shared_dir(&folder, gid, 0o2770);
                return Ok(folder);
            }
        }
        // The engine would follow a link that an agent made in the time of an earlier version.
        Ok(_) => {
            let aside = format!("{}.aside-{}", session.name, uuid::Uuid::new_v4());
            parent.rename(name, aside.as_ref())?;
            tracing::warn!(aside, "something lay in the place of a session and was moved aside");
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    shared_dir(&folder, gid, 0o2770)?;
    Ok(folder)
}

/// Moves the files of `session` that an earlier version left directly in `sessions` into the session's folder. The
/// transcript is last, so that a next call finishes what a crash interrupted.
///
/// # Errors
/// The transcript cannot be moved.
pub(super) fn take_over(sessions: &Path, session: &str) -> io::Result<()> {
    let from = UntrustedDir::open(sessions)?;
    let transcript = OsString::from(format!("{session}.jsonl"));
    if from.look(&transcript).is_err() {
        return Ok(());
    }
    let to = from.folder(session.as_ref())?;
    let own = |name: &OsStr| {
        let rest = name.to_str().and_then(|name| name.strip_prefix(session));
        rest.is_some_and(|rest| rest.starts_with(['-', '.'])) && name != transcript
    };
    move_all(&from, &to, own)?;
    if let Ok(archive) = from.folder(ARCHIVE.as_ref())
        && let Ok(to) = to.shared_folder(ARCHIVE.as_ref())
    {
        move_all(&archive, &to, own)?;
    }
    from.move_name(&transcript, &to)
}

fn move_all(from: &UntrustedDir, to: &UntrustedDir, own: impl Fn(&OsStr) -> bool) -> io::Result<()> {
    let names = from.names(NAMES)?.names;
    names.iter().filter(|name| own(name)).try_for_each(|name| from.move_name(name, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn made(sessions: &Path, name: &str, begun: bool) -> PathBuf {
        let gid = rustix::process::getegid().as_raw();
        make(sessions, &Session { name: name.into(), begun }, gid).unwrap()
    }

    #[test]
    fn g3_what_lies_under_the_name_of_a_new_session_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("conversation-2")).unwrap();
        fs::write(at("conversation-2/conversation-2.jsonl"), "forged").unwrap();
        fs::write(at("conversation-3"), "no folder").unwrap();
        for name in ["conversation-2", "conversation-3", "conversation-4"] {
            assert_eq!(fs::read_dir(made(dir.path(), name, false)).unwrap().count(), 0, "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5, "nothing is removed");
        fs::write(at("conversation-4/conversation-4.jsonl"), "its own").unwrap();
        assert_eq!(fs::read_dir(made(dir.path(), "conversation-4", true)).unwrap().count(), 1);
    }

    #[test]
    fn a_session_that_an_earlier_version_began_goes_on_in_its_folder_and_the_others_stay_outside() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("archive")).unwrap();
        let (own, others) = (
            ["conversation-1.jsonl", "conversation-1.damaged-2.jsonl", "archive/conversation-1-1-9.md"],
            ["conversation-11.jsonl", "conversation-0.jsonl", "archive/conversation-0-1-9.md", "notes.txt"],
        );
        for name in own.iter().chain(&others) {
            fs::write(at(name), name).unwrap();
        }
        let folder = made(dir.path(), "conversation-1", true);
        // A host that died half-way has moved some of them.
        fs::create_dir(folder.join("archive")).unwrap();
        fs::rename(at(own[1]), folder.join(own[1])).unwrap();
        for _ in 0..2 {
            assert_eq!(made(dir.path(), "conversation-1", true), folder);
            take_over(dir.path(), "conversation-1").unwrap();
        }
        for name in own {
            assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), name);
            assert!(!at(name).exists(), "{name}");
        }
        assert!(others.iter().all(|name| at(name).exists()));
    }

    #[test]
    fn a15_nothing_that_an_agent_put_in_the_way_is_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| dir.path().join(name);
        symlink(outside.path(), at("conversation-2")).unwrap();
        symlink(outside.path(), at("archive")).unwrap();
        fs::write(outside.path().join("conversation-2-1-9.md"), "the host's").unwrap();
        symlink("/etc/passwd", at("conversation-2.jsonl")).unwrap();
        let folder = made(dir.path(), "conversation-2", true);
        assert!(fs::symlink_metadata(&folder).unwrap().is_dir(), "the link is gone");
        take_over(dir.path(), "conversation-2").unwrap();
        assert!(outside.path().join("conversation-2-1-9.md").exists());
        let moved = fs::symlink_metadata(folder.join("conversation-2.jsonl")).unwrap();
        assert!(moved.is_symlink(), "the runner refuses to follow it, and the host does not read it");
        // What the session's folder has already is the newer one.
        fs::write(at("conversation-2.jsonl"), "another").unwrap();
        take_over(dir.path(), "conversation-2").unwrap();
        assert!(at("conversation-2.jsonl").exists());
    }
}
