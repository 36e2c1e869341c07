//! A Docker engine for one test, which the test may kill. It has its own network namespace, directories, containerd and
//! socket, so this machine's engine and network are not touched.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// An engine on a busy machine loads its plugins within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `dockerd` that a test owns. Dropping it kills the engine and everything that it started.
#[derive(Debug)]
pub struct Dockerd {
    dir: tempfile::TempDir,
    live_restore: bool,
    process: Mutex<Option<Child>>,
}

impl Dockerd {
    /// Starts an engine. With `live_restore` its boxes keep running while the engine is down.
    pub fn start(live_restore: bool) -> Self {
        Self::configured(live_restore, "{}")
    }

    /// Like [`Dockerd::start`], with the settings of a `daemon.json`.
    pub fn configured(live_restore: bool, settings: &str) -> Self {
        // The name is short, because containerd's sockets lie below it (unix(7): 107 bytes).
        let dir = match tempfile::Builder::new().prefix("lzd-").tempdir() {
            Ok(dir) => dir,
            Err(e) => panic!("no place for an engine: {e}"),
        };
        if let Err(e) = std::fs::write(dir.path().join("daemon.json"), settings) {
            panic!("no settings for an engine: {e}");
        }
        let engine = Self { dir, live_restore, process: Mutex::default() };
        engine.again();
        engine
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Starts the engine again after [`Dockerd::kill`]. If it does not answer, the panic shows the end of its log.
    pub fn again(&self) {
        let (dir, log) = (self.dir.path(), self.dir.path().join("log"));
        let words = match std::fs::OpenOptions::new().create(true).append(true).open(&log) {
            Ok(file) => file,
            Err(e) => panic!("{}: {e}", log.display()),
        };
        let mut command = Command::new("unshare");
        command.args(["--net", "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.arg(format!("--live-restore={}", self.live_restore));
        command.arg("--config-file").arg(dir.join("daemon.json"));
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("--pidfile").arg(dir.join("pid"));
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words);
        match command.spawn() {
            Ok(child) => *self.process() = Some(child),
            Err(e) => panic!("dockerd cannot be run: {e}"),
        }
        let asked = Instant::now();
        while !self.docker(&["version"]).is_ok_and(|output| output.status.success()) {
            let words = std::fs::read_to_string(&log).unwrap_or_default();
            let end: Vec<&str> = words.lines().rev().take(10).collect();
            assert!(asked.elapsed() < PATIENCE, "dockerd does not answer:\n{}", end.join("\n"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs the engine's command line.
    pub fn docker(&self, args: &[&str]) -> io::Result<std::process::Output> {
        let host = format!("unix://{}", self.socket().display());
        Command::new("docker").env("DOCKER_HOST", host).args(args).stdin(Stdio::null()).output()
    }

    /// Kills the engine with SIGKILL. Its containerd dies with it (prctl(2), PR_SET_PDEATHSIG); the boxes and their
    /// shims continue.
    pub fn kill(&self) {
        if let Some(mut child) = self.process().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // If nobody reaps orphans, a dead process keeps its pid. The next engine would take the recorded pids for
        // living processes and wait for them.
        for pid in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.dir.path().join(pid));
        }
    }

    /// Stops the engine with SIGSTOP, as if it hung, or continues it with SIGCONT.
    pub fn hangs(&self, hangs: bool) {
        let pid =
            self.process().as_ref().and_then(|child| i32::try_from(child.id()).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, if hangs { Signal::STOP } else { Signal::CONT });
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.hangs(false);
        self.kill();
        // Kills the remaining processes: containerd, the shims, and through them the boxes. Their command lines or
        // working directories name this directory.
        let root = self.dir.path().to_owned();
        for _ in 0..50 {
            let left = processes_of(&root);
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        unmount_below(&root);
    }
}

/// Returns the processes whose command line or working directory names `root`.
fn processes_of(root: &Path) -> Vec<Pid> {
    let name = root.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        let args = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mounts = std::fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        let boxed = mounts.lines().any(|l| l.split(' ').nth(4) == Some("/") && l.contains(&name));
        let ours = String::from_utf8_lossy(&args).contains(&name);
        if (ours || boxed) && pid != rustix::process::getpid() {
            found.push(pid);
        }
    }
    found
}

/// Unmounts everything below `root`, the deepest mounts first.
pub fn unmount_below(root: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|path| path.starts_with(root))
        .collect();
    below.sort();
    for path in below.iter().rev() {
        let _ = unmount(path, UnmountFlags::DETACH);
    }
}
