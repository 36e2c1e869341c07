//! Numbered migrations. `application_id` says that a file is ours, `user_version` which schema it has.

use std::path::Path;

use rusqlite::Connection;

use super::{Result, StoreError};

/// "Lzrt".
const APPLICATION_ID: i64 = 0x4c7a_7274;
const MIGRATIONS: [&str; 3] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
];

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
        assert!(error.to_string().contains("schema 99") && error.to_string().contains("knows 3"), "{error}");
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
        assert_eq!(version, 3);
    }

    /// A database of schema 1 with a row of every state, as an earlier host left it.
    fn filled_with_schema_1(path: &Path) -> Connection {
        let c = Connection::open(path).unwrap();
        c.execute_batch(MIGRATIONS[0]).unwrap();
        c.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        c.pragma_update(None, "user_version", 1).unwrap();
        c.execute_batch(
            "INSERT INTO grp VALUES ('family', 70001, 1, 1);
             INSERT INTO chat VALUES ('telegram:-1', 'family', 'room', 'Family', 1, 't');
             INSERT INTO turn(grp, lane, chat, state, opened_at) VALUES ('family', 'family', 'telegram:-1', 'done', 1);
             INSERT INTO message(chat, message_id, version, role, state, turn, sender, sender_name, owner, text,
                                 attachments, sent_at, stored_at)
             VALUES ('telegram:-1', '7', 0, 'wake', 'done', 1, 'telegram:5', 'Ann', 0, 'hi', '[]', 1, 1);",
        )
        .unwrap();
        let columns =
            "chat, voice, turn, key, part, answers, text, state, attempts, not_before, created_at, sent_at,
                       receipt, error, uncertain";
        for (row, values) in [
            "'telegram:-1', 'reply', 1, 'k', 0, 1, 'sent', 'sent', 1, 0, 10, 11, '99', NULL, 0",
            "'telegram:-1', 'reply', 1, 'k', 1, 1, 'deferred', 'ready', 2, 500, 10, NULL, NULL, '429', 0",
            "'telegram:-1', 'reply', 1, 'k', 2, 1, 'uncertain', 'ready', 1, 0, 10, NULL, NULL, NULL, 1",
            "'telegram:-1', 'notice', 1, 'notice:end', 0, NULL, 'ready', 'ready', 0, 0, 12, NULL, NULL, NULL, 0",
            "'telegram:-1', 'notice', NULL, 'notice:help', 0, NULL, 'sending', 'sending', 1, 0, 12, NULL, NULL, NULL, 0",
            "'terminal:local', 'notice', NULL, 'notice:help', 0, NULL, 'shown', 'sending', 1, 0, 12, NULL, NULL, NULL, 0",
            "'telegram:-1', 'reply', 1, 'l', 0, NULL, 'failed', 'failed', 9, 0, 13, NULL, NULL, 'kicked', 0",
            "'telegram:-1', 'reply', 1, 'm', 0, NULL, 'expired', 'expired', 0, 0, 13, NULL, NULL, NULL, 0",
            "'telegram:-1', 'reply', 1, 'n', 0, NULL, 'gone', 'sent', 1, 0, 13, 14, '100', NULL, 0",
        ]
        .iter()
        .enumerate()
        {
            c.execute(&format!("INSERT INTO outbox(id, {columns}) VALUES ({}, {values})", row + 3), [])
                .unwrap();
        }
        // The newest row went: its number is not given again.
        c.execute("DELETE FROM outbox WHERE text = 'gone'", []).unwrap();
        c
    }

    #[tokio::test]
    async fn an_outbox_of_schema_1_goes_on_as_it_was() {
        let (_dir, path) = file();
        drop(filled_with_schema_1(&path));
        let old = "id, chat, voice, turn, key, part, answers, text, attempts, not_before, created_at, sent_at, receipt,
                   error, uncertain";
        let rows = |c: &Connection| -> Vec<Vec<rusqlite::types::Value>> {
            let mut rows = c.prepare(&format!("SELECT {old} FROM outbox ORDER BY id")).unwrap();
            let columns = rows.column_count();
            let rows = rows.query_map([], |r| (0..columns).map(|i| r.get(i)).collect()).unwrap();
            rows.collect::<rusqlite::Result<_>>().unwrap()
        };
        let before = rows(&Connection::open(&path).unwrap());
        drop(Store::open(&path).unwrap());
        let c = Connection::open(&path).unwrap();
        assert_eq!(rows(&c), before, "nothing that was known is lost");
        assert_eq!(before.len(), 8);
        // The texts of the rows say which state they are expected in.
        let mut states = c.prepare("SELECT text, state, way, lives_from = created_at FROM outbox").unwrap();
        let states = states.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get::<_, bool>(3)?)));
        for row in states.unwrap() {
            let (text, state, way, lives): (String, String, Option<String>, bool) = row.unwrap();
            let expected = match text.as_str() {
                "shown" => ("sending", Some("keyed")),
                "ready" | "expired" => (text.as_str(), None),
                text => (text, Some("resend")),
            };
            assert_eq!((state.as_str(), way.as_deref(), lives), (expected.0, expected.1, true), "{text}");
        }
        let ours: i64 = c.query_row("SELECT count(DISTINCT ours) FROM outbox", [], |r| r.get(0)).unwrap();
        assert_eq!(ours, 8);
        let insert = "INSERT INTO outbox(ours, chat, voice, key, part, text, state, not_before, created_at, lives_from)
                      VALUES (?1, 'telegram:-1', 'notice', ?2, 0, '', 'ready', 0, 0, 0)";
        assert!(c.execute(insert, ["o", "notice:help"]).is_err(), "unique without a turn, as before");
        c.execute(insert, ["o", "notice:new"]).unwrap();
        assert_eq!(c.last_insert_rowid(), 12, "no number is given twice");
        let broken: i64 =
            c.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| r.get(0)).unwrap();
        assert_eq!(broken, 0);
    }
}
