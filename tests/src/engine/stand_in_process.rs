//! A stand-in process that a test owns.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};

use super::client::ask;

/// A small program starts within this time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// An engine stand-in with its own directory, running or not. Dropping it ends it and every box.
#[derive(Debug)]
pub struct StandIn {
    dir: tempfile::TempDir,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    /// Ends the process with SIGTERM and not with SIGKILL, so that the boxes are gone when this returns. The stand-in
    /// then ends by itself within seconds.
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        // There is nothing to wait for if the process has already ended.
        let _ = self.0.wait();
    }
}

impl StandIn {
    /// Creates the directory of a stand-in that does not run yet.
    pub fn away() -> Self {
        match tempfile::Builder::new().prefix("lazaret-engine-").tempdir() {
            Ok(dir) => Self { dir, process: Mutex::default() },
            Err(e) => panic!("no place for an engine stand-in: {e}"),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    /// Starts the stand-in and waits until it answers. If it does not, the panic shows its output.
    pub async fn start(&self) {
        let (socket, log) = (self.socket(), self.dir.path().join("log"));
        let process = match run(&socket, &self.dir.path().join("state"), &log) {
            Ok(process) => process,
            Err(e) => panic!("{} cannot be run: {e}", binary().display()),
        };
        let earlier = self.process().replace(process);
        assert!(earlier.is_none(), "the engine stand-in runs already");
        let asked = tokio::time::Instant::now();
        while ask(&socket, Method::GET, "/version", None).await.is_err() {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(!self.has_ended(), "the engine stand-in ended: {}", said());
            assert!(asked.elapsed() < PATIENCE, "the engine stand-in does not answer: {}", said());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends the stand-in and every box.
    pub fn stop(&self) {
        let process = self.process().take();
        drop(process);
    }

    fn has_ended(&self) -> bool {
        self.process().as_mut().is_none_or(|p| !matches!(p.0.try_wait(), Ok(None)))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the process. Its standard input is a pipe to which nobody writes. If the test is killed, the pipe closes and
/// the stand-in ends.
fn run(socket: &Path, state: &Path, log: &Path) -> io::Result<Process> {
    let said = std::fs::File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(binary());
    command.arg("--socket").arg(socket).arg("--state").arg(state).arg("--until-input-ends");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said);
    Ok(Process(command.spawn()?))
}

/// Returns `LAZARET_STAND_IN_BIN`, or the binary that cargo built next to the running test: `target/<profile>/deps/..`.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LAZARET_STAND_IN_BIN") {
        return PathBuf::from(path);
    }
    let test = match std::env::current_exe() {
        Ok(test) => test,
        Err(e) => panic!("the path of the running test is unknown: {e}"),
    };
    // A test lies in `deps`, and a program in the directory above it.
    let built =
        test.ancestors().skip(1).take(2).map(|dir| dir.join("engine-stand-in")).find(|path| path.exists());
    match built {
        Some(path) => path,
        _ => panic!("no engine-stand-in beside {}; build it: `cargo build -p journeys`", test.display()),
    }
}
