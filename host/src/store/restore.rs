//! A copy takes the database's place. The host is down and its lock is held by whoever calls this.
//!
//! The same one rename as an upgrade's, with two more dangers. The present file may be so damaged that its log cannot
//! be taken in: then file and log are kept together under a new name, and a note refuses every opening until the new
//! file is in place. And the copy is older than what lies around it: a transcript may hold messages that it does not
//! know, whose numbers it would give to other messages, which the runner would then pass over as known. So the
//! numbers go on from where the replaced database was.

#![allow(clippy::disallowed_methods, reason = "the database and what takes its place")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::open::{Beside, Look, beside, look, note};
use super::{Result, StoreError, copy, migrations, schema_upgrade};
use crate::disk;

/// How far numbers go on when the replaced database does not tell where it was: further than one comes between two
/// copies.
const LEAP: i64 = 1_000_000;
/// Box users are fewer.
const UID_LEAP: i64 = 1_000;

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The copy's schema; an older one is migrated by the next start.
    pub schema: i64,
    /// Rows of all tables.
    pub rows: u64,
    /// Where the database is now that was there before.
    pub replaced: Option<PathBuf>,
}

/// What lies around the database that is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// Transcripts that may be newer than the copy.
    Newer,
    /// Transcripts from before the copy, or none: its numbers go on as they are.
    Fitting,
}

/// Puts the copy `from` in the place of `database`. `stamp` names what was there.
///
/// # Errors
/// [`StoreError::Damaged`] and [`StoreError::Newer`] for a copy that cannot be used, [`StoreError::Busy`] while another
/// program has the present database open: nothing was changed then.
pub fn restore(database: &Path, from: &Path, around: Around, stamp: &str) -> Result<Restored> {
    let of_copy = |e: StoreError| match e.of_file(from) {
        StoreError::Damaged { why, .. } => {
            let remedy = "take another copy; the present database stays as it is".into();
            StoreError::Damaged { path: from.to_owned(), why, remedy }
        }
        other => other,
    };
    let staged = disk::beside(database, ".restored");
    stage(from, &staged).map_err(of_copy)?;
    let numbers = if around == Around::Newer { Some(numbers_of(database)) } else { None };
    let found = prepare(&staged, numbers).map_err(of_copy)?;
    let begun = beside(database, Beside::Restoring).exists();
    if !begun {
        begin_restore(database, from)?;
    }
    let (replaced, held) = match set_aside(database, stamp) {
        Ok(aside) => aside,
        Err(e) if begun => return Err(e),
        Err(e) => {
            let told = beside(database, Beside::Restoring);
            disk::remove(&told).map_err(|e| StoreError::file(&told, &e))?;
            return Err(e);
        }
    };
    let failed = |e| StoreError::file(database, &e);
    fs::rename(&staged, database).map_err(failed)?;
    disk::sync_dir(database.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    drop(held);
    for sign in [Beside::Damaged, Beside::Open, Beside::Restoring] {
        let sign = beside(database, sign);
        disk::remove(&sign).map_err(|e| StoreError::file(&sign, &e))?;
    }
    disk::sync_dir(database.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    let rows = found.rows.values().map(|n| n.unsigned_abs()).sum();
    Ok(Restored { schema: found.schema, rows, replaced })
}

/// From here on nothing opens the database before a restore has come to its end: more than its file is being changed.
///
/// # Errors
/// What the disk says.
pub fn begin_restore(database: &Path, from: &Path) -> Result<()> {
    let why = format!("a restore was cut before its end; do it again: lazaret restore {}", from.display());
    note(database, Beside::Restoring, &why)
}

/// Reads a copy from end to end.
///
/// # Errors
/// As [`restore`].
pub fn verify(file: &Path) -> Result<(i64, u64)> {
    let Look::Ours(_) = look(file)? else {
        return Err(StoreError::Rule(format!("there is no copy at {}", file.display())));
    };
    let found = copy::examine(file).map_err(|e| e.of_file(file))?;
    match found.unsound {
        Some(why) => Err(StoreError::damaged(file, why)),
        None => Ok((found.schema, found.rows.values().map(|n| n.unsigned_abs()).sum())),
    }
}

/// The copy, with the log that somebody may have copied along with it, as one file beside the database.
fn stage(from: &Path, staged: &Path) -> Result<()> {
    for side in ["", "-wal", "-shm", "-journal"] {
        let left = disk::beside(staged, side);
        disk::remove(&left).map_err(|e| StoreError::file(&left, &e))?;
    }
    if look(from)? == Look::Nothing {
        return Err(StoreError::Rule(format!("there is no copy at {}", from.display())));
    }
    for side in ["", "-wal"] {
        let (file, to) = (disk::beside(from, side), disk::beside(staged, side));
        if side.is_empty() || file.exists() {
            fs::copy(&file, &to)
                .and_then(|_| fs::set_permissions(&to, fs::Permissions::from_mode(0o600)))
                .map_err(|e| StoreError::file(&file, &e))?;
        }
    }
    drop(schema_upgrade::settle(staged)?);
    Ok(())
}

/// Checks the staged copy and puts it on the disk, with its numbers where they must be.
fn prepare(staged: &Path, numbers: Option<Numbers>) -> Result<copy::Examined> {
    if let Some(numbers) = numbers {
        let copy = schema_upgrade::writer(staged)?;
        numbers.go_on_in(&copy)?;
        copy.close().map_err(|(_, e)| StoreError::from(e))?;
    }
    let found = copy::examine(staged)?;
    if let Some(why) = found.unsound {
        return Err(StoreError::damaged(staged, why));
    }
    let schema = usize::try_from(found.schema).unwrap_or(0).min(migrations::MIGRATIONS.len());
    let made = migrations::MIGRATIONS.get(..schema).unwrap_or_default();
    migrations::check_tables(&copy::reader(staged)?, made, staged)?;
    disk::sync(staged).map_err(|e| StoreError::file(staged, &e))?;
    Ok(found)
}

/// The numbers that a database has given out.
#[derive(Debug)]
struct Numbers {
    /// Of each table that counts by itself. `None`: the database does not tell.
    rows: Option<Vec<(String, i64)>>,
    uid: Option<i64>,
}

fn numbers_of(database: &Path) -> Numbers {
    let read = || -> Result<Numbers> {
        let reader = copy::reader(database)?;
        let mut rows = reader.prepare("SELECT name, seq FROM sqlite_sequence")?;
        let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let rows = rows.collect::<rusqlite::Result<_>>()?;
        let sql = "SELECT value FROM number WHERE name = 'uid'";
        let uid = reader.query_row(sql, [], |r| r.get(0)).optional()?;
        Ok(Numbers { rows: Some(rows), uid })
    };
    read().unwrap_or(Numbers { rows: None, uid: None })
}

impl Numbers {
    fn go_on_in(&self, copy: &Connection) -> Result<()> {
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
                copy.execute("UPDATE sqlite_sequence SET seq = seq + ?1", [LEAP])?;
                copy.execute("UPDATE number SET value = value + ?1 WHERE name = 'uid'", [UID_LEAP])?;
            }
        }
        Ok(())
    }
}

/// The present database under another name, complete with its log. It keeps its own name until the copy takes it, and
/// until then the connection holds it: what another program wrote to it would be lost with the name.
pub(super) fn set_aside(database: &Path, stamp: &str) -> Result<(Option<PathBuf>, Option<Connection>)> {
    let (wal, shm) = (disk::beside(database, "-wal"), disk::beside(database, "-shm"));
    let gone = |path: &Path| disk::remove(path).map_err(|e| StoreError::file(path, &e));
    if !database.exists() {
        gone(&wal)?;
        gone(&shm)?;
        return Ok((None, None));
    }
    let held = match schema_upgrade::settle(database) {
        Ok(held) => Some(held),
        Err(e @ StoreError::Busy(_)) => return Err(e),
        // Too damaged for SQLite: the files are kept as they are.
        Err(_) => None,
    };
    let replaced = disk::beside(database, &format!(".replaced-{stamp}"));
    schema_upgrade::keep_as(database, &replaced, held.as_ref())?;
    if held.is_none() && wal.exists() {
        schema_upgrade::keep_as(&wal, &disk::beside(&replaced, "-wal"), None)?;
    }
    disk::sync_dir(database.parent().unwrap_or(Path::new(".")))
        .map_err(|e| StoreError::file(&replaced, &e))?;
    gone(&wal)?;
    gone(&shm)?;
    Ok((Some(replaced), held))
}
