//! Copies a database page by page from one snapshot, and checks the copy before it gets its name. Backups, restores and
//! upgrades call it.
//!
//! `VACUUM INTO` would give a smaller file, but it writes a new database from what it can read: it repairs in the copy
//! an index that disagrees with its table, and the original stays broken. With unchanged pages, checking the copy
//! checks the original, and the host does not pause for it.

#![allow(clippy::disallowed_methods, reason = "the database and its copies")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{Result, StoreError, migrations};
use crate::host_files;

/// How long a statement waits for another program's lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many findings of a check are reported.
const FINDINGS: u32 = 5;

/// The number of rows of every table.
pub(super) type Counts = BTreeMap<String, i64>;

/// A copy that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub path: PathBuf,
    pub bytes: u64,
    pub schema: i64,
    /// Rows of all tables.
    pub rows: u64,
}

/// Copies the database to `to` while a host may be writing to it, and checks the copy. `to` exists only if both
/// succeeded.
///
/// # Errors
/// [`StoreError::Rule`] if `to` exists already; [`StoreError::Damaged`] if the copy, and so the database, is
/// damaged; [`StoreError::Full`].
pub fn back_up(database: &Path, to: &Path) -> Result<Copied> {
    if to.exists() {
        return Err(StoreError::Rule(format!("{} exists already; a copy overwrites nothing", to.display())));
    }
    let reader = checked_reader(database)?;
    // Two copies that are made at once under one name must not write into one file.
    let part = host_files::beside(to, &format!(".{}.part", std::process::id()));
    host_files::remove(&part).map_err(|e| StoreError::file(&part, &e))?;
    let done = copied(database, reader, &part).and_then(|copied| {
        publish(&part, to)?;
        Ok(Copied { path: to.to_owned(), ..copied })
    });
    if done.is_err() {
        let _ = host_files::remove(&part);
    }
    done
}

fn copied(database: &Path, reader: Connection, part: &Path) -> Result<Copied> {
    // One read transaction covers the counts and the pages: both are of one snapshot.
    reader.execute_batch("BEGIN")?;
    let rows = counts(&reader)?;
    pages(&reader, part)?;
    reader.execute_batch("COMMIT")?;
    drop(reader);
    let found = examine(part)?;
    if found.rows != rows {
        let why = format!("a copy has {} rows, the database has {}", total(&found.rows), total(&rows));
        return Err(StoreError::damaged(database, why));
    }
    if let Some(why) = found.unsound {
        return Err(StoreError::damaged(database, why));
    }
    Ok(Copied { path: part.to_owned(), bytes: found.bytes, schema: found.schema, rows: total(&rows) })
}

/// Syncs the file and gives it its name, which must be free.
fn publish(part: &Path, to: &Path) -> Result<()> {
    let failed = |e: std::io::Error| StoreError::file(to, &e);
    host_files::sync(part).map_err(failed)?;
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, part, here, to, rustix::fs::RenameFlags::NOREPLACE) {
        // Some network file systems do not support NOREPLACE; the name was free a moment ago.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(part, to),
        done => done.map_err(Into::into),
    }
    .map_err(failed)?;
    host_files::sync_dir(to.parent().unwrap_or(Path::new("."))).map_err(failed)
}

/// Runs the full check of a database. A host may be writing to it.
///
/// # Errors
/// [`StoreError::Damaged`] with the findings.
pub fn check(database: &Path) -> Result<()> {
    match unsound(&checked_reader(database)?)? {
        Some(why) => Err(StoreError::damaged(database, why)),
        None => Ok(()),
    }
}

/// A read-only connection to a Lazaret database whose schema is not newer than this binary's.
///
/// The process may be the host's, so nothing but SQLite opens the file: POSIX drops every lock that a process has on a
/// file when it closes any descriptor of it (https://sqlite.org/howtocorrupt.html, section 2.2). The next program that
/// closes the database would find no lock and remove the WAL, and the host would write into a deleted file.
fn checked_reader(database: &Path) -> Result<Connection> {
    let reader = reader(database)?;
    match migrations::check(&reader, database).map_err(|e| e.of_file(database))? {
        0 => Err(StoreError::damaged(database, "it is empty".into())),
        _ => Ok(reader),
    }
}

/// A connection that only reads, while a host may be writing.
pub(super) fn reader(path: &Path) -> Result<Connection> {
    // Opened read-write, because a read-only connection that opens the database first leaves its side files behind.
    // `query_only` then refuses every write.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Writes every page that `source` sees to a new file of mode 0600. It has no side files and is not synced.
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
    // An interrupted copy is deleted, so it needs no journal. The caller syncs the file.
    copy.pragma_update(None, "synchronous", "off")?;
    copy.pragma_update(None, "journal_mode", "off")?;
    let step = Backup::new(source, &mut copy)?.step(-1)?;
    if step != StepResult::Done {
        return Err(StoreError::Busy(format!("{} could not be copied: it is being changed", to.display())));
    }
    // The first page says "WAL", as that of the original does; a copy needs no side files.
    copy.pragma_update(None, "journal_mode", "delete")?;
    copy.close().map_err(|(_, e)| e.into())
}

/// The result of [`examine`].
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) bytes: u64,
    pub(super) schema: i64,
    /// Rows of each table.
    pub(super) rows: Counts,
    pub(super) unsound: Option<String>,
}

/// Checks a file that nobody writes to. Creates no file beside it.
pub(super) fn examine(path: &Path) -> Result<Examined> {
    let bytes = std::fs::metadata(path).map_err(|e| StoreError::file(path, &e))?.len();
    let connection = still(path)?;
    let schema = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let unsound = unsound(&connection)?;
    // SQLite may be unable to count the rows of a damaged file.
    let rows = if unsound.is_none() { counts(&connection)? } else { Counts::new() };
    Ok(Examined { bytes, schema, rows, unsound })
}

/// The number of messages in a copy. `None`: it cannot be read.
pub fn messages_in(copy: &Path) -> Option<u64> {
    let reader = still(copy).ok()?;
    reader.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0)).ok().map(super::id)
}

/// Opens a file that nobody writes to. Creates no file beside it.
fn still(path: &Path) -> Result<Connection> {
    // `immutable`: no locks and no side files. The path becomes part of a URI, so the URI's special characters are
    // escaped.
    let uri = format!("file:{}?immutable=1", percent(path));
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })
}

fn percent(path: &Path) -> String {
    let special = |c: char| matches!(c, '%' | '?' | '#');
    let shown = path.to_string_lossy();
    shown.chars().map(|c| if special(c) { format!("%{:02X}", c as u32) } else { c.to_string() }).collect()
}

/// SQLite's full check of the file and of its foreign keys. `None`: nothing was found.
pub(super) fn unsound(c: &Connection) -> Result<Option<String>> {
    match findings(c) {
        Ok(found) if found.is_empty() => Ok(None),
        Ok(found) => Ok(Some(found.join("; "))),
        // The check may hit a page that it cannot read.
        Err(e) => match StoreError::from(e) {
            StoreError::Corrupt(why) => Ok(Some(why)),
            other => Err(other),
        },
    }
}

fn findings(c: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = c.prepare(&format!("PRAGMA integrity_check({FINDINGS})"))?;
    let lines = check.query_map([], |row| row.get::<_, String>(0))?;
    let mut found: Vec<String> = lines.collect::<rusqlite::Result<_>>()?;
    found.retain(|line| line != "ok");
    if !found.is_empty() {
        return Ok(found);
    }
    let mut check = c.prepare("PRAGMA foreign_key_check")?;
    let mut rows = check.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        found.push(format!("a row of {table} refers to a missing row of {parent}"));
        if found.len() >= FINDINGS as usize {
            break;
        }
    }
    Ok(found)
}

/// Counts the rows of every table.
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
