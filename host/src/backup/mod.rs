//! Copies an install: its database (`maintenance` each night, `lazaret backup` by hand), or the whole install in one
//! archive (`lazaret backup --all`). Only [`restore`] and [`rotate`] change an install.

mod archive;
#[cfg(test)]
mod archive_tests;
mod entry_names;
mod layout;
mod restore;
mod tree;

use std::path::PathBuf;
use std::time::Duration;

pub use archive::{Links, write};
#[cfg(any(test, fuzzing))]
pub use restore::fuzz;
pub use restore::{is_archive, restore};

use crate::config::Root;
use crate::domain::WallMs;
use crate::host_files;
use crate::policy::nightly::is_fuller;
use crate::store::{self, Copied, StoreError};

/// Why a copy or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be copied or put back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read, written or renamed.
    #[error("{path}: {why}")]
    File { path: PathBuf, why: String },
    /// The archive is damaged, or is not one of Lazaret's.
    #[error("{path} cannot be restored ({why}); nothing was changed, use another archive")]
    Archive { path: PathBuf, why: String },
}

impl BackupError {
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

/// Formats a time for the names of copies. Sorted names are in the order of time.
pub fn stamp(now: WallMs) -> String {
    let text = now.rfc3339();
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

/// Finds the newest copy in the folder of copies. It ignores copies with a future time, because the clock was wrong
/// then. A copy gets its name only after it was verified.
pub fn newest(root: &Root, now: WallMs) -> Option<(PathBuf, WallMs)> {
    let copies = store::copies(&root.backups(), now).into_iter().rev();
    copies.filter_map(|path| store::made_at(&path).map(|at| (path, at))).find(|(_, at)| *at <= now)
}

/// Makes a verified copy in the folder of copies.
///
/// # Errors
/// The error of [`store::back_up`].
pub fn nightly(root: &Root, now: WallMs) -> Result<Copied, BackupError> {
    let folder = folder(root)?;
    Ok(store::back_up(&root.database(), &folder.join(format!("lazaret-{}.db", stamp(now))))?)
}

/// Removes all but `keep` copies: first those with a future time, then the oldest. A copy that is much fuller than the
/// newest one stays. Also removes partial copies that a crash left. Returns how many copies it removed.
///
/// # Errors
/// The error of unlink(2).
pub fn rotate(root: &Root, keep: usize, now: WallMs) -> Result<usize, BackupError> {
    let copies = store::copies(&root.backups(), now);
    // One copy always stays, because it is needed to repair a damaged database.
    let surplus = copies.len().saturating_sub(keep.max(1));
    let newest = copies.last().and_then(|path| store::messages_in(path));
    let mut gone = 0;
    for copy in copies.iter().take(surplus) {
        if is_fuller(store::messages_in(copy), newest) {
            tracing::warn!(
                code = "backup.fuller",
                "{} stays: it holds far more messages than the newest copy. If the database has lost some, \
                 put it back: lazaret restore {0}. If not, remove it",
                copy.display()
            );
            continue;
        }
        host_files::remove(copy).map_err(|e| BackupError::file(copy, e))?;
        gone += 1;
    }
    let cut = |path: &PathBuf| path.extension().is_some_and(|e| e == "part");
    let old = |path: &PathBuf| {
        let age = host_files::changed(path).ok().and_then(|at| at.elapsed().ok());
        // `lazaret backup` may still be writing a younger one in the same folder.
        age.is_some_and(|age| age > Duration::from_secs(24 * 3600))
    };
    for left in host_files::inside(&root.backups()).into_iter().filter(cut).filter(old) {
        host_files::remove(&left).map_err(|e| BackupError::file(&left, e))?;
    }
    Ok(gone)
}

/// Makes the folder of copies, which only the host's user can read.
///
/// # Errors
/// The folder cannot be made.
pub fn folder(root: &Root) -> Result<PathBuf, BackupError> {
    let folder = root.backups();
    host_files::dir(&folder, 0o700).map_err(|e| BackupError::file(&folder, e))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Zone;
    use crate::policy::nightly;
    use std::fs;

    /// 21 November 2026, 11:33 in the morning.
    const NOW: WallMs = WallMs(1_795_260_780_000);

    #[test]
    fn a_copys_name_is_its_time() {
        let at = WallMs(1_795_000_000_000);
        assert_eq!(stamp(at), "20261118T110640Z");
        assert_eq!(store::made_at(std::path::Path::new("/x/lazaret-20261118T110640Z.db")), Some(at));
        assert_eq!(store::made_at(std::path::Path::new("/x/lazaret-mine.db")), None);
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
        assert_eq!(rotate(&root, 2, NOW).unwrap(), 1);
        assert!(!folder.join("lazaret-20261119T030000Z.db").exists());
        assert_eq!(rotate(&root, 0, NOW).unwrap(), 1);
        assert!(newest(&root, NOW).unwrap().0.ends_with("lazaret-20261121T030000Z.db"));
        assert!(folder.join("mine.db").exists());
    }

    #[test]
    fn copies_of_an_emptier_database_push_out_no_fuller_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        let folder = folder(&root).unwrap();
        let copy_with = |day: u8, messages: u64| {
            let path = folder.join(format!("lazaret-202611{day}T030000Z.db"));
            let copy = rusqlite::Connection::open(&path).unwrap();
            copy.execute_batch("CREATE TABLE message (seq INTEGER PRIMARY KEY)").unwrap();
            for _ in 0..messages {
                copy.execute("INSERT INTO message DEFAULT VALUES", []).unwrap();
            }
        };
        [(11, 3), (12, 5), (13, 5)].into_iter().for_each(|(day, messages)| copy_with(day, messages));
        assert_eq!(rotate(&root, 2, NOW).unwrap(), 1, "the database grows: the oldest goes");
        [(14, 0), (15, 0), (16, 1)].into_iter().for_each(|(day, messages)| copy_with(day, messages));
        rotate(&root, 2, NOW).unwrap();
        let left: Vec<String> =
            store::copies(&folder, NOW).iter().map(|path| path.display().to_string()).collect();
        let days: Vec<&str> = left.iter().map(|path| &path[path.len() - 13..path.len() - 11]).collect();
        assert_eq!(days, ["12", "13", "15", "16"], "two as they are kept, and the two that hold more");
        copy_with(17, 4);
        assert_eq!(rotate(&root, 2, NOW).unwrap(), 3, "the database has caught up");
    }

    #[test]
    fn a_copy_of_next_year_costs_no_other_copy_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        fs::create_dir_all(root.state()).unwrap();
        drop(store::Store::open(&root.database()).unwrap());
        let folder = folder(&root).unwrap();
        let of_next_year = folder.join("lazaret-20271118T030000Z.db");
        fs::write(&of_next_year, "").unwrap();
        for day in 15..=20 {
            fs::write(folder.join(format!("lazaret-202611{day}T030000Z.db")), "").unwrap();
        }
        let mut made = 0;
        for minute in 0..10 {
            let now = NOW.plus(Duration::from_secs(60 * minute));
            let last = newest(&root, now).map(|(_, at)| at);
            if nightly::due(now, &Zone::utc(), 3, Duration::ZERO, last) {
                nightly(&root, now).unwrap();
                rotate(&root, 7, now).unwrap();
                made += 1;
            }
        }
        assert_eq!(made, 1, "it is made up for once");
        let left = store::copies(&folder, NOW);
        assert!(left.len() == 7 && !of_next_year.exists(), "{left:?}");
    }
}
