//! Copies of all letters with their exact bytes, in `state/letters/<group>/<run>/`. They are for the operator, and no
//! box sees them.

#![allow(clippy::disallowed_methods, reason = "state/letters, which no box sees")]

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub const REJECTED: &str = "rejected";
/// The directory in which the gateway writes the run's exchanges with the model.
pub const MODEL: &str = "model";

/// The copies of one run's letters.
#[derive(Debug, Clone)]
pub struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// Creates the folders.
    ///
    /// # Errors
    /// The error of mkdir(2).
    pub fn open(dir: &Path) -> io::Result<Self> {
        for folder in
            [ipc_schema::names_and_paths::TO_AGENT, ipc_schema::names_and_paths::FROM_AGENT, MODEL, REJECTED]
        {
            let path = dir.join(folder);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o750))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Copies a letter that the host wrote. It replaces an earlier copy with the same name.
    pub fn keep(&self, folder: &str, name: &str, bytes: &[u8]) {
        let path = self.dir.join(folder).join(name);
        log_failure(&path, write(fs::OpenOptions::new().create(true).truncate(true), &path, bytes));
    }

    /// Copies a letter from the box. It keeps the first copy of a name, because a box can write the same name again
    /// after the host took the letter, and must not change what the operator reads.
    pub fn keep_first(&self, folder: &str, name: &str, bytes: &[u8]) {
        let path = self.dir.join(folder).join(name);
        match write(fs::OpenOptions::new().create_new(true), &path, bytes) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            done => log_failure(&path, done),
        }
    }

    /// Copies a refused letter under its name or, if that exists, under a numbered one. A hundred copies of a name are
    /// enough to show what the box does.
    pub fn reject(&self, name: &str, bytes: &[u8]) {
        for n in 0..100 {
            let numbered = if n == 0 { name.to_owned() } else { format!("{name}.{n}") };
            let path = self.dir.join(REJECTED).join(numbered);
            match write(fs::OpenOptions::new().create_new(true), &path, bytes) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                done => return log_failure(&path, done),
            }
        }
    }
}

fn write(options: &mut fs::OpenOptions, path: &Path, bytes: &[u8]) -> io::Result<()> {
    options.write(true).mode(0o640).open(path).and_then(|mut file| io::Write::write_all(&mut file, bytes))
}

/// A failed copy costs only a line in the log, because the store has the letter's data.
fn log_failure(path: &Path, done: io::Result<()>) {
    if let Err(e) = done {
        tracing::warn!(code = "letters.copy", "{} was not written: {e}", path.display());
    }
}
