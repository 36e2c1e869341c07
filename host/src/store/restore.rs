//! Replaces the database with a copy. `lazaret restore` calls it while the host is down, and holds the host's lock.
//!
//! One rename is the whole change, as in an upgrade, with two more dangers:
//!
//! - The present file may be so damaged that SQLite cannot empty its WAL. Then file and WAL are kept together under a
//!   new name, and a marker refuses every opening until the new file is in place.
//! - Transcripts may be newer than the copy and hold messages that the copy does not know. The host would give the same
//!   numbers to other messages, and the runner would skip those as already seen. So the numbers continue from where the
//!   replaced database was.

#![allow(clippy::disallowed_methods, reason = "the database and the copy that replaces it")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::groups::{FIRST_UID, LAST_UID};
use super::open::{Identity, Marker, identify, marker_path, write_marker};
use super::{HISTORY_INDEX, HistoryIndex, Result, StoreError, copy, migrations, schema_upgrade};
use crate::host_files;

/// Added to every counter if the replaced database cannot be read: more than a host uses between two copies.
const COUNTER_GAP: i64 = 1_000_000;
/// Added to the counter of box users, of which there are fewer.
const UID_GAP: i64 = 1_000;

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The copy's schema. The next start migrates an older one.
    pub schema: i64,
    /// Rows of all tables.
    pub rows: u64,
    /// The new name of the database that was replaced.
    pub replaced: Option<PathBuf>,
}

/// How the transcripts on the disk relate to the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transcripts {
    /// They may be newer than the copy.
    MayBeNewer,
    /// They are older than the copy, or there are none: the copy's counters continue unchanged.
    MatchCopy,
}

/// Replaces `database` with the copy `from`. `stamp` becomes a part of the replaced file's name.
///
/// # Errors
/// [`StoreError::Damaged`] and [`StoreError::Newer`] for a copy that cannot be used, [`StoreError::Busy`] while another
/// program has the present database open. Nothing was changed then.
pub fn restore(database: &Path, from: &Path, transcripts: Transcripts, stamp: &str) -> Result<Restored> {
    let of_copy = |e: StoreError| match e.of_file(from) {
        StoreError::Damaged { why, .. } => {
            let remedy = "use another copy; the present database is unchanged".into();
            StoreError::Damaged { path: from.to_owned(), why, remedy }
        }
        other => other,
    };
    let staged = host_files::beside(database, ".restored");
    stage(from, &staged).map_err(of_copy)?;
    let counters = if transcripts == Transcripts::MayBeNewer { Some(counters_of(database)) } else { None };
    let found = prepare(&staged, counters).map_err(of_copy)?;
    let interrupted_before = marker_path(database, Marker::Restoring).exists();
    if !interrupted_before {
        begin_restore(database, from)?;
    }
    let (replaced, held) = match set_aside(database, stamp) {
        Ok(aside) => aside,
        Err(e) if interrupted_before => return Err(e),
        Err(e) => {
            let marker = marker_path(database, Marker::Restoring);
            host_files::remove(&marker).map_err(|e| StoreError::file(&marker, &e))?;
            return Err(e);
        }
    };
    let failed = |e| StoreError::file(database, &e);
    fs::rename(&staged, database).map_err(failed)?;
    host_files::sync_dir(database.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    drop(held);
    for marker in [Marker::Damaged, Marker::Open, Marker::Restoring] {
        let marker = marker_path(database, marker);
        host_files::remove(&marker).map_err(|e| StoreError::file(&marker, &e))?;
    }
    host_files::sync_dir(database.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    let rows = found.rows.values().map(|n| n.unsigned_abs()).sum();
    Ok(Restored { schema: found.schema, rows, replaced })
}

/// Writes the marker that refuses every opening until a restore has finished. `lazaret restore` of a whole archive
/// calls it before it changes the other files.
///
/// # Errors
/// [`StoreError::File`], [`StoreError::Full`], [`StoreError::ReadOnly`].
pub fn begin_restore(database: &Path, from: &Path) -> Result<()> {
    let why = format!("a restore was interrupted; repeat it: lazaret restore {}", from.display());
    write_marker(database, Marker::Restoring, &why)
}

/// Reads a copy completely and returns its schema and its number of rows.
///
/// # Errors
/// As [`restore`].
pub fn verify(file: &Path) -> Result<(i64, u64)> {
    let Identity::Lazaret(_) = identify(file)? else {
        return Err(StoreError::Rule(format!("there is no copy at {}", file.display())));
    };
    let found = copy::examine(file).map_err(|e| e.of_file(file))?;
    match found.unsound {
        Some(why) => Err(StoreError::damaged(file, why)),
        None => Ok((found.schema, found.rows.values().map(|n| n.unsigned_abs()).sum())),
    }
}

/// Returns the user of each group's boxes in a copy that was verified. A number that no box has is left out, because
/// files are given to these users.
///
/// # Errors
/// The copy cannot be read.
pub fn box_users(file: &Path) -> Result<BTreeMap<String, u32>> {
    let reader = copy::reader(file)?;
    let mut rows = reader.prepare("SELECT name, uid FROM grp WHERE uid BETWEEN ?1 AND ?2")?;
    let rows = rows.query_map([FIRST_UID, LAST_UID], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Copies the copy beside the database as one file, together with a WAL that somebody may have copied along with it.
fn stage(from: &Path, staged: &Path) -> Result<()> {
    for side in ["", "-wal", "-shm", "-journal"] {
        let left = host_files::beside(staged, side);
        host_files::remove(&left).map_err(|e| StoreError::file(&left, &e))?;
    }
    if identify(from)? == Identity::Absent {
        return Err(StoreError::Rule(format!("there is no copy at {}", from.display())));
    }
    for side in ["", "-wal"] {
        let (file, to) = (host_files::beside(from, side), host_files::beside(staged, side));
        if side.is_empty() || file.exists() {
            fs::copy(&file, &to)
                .and_then(|_| fs::set_permissions(&to, fs::Permissions::from_mode(0o600)))
                .map_err(|e| StoreError::file(&file, &e))?;
        }
    }
    drop(schema_upgrade::lock_exclusively(staged)?);
    Ok(())
}

/// Sets the counters of the staged copy, checks it and syncs it.
fn prepare(staged: &Path, counters: Option<Counters>) -> Result<copy::Examined> {
    if let Some(counters) = counters {
        let copy = schema_upgrade::writer(staged)?;
        counters.apply_to(&copy)?;
        copy.close().map_err(|(_, e)| StoreError::from(e))?;
    }
    let found = copy::examine(staged)?;
    if let Some(why) = found.unsound {
        return Err(StoreError::damaged(staged, why));
    }
    let schema = usize::try_from(found.schema).unwrap_or(0).min(migrations::MIGRATIONS.len());
    let made = migrations::MIGRATIONS.get(..schema).unwrap_or_default();
    migrations::check_tables(&copy::reader(staged)?, made, staged)?;
    host_files::sync(staged).map_err(|e| StoreError::file(staged, &e))?;
    Ok(found)
}

/// The highest numbers that a database has given out.
#[derive(Debug)]
struct Counters {
    /// Of each table with AUTOINCREMENT. `None`: the database cannot be read.
    rows: Option<Vec<(String, i64)>>,
    uid: Option<i64>,
}

fn counters_of(database: &Path) -> Counters {
    let read = || -> Result<Counters> {
        let reader = copy::reader(database)?;
        let mut rows = reader.prepare("SELECT name, seq FROM sqlite_sequence")?;
        let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let rows = rows.collect::<rusqlite::Result<_>>()?;
        let sql = "SELECT value FROM number WHERE name = 'uid'";
        let uid = reader.query_row(sql, [], |r| r.get(0)).optional()?;
        Ok(Counters { rows: Some(rows), uid })
    };
    read().unwrap_or(Counters { rows: None, uid: None })
}

impl Counters {
    fn apply_to(&self, copy: &Connection) -> Result<()> {
        match &self.rows {
            Some(rows) => {
                for (table, seq) in rows {
                    let sql = "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1";
                    if copy.execute(sql, params![table, seq])? == 0 {
                        let sql = "INSERT INTO sqlite_sequence SELECT ?1, ?2
                                   WHERE EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
                        copy.execute(sql, params![table, seq])?;
                    }
                }
                let sql = "UPDATE number SET value = max(value, ?1) WHERE name = 'uid'";
                copy.execute(sql, [self.uid.unwrap_or(0)])?;
            }
            None => {
                copy.execute("UPDATE sqlite_sequence SET seq = seq + ?1", [COUNTER_GAP])?;
                copy.execute("UPDATE number SET value = value + ?1 WHERE name = 'uid'", [UID_GAP])?;
            }
        }
        Ok(())
    }
}

/// Gives the present database, with its WAL, a second name. It keeps its own name until the copy takes that, and the
/// returned connection locks it until then: whatever another program wrote to it meanwhile would be lost.
pub(super) fn set_aside(database: &Path, stamp: &str) -> Result<(Option<PathBuf>, Option<Connection>)> {
    let (wal, shm) = (host_files::beside(database, "-wal"), host_files::beside(database, "-shm"));
    let remove = |path: &Path| host_files::remove(path).map_err(|e| StoreError::file(path, &e));
    // It is an index of the rows that leave.
    HistoryIndex::new(&database.with_file_name(HISTORY_INDEX)).remove();
    if !database.exists() {
        remove(&wal)?;
        remove(&shm)?;
        return Ok((None, None));
    }
    let held = match schema_upgrade::lock_exclusively(database) {
        Ok(held) => Some(held),
        Err(e @ StoreError::Busy(_)) => return Err(e),
        // The database is too damaged for SQLite: its files are kept unchanged.
        Err(_) => None,
    };
    let replaced = host_files::beside(database, &format!(".replaced-{stamp}"));
    schema_upgrade::link_or_copy(database, &replaced, held.as_ref())?;
    if held.is_none() && wal.exists() {
        schema_upgrade::link_or_copy(&wal, &host_files::beside(&replaced, "-wal"), None)?;
    }
    host_files::sync_dir(database.parent().unwrap_or(Path::new(".")))
        .map_err(|e| StoreError::file(&replaced, &e))?;
    remove(&wal)?;
    remove(&shm)?;
    Ok((Some(replaced), held))
}
