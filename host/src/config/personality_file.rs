//! `CLAUDE.md`: the owner's file, which an agent may ask to change.
//!
//! The owner may edit the file at any time, so the host must not overwrite a text that the agent has not seen. The host
//! writes the new text beside the file and exchanges the two in one step (renameat2(2), RENAME_EXCHANGE). If the text
//! that comes out is not the one that the agent knew, the host exchanges them back.

#![allow(clippy::disallowed_methods, reason = "CLAUDE.md of a group and what lies beside it, in no mount")]

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ipc_schema::letters::to_agent::Text;
use ipc_schema::requests::UpdatePersonality;
use ipc_schema::{escaped, sha256_hex};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::policy::letter_room;

/// The longest text that is given to an agent, and that it may write.
const MAX_BYTES: usize = UpdatePersonality::TEXT_MAX_BYTES;

/// A personality as an agent gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Personality {
    pub text: Text,
    /// Whether the file is longer than an agent gets.
    pub cut: bool,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The agent has read an older text.
    #[error(
        "CLAUDE.md is not the text that you were given: somebody has changed it meanwhile, or it is too long to be given \
         whole. Ask the owner, or wait for the next session"
    )]
    Conflict,
    /// Nothing was changed before.
    #[error("there is no earlier personality to go back to")]
    NothingToUndo,
    #[error("{path} cannot be changed: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Reads a personality, or the beginning of one that is too long. `None` when there is no file.
///
/// # Errors
/// The reason in words, when the file cannot be read or is not UTF-8. The caller logs it and goes on without a
/// personality.
pub fn read(path: &Path) -> Result<Option<Personality>, String> {
    let read = std::fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut bytes = match read {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{} cannot be read: {e}", path.display())),
    };
    let sha256 = sha256_hex(&bytes);
    let long = bytes.len() > MAX_BYTES;
    if long {
        bytes.truncate(MAX_BYTES);
        // The end may be in the middle of a character.
        let whole = std::str::from_utf8(&bytes);
        let whole = whole.err().filter(|e| e.error_len().is_none()).map_or(bytes.len(), |e| e.valid_up_to());
        bytes.truncate(whole);
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    let room = escaped::len(&text);
    let cut = long || room > UpdatePersonality::ESCAPED_MAX_BYTES;
    // At least the mark of a cut text must have its place.
    let most = UpdatePersonality::ESCAPED_MAX_BYTES.min(room.saturating_sub(1));
    let text = Text { text, sha256 };
    Ok(Some(Personality { text: if cut { letter_room::cut_text(text, most) } else { text }, cut }))
}

/// Writes `text` over a file whose digest is `base` (`None`: there is no file), and keeps the old text beside it as
/// `CLAUDE.md.previous`. Returns the new digest. It may be called again after a crash, wherever the first call ended:
/// a text that is there already changes nothing.
///
/// # Errors
/// [`ChangeError::Conflict`] when the file has another digest. It stays as it was then.
pub fn replace(path: &Path, text: &str, base: Option<&str>) -> Result<String, ChangeError> {
    let failed = |source: io::Error| ChangeError::Io { path: path.to_owned(), source };
    let (staged, wanted) = (beside(path, ".staged"), sha256_hex(text.as_bytes()));
    if std::fs::read(path).is_ok_and(|now| sha256_hex(&now) == wanted) {
        keep_interrupted(path, &staged, base).map_err(failed)?;
        return Ok(wanted);
    }
    stage(&staged, text).map_err(failed)?;
    match base {
        None => match renameat_with(CWD, &staged, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(e) => {
                // Nothing was exchanged, so the staged file is the host's.
                let _ = std::fs::remove_file(&staged);
                Err(if e == rustix::io::Errno::EXIST { ChangeError::Conflict } else { failed(e.into()) })
            }
        },
        Some(base) => exchange(path, &staged, base),
    }?;
    Ok(wanted)
}

/// Ends a change whose host died between the exchange and the renaming of the old text.
fn keep_interrupted(path: &Path, staged: &Path, base: Option<&str>) -> io::Result<()> {
    match std::fs::read(staged) {
        Ok(came_out) if Some(sha256_hex(&came_out).as_str()) == base => {
            std::fs::rename(staged, beside(path, ".previous"))
        }
        _ => Ok(()),
    }
}

/// Exchanges the file with the one before it.
///
/// # Errors
/// [`ChangeError::NothingToUndo`] when there is none.
pub fn undo(path: &Path) -> Result<(), ChangeError> {
    let previous = beside(path, ".previous");
    renameat_with(CWD, &previous, CWD, path, RenameFlags::EXCHANGE).map_err(|e| match e {
        rustix::io::Errno::NOENT => ChangeError::NothingToUndo,
        e => ChangeError::Io { path: path.to_owned(), source: e.into() },
    })
}

/// After the exchange the staged name holds the owner's text, so it may only be renamed from then on, not removed.
fn exchange(path: &Path, staged: &Path, base: &str) -> Result<(), ChangeError> {
    let failed = |source: io::Error| ChangeError::Io { path: path.to_owned(), source };
    let swap = || renameat_with(CWD, staged, CWD, path, RenameFlags::EXCHANGE);
    if let Err(e) = swap() {
        let _ = std::fs::remove_file(staged);
        // The owner has removed the file: that is a change too.
        return Err(if e == rustix::io::Errno::NOENT { ChangeError::Conflict } else { failed(e.into()) });
    }
    let kept = match std::fs::read(staged) {
        Ok(came_out) if sha256_hex(&came_out) == base => {
            std::fs::rename(staged, beside(path, ".previous")).map_err(failed)
        }
        Ok(_) => Err(ChangeError::Conflict),
        Err(e) => Err(failed(e)),
    };
    if kept.is_err() {
        swap().map_err(|e| failed(e.into()))?;
        let _ = std::fs::remove_file(staged);
    }
    kept
}

fn stage(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("CLAUDE.md");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_change_keeps_what_was_there_and_can_be_undone() {
        let (_dir, path) = file("Be kind.");
        let base = read(&path).unwrap().unwrap().text.sha256;
        let new = replace(&path, "Be short.", Some(&base)).unwrap();
        let text = Text { text: "Be short.".into(), sha256: new };
        assert_eq!(read(&path).unwrap().unwrap(), Personality { text, cut: false });
        undo(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "Be kind.");
    }

    #[test]
    fn a_change_that_a_host_died_over_is_made_again() {
        let (_dir, path) = file("Be kind.");
        let base = sha256_hex(b"Be kind.");
        // It died after the exchange: the old text lies under the staged name.
        std::fs::write(beside(&path, ".staged"), "Be kind.").unwrap();
        std::fs::write(&path, "Be short.").unwrap();
        let new = replace(&path, "Be short.", Some(&base)).unwrap();
        assert_eq!(replace(&path, "Be short.", Some(&base)).unwrap(), new, "or after all of it");
        undo(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "Be kind.");
    }

    #[test]
    fn the_owners_edit_meanwhile_wins() {
        let (_dir, path) = file("Be kind.");
        let base = sha256_hex(b"Be kind.");
        std::fs::write(&path, "Be kind, and quick.").unwrap();
        assert!(matches!(replace(&path, "Be evil.", Some(&base)), Err(ChangeError::Conflict)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "Be kind, and quick.");
        assert!(
            matches!(replace(&path, "Be evil.", None), Err(ChangeError::Conflict)),
            "a file that appeared"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(
            matches!(replace(&path, "Be evil.", Some(&base)), Err(ChangeError::Conflict)),
            "one that went"
        );
        assert!(matches!(undo(&path), Err(ChangeError::NothingToUndo)));
    }

    #[test]
    fn an_unreadable_personality_is_a_reason_not_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&dir.path().join("CLAUDE.md")), Ok(None));
        assert!(read(dir.path()).unwrap_err().contains("cannot be read"));
        let path = dir.path().join("bytes");
        std::fs::write(&path, [0xff]).unwrap();
        assert!(read(&path).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn g5_a_personality_that_is_too_long_is_given_up_to_the_bound_and_cannot_be_replaced() {
        for whole in ["ä".repeat(MAX_BYTES), "\u{1}".repeat(MAX_BYTES / 2), "x".repeat(MAX_BYTES + 1)] {
            let (_dir, path) = file(&whole);
            let Personality { text, cut } = read(&path).unwrap().unwrap();
            assert!(cut && escaped::len(&text.text) <= UpdatePersonality::ESCAPED_MAX_BYTES);
            assert!(text.text.len() > 12_000 && text.text.starts_with(&whole[..12_000]));
            // The agent does not know the end, so it cannot decide about it.
            assert!(matches!(replace(&path, "Be short.", Some(&text.sha256)), Err(ChangeError::Conflict)));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        }
    }
}
