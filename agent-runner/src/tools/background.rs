//! Commands in the background: `run_command` starts them, `read_command` and `stop_command` follow. They live as long
//! as the box.
//!
//! A command's number is that of its log file, which outlives the box: a number is not used twice. The runner reads the
//! command's output and writes the log, so that a command that never stops writing fills neither memory nor disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc_schema::letters::to_agent::Limits;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::output_limit::HeadAndTail;
use super::run_command::{AFTER_EXIT, GRACE, ending};
use super::{LocalCall, LocalTool, Output, Running, Toolbox, define, file_access, local, one_line};
use crate::box_paths::BoxPaths;

pub(super) static READ: LocalTool = LocalTool {
    definition: define("read_command", ABOUT_READ, read_properties, &[]),
    read: |input| local::<ReadArgs>("read_command", input),
};

pub(super) static STOP: LocalTool = LocalTool {
    definition: define("stop_command", ABOUT_STOP, stop_properties, &["id"]),
    read: |input| local::<StopArgs>("stop_command", input),
};

const ABOUT_READ: &str = "Shows what a background command has written since the last look, and whether it runs or how it ended. Without `id` it lists the background commands of this container.";
const ABOUT_STOP: &str = "Stops a background command and what it started: SIGTERM, and SIGKILL two seconds later. Says how it ended.";

/// The most background commands that run at once.
pub const RUNNING_MAX: usize = 16;
/// How many ended commands are remembered.
const ENDED_MAX: usize = 100;
/// The log of a command holds between this and twice as many of its last bytes.
const LOG_HALF: u64 = 8 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadArgs {
    #[serde(default)]
    id: Option<u32>,
    #[serde(default)]
    wait_s: Option<u32>,
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopArgs {
    id: u32,
}

fn read_properties() -> Value {
    json!({
        "id": { "type": "integer", "minimum": 1, "description": "the command's number" },
        "wait_s": { "type": "integer", "minimum": 1, "description": "first wait until it ends, at most so many seconds" },
        "all": { "type": "boolean", "description": "show its output from the beginning" },
    })
}

fn stop_properties() -> Value {
    json!({ "id": { "type": "integer", "minimum": 1, "description": "the command's number" } })
}

impl LocalCall for ReadArgs {
    fn detail(&self) -> String {
        self.id.map_or_else(String::new, |id| id.to_string())
    }

    fn time_limit(&self, limits: &Limits) -> Duration {
        Duration::from_secs(self.wait_s.unwrap_or(0).min(limits.command_max_s).into())
    }

    fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_> {
        Box::pin(async move {
            let wait = self.time_limit(toolbox.limits());
            let Some(id) = self.id else { return Output::ok(toolbox.jobs.list()) };
            let shown = match toolbox.jobs.find(id, toolbox.paths()) {
                Ok(job) => job.show(wait, self.all, toolbox.limits().output_bytes).await,
                Err(problem) => Err(problem),
            };
            shown.map_or_else(Output::error, Output::ok)
        })
    }
}

impl LocalCall for StopArgs {
    fn detail(&self) -> String {
        self.id.to_string()
    }

    fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_> {
        Box::pin(async move {
            match toolbox.jobs.find(self.id, toolbox.paths()) {
                Ok(job) => Output::ok(job.stop().await),
                Err(problem) => Output::error(problem),
            }
        })
    }
}

/// The background commands of this box, by number.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<BTreeMap<u32, Arc<Job>>>);

#[derive(Debug)]
struct Job {
    id: u32,
    command: String,
    since: Instant,
    group: Option<Pid>,
    progress: watch::Receiver<Progress>,
    log: Arc<Mutex<Log>>,
    /// How much of the output the model has seen.
    seen: Mutex<u64>,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    /// How the command ended.
    ended: Option<String>,
    /// Whether nobody holds its output any more.
    closed: bool,
}

impl Jobs {
    /// # Errors
    /// When so many run that no other may start: what to do.
    pub fn check_room(&self) -> Result<(), String> {
        match self.all().values().filter(|job| job.progress.borrow().ended.is_none()).count() {
            running if running >= RUNNING_MAX => Err(format!(
                "{running} commands run in the background already; stop one with stop_command first (read_command \
                 lists them)"
            )),
            _ => Ok(()),
        }
    }

    /// Takes over a command that has started: `child` leads a process group of its own.
    pub fn add(&self, command: &str, child: Child, output: pipe::Receiver, log: Log) -> u32 {
        let id = log.id;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (told, progress) = watch::channel(Progress::default());
        let log = Arc::new(Mutex::new(log));
        tokio::spawn(attend(child, output, Arc::clone(&log), told));
        let (command, since, seen) = (one_line(command), Instant::now(), Mutex::new(0));
        let mut jobs = self.all();
        jobs.insert(id, Arc::new(Job { id, command, since, group, progress, log, seen }));
        let ended: Vec<u32> =
            jobs.values().filter(|job| job.progress.borrow().ended.is_some()).map(|job| job.id).collect();
        for old in ended.iter().take(ended.len().saturating_sub(ENDED_MAX)) {
            jobs.remove(old);
        }
        id
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Job>>> {
        held(&self.0)
    }

    fn find(&self, id: u32, paths: &BoxPaths) -> Result<Arc<Job>, String> {
        if let Some(job) = self.all().get(&id) {
            return Ok(Arc::clone(job));
        }
        let log = log_path(paths, id);
        Err(match std::fs::symlink_metadata(&log) {
            Ok(_) => format!(
                "command {id} does not run: it has ended long ago, or with an earlier container. Its last output is in \
                 {}; start it again if you need it.",
                paths.shown(&log)
            ),
            Err(_) => format!("there is no background command {id}; read_command without `id` lists them"),
        })
    }

    fn list(&self) -> String {
        let jobs = self.all();
        if jobs.is_empty() {
            return "No command was started in the background in this container.".to_owned();
        }
        let line = |job: &Arc<Job>| format!("{}: {}: {}", job.id, job.state(), job.command);
        jobs.values().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Job {
    fn state(&self) -> String {
        match &self.progress.borrow().ended {
            None => format!("running for {} s", self.since.elapsed().as_secs()),
            Some(ending) => ending.clone(),
        }
    }

    async fn show(&self, wait: Duration, all: bool, limit: u32) -> Result<String, String> {
        let mut progress = self.progress.clone();
        let ends = progress.wait_for(|progress| progress.ended.is_some());
        // When the time is over, what is there so far is shown.
        let _ = timeout(wait, ends).await;
        let state = self.state();
        let log = held(&self.log);
        let mut seen = held(&self.seen);
        let from = if all { 0 } else { *seen };
        let (mut text, end) = log.read(from, limit)?;
        *seen = end;
        if text.is_empty() {
            text = if from == 0 { "(no output)" } else { "(nothing new)" }.to_owned();
        }
        let line_end = if text.ends_with('\n') { "" } else { "\n" };
        Ok(format!("{text}{line_end}[{state}]"))
    }

    async fn stop(&self) -> String {
        let mut progress = self.progress.clone();
        if progress.borrow().closed {
            return format!("it has ended before: {}", self.state());
        }
        self.signal(Signal::TERM);
        let _ = timeout(GRACE, progress.wait_for(|progress| progress.closed)).await;
        self.signal(Signal::KILL);
        // A process that left the group can hold the output; the command itself is dead.
        let ends = progress.wait_for(|progress| progress.ended.is_some());
        match timeout(GRACE, ends).await {
            Ok(_) => format!("stopped: {}. read_command shows its last output.", self.state()),
            Err(_) => "SIGKILL was sent, and it has not ended yet; read_command shows when it has".to_owned(),
        }
    }

    fn signal(&self, signal: Signal) {
        // A number is free for other processes only when nobody of the group is left.
        if let Some(leader) = self.group.filter(|_| !self.progress.borrow().closed) {
            let _ = kill_process_group(leader, signal);
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs the output until nobody holds it, and how the command ended.
async fn attend(
    mut child: Child,
    mut output: pipe::Receiver,
    log: Arc<Mutex<Log>>,
    told: watch::Sender<Progress>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let status = loop {
        tokio::select! {
            // What it wrote before it ended comes first.
            biased;
            read = output.read(&mut buffer) => match read {
                Ok(n @ 1..) => held(&log).push(buffer.get(..n).unwrap_or_default()),
                Ok(0) | Err(_) => break child.wait().await,
            },
            status = child.wait() => break status,
        }
    };
    let rest = async {
        while let Ok(n @ 1..) = output.read(&mut buffer).await {
            held(&log).push(buffer.get(..n).unwrap_or_default());
        }
    };
    let _ = timeout(AFTER_EXIT, rest).await;
    let ended = match status {
        Ok(status) => ending(status),
        Err(error) => format!("how it ended is not known: {error}"),
    };
    held(&log).push(format!("\n[{ended}]\n").as_bytes());
    told.send_modify(|progress| progress.ended = Some(ended));
    while let Ok(n @ 1..) = output.read(&mut buffer).await {
        held(&log).push(buffer.get(..n).unwrap_or_default());
    }
    told.send_modify(|progress| progress.closed = true);
}

fn log_path(paths: &BoxPaths, id: u32) -> PathBuf {
    paths.background().join(format!("{id}.log"))
}

/// The log of a command: its newest part, and the part before it.
#[derive(Debug)]
pub struct Log {
    id: u32,
    paths: BoxPaths,
    file: File,
    /// How many bytes of the output lie before the newest part, and before the older one.
    start: u64,
    old_start: u64,
    length: u64,
    /// The first error. What came later is lost.
    failed: Option<io::Error>,
}

impl Log {
    /// Makes the log of a new command.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(paths: &BoxPaths) -> io::Result<Self> {
        std::fs::create_dir_all(paths.background())?;
        for id in 1..=u32::MAX {
            match File::options().append(true).create_new(true).open(log_path(paths, id)) {
                Ok(file) => {
                    let paths = paths.clone();
                    return Ok(Self { id, paths, file, start: 0, old_start: 0, length: 0, failed: None });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes the log of a command that did not start.
    pub fn discard(self) {
        let _ = std::fs::remove_file(self.path());
    }

    /// The path as the model knows it.
    pub fn shown(&self) -> String {
        self.paths.shown(&self.path())
    }

    fn path(&self) -> PathBuf {
        log_path(&self.paths, self.id)
    }

    fn old_path(&self) -> PathBuf {
        self.paths.background().join(format!("{}.old.log", self.id))
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.write(bytes) {
            tracing::warn!(%error, "the output of a background command could not be logged");
            self.failed = Some(error);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length >= LOG_HALF {
            std::fs::rename(self.path(), self.old_path())?;
            self.file = File::options().append(true).create_new(true).open(self.path())?;
            self.old_start = self.start;
            self.start += self.length;
            self.length = 0;
        }
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The output from this byte on, cut to head and tail, and where it ends.
    fn read(&self, from: u64, limit: u32) -> Result<(String, u64), String> {
        let end = self.start + self.length;
        let mut output = HeadAndTail::new(limit);
        let mut add = |path: &Path, start: u64, until: u64| -> Result<(), String> {
            let (mut file, _) = file_access::open(&self.paths, path)?;
            let at = from.max(start);
            let read =
                file.seek(SeekFrom::Start(at - start)).and_then(|_| copy(file.take(until - at), &mut output));
            read.map_err(|error| file_access::problem(&self.paths, path, &error))
        };
        if from < self.start {
            add(&self.old_path(), self.old_start, self.start)?;
        }
        if from < end {
            add(&self.path(), self.start, end)?;
        }
        let lost = self.old_start.saturating_sub(from);
        let before =
            if lost > 0 { format!("[… {lost} older bytes are not kept …]\n") } else { String::new() };
        let text = if output.is_empty() { String::new() } else { output.text() };
        let after = self.failed.as_ref().map(|error| format!("\n[its later output is lost: {error}]"));
        Ok((format!("{before}{text}{}", after.unwrap_or_default()), end))
    }
}

fn copy(mut from: impl Read, to: &mut HeadAndTail) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.push(buffer.get(..n).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::host;
    use crate::tools::{Call, Shell};

    struct Bench {
        _dir: tempfile::TempDir,
        toolbox: Toolbox,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        std::fs::create_dir_all(paths.home()).unwrap();
        let limits = Limits { output_bytes: 1000, ..host::begin().limits };
        Bench { _dir: dir, toolbox: Toolbox::new(paths, Shell::probe(), limits) }
    }

    impl Bench {
        async fn call(&self, name: &str, input: Value) -> Output {
            let Ok(Call::Local(call)) = Call::parse(name, &input.to_string()) else {
                panic!("{name} {input}")
            };
            call.run(&self.toolbox).await
        }

        async fn starts(&self, command: &str) -> Output {
            self.call("run_command", json!({ "command": command, "background": true })).await
        }

        async fn reads(&self, input: Value) -> String {
            let Output { text, is_error, .. } = self.call("read_command", input).await;
            assert!(!is_error, "{text}");
            text
        }
    }

    #[tokio::test]
    async fn a_command_is_started_read_in_pieces_and_seen_to_end() {
        let bench = bench();
        assert!(bench.reads(json!({})).await.starts_with("No command was started"));
        let go = bench.toolbox.paths().workspace().join("go");
        let started = bench.starts("echo one; until test -e go; do sleep 0.01; done; echo two; exit 3").await;
        assert!(
            started.text.contains("command 1") && started.text.contains("background/1.log"),
            "{}",
            started.text
        );
        let first = async {
            loop {
                let seen = bench.reads(json!({ "id": 1 })).await;
                if seen.starts_with("one") {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        };
        assert!(first.await.starts_with("one\n[running for "));
        assert!(bench.reads(json!({ "id": 1 })).await.starts_with("(nothing new)\n[running"));
        std::fs::write(go, "").unwrap();
        assert_eq!(
            bench.reads(json!({ "id": 1, "wait_s": 60 })).await,
            "two\n\n[exit code 3]\n[exit code 3]"
        );
        assert_eq!(
            bench.reads(json!({ "id": 1, "all": true })).await,
            "one\ntwo\n\n[exit code 3]\n[exit code 3]"
        );
        assert!(bench.reads(json!({})).await.starts_with("1: exit code 3: echo one;"));
        assert!(
            bench.call("stop_command", json!({ "id": 1 })).await.text.contains("ended before: exit code 3")
        );
    }

    #[tokio::test]
    async fn stopping_ends_the_whole_group_even_if_it_does_not_want_to() {
        let bench = bench();
        bench.starts("trap '' TERM; echo deaf; sleep 1000 & while :; do sleep 1000; done").await;
        while !bench.reads(json!({ "id": 1, "all": true })).await.starts_with("deaf") {
            tokio::task::yield_now().await;
        }
        let stopped = bench.call("stop_command", json!({ "id": 1 })).await;
        assert!(stopped.text.starts_with("stopped: killed by signal 9"), "{}", stopped.text);
        bench.starts("sleep 1000").await;
        let stopped = bench.call("stop_command", json!({ "id": 2 })).await;
        assert!(stopped.text.starts_with("stopped: killed by signal 15"), "{}", stopped.text);
    }

    #[tokio::test]
    async fn a_flood_of_100_mb_is_bounded_on_disk_and_its_end_is_read() {
        let bench = bench();
        bench.starts("head -c 100000000 /dev/zero | tr '\\0' x; echo end").await;
        let read = bench.reads(json!({ "id": 1, "wait_s": 60 })).await;
        assert!(read.starts_with("[… ") && read.contains("older bytes are not kept"), "{}", &read[..100]);
        assert!(read.ends_with("xend\n\n[exit code 0]\n[exit code 0]") && read.len() < 2_000);
        let logs = std::fs::read_dir(bench.toolbox.paths().background()).unwrap();
        let bytes: u64 = logs.map(|log| log.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 2 * LOG_HALF + 200_000, "{bytes}");
    }

    #[tokio::test]
    async fn only_so_many_run_at_once_and_an_unknown_number_says_what_it_may_be() {
        let bench = bench();
        for _ in 0..RUNNING_MAX {
            assert!(!bench.starts("sleep 1000").await.is_error);
        }
        let refused = bench.starts("sleep 1000").await;
        assert!(refused.is_error && refused.text.contains("stop_command"), "{}", refused.text);
        bench.call("stop_command", json!({ "id": 7 })).await;
        assert!(!bench.starts("sleep 1000").await.is_error);
        for name in ["read_command", "stop_command"] {
            let unknown = bench.call(name, json!({ "id": 99 })).await;
            assert!(unknown.is_error && unknown.text.contains("lists them"), "{}", unknown.text);
        }
        // A new box does not know the commands of the one before.
        let paths = bench.toolbox.paths().clone();
        let next = Toolbox::new(paths, Shell::probe(), bench.toolbox.limits().clone());
        let next = Bench { _dir: tempfile::tempdir().unwrap(), toolbox: next };
        let old = next.call("read_command", json!({ "id": 7 })).await;
        assert!(old.is_error && old.text.contains("an earlier container"), "{}", old.text);
        for job in bench.toolbox.jobs.all().values() {
            job.signal(Signal::KILL);
        }
    }

    #[tokio::test]
    async fn a_log_that_is_gone_or_no_file_is_told() {
        let bench = bench();
        bench.starts("echo hello").await;
        bench.reads(json!({ "id": 1, "wait_s": 60 })).await;
        let log = log_path(bench.toolbox.paths(), 1);
        std::fs::remove_file(&log).unwrap();
        let gone = bench.call("read_command", json!({ "id": 1, "all": true })).await;
        assert!(gone.is_error && gone.text.contains("does not exist"), "{}", gone.text);
        std::fs::create_dir(&log).unwrap();
        let odd = bench.call("read_command", json!({ "id": 1, "all": true })).await;
        assert!(odd.is_error && odd.text.contains("directory"), "{}", odd.text);
    }
}
