//! Upgrades a database to a newer schema. `open` calls it. It migrates, checks and syncs a copy, and renames that over
//! the old file.
//!
//! The rename is the whole change: a kill at any moment leaves the unchanged old file or the complete new one under the
//! name. The next start deletes a copy that a kill left behind.
//!
//! The WAL of the old file is the danger: SQLite finds a WAL by its name and would replay that of the old file into the
//! new one. So the old file's WAL is emptied first. Then SQLite's exclusive lock keeps every other program from
//! starting a new WAL until the new file is in place. POSIX drops that lock when this process closes any descriptor of
//! the file, by whatever name it was opened (https://sqlite.org/howtocorrupt.html, section 2.2): so the old file is
//! only renamed, linked, or read through SQLite.

#![allow(clippy::disallowed_methods, reason = "the database and the copy that is upgraded")]

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use rusqlite::{Connection, OpenFlags};

use super::copy::{self, Counts};
use super::{Result, StoreError, migrations};
use crate::host_files;

/// The steps of an upgrade, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeStep {
    /// Delete what an interrupted attempt left.
    Tidy,
    /// Empty the old file's WAL and lock the file.
    Lock,
    Copy,
    /// Migrate the copy to this schema.
    Migrate(i64),
    /// Check that the copy is intact, has the schema's tables and lost no row.
    Check,
    Flush,
    /// Give the old file a second name.
    Keep,
    /// Rename the copy over the old file.
    Swap,
}

impl fmt::Display for UpgradeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tidy => "clean up",
            Self::Lock => "lock the old file",
            Self::Copy => "copy",
            Self::Migrate(n) => return write!(f, "migration {n}"),
            Self::Check => "check the copy",
            Self::Flush => "sync the copy",
            Self::Keep => "keep the old file",
            Self::Swap => "replace the old file",
        })
    }
}

fn plan(from: i64, to: i64) -> Vec<UpgradeStep> {
    let before = [UpgradeStep::Tidy, UpgradeStep::Lock, UpgradeStep::Copy];
    let after = [UpgradeStep::Check, UpgradeStep::Flush, UpgradeStep::Keep, UpgradeStep::Swap];
    before.into_iter().chain((from + 1..=to).map(UpgradeStep::Migrate)).chain(after).collect()
}

/// Upgrades the file from schema `from` to the last of `migrations`. Calls `done` after each step; an error of `done`
/// ends the upgrade there (tests interrupt it this way).
///
/// # Errors
/// [`StoreError::Upgrade`], with the file unchanged, and errors of `done`.
pub(super) fn run(
    path: &Path,
    from: i64,
    migrations: &[&str],
    done: &mut dyn FnMut(UpgradeStep) -> Result<()>,
) -> Result<()> {
    let to = migrations::number(migrations);
    let copy = host_files::beside(path, ".migrating");
    let mut upgrade = Upgrade { path, copy, from, migrations, old: None, rows: Counts::new() };
    for step in plan(from, to) {
        let failed = |e: StoreError| match e.of_file(path) {
            // These errors already say what to do.
            e @ (StoreError::Full(_) | StoreError::ReadOnly(_) | StoreError::Busy(_)) => e,
            e @ StoreError::Damaged { .. } => e,
            e => StoreError::Upgrade {
                path: path.to_owned(),
                from,
                to,
                step: step.to_string(),
                why: e.to_string(),
            },
        };
        upgrade.perform(step).map_err(failed)?;
        done(step)?;
    }
    if from > 0 {
        tracing::info!(
            "the database now has schema {to}; the database before the upgrade is kept as {}",
            kept(path, from).display()
        );
    }
    Ok(())
}

/// Creates a new database. It gets its name when it is complete.
pub(super) fn create(path: &Path, migrations: &[&str]) -> Result<()> {
    let copy = host_files::beside(path, ".migrating");
    let mut upgrade = Upgrade { path, copy, from: 0, migrations, old: None, rows: Counts::new() };
    upgrade.perform(UpgradeStep::Tidy)?;
    set_orphans_aside(path)?;
    copy::pages(&Connection::open_in_memory()?, &upgrade.copy)?;
    for n in 1..=migrations::number(migrations) {
        upgrade.perform(UpgradeStep::Migrate(n))?;
    }
    upgrade.perform(UpgradeStep::Flush)?;
    upgrade.perform(UpgradeStep::Swap)
}

/// Renames a WAL that has no database: whoever moved the database away left it behind, and SQLite would replay it into
/// the new one.
fn set_orphans_aside(path: &Path) -> Result<()> {
    for side in ["-wal", "-shm", "-journal"] {
        let orphan = host_files::beside(path, side);
        if orphan.exists() {
            let aside = host_files::beside(path, &format!(".orphan{side}"));
            tracing::warn!(
                code = "store.orphan",
                "{} belongs to no database; it is renamed to {}",
                orphan.display(),
                aside.display()
            );
            fs::rename(&orphan, &aside).map_err(|e| StoreError::file(&orphan, &e))?;
        }
    }
    Ok(())
}

fn kept(path: &Path, schema: i64) -> PathBuf {
    host_files::beside(path, &format!(".before-{schema}"))
}

struct Upgrade<'a> {
    path: &'a Path,
    copy: PathBuf,
    from: i64,
    migrations: &'a [&'a str],
    /// The connection that locks the old file, from `Lock` on.
    old: Option<Connection>,
    rows: Counts,
}

impl Upgrade<'_> {
    fn perform(&mut self, step: UpgradeStep) -> Result<()> {
        match step {
            UpgradeStep::Tidy => {
                for side in ["", "-wal", "-shm", "-journal"] {
                    let left = host_files::beside(&self.copy, side);
                    host_files::remove(&left).map_err(|e| StoreError::file(&left, &e))?;
                }
                Ok(())
            }
            UpgradeStep::Lock => {
                let old = lock_exclusively(self.path)?;
                self.rows = copy::counts(&old)?;
                self.old = Some(old);
                Ok(())
            }
            UpgradeStep::Copy => match &self.old {
                Some(old) => copy::pages(old, &self.copy),
                None => Err(StoreError::Rule("the old file is not locked".into())),
            },
            UpgradeStep::Migrate(n) => self.migrate(n),
            UpgradeStep::Check => self.check(),
            UpgradeStep::Flush => host_files::sync(&self.copy).map_err(|e| StoreError::file(&self.copy, &e)),
            UpgradeStep::Keep => self.keep(),
            UpgradeStep::Swap => self.swap(),
        }
    }

    fn migrate(&self, n: i64) -> Result<()> {
        let mut copy = writer(&self.copy)?;
        // A table that others refer to is rebuilt by dropping it (https://sqlite.org/lang_altertable.html, section 7):
        // foreign keys are checked after the last migration.
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
            return Err(StoreError::Rule(format!("the migrated copy is damaged: {why}")));
        }
        for (table, before) in &self.rows {
            let after = found.rows.get(table).copied();
            if let Some(after) = after.filter(|after| after < before) {
                return Err(StoreError::Rule(format!("{table} had {before} rows and would have {after}")));
            }
        }
        migrations::check_tables(&writer(&self.copy)?, self.migrations, &self.copy)
            .map_err(|e| StoreError::Rule(format!("the migrated copy has the wrong tables: {e}")))
    }

    /// Gives the old file its second name before the first is replaced: a database has the name at every moment.
    fn keep(&self) -> Result<()> {
        if self.from == 0 {
            return Ok(());
        }
        let (kept, staged) = (kept(self.path, self.from), host_files::beside(self.path, ".keeping"));
        link_or_copy(self.path, &staged, self.old.as_ref())?;
        // If both are names of one file already (an attempt was interrupted here), rename(2) keeps both.
        fs::rename(&staged, &kept)
            .and_then(|()| host_files::remove(&staged))
            .and_then(|()| host_files::sync_dir(self.path.parent().unwrap_or(Path::new("."))))
            .map_err(|e| StoreError::file(&kept, &e))
    }

    fn swap(&mut self) -> Result<()> {
        let wal = host_files::beside(self.path, "-wal");
        if wal.exists() {
            let held = format!("{} appeared: another program has the database open", wal.display());
            return Err(StoreError::Busy(held));
        }
        fs::rename(&self.copy, self.path)
            .and_then(|()| host_files::sync_dir(self.path.parent().unwrap_or(Path::new("."))))
            .map_err(|e| StoreError::file(self.path, &e))?;
        self.old = None;
        Ok(())
    }
}

/// Gives a file a second name, or copies it if the file system has no hard links. Syncs the bytes, not the name. A
/// locked database is read through the connection `held` only, which has synced it.
pub(super) fn link_or_copy(path: &Path, second: &Path, held: Option<&Connection>) -> Result<()> {
    let failed = |e: std::io::Error| StoreError::file(second, &e);
    host_files::remove(second).map_err(failed)?;
    match (fs::hard_link(path, second), held) {
        (Ok(()), Some(_)) => return Ok(()),
        (Ok(()), None) => {}
        (Err(e), _) if host_files::refuses_everything(&e) => return Err(failed(e)),
        (Err(_), Some(held)) => copy::pages(held, second)?,
        (Err(_), None) => fs::copy(path, second).map(drop).map_err(failed)?,
    }
    host_files::sync(second).map_err(failed)
}

pub(super) fn writer(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    connection.busy_timeout(copy::BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Empties the file's WAL, removes its side files and locks the file against every other program. The lock lasts as
/// long as the connection lives and nothing else in this process opens the file.
pub(super) fn lock_exclusively(path: &Path) -> Result<Connection> {
    let held = || StoreError::Busy(format!("another program has {} open; stop it first", path.display()));
    let old = writer(path)?;
    let busy: i64 = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        return Err(held());
    }
    let mode: String = old.query_row("PRAGMA journal_mode = delete", [], |row| row.get(0))?;
    if mode != "delete" {
        return Err(held());
    }
    // In this mode SQLite keeps the lock of one transaction until the connection closes.
    old.pragma_update(None, "locking_mode", "exclusive")?;
    old.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
    Ok(old)
}
