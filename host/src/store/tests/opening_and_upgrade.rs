//! Opening: whose file, which schema, whole or not; and the way from one schema to the next, cut anywhere.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;

use super::super::migrations::{APPLICATION_ID, MIGRATIONS};
use super::super::schema_upgrade::{self, UpgradeStep};
use super::super::*;
use crate::host_files;

/// What a coming schema may do: rebuild a table that others refer to, add a table, add a column.
const REBUILD: &str = "
    CREATE TABLE turn2(
        id INTEGER PRIMARY KEY AUTOINCREMENT, grp TEXT NOT NULL REFERENCES grp(name), lane TEXT NOT NULL,
        chat TEXT NOT NULL REFERENCES chat(id), state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 1,
        opened_at INTEGER NOT NULL, closed_at INTEGER, why TEXT, fire INTEGER, opened_after INTEGER NOT NULL DEFAULT 0,
        mood TEXT NOT NULL DEFAULT 'calm') STRICT;
    INSERT INTO turn2 SELECT *, 'calm' FROM turn;
    DROP TABLE turn;
    ALTER TABLE turn2 RENAME TO turn;
    CREATE UNIQUE INDEX turn_open ON turn(lane) WHERE state = 'open';";
const ADD: &str =
    "CREATE TABLE child(id INTEGER PRIMARY KEY) STRICT; ALTER TABLE grp ADD COLUMN colour TEXT;";

/// The schemas to come.
pub(super) fn to_come() -> Vec<&'static str> {
    MIGRATIONS.into_iter().chain([REBUILD, ADD]).collect()
}

pub(super) fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lazaret.db");
    (dir, path)
}

/// A database of an earlier schema, with rows in every table of the first, and tasks where the schema has them.
pub(in crate::store) fn filled(path: &Path, migrations: &[&str]) -> Connection {
    let c = Connection::open(path).unwrap();
    c.pragma_update(None, "foreign_keys", false).unwrap();
    c.pragma_update(None, "synchronous", "off").unwrap();
    for (done, sql) in migrations.iter().enumerate() {
        c.execute_batch(sql).unwrap();
        match done + 1 {
            1 => c.execute_batch(include_str!("../migrations/filled.sql")).unwrap(),
            12 => c.execute_batch(include_str!("../migrations/filled_12.sql")).unwrap(),
            _ => {}
        }
    }
    c.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    c.pragma_update(None, "user_version", migrations.len() as i64).unwrap();
    c.pragma_update(None, "journal_mode", "wal").unwrap();
    c
}

/// Every file of a directory with its bytes.
fn bytes_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.filter(|e| e.path().is_file()).map(|e| (e.path(), std::fs::read(e.path()).unwrap())).collect()
}

fn schema_of(path: &Path) -> i64 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |r| r.get(0)).unwrap()
}

/// The database under the name is whole, of one schema or the other, and has every message.
fn assert_opens_whole(path: &Path, schemas: [i64; 2]) -> i64 {
    let c = Connection::open(path).unwrap();
    assert_eq!(copy::unsound(&c).unwrap(), None);
    let messages: i64 = c.query_row("SELECT count(*) FROM message", [], |r| r.get(0)).unwrap();
    assert_eq!(messages, 401);
    drop(c);
    let schema = schema_of(path);
    assert!(schemas.contains(&schema), "schema {schema}");
    schema
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn opening_twice_changes_nothing() {
    let (dir, path) = place();
    for _ in 0..2 {
        let store = Store::open(&path).unwrap();
        store.close().await;
        assert_eq!(names(dir.path()), ["lazaret.db"]);
        assert_eq!(schema_of(&path), MIGRATIONS.len() as i64);
    }
}

#[test]
fn a_newer_database_is_refused_and_not_even_looked_at_by_sqlite() {
    for log_left in [false, true] {
        let (dir, path) = place();
        let c = filled(&path, &MIGRATIONS);
        c.pragma_update(None, "user_version", 99).unwrap();
        if log_left {
            // As a newer host leaves it when it is killed: the schema in the file, its last rows in the log.
            c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            c.execute_batch("DELETE FROM stranger").unwrap();
            let (db, wal) =
                (std::fs::read(&path).unwrap(), std::fs::read(host_files::beside(&path, "-wal")).unwrap());
            drop(c);
            std::fs::write(&path, db).unwrap();
            std::fs::write(host_files::beside(&path, "-wal"), wal).unwrap();
        } else {
            drop(c);
        }
        let before = bytes_of(dir.path());
        for error in [Store::open(&path).unwrap_err(), Store::open_for_command(&path).unwrap_err()] {
            assert_eq!(error.code(), "store.newer");
            let known = format!("knows {}", MIGRATIONS.len());
            assert!(error.to_string().contains("schema 99") && error.to_string().contains(&known), "{error}");
        }
        assert_eq!(bytes_of(dir.path()), before);
    }
}

#[tokio::test]
async fn a_foreign_file_is_refused() {
    let (_dir, path) = place();
    std::fs::write(
        &path,
        b"this is no database, but it is long enough to look like one, or is it? no, it is not.",
    )
    .unwrap();
    assert_eq!(Store::open(&path).unwrap_err().code(), "store.damaged");
    let (_dir, path) = place();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(error.to_string().contains("another program") && error.code() == "store.damaged", "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn damage_is_refused_with_the_command_that_mends_it() {
    fn cut(bytes: &mut Vec<u8>) {
        bytes.truncate(bytes.len() / 2);
    }
    fn no_header(bytes: &mut [u8]) {
        bytes[..16].copy_from_slice(&[0; 16]);
    }
    fn overwritten(bytes: &mut [u8]) {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8192].fill(0xa5);
    }
    fn empty(bytes: &mut Vec<u8>) {
        bytes.clear();
    }
    for (what, spoil) in [
        ("cut", cut as fn(&mut Vec<u8>)),
        ("header", |bytes| no_header(bytes)),
        ("overwritten", |bytes| overwritten(bytes)),
        ("empty", empty),
    ] {
        let (dir, path) = place();
        drop(filled(&path, &MIGRATIONS));
        std::fs::create_dir(dir.path().join("backups")).unwrap();
        let copy = dir.path().join("backups/lazaret-20201121T030000Z.db");
        back_up(&path, &copy).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        spoil(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        if what == "empty" {
            // An empty file is a new one, unless something shows that there was more.
            std::fs::write(dir.path().join("lazaret.db.open"), "").unwrap();
        }
        let error = Store::open(&path).unwrap_err();
        assert_eq!(error.code(), "store.damaged", "{what}: {error}");
        let command = format!("lazaret restore {}", copy.display());
        assert!(error.to_string().contains(&command), "{what}: {error}");
        assert!(error.to_string().contains("lazaret.db is damaged"), "{what}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}: it stays as it was");
    }
}

#[tokio::test]
async fn what_a_full_check_found_is_not_opened_again() {
    let (dir, path) = place();
    let c = filled(&path, &MIGRATIONS);
    // A row that is referred to is not there: no header and no page shows it.
    c.execute_batch("PRAGMA foreign_keys = off; DELETE FROM chat WHERE id = 'telegram:-1'").unwrap();
    drop(c);
    let store = Store::open(&path).unwrap();
    store.close().await;
    // The last host did not close it.
    std::fs::write(dir.path().join("lazaret.db.open"), "").unwrap();
    let store = Store::open(&path).unwrap();
    let mut trouble = store.faults();
    let told = trouble.wait_for(|t| t.damaged.is_some()).await.unwrap().damaged.clone().unwrap();
    assert!(told.contains("refers to a missing row of chat"), "{told}");
    store.close().await;
    let error = Store::open(&path).unwrap_err();
    assert!(error.code() == "store.damaged" && error.to_string().contains("chat"), "{error}");
    // Mended by hand, it is checked and opened.
    let admitted = "INSERT INTO chat VALUES ('telegram:-1', 'family', 'room', 'Family', 1, 'terminal', 0)";
    Connection::open(&path).unwrap().execute_batch(admitted).unwrap();
    drop(Store::open(&path).unwrap());
}

#[tokio::test]
async fn an_end_that_was_none_is_known_even_after_a_command_tidied_up() {
    let (dir, path) = place();
    let store = Store::open(&path).unwrap();
    let sign = dir.path().join("lazaret.db.open");
    drop(Store::open_for_command(&path).unwrap());
    assert!(sign.exists());
    store.close().await;
    assert!(!sign.exists());
    assert!(matches!(store.close().await, ()), "closing twice is no error");
    assert_eq!(store.count("x", 1).await.unwrap_err().code(), "store.closed");
}

#[test]
fn a_command_does_not_migrate_under_the_host() {
    let (dir, path) = place();
    drop(filled(&path, &MIGRATIONS));
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 0).unwrap();
    drop(raw);
    let before = bytes_of(dir.path());
    let error = Store::open_for_command(&path).unwrap_err();
    assert!(error.code() == "store.older" && error.to_string().contains("lazaret up"), "{error}");
    assert_eq!(bytes_of(dir.path()), before);
}

#[test]
fn a_log_that_belongs_to_no_database_is_not_replayed_into_a_new_one() {
    let (dir, path) = place();
    std::fs::write(host_files::beside(&path, "-wal"), "the log of a database that was moved away").unwrap();
    drop(Store::open(&path).unwrap());
    assert!(dir.path().join("lazaret.db.orphan-wal").exists());
    assert_eq!(schema_of(&path), MIGRATIONS.len() as i64);
}

// From one schema to the next

#[test]
fn every_migration_is_tried_on_a_filled_database_of_the_version_before() {
    for from in 1..to_come().len() {
        let (dir, path) = place();
        let all = to_come();
        drop(filled(&path, &all[..from]));
        schema_upgrade::run(&path, from as i64, &all, &mut |_| Ok(())).unwrap();
        assert_eq!(assert_opens_whole(&path, [all.len() as i64; 2]), all.len() as i64);
        let kept = format!("lazaret.db.before-{from}");
        assert_eq!(names(dir.path()), ["lazaret.db".to_owned(), kept.clone()]);
        assert_opens_whole(&dir.path().join(kept), [from as i64; 2]);
        let c = Connection::open(&path).unwrap();
        let count = |of: &str| c.query_row(&format!("SELECT count(*) FROM {of}"), [], |r| r.get::<_, i64>(0));
        let has_tasks = i64::from(from >= 12);
        assert_eq!(count("turn WHERE mood = 'calm'"), Ok(4 + has_tasks));
        assert_eq!((count("task"), count("fire")), (Ok(50 * has_tasks), Ok(340 * has_tasks)));
    }
}

#[test]
fn the_rows_of_the_old_log_are_in_the_new_database() {
    let (_dir, path) = place();
    let c = filled(&path, &MIGRATIONS);
    c.execute_batch("UPDATE message SET text = 'only in the log' WHERE seq = 401").unwrap();
    // A killed host leaves file and log like this.
    let (db, wal) =
        (std::fs::read(&path).unwrap(), std::fs::read(host_files::beside(&path, "-wal")).unwrap());
    drop(c);
    std::fs::write(&path, db).unwrap();
    std::fs::write(host_files::beside(&path, "-wal"), wal).unwrap();
    schema_upgrade::run(&path, MIGRATIONS.len() as i64, &to_come(), &mut |_| Ok(())).unwrap();
    let c = Connection::open(&path).unwrap();
    let text: String = c.query_row("SELECT text FROM message WHERE seq = 401", [], |r| r.get(0)).unwrap();
    assert_eq!(text, "only in the log");
}

#[test]
fn a_migration_that_loses_rows_or_references_is_refused_and_the_old_file_stays() {
    for (bad, why) in [
        ("DELETE FROM audit", "audit had 1 rows and would have 0"),
        ("DELETE FROM chat WHERE id = 'telegram:-1'", "refers to a missing row of chat"),
        ("CREATE TABLE broken(", "incomplete input"),
    ] {
        let (_dir, path) = place();
        drop(filled(&path, &MIGRATIONS));
        let all: Vec<&str> = MIGRATIONS.into_iter().chain([bad]).collect();
        let error = schema_upgrade::run(&path, MIGRATIONS.len() as i64, &all, &mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains(why) && error.code() == "store.upgrade", "{error}");
        assert_opens_whole(&path, [MIGRATIONS.len() as i64; 2]);
        drop(Store::open(&path).unwrap());
    }
}

#[test]
fn while_another_program_has_it_open_it_is_not_migrated() {
    let (_dir, path) = place();
    let theirs = filled(&path, &MIGRATIONS);
    let mut statement = theirs.prepare("SELECT seq FROM message").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap();
    let error = schema_upgrade::run(&path, MIGRATIONS.len() as i64, &to_come(), &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.code(), "store.busy", "{error}");
    drop(rows);
    drop(statement);
    drop(theirs);
    schema_upgrade::run(&path, MIGRATIONS.len() as i64, &to_come(), &mut |_| Ok(())).unwrap();
}

#[test]
fn cut_after_any_step_it_is_the_old_or_the_new_database_and_goes_on() {
    let (from, all) = (MIGRATIONS.len() as i64, to_come());
    let mut cuts = 0;
    for cut in 0.. {
        let (dir, path) = place();
        drop(filled(&path, &MIGRATIONS));
        let mut left = cut;
        let done = schema_upgrade::run(&path, from, &all, &mut |_| match left {
            0 => Err(StoreError::Rule("cut".into())),
            _ => {
                left -= 1;
                Ok(())
            }
        });
        if done.is_ok() {
            break;
        }
        cuts += 1;
        let schema = assert_opens_whole(&path, [from, all.len() as i64]);
        if schema == from {
            schema_upgrade::run(&path, from, &all, &mut |_| Ok(())).unwrap();
        }
        assert_eq!(assert_opens_whole(&path, [all.len() as i64; 2]), all.len() as i64);
        let kept = format!("lazaret.db.before-{from}");
        assert_eq!(names(dir.path()), ["lazaret.db".to_owned(), kept]);
    }
    assert_eq!(cuts, 7 + all.len() as i64 - from);
}

/// Not a test by itself: the process that the next one kills. It tells each step and waits to be let on.
#[test]
fn the_process_that_migrates() {
    let Some(path) = std::env::var_os("LAZARET_TEST_MIGRATES") else { return };
    let step_by_step = std::env::var_os("LAZARET_TEST_STEPS").is_some();
    let mut tell = |step: UpgradeStep| {
        let mut out = std::io::stderr();
        writeln!(out, "{step:?}").unwrap();
        if step_by_step {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
        }
        Ok(())
    };
    schema_upgrade::run(Path::new(&path), MIGRATIONS.len() as i64, &to_come(), &mut tell).unwrap();
}

fn migrating(path: &Path, step_by_step: bool) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["store::tests::opening_and_upgrade::the_process_that_migrates", "--exact", "--nocapture"]);
    command.env("LAZARET_TEST_MIGRATES", path);
    if step_by_step {
        command.env("LAZARET_TEST_STEPS", "1");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn killed_at_every_step_and_at_random_moments_it_opens() {
    let (from, all) = (MIGRATIONS.len() as i64, to_come());
    let steps = 7 + all.len() - MIGRATIONS.len();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..steps + 50 {
        let (_dir, path) = place();
        let c = filled(&path, &MIGRATIONS);
        // The log of a killed host lies beside the file.
        c.execute_batch("UPDATE grp SET session = session + 1").unwrap();
        let (db, wal) =
            (std::fs::read(&path).unwrap(), std::fs::read(host_files::beside(&path, "-wal")).unwrap());
        drop(c);
        std::fs::write(&path, db).unwrap();
        std::fs::write(host_files::beside(&path, "-wal"), wal).unwrap();

        let mut child = migrating(&path, round < steps);
        if round < steps {
            // Let through `round` steps, and killed while it stands behind the next.
            let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
            let mut input = child.stdin.take().unwrap();
            for _ in 0..round {
                told.next().unwrap().unwrap();
                input.write_all(b"on\n").unwrap();
            }
            told.next().unwrap().unwrap();
        } else {
            // Somewhere in the 60 ms that all of it takes, between and within system calls.
            let moment = u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * 300;
            std::thread::sleep(std::time::Duration::from_micros(moment));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let schema = assert_opens_whole(&path, [from, all.len() as i64]);
        seen.insert(schema);
        if schema == from {
            schema_upgrade::run(&path, from, &all, &mut |_| Ok(())).unwrap();
        }
        assert_eq!(assert_opens_whole(&path, [all.len() as i64; 2]), all.len() as i64);
        let c = Connection::open(&path).unwrap();
        let session: i64 =
            c.query_row("SELECT session FROM grp WHERE name = 'main'", [], |r| r.get(0)).unwrap();
        assert_eq!(session, 3, "what was in the log is there");
    }
    assert_eq!(seen.len(), 2, "the kills fell before and behind the swap");
}
