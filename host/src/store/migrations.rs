//! Numbered migrations. `application_id` says that a file is ours, `user_version` which schema it has.

use std::path::Path;

use rusqlite::Connection;

use super::{Result, StoreError};

/// "Lzrt".
const APPLICATION_ID: i64 = 0x4c7a_7274;
const MIGRATIONS: [&str; 2] = [include_str!("migrations/0001.sql"), include_str!("migrations/0003.sql")];

/// Refuses a file of another program or of a newer binary, before a byte of it is changed.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<()> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (owner, found) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if owner != APPLICATION_ID && tables > 0 {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            why: "it belongs to another program".into(),
        });
    }
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

/// Brings a checked file to this binary's schema.
pub(super) fn bring_up(connection: &mut Connection) -> Result<()> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let todo = usize::try_from(found).unwrap_or(0);
    for (done, sql) in MIGRATIONS.iter().enumerate().skip(todo) {
        let step = connection.transaction()?;
        step.execute_batch(sql)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", i64::try_from(done + 1).unwrap_or(i64::MAX))?;
        step.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lazaret.db");
        (dir, path)
    }

    #[tokio::test]
    async fn a_database_newer_than_the_binary_is_refused_untouched() {
        let (_dir, path) = file();
        drop(Store::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        drop(raw);
        let before = std::fs::read(&path).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert_eq!(error.code(), "store.newer");
        assert!(error.to_string().contains("schema 99") && error.to_string().contains("knows 2"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[tokio::test]
    async fn a_foreign_file_is_refused() {
        let (_dir, path) = file();
        std::fs::write(&path, b"this is no database, but it is long enough to look like one, or is it? no.")
            .unwrap();
        assert_eq!(Store::open(&path).unwrap_err().code(), "store.damaged");
        let (_dir, path) = file();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
        assert_eq!(Store::open(&path).unwrap_err().code(), "store.damaged");
    }

    #[tokio::test]
    async fn opening_twice_changes_nothing() {
        let (_dir, path) = file();
        drop(Store::open(&path).unwrap());
        drop(Store::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        let version: i64 = raw.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
        assert_eq!(version, 2);
    }
}
