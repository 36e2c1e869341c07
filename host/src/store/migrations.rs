//! The numbered migrations. `application_id` marks a Lazaret database, `user_version` is its schema.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::{Result, StoreError};

pub(super) const APPLICATION_ID: i64 = 0x4c7a_7274;
/// The migrations from an empty file on. `schema_upgrade` applies them to a copy, one transaction each, and checks the
/// foreign keys after the last.
pub(super) const MIGRATIONS: [&str; 15] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
    include_str!("migrations/0007.sql"),
    include_str!("migrations/0008.sql"),
    include_str!("migrations/0009.sql"),
    include_str!("migrations/0010.sql"),
    include_str!("migrations/0011.sql"),
    include_str!("migrations/0012.sql"),
    include_str!("migrations/0013.sql"),
    include_str!("migrations/0014.sql"),
    include_str!("migrations/0015.sql"),
];

/// The schema that a list of migrations ends with.
pub(super) fn number(migrations: &[&str]) -> i64 {
    i64::try_from(migrations.len()).unwrap_or(i64::MAX)
}

/// The schema that this binary knows.
pub(super) fn known() -> i64 {
    number(&MIGRATIONS)
}

/// Refuses a file of another program or of a newer binary before anything is changed. Returns its schema.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<i64> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (owner, found) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if owner != APPLICATION_ID && tables > 0 {
        return Err(StoreError::damaged(path, "it belongs to another program".into()));
    }
    if found > known() {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: known() });
    }
    Ok(found)
}

/// Checks that every table, index and trigger of the migrations exists as they create it. Additional ones are allowed.
pub(super) fn check_tables(c: &Connection, migrations: &[&str], path: &Path) -> Result<()> {
    let fresh = Connection::open_in_memory()?;
    for sql in migrations {
        fresh.execute_batch(sql)?;
    }
    let found = tables(c)?;
    for (name, sql) in tables(&fresh)? {
        match found.get(&name) {
            Some(existing) if *existing == sql => {}
            Some(_) => return Err(StoreError::damaged(path, format!("{name} differs from the schema"))),
            None => return Err(StoreError::damaged(path, format!("{name} is missing"))),
        }
    }
    Ok(())
}

fn tables(c: &Connection) -> Result<BTreeMap<String, Option<String>>> {
    let mut rows = c.prepare("SELECT type || ' ' || name, sql FROM sqlite_schema")?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
