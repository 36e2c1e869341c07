//! What another program may do to a database that this process holds. SQLite's locks are those of a process: only
//! another one meets them.

use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use super::super::migrations::MIGRATIONS;
use super::super::schema_upgrade::{self, UpgradeStep};
use super::opening_and_upgrade::{filled, place, to_come};
use super::*;

const COUNT: &str = "SELECT count(*) || ' messages' FROM message";
const WRITE: &str = "UPDATE grp SET session = session + 1 WHERE name = 'main' RETURNING 'written'";
const NO_LOG: &str = "PRAGMA journal_mode = delete";
const LOCKED: &str = "database is locked";

/// Not a test by itself: the other program. It opens the database, does one thing, tells it, and closes the database.
#[test]
fn the_other_program() {
    let Some(path) = std::env::var_os("LAZARET_TEST_BESIDE") else { return };
    let c = Connection::open(path).unwrap();
    c.busy_timeout(Duration::ZERO).unwrap();
    let does = || -> rusqlite::Result<Vec<String>> {
        let mut statement = c.prepare(&std::env::var("LAZARET_TEST_DOES").unwrap())?;
        statement.query_map([], |r| r.get(0))?.collect()
    };
    eprintln!("{}", does().unwrap_or_else(|e| vec![e.to_string()]).concat());
}

fn another_program(path: &Path, does: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["store::tests::other_process::the_other_program", "--exact", "--nocapture"]);
    command.env("LAZARET_TEST_BESIDE", path).env("LAZARET_TEST_DOES", does);
    let told = command.output().unwrap();
    String::from_utf8(told.stderr).unwrap().trim().to_owned()
}

/// Whoever asks for a database without a log is refused while a host has it open, also after a copy and a check.
#[tokio::test]
async fn a_host_that_copies_and_checks_keeps_its_log() {
    let mut h = house().await;
    let path = h._dir.path().join("lazaret.db");
    h.wakes("telegram:-1", "one").await;
    back_up(&path, &h._dir.path().join("copy.db")).unwrap();
    check(&path).unwrap();
    assert_eq!(another_program(&path, COUNT), "1 messages");
    assert_eq!(another_program(&path, NO_LOG), LOCKED);
}

#[test]
fn a_file_that_is_no_database_of_ours_is_not_copied() {
    let (dir, path) = place();
    for spoilt in ["", "this is no database, and was never one"] {
        std::fs::write(&path, spoilt).unwrap();
        let copy = dir.path().join("copy.db");
        assert_eq!(back_up(&path, &copy).unwrap_err().code(), "store.damaged");
        assert!(!copy.exists());
    }
}

#[test]
fn nobody_writes_to_a_database_on_its_way_to_a_newer_schema() {
    let (_dir, path) = place();
    drop(filled(&path, &MIGRATIONS));
    let mut tried = 0;
    schema_upgrade::run(&path, MIGRATIONS.len() as i64, &to_come(), &mut |step| {
        let expected = if matches!(step, UpgradeStep::Tidy | UpgradeStep::Swap) { "written" } else { LOCKED };
        assert_eq!(another_program(&path, WRITE), expected, "behind {step:?}");
        tried += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(tried, 7 + to_come().len() - MIGRATIONS.len());
}

#[test]
fn nobody_writes_to_a_database_that_a_copy_replaces() {
    let (_dir, path) = place();
    drop(filled(&path, &MIGRATIONS));
    let (_, held) = restore::set_aside(&path, "T").unwrap();
    assert_eq!(another_program(&path, WRITE), LOCKED);
    drop(held);
    assert_eq!(another_program(&path, WRITE), "written");
}

/// No hard link leads to another file system; some have none at all.
#[test]
fn a_database_is_held_also_while_a_second_self_is_made_of_it() {
    let (_dir, path) = place();
    drop(filled(&path, &MIGRATIONS));
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let second = elsewhere.path().join("lazaret.db");
    let held = schema_upgrade::lock_exclusively(&path).unwrap();
    schema_upgrade::link_or_copy(&path, &second, Some(&held)).unwrap();
    assert_eq!(another_program(&path, WRITE), LOCKED);
    assert_eq!(another_program(&second, COUNT), "401 messages");
}
