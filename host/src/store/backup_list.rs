//! The verified copies in `backups/`: which there are, and which one to restore.
//!
//! A copy's name is the time at which it was made. Nothing here opens a copy.

#![allow(clippy::disallowed_methods, reason = "the folder of copies")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::domain::WallMs;

/// Lists the copies in `folder`, oldest first. A copy whose name is later than `now` comes first: the clock was wrong
/// when it was made, so its age is unknown.
pub fn copies(folder: &Path, now: WallMs) -> Vec<PathBuf> {
    let name_fits = |path: &PathBuf| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("lazaret-") && name.ends_with(".db")
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(name_fits).collect();
    found.sort_by_cached_key(|path| (made_at(path).is_none_or(|at| at <= now), path.clone()));
    found
}

/// The time in a copy's name.
pub fn made_at(copy: &Path) -> Option<WallMs> {
    let name = copy.file_stem()?.to_str()?.strip_prefix("lazaret-")?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", name).ok()?;
    Some(WallMs(jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?.as_millisecond()))
}

/// The commands that repair a damaged or missing database.
pub fn remedy(path: &Path) -> String {
    let folder = path.with_file_name("backups");
    match copies(&folder, Clock::new().wall()).pop() {
        Some(newest) => format!("put back the newest copy: lazaret restore {}", newest.display()),
        None => format!(
            "there is no copy in {}; put back one of yours: lazaret restore FILE, or begin anew: \
             lazaret up --begin-anew",
            folder.display()
        ),
    }
}
