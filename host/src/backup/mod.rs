//! Copies of an install: of its database, each night and by hand, and of everything that it is, in one archive.

mod archive;
mod tree;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

pub use archive::{is_archive, restore, write};

use crate::config::Root;
use crate::disk;
use crate::domain::WallMs;
use crate::store::{self, Copied, StoreError};

/// Why there is no copy, or no restore.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The archive is not what was written.
    #[error("{path} is no archive that can be restored ({why}); nothing was changed, take another one")]
    Archive {
        /// Which.
        path: PathBuf,
        /// What was found.
        why: String,
    },
}

impl BackupError {
    /// The machine's word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(e) => e.code(),
            Self::File { .. } => "backup.file",
            Self::Archive { .. } => "backup.archive",
        }
    }

    fn file(path: impl Into<PathBuf>, e: impl ToString) -> Self {
        Self::File { path: path.into(), why: e.to_string() }
    }

    fn archive(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self::Archive { path: path.into(), why: why.into() }
    }
}

/// A time as it stands in the names of copies: their order is the order of time.
pub fn stamp(now: WallMs) -> String {
    let text = now.rfc3339();
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

/// When the copy of this name was made.
pub fn made_at(copy: &std::path::Path) -> Option<WallMs> {
    let name = copy.file_stem()?.to_str()?.strip_prefix("lazaret-")?;
    let time = chrono::NaiveDateTime::parse_from_str(name, "%Y%m%dT%H%M%SZ").ok()?;
    Some(WallMs(time.and_utc().timestamp_millis()))
}

/// The newest copy in the folder of copies. What has its name there was verified.
pub fn newest(root: &Root) -> Option<(PathBuf, WallMs)> {
    let copies = store::copies(&root.backups());
    copies.into_iter().rev().find_map(|path| made_at(&path).map(|at| (path, at)))
}

/// Makes a verified copy in the folder of copies.
///
/// # Errors
/// What [`store::back_up`] says.
pub fn nightly(root: &Root, now: WallMs) -> Result<Copied, BackupError> {
    let folder = folder(root)?;
    Ok(store::back_up(&root.database(), &folder.join(format!("lazaret-{}.db", stamp(now))))?)
}

/// Removes the oldest copies above `keep`, and what a kill left half-made. Returns how many went.
///
/// # Errors
/// What unlink(2) says.
pub fn rotate(root: &Root, keep: usize) -> Result<usize, BackupError> {
    let copies = store::copies(&root.backups());
    // The newest stays, whatever the setting says: it is what a damaged database is mended with.
    let gone = copies.len().saturating_sub(keep.max(1));
    for copy in copies.iter().take(gone) {
        disk::remove(copy).map_err(|e| BackupError::file(copy, e))?;
    }
    let cut = |path: &PathBuf| path.extension().is_some_and(|e| e == "part");
    let old = |path: &PathBuf| {
        let age = fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        // A younger one may still be written: a copy by hand has the same folder.
        age.is_some_and(|age| age > Duration::from_secs(24 * 3600))
    };
    let entries = fs::read_dir(root.backups()).into_iter().flatten().flatten().map(|e| e.path());
    for left in entries.filter(cut).filter(old) {
        disk::remove(&left).map_err(|e| BackupError::file(&left, e))?;
    }
    Ok(gone)
}

/// The folder of copies: nobody else's to read.
pub fn folder(root: &Root) -> Result<PathBuf, BackupError> {
    let folder = root.backups();
    fs::create_dir_all(&folder)
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
        .map_err(|e| BackupError::file(&folder, e))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copys_name_is_its_time() {
        let at = WallMs(1_795_000_000_000);
        assert_eq!(stamp(at), "20261118T110640Z");
        assert_eq!(made_at(std::path::Path::new("/x/lazaret-20261118T110640Z.db")), Some(at));
        assert_eq!(made_at(std::path::Path::new("/x/lazaret-mine.db")), None);
    }

    #[test]
    fn the_newest_copies_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        let folder = folder(&root).unwrap();
        for day in ["20", "19", "21"] {
            fs::write(folder.join(format!("lazaret-202611{day}T030000Z.db")), day).unwrap();
        }
        fs::write(folder.join("mine.db"), "kept").unwrap();
        assert_eq!(rotate(&root, 2).unwrap(), 1);
        assert!(!folder.join("lazaret-20261119T030000Z.db").exists());
        assert_eq!(rotate(&root, 0).unwrap(), 1);
        assert!(newest(&root).unwrap().0.ends_with("lazaret-20261121T030000Z.db"));
        assert!(folder.join("mine.db").exists());
    }
}
