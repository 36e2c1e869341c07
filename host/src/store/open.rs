//! Opens the database. [`super::Store`] calls it. It knows whose file it is, which schema it has and whether it is
//! damaged before it writes a byte, and it never changes a file that it refuses.
//!
//! The files beside `lazaret.db`:
//!
//! | name | what |
//! |---|---|
//! | `-wal`, `-shm` | SQLite's own files while the database is open, and after a crash |
//! | `.open` | created when the host opens the database, removed when it closes it; if it exists at a start, the last host crashed |
//! | `.damaged` | what a full check found; the next start checks again before it opens the database |
//! | `.restoring` | a restore was interrupted; nothing opens the database before the restore is repeated |
//! | `.migrating` | the copy that is being migrated; the next start deletes one that was interrupted |
//! | `.before-N` | the database with schema N, before its upgrade |
//! | `.replaced-T` | the database that a restore replaced |
//!
//! A crash shows in the `.open` file and not in a non-empty WAL: a `lazaret status` after the crash is the last program
//! to close the database, so SQLite empties the WAL then.

#![allow(clippy::disallowed_methods, reason = "the database and what lies beside it")]

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{Result, StoreError, copy, migrations, schema_upgrade};
use crate::host_files;

/// SQLite's quick check reads a file up to this size at every start. It takes milliseconds.
const QUICK: u64 = 8 << 20;

/// What the first hundred bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// There is no file, or it is empty.
    Absent,
    /// A Lazaret database with this schema.
    Lazaret(i64),
}

pub(super) struct Opened {
    pub(super) connection: Connection,
    /// The host before this one did not close it.
    pub(super) unclean: bool,
}

/// Opens the database for the host, which holds the lock: creates it if there is none and upgrades it to this binary's
/// schema.
pub(super) fn for_host(path: &Path) -> Result<Opened> {
    let known = migrations::known();
    let unclean = marker_path(path, Marker::Open).exists();
    refuse_unfinished(path)?;
    match identify(path)? {
        Identity::Absent => schema_upgrade::create(path, &migrations::MIGRATIONS)?,
        Identity::Lazaret(schema) => {
            recheck(path)?;
            if schema < known {
                schema_upgrade::run(path, schema, &migrations::MIGRATIONS, &mut |_| Ok(()))?;
            }
        }
    }
    let connection = connect(path)?;
    quick_check(&connection, path)?;
    write_marker(path, Marker::Open, "")?;
    Ok(Opened { connection, unclean })
}

/// Opens the database for a command. It creates nothing and does not migrate: a host may be running.
pub(super) fn for_command(path: &Path) -> Result<Connection> {
    to_read(path)?;
    connect(path)
}

/// Refuses a database that a command of this binary cannot read.
pub(super) fn to_read(path: &Path) -> Result<()> {
    let known = migrations::known();
    refuse_unfinished(path)?;
    match identify(path)? {
        Identity::Lazaret(found) if found == known => Ok(()),
        Identity::Lazaret(found) => Err(StoreError::Older { path: path.to_owned(), found, known }),
        Identity::Absent => Err(StoreError::Rule(format!("there is no database at {}", path.display()))),
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(open)?;
    connection.busy_timeout(copy::BUSY_TIMEOUT).map_err(open)?;
    // SQLite falls back to opening a file read-only, and says so only here.
    if connection.is_readonly("main").map_err(open)? {
        return Err(StoreError::ReadOnly(format!("{} may not be written", path.display())));
    }
    // The first statement that reads the file. SQLite's answer about owner and schema counts, not that of the header.
    migrations::check(&connection, path).map_err(|e| e.of_file(path))?;
    for (pragma, value) in [("journal_mode", "wal"), ("synchronous", "full"), ("foreign_keys", "on")] {
        connection.pragma_update(None, pragma, value).map_err(|e| StoreError::from(e).of_file(path))?;
    }
    Ok(connection)
}

/// Checks that every table and index of the schema exists as the migrations make it. Reads a small file completely.
fn quick_check(c: &Connection, path: &Path) -> Result<()> {
    let damaged = |e: StoreError| e.of_file(path);
    migrations::check_tables(c, &migrations::MIGRATIONS, path).map_err(damaged)?;
    let size = fs::metadata(path).map_or(0, |m| m.len());
    if size > QUICK {
        return Ok(());
    }
    let finding: String = c
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|e| StoreError::from(e).of_file(path))?;
    if finding == "ok" { Ok(()) } else { Err(StoreError::damaged(path, finding)) }
}

/// If a check found damage while the database was last open, a full check must find none before it is opened again.
fn recheck(path: &Path) -> Result<()> {
    let marker = marker_path(path, Marker::Damaged);
    if !marker.exists() {
        return Ok(());
    }
    let reader = copy::reader(path)?;
    if let Some(why) = copy::unsound(&reader)? {
        return Err(StoreError::damaged(path, why));
    }
    host_files::remove(&marker).map_err(|e| StoreError::file(&marker, &e))
}

fn refuse_unfinished(path: &Path) -> Result<()> {
    match fs::read_to_string(marker_path(path, Marker::Restoring)) {
        Ok(why) => Err(StoreError::Unfinished { path: path.to_owned(), why: why.trim().to_owned() }),
        Err(_) => Ok(()),
    }
}

/// Reads owner and schema from the first hundred bytes. A newer database is refused without SQLite, which would create
/// side files and empty a WAL.
///
/// The WAL never holds a newer owner or schema than the file: both are set once, in a file that is complete before it
/// gets its name. (An early version created the first schema in place; for such a file SQLite is asked.)
pub(super) fn identify(path: &Path) -> Result<Identity> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Identity::Absent),
        Err(e) => return Err(StoreError::file(path, &e)),
    };
    let size = file.metadata().map_err(|e| StoreError::file(path, &e))?.len();
    let logged = fs::metadata(host_files::beside(path, "-wal")).map_or(0, |m| m.len());
    if size == 0 {
        let held = logged > 0 || marker_path(path, Marker::Open).exists();
        return if held {
            Err(StoreError::damaged(path, "it is empty".into()))
        } else {
            Ok(Identity::Absent)
        };
    }
    let mut header = [0; 100];
    let whole = file.read_exact(&mut header);
    if whole.is_err() || !header.starts_with(b"SQLite format 3\0") {
        return Err(StoreError::damaged(path, "it does not begin with SQLite's header".into()));
    }
    let at = |from: usize| -> u32 {
        let bytes = header.get(from..from + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    };
    // https://sqlite.org/fileformat2.html, section 1.3: 65,536 is written as 1.
    let page = match at(16) >> 16 {
        1 => 65_536,
        size => u64::from(size),
    };
    if page < 512 || !page.is_power_of_two() {
        return Err(StoreError::damaged(path, "its page size is invalid".into()));
    }
    // With a WAL the file may end anywhere: the WAL holds the rest.
    let pages = u64::from(at(28));
    if logged == 0 && at(24) == at(92) && size < pages * page {
        let why = format!("it has {} of {pages} pages", size / page);
        return Err(StoreError::damaged(path, why));
    }
    let schema = if i64::from(at(68)) == migrations::APPLICATION_ID {
        i64::from(at(60))
    } else {
        let reader = copy::reader(path)?;
        migrations::check(&reader, path).map_err(|e| e.of_file(path))?
    };
    let known = migrations::known();
    if schema > known {
        return Err(StoreError::Newer { path: path.to_owned(), found: schema, known });
    }
    Ok(Identity::Lazaret(schema))
}

/// A small file beside the database, described in the table above.
#[derive(Debug, Clone, Copy)]
pub(super) enum Marker {
    Open,
    Damaged,
    Restoring,
}

pub(super) fn marker_path(path: &Path, marker: Marker) -> PathBuf {
    let suffix = match marker {
        Marker::Open => ".open",
        Marker::Damaged => ".damaged",
        Marker::Restoring => ".restoring",
    };
    host_files::beside(path, suffix)
}

/// Writes a marker and syncs it.
pub(super) fn write_marker(path: &Path, marker: Marker, text: &str) -> Result<()> {
    let file = marker_path(path, marker);
    fs::write(&file, text).and_then(|()| host_files::sync(&file)).map_err(|e| StoreError::file(&file, &e))
}

/// [`known_damage`] with what to do about it.
pub fn damage(database: &Path) -> Option<StoreError> {
    known_damage(database).map(|why| StoreError::damaged(database, why))
}

/// The damage that a full check has found and nobody has repaired yet.
pub fn known_damage(database: &Path) -> Option<String> {
    fs::read_to_string(marker_path(database, Marker::Damaged)).ok()
}
