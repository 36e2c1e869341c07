//! `state/letters/<group>/<run>/`: the exact bytes of every letter, host only, during and after.

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
        for folder in [ipc_schema::layout::TO_AGENT, ipc_schema::layout::FROM_AGENT, MODEL, REJECTED] {
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

    /// Keeps a copy. A copy that cannot be kept costs a line in the log, never a letter: the store has the truth.
    pub fn keep(&self, folder: &str, name: &str, bytes: &[u8]) {
        let path = self.dir.join(folder).join(name);
        let kept = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, bytes));
        if let Err(e) = kept {
            tracing::warn!(code = "letters.copy", "{} was not kept: {e}", path.display());
        }
    }
}
