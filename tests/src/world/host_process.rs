//! The host as a process.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::PATIENCE;

/// A running host. Dropping it kills the host, unless [`HostProcess::stop`] was called.
pub struct HostProcess {
    child: Child,
    log: PathBuf,
}

impl HostProcess {
    /// Starts the host and waits until it is up. If the host ends before, the error has its log.
    pub(super) async fn start(mut command: Command, root: &Path) -> Result<Self, String> {
        let log = root.join("host.log");
        let file = match std::fs::OpenOptions::new().create(true).append(true).open(&log) {
            Ok(file) => file,
            Err(e) => panic!("{}: {e}", log.display()),
        };
        let before = std::fs::read_to_string(&log).unwrap_or_default().len();
        let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn() {
            Ok(child) => child,
            Err(e) => panic!("the host cannot be run: {e}"),
        };
        let mut host = Self { child, log };
        let asked = tokio::time::Instant::now();
        loop {
            let told = std::fs::read_to_string(&host.log).unwrap_or_default();
            if told.get(before..).is_some_and(|new| new.contains("lazaret is up")) {
                return Ok(host);
            }
            if let Ok(Some(status)) = host.child.try_wait() {
                return Err(format!(
                    "the host ended with {status}:\n{}",
                    told.get(before..).unwrap_or(&told)
                ));
            }
            assert!(asked.elapsed() < PATIENCE, "the host does not come up:\n{told}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // The host may have ended already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops the host with SIGTERM, and returns its exit code.
    pub async fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) => status.code(),
            other => panic!("the host does not end: {other:?}"),
        }
    }

    /// Kills the host with SIGKILL.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

/// Runs a command to its end. If it does not end in time, the panic shows `args`.
pub(super) async fn run(mut command: Command, args: &[&str], stdin: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => panic!("lazaret cannot be run: {e}"),
    };
    if let Some(mut input) = child.stdin.take() {
        // The write fails if the command has closed its input, because it does not read it.
        let _ = input.write_all(stdin.as_bytes()).await;
    }
    match tokio::time::timeout(PATIENCE, child.wait_with_output()).await {
        Ok(Ok(output)) => output,
        other => panic!("lazaret {} does not end: {other:?}", args.join(" ")),
    }
}
