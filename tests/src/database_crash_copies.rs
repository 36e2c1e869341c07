//! Copies of a database and its log as a crash would leave them, taken while its writer is at work.
//!
//! A copy of two files is fair only if no write falls between them. The writer is stopped for it (SIGSTOP, and every
//! thread of it seen to stand), which happens between system calls: what is copied is what `kill -9` at that moment
//! would have left. It is harsher than that for nobody: what a power cut may take beyond it was not yet synced, and the
//! host has told nobody that it was stored.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

/// Stops the process `count` times, at moments that `pause` sets apart, copies the database and its log, and opens the
/// copy as the next host would: the log replayed, every page and every reference checked. `look` is shown each.
///
/// Returns how many of the copies had a log to replay.
///
/// # Panics
/// When a copy is not sound, or the process is gone.
pub fn take(
    pid: u32,
    database: &Path,
    count: usize,
    mut pause: impl FnMut() -> Duration,
    mut look: impl FnMut(&Connection),
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
        open(&image, &mut look);
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

/// Whether there was anything in the log.
fn copied(pid: u32, database: &Path, image: &Path) -> bool {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(process) = process else { panic!("{pid} is no process") };
    if let Err(e) = kill_process(process, Signal::STOP) {
        panic!("the writer cannot be stopped: {e}");
    }
    while !stands(pid) {
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

/// Whether every thread of a process is stopped (proc_pid_stat(5): the state stands behind the name's last bracket).
fn stands(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok()).peekable();
    assert!(threads.peek().is_some(), "the writer {pid} is gone");
    threads.all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
}

fn open(image: &Path, look: &mut impl FnMut(&Connection)) {
    let checked = Connection::open(image).and_then(|c| {
        let told: String = c.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let astray = c.prepare("PRAGMA foreign_key_check")?.exists([])?;
        look(&c);
        Ok((told, astray))
    });
    match checked {
        Ok((told, false)) if told == "ok" => {}
        other => panic!("{} is not sound: {other:?}", image.display()),
    }
}
