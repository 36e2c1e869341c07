//! What was in a database before a migration is there after it.

use std::path::Path;

use rusqlite::Connection;

use super::Store;
use super::migrations::{APPLICATION_ID, MIGRATIONS};
use crate::domain::ChannelName;

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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lazaret.db");
    drop(filled_with_schema_1(&path));
    let old =
        "id, chat, voice, turn, key, part, answers, text, attempts, not_before, created_at, sent_at, receipt,
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
    let rendered: i64 = c.query_row("SELECT count(markup) FROM outbox", [], |r| r.get(0)).unwrap();
    assert_eq!(rendered, 0, "its texts are Markdown, and are rendered when they are sent");
    let ours: i64 = c.query_row("SELECT count(DISTINCT ours) FROM outbox", [], |r| r.get(0)).unwrap();
    assert_eq!(ours, 8);
    let insert =
        "INSERT INTO outbox(ours, chat, voice, key, part, text, state, not_before, created_at, lives_from)
                  VALUES (?1, 'telegram:-1', 'notice', ?2, 0, '', 'ready', 0, 0, 0)";
    assert!(c.execute(insert, ["o", "notice:help"]).is_err(), "unique without a turn, as before");
    c.execute(insert, ["o", "notice:new"]).unwrap();
    assert_eq!(c.last_insert_rowid(), 12, "no number is given twice");
    let broken: i64 = c.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| r.get(0)).unwrap();
    assert_eq!(broken, 0);
}

#[tokio::test]
async fn what_status_counts_is_what_the_rows_say_after_the_upgrade_and_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lazaret.db");
    drop(filled_with_schema_1(&path));
    let store = Store::open(&path).unwrap();
    let c = Connection::open(&path).unwrap();
    let one = |sql: &str| c.query_row(sql, [], |r| r.get(0).map(super::id)).unwrap();
    for later in [
        "",
        "INSERT INTO turn(grp, lane, chat, state, opened_at) VALUES ('family', 'family', 'telegram:-1', 'open', 1)",
        "INSERT INTO message(chat, message_id, version, role, state, sender, sender_name, owner, text, attachments,
                             sent_at, stored_at)
         SELECT chat, message_id, v.column1, role, state, sender, sender_name, owner, text, attachments, 1, 1
         FROM message, (VALUES (1), (2)) v",
        "UPDATE turn SET state = 'stopped' WHERE state = 'open'",
        "UPDATE outbox SET state = 'sent', strays = 2, uncertain = uncertain + 1 WHERE state IN ('ready', 'failed')",
        "UPDATE outbox SET state = 'expired' WHERE state = 'sent'",
    ] {
        c.execute_batch(later).unwrap();
        let counted = store.summary().await.unwrap();
        let turns = |state: &str| counted.turns.iter().find(|(s, _)| s == state).map_or(0, |(_, n)| *n);
        assert_eq!(counted.messages, one("SELECT count(*) FROM message"), "{later}");
        for state in ["open", "done", "failed", "stopped"] {
            assert_eq!(turns(state), one(&format!("SELECT count(*) FROM turn WHERE state = '{state}'")), "{later}");
        }
        let of = |state: &str| one(&format!("SELECT count(*) FROM outbox WHERE state = '{state}'"));
        assert_eq!((counted.delivery.failed, counted.delivery.expired), (of("failed"), of("expired")), "{later}");
        let sums = (one("SELECT sum(uncertain) FROM outbox"), one("SELECT sum(strays) FROM outbox"));
        assert_eq!((counted.delivery.uncertain, counted.delivery.strays), sums, "{later}");
    }
}

#[tokio::test]
async fn a_position_from_before_accounts_belongs_to_the_first_account_that_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lazaret.db");
    let c = filled_with_schema_1(&path);
    c.execute("INSERT INTO position VALUES ('telegram', '1001', 5)", []).unwrap();
    drop(c);
    let store = Store::open(&path).unwrap();
    let position =
        async |account: &str| store.position(ChannelName::new("telegram"), account.into()).await.unwrap();
    assert_eq!(position("4242").await.as_deref(), Some("1001"));
    assert_eq!(position("4343").await, None, "another bot starts anew");
    assert_eq!(position("4242").await.as_deref(), Some("1001"));
}

#[tokio::test]
async fn a_chat_that_asked_before_the_upgrade_still_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lazaret.db");
    let c = filled_with_schema_1(&path);
    c.execute(
        "INSERT INTO stranger VALUES ('telegram:9', 'ABC234', 'direct', 'Eve', 'telegram:9', 'Eve', 1, 2, 7)",
        [],
    )
    .unwrap();
    drop(c);
    let found = Store::open(&path).unwrap().strangers().await.unwrap().remove(0);
    assert_eq!((found.code.as_str(), found.messages, found.refused), ("ABC234", 7, false));
}

#[tokio::test]
async fn a_database_from_before_tasks_has_all_its_rows_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lazaret.db");
    drop(super::tests::opening_and_upgrade::filled(&path, &MIGRATIONS[..11]));
    let tables: Vec<String> = {
        let c = Connection::open(&path).unwrap();
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'sqlite_sequence'";
        let mut names = c.prepare(sql).unwrap();
        names.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let rows = || {
        let c = Connection::open(&path).unwrap();
        let count = |table: &String| {
            let sql = format!("SELECT count(*) FROM {table}");
            c.query_row(&sql, [], |r| r.get::<_, i64>(0)).unwrap()
        };
        tables.iter().map(|table| (table.clone(), count(table))).collect::<Vec<_>>()
    };
    let before = rows();
    assert!(before.iter().map(|(_, rows)| rows).sum::<i64>() > 1_000, "{before:?}");
    let store = Store::open(&path).unwrap();
    assert_eq!(rows(), before);
    assert_eq!(store.tasks(None, true).await.unwrap(), []);
    let open = store.open_turns().await.unwrap();
    assert_eq!((open.len(), open[0].turn.0), (1, 4), "its open turn goes on");
}
