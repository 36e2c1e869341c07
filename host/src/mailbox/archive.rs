//! Copies of all letters, in `state/letters/<group>/<run>/`: the exact bytes, for the operator. No box sees them.

#![allow(clippy::disallowed_methods, reason = "state/letters, which no box sees")]

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub const REJECTED: &str = "rejected";
/// The gateway writes the model exchanges of the run there.
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
    /// What mkdir(2) says.
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

    /// Copies a letter that the host wrote. A later one of the same name replaces it.
    pub fn keep(&self, folder: &str, name: &str, bytes: &[u8]) {
        let path = self.dir.join(folder).join(name);
        log_failure(&path, write(fs::OpenOptions::new().create(true).truncate(true), &path, bytes));
    }

    /// Copies a letter from the box. The first one of a name stays: a box can write the name again after the host took
    /// the letter, and must not change what the operator reads.
    pub fn keep_first(&self, folder: &str, name: &str, bytes: &[u8]) {
        let path = self.dir.join(folder).join(name);
        match write(fs::OpenOptions::new().create_new(true), &path, bytes) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            done => log_failure(&path, done),
        }
    }

    /// Copies a refused letter under its name or, if that exists, under a numbered one. A hundred of one name are
    /// enough to see what the box does.
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

/// A failed copy costs a line in the log, never a letter: the store has the truth.
fn log_failure(path: &Path, done: io::Result<()>) {
    if let Err(e) = done {
        tracing::warn!(code = "letters.copy", "{} was not written: {e}", path.display());
    }
}
