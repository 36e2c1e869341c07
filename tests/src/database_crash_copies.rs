//! Copies a database and its WAL while its writer works, as a crash would leave them.
//!
//! A copy of the two files is valid only if no write happens between them. So the writer is stopped with SIGSTOP, and
//! the copy begins when every thread of it has stopped. Threads stop between system calls, so the copy is what `kill
//! -9` at that moment would leave. A power cut can lose more, but only data that was not yet synced, and the host has
//! not acknowledged that data to anybody.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

/// Stops the process `count` times, with `pause` between the stops, and copies the database and its WAL. Opens each
/// copy as the next host would: SQLite replays the WAL, and every page and every reference is checked. Then calls
/// `inspect` with the open copy. Returns how many copies had a WAL to replay.
pub fn take(
    pid: u32,
    database: &Path,
    count: usize,
    mut pause: impl FnMut() -> Duration,
    mut inspect: impl FnMut(&Connection),
) -> usize {
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(e) => panic!("no place for copies: {e}"),
    };
    let mut replayed = 0;
    for n in 0..count {
        std::thread::sleep(pause());
        let image = scratch.path().join(format!("{n}.db"));
        replayed += usize::from(copied(pid, database, &image));
        open(&image, &mut inspect);
        for side in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(&image, side));
        }
    }
    replayed
}

fn beside(path: &Path, side: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(side);
    name.into()
}

/// Copies the database and its WAL. Returns whether the WAL had content.
fn copied(pid: u32, database: &Path, image: &Path) -> bool {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(process) = process else { panic!("{pid} is no process") };
    if let Err(e) = kill_process(process, Signal::STOP) {
        panic!("the writer cannot be stopped: {e}");
    }
    while !is_stopped(pid) {
        std::thread::yield_now();
    }
    let done = fs::copy(database, image).and_then(|_| {
        match fs::copy(beside(database, "-wal"), beside(image, "-wal")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
            copied => copied,
        }
    });
    let _ = kill_process(process, Signal::CONT);
    match done {
        Ok(logged) => logged > 0,
        Err(e) => panic!("{} cannot be copied: {e}", database.display()),
    }
}

/// Returns whether every thread of a process is stopped. (proc_pid_stat(5): the state follows the last bracket of the
/// name.)
fn is_stopped(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok()).peekable();
    assert!(threads.peek().is_some(), "the writer {pid} is gone");
    threads.all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
}

fn open(image: &Path, inspect: &mut impl FnMut(&Connection)) {
    let checked = Connection::open(image).and_then(|c| {
        let told: String = c.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let astray = c.prepare("PRAGMA foreign_key_check")?.exists([])?;
        inspect(&c);
        Ok((told, astray))
    });
    match checked {
        Ok((told, false)) if told == "ok" => {}
        other => panic!("{} is damaged: {other:?}", image.display()),
    }
}
