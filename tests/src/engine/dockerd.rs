//! A Docker engine of a test's own, which may be killed: it has a network namespace, directories, a containerd and a
//! socket of its own, so that this machine's engine and its network are left alone.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// An engine that loads its plugins on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `dockerd` that a test holds. Dropped, it ends with all that it started.
#[derive(Debug)]
pub struct Dockerd {
    dir: tempfile::TempDir,
    live_restore: bool,
    process: Mutex<Option<Child>>,
}

impl Dockerd {
    /// Starts an engine. With `live_restore` its boxes go on while it is away.
    ///
    /// # Panics
    /// When it cannot be run, or does not answer.
    pub fn start(live_restore: bool) -> Self {
        // A short name: containerd's sockets lie below it (unix(7): 107 bytes).
        let dir = match tempfile::Builder::new().prefix("lzd-").tempdir() {
            Ok(dir) => dir,
            Err(e) => panic!("no place for an engine: {e}"),
        };
        let engine = Self { dir, live_restore, process: Mutex::default() };
        engine.again();
        engine
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Starts it again after [`Dockerd::kill`].
    ///
    /// # Panics
    /// When it does not answer; the end of its log is in the message.
    pub fn again(&self) {
        let (dir, log) = (self.dir.path(), self.dir.path().join("log"));
        let words = match std::fs::OpenOptions::new().create(true).append(true).open(&log) {
            Ok(file) => file,
            Err(e) => panic!("{}: {e}", log.display()),
        };
        let mut command = Command::new("unshare");
        command.args(["--net", "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.arg(format!("--live-restore={}", self.live_restore));
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
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn docker(&self, args: &[&str]) -> io::Result<std::process::Output> {
        let host = format!("unix://{}", self.socket().display());
        Command::new("docker").env("DOCKER_HOST", host).args(args).stdin(Stdio::null()).output()
    }

    /// SIGKILL. Its containerd dies with it (prctl(2), PR_SET_PDEATHSIG); the boxes and their shims are not told.
    pub fn kill(&self) {
        if let Some(mut child) = self.process().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The next one would wait for the last: where nobody reaps orphans, a dead process keeps its pid.
        for pid in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.dir.path().join(pid));
        }
    }

    /// SIGSTOP, or SIGCONT: an engine that hangs.
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
        // What it left: containerd, shims, and through them the boxes. They name this directory.
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

/// Processes whose command line or working directory names `root`.
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

/// Unmounts what is mounted below `root`, the deepest first.
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
