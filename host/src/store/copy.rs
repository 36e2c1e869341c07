//! Copies of a database: page by page from one snapshot, checked before they get their name.
//!
//! `VACUUM INTO` would give a smaller file, but it writes a new database out of what it can read: an index that
//! disagrees with its table is healed in the copy and stays broken in the original. Pages copied as they are make
//! the check of the copy a check of the original, which the host itself never has to pause for.

#![allow(clippy::disallowed_methods, reason = "the database and its copies")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{Result, StoreError, migrations};
use crate::disk;

/// How many findings of a check are told.
const FINDINGS: u32 = 5;

/// Rows of every table.
pub(super) type Counts = BTreeMap<String, i64>;

/// A copy that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its schema.
    pub schema: i64,
    /// Rows of all tables.
    pub rows: u64,
}

/// Copies the database to `to` while a host may be writing to it, and checks the copy. `to` exists only when all of
/// that went well.
///
/// # Errors
/// [`StoreError::Rule`] when `to` is there already; [`StoreError::Damaged`] when the copy, and so the database, is
/// not sound; [`StoreError::Full`].
pub fn back_up(database: &Path, to: &Path) -> Result<Copied> {
    if to.exists() {
        return Err(StoreError::Rule(format!(
            "{} is there already; a copy overwrites nothing",
            to.display()
        )));
    }
    let reader = ours(database)?;
    // Two copies made at once to one name must not write into one file.
    let part = disk::beside(to, &format!(".{}.part", std::process::id()));
    disk::remove(&part).map_err(|e| StoreError::file(&part, &e))?;
    let done = copied(database, reader, &part).and_then(|copied| {
        put(&part, to)?;
        Ok(Copied { path: to.to_owned(), ..copied })
    });
    if done.is_err() {
        let _ = disk::remove(&part);
    }
    done
}

fn copied(database: &Path, reader: Connection, part: &Path) -> Result<Copied> {
    // One read transaction over the counts and the pages: both are of the same moment, whatever is written meanwhile.
    reader.execute_batch("BEGIN")?;
    let rows = counts(&reader)?;
    pages(&reader, part)?;
    reader.execute_batch("COMMIT")?;
    drop(reader);
    let found = examine(part)?;
    if found.rows != rows {
        let why = format!("a copy has {} rows where it has {}", total(&found.rows), total(&rows));
        return Err(StoreError::damaged(database, why));
    }
    if let Some(why) = found.unsound {
        return Err(StoreError::damaged(database, why));
    }
    Ok(Copied { path: part.to_owned(), bytes: found.bytes, schema: found.schema, rows: total(&rows) })
}

/// Fsync, and the name, which must be free.
fn put(part: &Path, to: &Path) -> Result<()> {
    let failed = |e: std::io::Error| StoreError::file(to, &e);
    disk::sync(part).map_err(failed)?;
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, part, here, to, rustix::fs::RenameFlags::NOREPLACE) {
        // Some network file systems cannot refuse; the name was free a moment ago.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(part, to),
        done => done.map_err(Into::into),
    }
    .map_err(failed)?;
    disk::sync_dir(to.parent().unwrap_or(Path::new("."))).map_err(failed)
}

/// The full check of a database, beside the host that may be writing to it.
///
/// # Errors
/// [`StoreError::Damaged`] with what was found.
pub fn check(database: &Path) -> Result<()> {
    match unsound(&ours(database)?)? {
        Some(why) => Err(StoreError::damaged(database, why)),
        None => Ok(()),
    }
}

/// A connection that reads beside the host, to a database of ours and of no newer schema.
///
/// The process may be the host's, so nothing but SQLite opens the file: POSIX takes every lock that a process has on
/// a file when it closes any descriptor of it (https://sqlite.org/howtocorrupt.html, section 2.2). The next program
/// that closes the database would find nobody there, and remove the log under the host, which would go on writing to
/// it.
fn ours(database: &Path) -> Result<Connection> {
    let reader = reader(database)?;
    match migrations::check(&reader, database).map_err(|e| e.of_file(database))? {
        0 => Err(StoreError::damaged(database, "it is empty".into())),
        _ => Ok(reader),
    }
}

/// A connection that reads beside the host.
pub(super) fn reader(path: &Path) -> Result<Connection> {
    // Read-write, because a read-only connection that comes first leaves its side files behind; and then held to
    // reading.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Writes every page that `source` sees to a new file of mode 0600: one file without side files, not yet on the disk.
pub(super) fn pages(source: &Connection, to: &Path) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|e| StoreError::file(to, &e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags)
        .map_err(|source| StoreError::Open { path: to.to_owned(), source })?;
    // A copy that is cut is thrown away, so it needs no journal; and whoever wants it to last syncs it.
    copy.pragma_update(None, "synchronous", "off")?;
    copy.pragma_update(None, "journal_mode", "off")?;
    let step = Backup::new(source, &mut copy)?.step(-1)?;
    if step != StepResult::Done {
        return Err(StoreError::Busy(format!("{} could not be copied: it is being changed", to.display())));
    }
    // The first page says "WAL", as that of the original does; a copy is complete in itself.
    copy.pragma_update(None, "journal_mode", "delete")?;
    copy.close().map_err(|(_, e)| e.into())
}

/// What a file that nobody writes holds.
#[derive(Debug)]
pub(super) struct Examined {
    /// Its size.
    pub(super) bytes: u64,
    /// Its schema.
    pub(super) schema: i64,
    /// Rows of each table.
    pub(super) rows: Counts,
    /// What is wrong with it.
    pub(super) unsound: Option<String>,
}

/// Reads a file that nobody writes from end to end. Nothing is made beside it.
pub(super) fn examine(path: &Path) -> Result<Examined> {
    let bytes = std::fs::metadata(path).map_err(|e| StoreError::file(path, &e))?.len();
    // `immutable`: no locks, no side files. The path goes into a URI, so what has a meaning there is written as code.
    let uri = format!("file:{}?immutable=1", percent(path));
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    let schema = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let unsound = unsound(&connection)?;
    // Rows of a file that is not sound need not be countable.
    let rows = if unsound.is_none() { counts(&connection)? } else { Counts::new() };
    Ok(Examined { bytes, schema, rows, unsound })
}

fn percent(path: &Path) -> String {
    let special = |c: char| matches!(c, '%' | '?' | '#');
    let shown = path.to_string_lossy();
    shown.chars().map(|c| if special(c) { format!("%{:02X}", c as u32) } else { c.to_string() }).collect()
}

/// SQLite's full check of the file, and that every reference leads somewhere. `None`: all is in order.
pub(super) fn unsound(c: &Connection) -> Result<Option<String>> {
    match findings(c) {
        Ok(found) if found.is_empty() => Ok(None),
        Ok(found) => Ok(Some(found.join("; "))),
        // A check can come upon a page that it cannot even read.
        Err(e) => match StoreError::from(e) {
            StoreError::Corrupt(why) => Ok(Some(why)),
            other => Err(other),
        },
    }
}

fn findings(c: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = c.prepare(&format!("PRAGMA integrity_check({FINDINGS})"))?;
    let told = check.query_map([], |row| row.get::<_, String>(0))?;
    let mut found: Vec<String> = told.collect::<rusqlite::Result<_>>()?;
    found.retain(|line| line != "ok");
    if !found.is_empty() {
        return Ok(found);
    }
    let mut check = c.prepare("PRAGMA foreign_key_check")?;
    let mut rows = check.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        found.push(format!("a row of {table} refers to a row of {parent} that is not there"));
        if found.len() >= FINDINGS as usize {
            break;
        }
    }
    Ok(found)
}

/// The rows of every table of ours.
pub(super) fn counts(c: &Connection) -> Result<Counts> {
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut names = c.prepare(sql)?;
    let names = names.query_map([], |row| row.get::<_, String>(0))?;
    let mut counts = Counts::new();
    for name in names {
        let name = name?;
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        counts.insert(name, c.query_row(&sql, [], |row| row.get(0))?);
    }
    Ok(counts)
}

fn total(counts: &Counts) -> u64 {
    counts.values().map(|n| n.unsigned_abs()).sum()
}
