//! Runs programs of the system, without the host's environment.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::VolumeError;

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest run of a program. To make a large file system takes a second.
const LONGEST: Duration = Duration::from_secs(60);
/// How often a running program is checked.
const CHECK: Duration = Duration::from_millis(2);
/// An error quotes this many bytes of the program's output.
const QUOTED: u64 = 600;

/// Runs a program to its end. Its stdin is the empty lock file, so that it keeps the lock until it ends even if the
/// host is killed.
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
                // The host does not wait for it, because the kernel may not be able to end it. It keeps the lock.
                let _ = child.kill();
                let _ = child.try_wait();
                return Err(failed(format!("it did not end in {} seconds", LONGEST.as_secs())));
            }
            None => std::thread::sleep(CHECK),
        }
    };
    match status.code() {
        Some(0) => Ok(()),
        // e2fsck(8): errors were found and corrected.
        Some(1) if program == "e2fsck" => Ok(()),
        _ => Err(failed(format!("{status}; {}", error_output(&mut child)))),
    }
}

/// The program's error output, on one line.
fn error_output(child: &mut Child) -> String {
    let mut bytes = Vec::new();
    if let Some(told) = child.stderr.take() {
        let _ = told.take(QUOTED).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() { "it said nothing".to_owned() } else { format!("it said {:?}", words.join(" ")) }
}
