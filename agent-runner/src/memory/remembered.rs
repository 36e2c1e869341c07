//! How far into a session the agent has been asked what to remember: a number in `/session/NAME.remembered`, so that a
//! restart does not ask again. A file that cannot be read or written only means that the agent is asked once more.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use ipc_schema::untrusted_fs::UntrustedDir;

/// The number of the newest transcript entry that the agent has been asked about; 0 if none.
pub fn load(dir: &Path, session: &str) -> u64 {
    let read = UntrustedDir::open(dir).ok().and_then(|dir| dir.read_stamped(name(session).as_ref(), 32).ok());
    read.and_then(|(bytes, _)| std::str::from_utf8(&bytes).ok()?.trim().parse().ok()).unwrap_or(0)
}

/// Records it.
///
/// # Errors
/// What the system says.
pub fn store(dir: &Path, session: &str, entry: u64) -> io::Result<()> {
    let dir = UntrustedDir::open(dir)?;
    dir.unlink(&name(session))?;
    dir.replace(&name(session), entry.to_string().as_bytes(), None).map(|_| ())
}

fn name(session: &str) -> OsString {
    format!("{session}.remembered").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_about_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path(), "s"), 0);
        store(dir.path(), "s", 7).unwrap();
        store(dir.path(), "s", 12).unwrap();
        assert_eq!((load(dir.path(), "s"), load(dir.path(), "other")), (12, 0));
        std::fs::write(dir.path().join("s.remembered"), "many").unwrap();
        assert_eq!(load(dir.path(), "s"), 0);
    }
}
