//! A database comes to a newer schema as a copy: migrated, checked and on the disk before it takes the old one's place.
//!
//! One rename is the whole change. Before it the old file is as it was, after it the new one is complete, and a kill
//! anywhere leaves one or the other under the name. What a kill can leave beside them is a copy that is thrown away.
//!
//! The log of the old file is the one thing that could spoil this: SQLite finds a WAL by its name, and would replay
//! that of the old file into the new one. So the old file is first made complete in itself, and then held under
//! SQLite's exclusive lock, so that no other program can begin a new log, until the new one is in its place. The lock
//! lasts as long as this process closes no descriptor of that file, by whatever name it was opened
//! (https://sqlite.org/howtocorrupt.html, section 2.2): all that is done to the old file is done by names or through
//! SQLite.

#![allow(clippy::disallowed_methods, reason = "the database and the copy that is upgraded")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::copy::{self, Counts};
use super::{Result, StoreError, migrations};
use crate::disk;

/// What is done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What a cut attempt left goes.
    Tidy,
    /// The old file takes in its log and is held.
    Settle,
    /// Its pages are copied.
    Copy,
    /// The copy comes to this schema.
    Migrate(i64),
    /// The copy is sound, has the tables of the schema, and lost no row.
    Check,
    /// The copy is on the disk.
    Flush,
    /// The old file gets its second name.
    Keep,
    /// The copy takes its first.
    Swap,
}

fn plan(from: i64, to: i64) -> Vec<Step> {
    let before = [Step::Tidy, Step::Settle, Step::Copy];
    let after = [Step::Check, Step::Flush, Step::Keep, Step::Swap];
    before.into_iter().chain((from + 1..=to).map(Step::Migrate)).chain(after).collect()
}

/// Brings the file from schema `from` to the last of `migrations`. `done` hears of each step behind it, and can cut.
///
/// # Errors
/// [`StoreError::Upgrade`], with the file as it was; what `done` said.
pub(super) fn run(
    path: &Path,
    from: i64,
    migrations: &[&str],
    done: &mut dyn FnMut(Step) -> Result<()>,
) -> Result<()> {
    let to = migrations::number(migrations);
    let copy = disk::beside(path, ".migrating");
    let mut upgrade = Upgrade { path, copy, from, migrations, old: None, rows: Counts::new() };
    for step in plan(from, to) {
        let failed = |e: StoreError| match e.of_file(path) {
            // These say what to do by themselves.
            e @ (StoreError::Full(_) | StoreError::ReadOnly(_) | StoreError::Busy(_)) => e,
            e @ StoreError::Damaged { .. } => e,
            e => StoreError::Upgrade { path: path.to_owned(), from, to, step, why: e.to_string() },
        };
        upgrade.perform(step).map_err(failed)?;
        done(step)?;
    }
    if from > 0 {
        tracing::info!("the database has schema {to} now; as it was it is {}", kept(path, from).display());
    }
    Ok(())
}

/// Makes a new database. It gets its name when it is complete.
pub(super) fn create(path: &Path, migrations: &[&str]) -> Result<()> {
    let copy = disk::beside(path, ".migrating");
    let mut upgrade = Upgrade { path, copy, from: 0, migrations, old: None, rows: Counts::new() };
    upgrade.perform(Step::Tidy)?;
    set_orphans_aside(path)?;
    copy::pages(&Connection::open_in_memory()?, &upgrade.copy)?;
    for n in 1..=migrations::number(migrations) {
        upgrade.perform(Step::Migrate(n))?;
    }
    upgrade.perform(Step::Flush)?;
    upgrade.perform(Step::Swap)
}

/// Somebody who moves a database away may leave its log behind, which SQLite would replay into the new one.
fn set_orphans_aside(path: &Path) -> Result<()> {
    for side in ["-wal", "-shm", "-journal"] {
        let orphan = disk::beside(path, side);
        if orphan.exists() {
            let aside = disk::beside(path, &format!(".orphan{side}"));
            tracing::warn!(
                code = "store.orphan",
                "{} belongs to no database and is {} now",
                orphan.display(),
                aside.display()
            );
            fs::rename(&orphan, &aside).map_err(|e| StoreError::file(&orphan, &e))?;
        }
    }
    Ok(())
}

fn kept(path: &Path, schema: i64) -> PathBuf {
    disk::beside(path, &format!(".before-{schema}"))
}

struct Upgrade<'a> {
    path: &'a Path,
    copy: PathBuf,
    from: i64,
    migrations: &'a [&'a str],
    /// The old file, held from `Settle` on.
    old: Option<Connection>,
    rows: Counts,
}

impl Upgrade<'_> {
    fn perform(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Tidy => {
                for side in ["", "-wal", "-shm", "-journal"] {
                    let left = disk::beside(&self.copy, side);
                    disk::remove(&left).map_err(|e| StoreError::file(&left, &e))?;
                }
                Ok(())
            }
            Step::Settle => {
                let old = settle(self.path)?;
                self.rows = copy::counts(&old)?;
                self.old = Some(old);
                Ok(())
            }
            Step::Copy => match &self.old {
                Some(old) => copy::pages(old, &self.copy),
                None => Err(StoreError::Rule("the old file is not held".into())),
            },
            Step::Migrate(n) => self.migrate(n),
            Step::Check => self.check(),
            Step::Flush => disk::sync(&self.copy).map_err(|e| StoreError::file(&self.copy, &e)),
            Step::Keep => self.keep(),
            Step::Swap => self.swap(),
        }
    }

    fn migrate(&self, n: i64) -> Result<()> {
        let mut copy = writer(&self.copy)?;
        // A table that others refer to is rebuilt by dropping it (https://sqlite.org/lang_altertable.html, section 7):
        // references are checked when all is done.
        copy.pragma_update(None, "foreign_keys", false)?;
        let at = usize::try_from(n - 1).unwrap_or(usize::MAX);
        let sql = self.migrations.get(at).copied().unwrap_or_default();
        let transaction = copy.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", migrations::APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", n)?;
        transaction.commit()?;
        copy.close().map_err(|(_, e)| e.into())
    }

    fn check(&self) -> Result<()> {
        let found = copy::examine(&self.copy)?;
        if let Some(why) = found.unsound {
            return Err(StoreError::Rule(format!("the migrated copy is not sound: {why}")));
        }
        for (table, before) in &self.rows {
            let after = found.rows.get(table).copied();
            if let Some(after) = after.filter(|after| after < before) {
                return Err(StoreError::Rule(format!("{table} had {before} rows and would have {after}")));
            }
        }
        migrations::check_tables(&writer(&self.copy)?, self.migrations, &self.copy)
            .map_err(|e| StoreError::Rule(format!("the migrated copy is not as it should be: {e}")))
    }

    /// A second name before the first goes, so that there is a database under the name at every moment.
    fn keep(&self) -> Result<()> {
        if self.from == 0 {
            return Ok(());
        }
        let (kept, staged) = (kept(self.path, self.from), disk::beside(self.path, ".keeping"));
        keep_as(self.path, &staged, self.old.as_ref())?;
        // Where both are names of one file already (an attempt was cut here), rename(2) leaves both.
        fs::rename(&staged, &kept)
            .and_then(|()| disk::remove(&staged))
            .and_then(|()| disk::sync_dir(self.path.parent().unwrap_or(Path::new("."))))
            .map_err(|e| StoreError::file(&kept, &e))
    }

    fn swap(&mut self) -> Result<()> {
        let wal = disk::beside(self.path, "-wal");
        if wal.exists() {
            let held = format!("{} appeared: another program has the database open", wal.display());
            return Err(StoreError::Busy(held));
        }
        fs::rename(&self.copy, self.path)
            .and_then(|()| disk::sync_dir(self.path.parent().unwrap_or(Path::new("."))))
            .map_err(|e| StoreError::file(self.path, &e))?;
        self.old = None;
        Ok(())
    }
}

/// Gives a file a second name; where the file system knows no hard links, a second self. Its bytes are on the disk
/// then, its name is not yet. A database that is `held` is read through that connection only, and was synced by it.
pub(super) fn keep_as(path: &Path, second: &Path, held: Option<&Connection>) -> Result<()> {
    let failed = |e: std::io::Error| StoreError::file(second, &e);
    disk::remove(second).map_err(failed)?;
    match (fs::hard_link(path, second), held) {
        (Ok(()), Some(_)) => return Ok(()),
        (Ok(()), None) => {}
        (Err(e), _) if disk::refuses_everything(&e) => return Err(failed(e)),
        (Err(_), Some(held)) => copy::pages(held, second)?,
        (Err(_), None) => fs::copy(path, second).map(drop).map_err(failed)?,
    }
    disk::sync(second).map_err(failed)
}

pub(super) fn writer(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// Makes the file complete in itself, without side files, and holds it against every other program for as long as the
/// connection lives and nothing else in this process opens the file.
pub(super) fn settle(path: &Path) -> Result<Connection> {
    let held = || StoreError::Busy(format!("another program has {} open; end it first", path.display()));
    let old = writer(path)?;
    let left: i64 = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if left != 0 {
        return Err(held());
    }
    let mode: String = old.query_row("PRAGMA journal_mode = delete", [], |row| row.get(0))?;
    if mode != "delete" {
        return Err(held());
    }
    // Under this mode the lock of one transaction is kept until the connection goes.
    old.pragma_update(None, "locking_mode", "exclusive")?;
    old.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
    Ok(old)
}
