//! `state/letters/<group>/<run>/`: the exact bytes of every letter, host only, during and after.

#![allow(clippy::disallowed_methods, reason = "state/letters, which no box sees")]

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The folder of refused letters.
pub const REJECTED: &str = "rejected";
/// The folder of model exchanges.
pub const MODEL: &str = "model";

/// Where one run's copies go.
#[derive(Debug, Clone)]
pub struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// Makes the folders.
    ///
    /// # Errors
    /// What mkdir(2) says.
    pub fn open(dir: &Path) -> io::Result<Self> {
        for folder in [
            ipc_schema::directory_layout::TO_AGENT,
            ipc_schema::directory_layout::FROM_AGENT,
            MODEL,
            REJECTED,
        ] {
            let path = dir.join(folder);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o750))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps what the host wrote, the newest under its name.
    pub fn keep(&self, folder: &str, name: &str, bytes: &[u8]) {
        let path = self.dir.join(folder).join(name);
        note(&path, write(fs::OpenOptions::new().create(true).truncate(true), &path, bytes));
    }

    /// Keeps what the box wrote. The first letter of a name stands: a box can write the name again once the letter
    /// was taken, and must not change what the operator reads.
    pub fn keep_first(&self, folder: &str, name: &str, bytes: &[u8]) {
        let path = self.dir.join(folder).join(name);
        match write(fs::OpenOptions::new().create_new(true), &path, bytes) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            done => note(&path, done),
        }
    }

    /// Keeps a refused letter under its name and, where that is taken, under a numbered one; a hundred of a name are
    /// enough to see what is going on.
    pub fn reject(&self, name: &str, bytes: &[u8]) {
        for n in 0..100 {
            let numbered = if n == 0 { name.to_owned() } else { format!("{name}.{n}") };
            let path = self.dir.join(REJECTED).join(numbered);
            match write(fs::OpenOptions::new().create_new(true), &path, bytes) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                done => return note(&path, done),
            }
        }
    }
}

fn write(options: &mut fs::OpenOptions, path: &Path, bytes: &[u8]) -> io::Result<()> {
    options.write(true).mode(0o640).open(path).and_then(|mut file| io::Write::write_all(&mut file, bytes))
}

/// A copy that cannot be kept costs a line in the log, never a letter: the store has the truth.
fn note(path: &Path, done: io::Result<()>) {
    if let Err(e) = done {
        tracing::warn!(code = "letters.copy", "{} was not kept: {e}", path.display());
    }
}
