//! From a path to an open database: whose file it is, of which schema, whole or not, is known before a byte is written.
//!
//! What lies beside `lazaret.db`, all of it by name:
//!
//! | name | what |
//! |---|---|
//! | `-wal`, `-shm` | SQLite's own, while it is open or after a crash |
//! | `.open` | made when the host opens it, removed when it closes it: found at a start, the last end was no clean one |
//! | `.damaged` | what a full check found; the next start checks again before it opens |
//! | `.restoring` | a restore that was cut, and why nothing may be opened before it is done again |
//! | `.migrating` | a copy on its way to a newer schema; one that is found was cut and is thrown away |
//! | `.before-N` | the database as it was with schema N |
//! | `.replaced-T` | the database that a restore took the place of |
//!
//! The `.open` file, and not a WAL that is not empty, tells a crash: any `lazaret status` after the crash is the last
//! to close the database, and would tidy the WAL and the sign away.

#![allow(clippy::disallowed_methods, reason = "the database and what lies beside it")]

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use rusqlite::{Connection, OpenFlags};

use super::{Result, StoreError, copy, migrations, schema_upgrade};
use crate::clock::Clock;
use crate::disk;
use crate::domain::WallMs;

/// A file up to this size is read whole by SQLite's quick check at every start; it takes milliseconds.
const QUICK: u64 = 8 << 20;
/// How long a statement waits for another program's lock.
const BUSY: Duration = Duration::from_secs(5);

/// What is known of a file without opening it as a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// There is none, or an empty one.
    Nothing,
    /// One of ours, with this schema.
    Ours(i64),
}

/// An opened database.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// The host before this one did not close it.
    pub(super) unclean: bool,
}

/// Opens the database for the host, which holds the lock: makes it where there is none, brings it to this binary's
/// schema, and refuses what it must not touch.
pub(super) fn for_host(path: &Path) -> Result<Opened> {
    let known = migrations::known();
    let unclean = beside(path, Beside::Open).exists();
    refuse_unfinished(path)?;
    match look(path)? {
        Look::Nothing => schema_upgrade::create(path, &migrations::MIGRATIONS)?,
        Look::Ours(schema) => {
            recheck(path)?;
            if schema < known {
                schema_upgrade::run(path, schema, &migrations::MIGRATIONS, &mut |_| Ok(()))?;
            }
        }
    }
    let connection = connect(path)?;
    quick_check(&connection, path)?;
    note(path, Beside::Open, "")?;
    Ok(Opened { connection, unclean })
}

/// Opens the database beside a host: nothing is made, and nothing is migrated under the host's feet.
pub(super) fn for_command(path: &Path) -> Result<Connection> {
    let known = migrations::known();
    refuse_unfinished(path)?;
    match look(path)? {
        Look::Ours(found) if found == known => connect(path),
        Look::Ours(found) => Err(StoreError::Older { path: path.to_owned(), found, known }),
        Look::Nothing => Err(StoreError::Rule(format!("there is no database at {}", path.display()))),
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(open)?;
    connection.busy_timeout(BUSY).map_err(open)?;
    // SQLite opens what it may not write for reading, and says so only here.
    if connection.is_readonly("main").map_err(open)? {
        return Err(StoreError::ReadOnly(format!("{} may not be written", path.display())));
    }
    // The first statement that reads the file. What was said about its owner and schema is asked once more, of SQLite.
    migrations::check(&connection, path).map_err(|e| e.of_file(path))?;
    for (pragma, value) in [("journal_mode", "wal"), ("synchronous", "full"), ("foreign_keys", "on")] {
        connection.pragma_update(None, pragma, value).map_err(|e| StoreError::from(e).of_file(path))?;
    }
    Ok(connection)
}

/// Every table and index that this schema has is there, as it was made; and a small file is read whole.
fn quick_check(c: &Connection, path: &Path) -> Result<()> {
    let damaged = |e: StoreError| e.of_file(path);
    migrations::check_tables(c, &migrations::MIGRATIONS, path).map_err(damaged)?;
    let size = fs::metadata(path).map_or(0, |m| m.len());
    if size > QUICK {
        return Ok(());
    }
    let told: String = c
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|e| StoreError::from(e).of_file(path))?;
    if told == "ok" { Ok(()) } else { Err(StoreError::damaged(path, told)) }
}

/// A check found damage when the database was last open: it is not opened before a full check has found none.
fn recheck(path: &Path) -> Result<()> {
    let told = beside(path, Beside::Damaged);
    if !told.exists() {
        return Ok(());
    }
    let reader = copy::reader(path)?;
    if let Some(why) = copy::unsound(&reader)? {
        return Err(StoreError::damaged(path, why));
    }
    disk::remove(&told).map_err(|e| StoreError::file(&told, &e))
}

fn refuse_unfinished(path: &Path) -> Result<()> {
    match fs::read_to_string(beside(path, Beside::Restoring)) {
        Ok(why) => Err(StoreError::Unfinished { path: path.to_owned(), why: why.trim().to_owned() }),
        Err(_) => Ok(()),
    }
}

/// Whose file this is and of which schema, by its first hundred bytes: a newer database is told without SQLite, which
/// would make side files and tidy a WAL away.
///
/// The first page is never newer in the WAL than in the file where it matters: owner and schema are set once, in a
/// file that is complete before it gets its name. (The first schema was once made in place; for those SQLite is asked.)
pub(super) fn look(path: &Path) -> Result<Look> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Look::Nothing),
        Err(e) => return Err(StoreError::file(path, &e)),
    };
    let size = file.metadata().map_err(|e| StoreError::file(path, &e))?.len();
    let logged = fs::metadata(disk::beside(path, "-wal")).map_or(0, |m| m.len());
    if size == 0 {
        let held = logged > 0 || beside(path, Beside::Open).exists();
        return if held { Err(StoreError::damaged(path, "it is empty".into())) } else { Ok(Look::Nothing) };
    }
    let mut header = [0; 100];
    let whole = file.read_exact(&mut header);
    if whole.is_err() || !header.starts_with(b"SQLite format 3\0") {
        return Err(StoreError::damaged(path, "it does not begin as a database does".into()));
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
        return Err(StoreError::damaged(path, "its page size is none".into()));
    }
    // With a WAL the file may end anywhere: the rest of it is there.
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
    Ok(Look::Ours(schema))
}

/// What is kept beside the database, by the table above.
#[derive(Debug, Clone, Copy)]
pub(super) enum Beside {
    Open,
    Damaged,
    Restoring,
}

pub(super) fn beside(path: &Path, what: Beside) -> PathBuf {
    let more = match what {
        Beside::Open => ".open",
        Beside::Damaged => ".damaged",
        Beside::Restoring => ".restoring",
    };
    disk::beside(path, more)
}

/// Writes a note beside the database; it is on the disk when this returns.
pub(super) fn note(path: &Path, what: Beside, text: &str) -> Result<()> {
    let note = beside(path, what);
    fs::write(&note, text).and_then(|()| disk::sync(&note)).map_err(|e| StoreError::file(&note, &e))
}

/// What a full check has found of a database, and nobody has mended yet.
pub fn known_damage(database: &Path) -> Option<String> {
    fs::read_to_string(beside(database, Beside::Damaged)).ok()
}

/// Copies in the folder of copies, oldest first. Their names are their times. Those of a time to come are before all
/// others: the clock was wrong then, and how old they are is not known.
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

/// When the copy of this name was made.
pub fn made_at(copy: &Path) -> Option<WallMs> {
    let name = copy.file_stem()?.to_str()?.strip_prefix("lazaret-")?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", name).ok()?;
    Some(WallMs(TimeZone::UTC.to_timestamp(time).ok()?.as_millisecond()))
}

/// What to do about a damaged database.
pub(super) fn remedy(path: &Path) -> String {
    let folder = path.with_file_name("backups");
    match copies(&folder, Clock::new().wall()).pop() {
        Some(newest) => format!("put back the newest copy: lazaret restore {}", newest.display()),
        None => format!(
            "there is no copy in {}; put back one of yours: lazaret restore FILE, or move it away to begin anew",
            folder.display()
        ),
    }
}
