//! Numbered migrations. `application_id` says that a file is ours, `user_version` which schema it has.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::{Result, StoreError};

/// "Lzrt".
pub(super) const APPLICATION_ID: i64 = 0x4c7a_7274;
/// One after the other, from an empty file. How they are applied is `upgrade`'s: to a copy, one transaction each, with
/// references checked when all are done.
pub(super) const MIGRATIONS: [&str; 6] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
];

/// The schema that a list of migrations leads to.
pub(super) fn number(migrations: &[&str]) -> i64 {
    i64::try_from(migrations.len()).unwrap_or(i64::MAX)
}

/// The schema that this binary knows.
pub(super) fn known() -> i64 {
    number(&MIGRATIONS)
}

/// Refuses a file of another program or of a newer binary, before a byte of it is changed. Returns its schema.
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

/// Every table, index and trigger that the migrations make is there, as they make it. What somebody added is theirs.
pub(super) fn check_tables(c: &Connection, migrations: &[&str], path: &Path) -> Result<()> {
    let model = Connection::open_in_memory()?;
    for sql in migrations {
        model.execute_batch(sql)?;
    }
    let found = tables(c)?;
    for (name, sql) in tables(&model)? {
        match found.get(&name) {
            Some(as_made) if *as_made == sql => {}
            Some(_) => return Err(StoreError::damaged(path, format!("{name} is not as it was made"))),
            None => return Err(StoreError::damaged(path, format!("{name} is not there"))),
        }
    }
    Ok(())
}

fn tables(c: &Connection) -> Result<BTreeMap<String, Option<String>>> {
    let mut rows = c.prepare("SELECT type || ' ' || name, sql FROM sqlite_schema")?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
