//! The system's own programs, run so that nothing of this host's environment reaches them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::VolumeError;

/// Where they are on every distribution.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Making a large file system takes a second.
const LONGEST: Duration = Duration::from_secs(60);
/// How often a program that runs is looked at.
const GLANCE: Duration = Duration::from_millis(2);
/// So much of what it said is quoted.
const QUOTED: u64 = 600;

/// Runs a program to its end. It reads nothing: its input is the empty lock file, so that one which outlives a host
/// that is killed keeps the lock until it is done.
pub(super) fn run(program: &'static str, args: &[&OsStr], lock: &File) -> Result<(), VolumeError> {
    let failed = |why: String| VolumeError::Program { program, why };
    let io = |e: io::Error| failed(e.to_string());
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/");
    command.stdin(lock.try_clone().map_err(io)?).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => VolumeError::NoProgram { program },
        _ => io(e),
    })?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait().map_err(io)? {
            Some(status) => break status,
            None if began.elapsed() > LONGEST => {
                // One that the kernel does not let go of is not waited for; it keeps the lock.
                let _ = child.kill();
                let _ = child.try_wait();
                return Err(failed(format!("it did not end in {} seconds", LONGEST.as_secs())));
            }
            None => std::thread::sleep(GLANCE),
        }
    };
    match status.code() {
        Some(0) => Ok(()),
        // e2fsck(8): errors were found and corrected.
        Some(1) if program == "e2fsck" => Ok(()),
        _ => Err(failed(format!("{status}; {}", said(&mut child)))),
    }
}

/// Its last words, on one line.
fn said(child: &mut Child) -> String {
    let mut bytes = Vec::new();
    if let Some(told) = child.stderr.take() {
        let _ = told.take(QUOTED).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() { "it said nothing".to_owned() } else { format!("it said {:?}", words.join(" ")) }
}
