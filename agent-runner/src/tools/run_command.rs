//! The tool `run_command`: runs one command line in the image's shell.
//!
//! Both streams share one pipe, so lines keep their order. The command leads a process group of its own, which is
//! killed as a whole. A process that leaves the group escapes that, as it would escape a terminal's hang-up; the
//! container's limits still hold it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ipc_schema::letters::to_agent::Limits;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::background::Log;
use super::output_limit::HeadAndTail;
use super::{LocalCall, LocalTool, Output, Running, Shell, Toolbox, define, local, one_line};
use crate::box_paths::BoxPaths;
use crate::tool_policy::RUN_COMMAND;

pub(super) static TOOL: LocalTool = LocalTool {
    definition: define(RUN_COMMAND, ABOUT, properties, &["command"]),
    read: |input| local::<Args>(RUN_COMMAND, input),
};

const ABOUT: &str = "Runs a command line in the image's shell, in /workspace unless `cwd` says otherwise. No terminal, no input. Answers with stdout and stderr together, in order, and the exit code. Long output keeps its head and tail. With `background` it answers at once with a number for read_command and stop_command; such a command lives until the container closes.";

/// The time between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long to read output after the command ended: a process that it left behind may hold the pipe for ever.
pub const AFTER_EXIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    pub command: String,
    /// Time limit in seconds.
    #[serde(default)]
    pub timeout_s: Option<u32>,
    #[serde(default)]
    pub background: bool,
    #[serde(default)]
    pub cwd: Option<String>,
}

impl Args {
    /// A command without options.
    pub fn plain(command: String) -> Self {
        Self { command, timeout_s: None, background: false, cwd: None }
    }
}

fn properties() -> Value {
    json!({
        "command": { "type": "string", "description": "passed to the shell with -c" },
        "timeout_s": { "type": "integer", "minimum": 1, "description": "stop it after this many seconds" },
        "background": { "type": "boolean", "description": "start it and do not wait" },
        "cwd": { "type": "string", "description": "directory to run in" },
    })
}

/// The time limit of a call: what the model asks for, within the group's limits.
pub fn time_limit(args: &Args, limits: &Limits) -> Duration {
    let asked = args.timeout_s.unwrap_or(limits.command_s);
    Duration::from_secs(asked.clamp(1, limits.command_max_s.max(1)).into())
}

impl LocalCall for Args {
    fn detail(&self) -> String {
        one_line(&self.command)
    }

    fn command(&self) -> Option<&str> {
        Some(&self.command)
    }

    fn time_limit(&self, limits: &Limits) -> Duration {
        time_limit(self, limits)
    }

    fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_> {
        Box::pin(async move { run(toolbox, *self).await })
    }
}

async fn run(toolbox: &Toolbox, args: Args) -> Output {
    let shell = toolbox.shell();
    let output = if args.background {
        shell.ok_or(StartError::NoShell).and_then(|shell| start_in_background(toolbox, shell, &args))
    } else {
        run_to_end(toolbox.paths(), shell, toolbox.limits(), &args).await.map(Ended::report)
    };
    output.unwrap_or_else(|problem| Output::error(problem.to_string()))
}

/// Runs a command and waits until it ends or its time is up.
///
/// # Errors
/// When it cannot start.
pub async fn run_to_end(
    paths: &BoxPaths,
    shell: Option<&Shell>,
    limits: &Limits,
    args: &Args,
) -> Result<Ended, StartError> {
    let (child, pipe) = start(paths, shell.ok_or(StartError::NoShell)?, args, true)?;
    Ok(attend(child, pipe, limits, args).await)
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub status: io::Result<ExitStatus>,
    /// The time limit, if the command reached it and was stopped.
    pub stopped_after: Option<Duration>,
    /// Whether a process that it started still holds its output.
    held: bool,
    pub output: HeadAndTail,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "this image has no shell, so no command can run. read_file, write_file, edit_file, list_files and \
         search_files work. For commands, ask the owner to set another image for this group."
    )]
    NoShell,
    #[error("{path} is no directory to run in; make it first, or name another `cwd`")]
    Cwd { path: String },
    #[error("cannot start {shell}: {source}")]
    Spawn { shell: String, source: io::Error },
    #[error("cannot catch the command's output: {0}")]
    Pipe(#[from] io::Error),
    #[error("{0}")]
    Full(String),
    #[error("cannot open a log in {dir}: {source}; is the workspace full?")]
    Log { dir: String, source: io::Error },
}

fn prepare(
    paths: &BoxPaths,
    shell: &Shell,
    args: &Args,
    out: Stdio,
    err: Stdio,
) -> Result<Command, StartError> {
    let cwd = args.cwd.as_deref().map_or_else(|| paths.workspace(), |path| paths.resolve(path));
    if !cwd.is_dir() {
        return Err(StartError::Cwd { path: paths.shown(&cwd) });
    }
    let mut command = Command::new(shell.program());
    command
        .args(shell.arguments(&args.command))
        .current_dir(cwd)
        .env("HOME", paths.home())
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    Ok(command)
}

fn spawn(mut command: Command, shell: &Shell) -> Result<Child, StartError> {
    command.spawn().map_err(|source| StartError::Spawn { shell: shell.name(), source })
}

/// Starts a command. `dies` says whether it dies when nobody waits for it any more.
fn start(
    paths: &BoxPaths,
    shell: &Shell,
    args: &Args,
    dies: bool,
) -> Result<(Child, pipe::Receiver), StartError> {
    let (reader, writer) = io::pipe()?;
    let err = writer.try_clone()?;
    let mut command = prepare(paths, shell, args, writer.into(), err.into())?;
    command.kill_on_drop(dies);
    // `spawn` consumes the command and thereby closes this process's ends of the pipe; otherwise reading would never
    // end.
    let child = spawn(command, shell)?;
    Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

async fn attend(mut child: Child, mut pipe: pipe::Receiver, limits: &Limits, args: &Args) -> Ended {
    let group = Group::of(&child);
    let mut output = HeadAndTail::new(limits.output_bytes);
    let limit = time_limit(args, limits);
    let on_time = timeout(limit, read_until_exit(&mut child, &mut pipe, &mut output)).await;
    let (status, late) = match on_time {
        Ok(status) => (status, false),
        Err(_) => {
            group.signal(Signal::TERM);
            let ended = timeout(GRACE, read_until_exit(&mut child, &mut pipe, &mut output)).await;
            group.signal(Signal::KILL);
            (if let Ok(status) = ended { status } else { child.wait().await }, true)
        }
    };
    let held = !read_rest(&mut pipe, &mut output).await;
    // It ended by itself, so processes that it left behind on purpose may live on.
    group.forget();
    Ended { status, stopped_after: late.then_some(limit), held, output }
}

/// Reads output until the command has ended. The pipe may still hold more then.
async fn read_until_exit(
    child: &mut Child,
    pipe: &mut pipe::Receiver,
    output: &mut HeadAndTail,
) -> io::Result<ExitStatus> {
    let mut open = true;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            status = child.wait() => return status,
            read = pipe.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(n) => output.push(buffer.get(..n).unwrap_or_default()),
            },
        }
    }
}

/// Reads the rest of the output; false when another process still holds the pipe open after [`AFTER_EXIT`].
async fn read_rest(pipe: &mut pipe::Receiver, output: &mut HeadAndTail) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    let rest = async {
        while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
            output.push(buffer.get(..n).unwrap_or_default());
        }
    };
    tokio::select! {
        () = rest => true,
        () = sleep(AFTER_EXIT) => false,
    }
}

impl Ended {
    /// The output with how it ended, for the model.
    fn report(self) -> Output {
        let Self { status, stopped_after, held, output } = self;
        let mut text = if output.is_empty() { "(no output)".to_owned() } else { output.text() };
        let mut say = |line: &str| {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(line);
        };
        if held && stopped_after.is_none() {
            say(
                "[a process that it started still holds the output; what that writes from now on is lost. Start such \
                 processes with `background`.]",
            );
        }
        let good = match (stopped_after, &status) {
            (Some(limit), _) => {
                let limit = limit.as_secs();
                say(&format!(
                    "[stopped after {limit} s with everything it started. Give it more time with timeout_s, make it \
                     do less, or start it with `background`.]"
                ));
                false
            }
            (None, Ok(status)) => {
                if !status.success() {
                    say(&format!("[{}]", ending(*status)));
                }
                status.success()
            }
            (None, Err(error)) => {
                say(&format!("[how it ended is not known: {error}]"));
                false
            }
        };
        Output { is_error: !good, ..Output::ok(text) }
    }
}

/// How a command ended, in words.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(127), _) => "exit code 127: the shell did not find the command".into(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed by signal 9; when nobody asked for it, memory ran out".into(),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    }
}

/// A process group that is killed when this value is dropped, so that an interrupted turn ends its command.
struct Group(Option<Pid>);

impl Group {
    /// The child must be the leader of its group.
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // ESRCH: the whole group has ended.
            let _ = kill_process_group(leader, signal);
        }
    }

    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn start_in_background(toolbox: &Toolbox, shell: &Shell, args: &Args) -> Result<Output, StartError> {
    let paths = toolbox.paths();
    toolbox.jobs.check_room().map_err(StartError::Full)?;
    let dir = || paths.shown(&paths.background());
    let log = Log::create(paths).map_err(|source| StartError::Log { dir: dir(), source })?;
    let (child, pipe) = match start(paths, shell, args, false) {
        Ok(started) => started,
        Err(problem) => {
            log.discard();
            return Err(problem);
        }
    };
    let path = log.shown();
    let id = toolbox.jobs.add(&args.command, child, pipe, log);
    Ok(Output::ok(format!(
        "started as command {id}. read_command shows its output (also in {path}), stop_command ends it."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::host;
    use std::time::Instant;

    struct Bench {
        dir: tempfile::TempDir,
        toolbox: Toolbox,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        std::fs::create_dir_all(paths.home()).unwrap();
        let limits = Limits { output_bytes: 1000, ..host::begin().limits };
        Bench { dir, toolbox: Toolbox::new(paths, Shell::probe(), limits) }
    }

    fn args(command: &str) -> Args {
        Args::plain(command.into())
    }

    impl Bench {
        async fn run(&self, args: Args) -> Output {
            run(&self.toolbox, args).await
        }

        async fn read_until(&self, file: &str, text: &str) -> String {
            let look = async {
                loop {
                    let content =
                        std::fs::read_to_string(self.toolbox.paths().resolve(file)).unwrap_or_default();
                    if content.contains(text) {
                        return content;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, look).await.expect("it is never written")
        }
    }

    /// So that a broken test ends.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn lives(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with('Z'))
    }

    async fn until_dead(pid: &str) {
        let look = async {
            while lives(pid) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, look).await.expect("it lives on");
    }

    #[tokio::test]
    async fn both_streams_come_in_order_with_the_exit_code() {
        let output = bench().run(args("echo one; echo two >&2; echo three; exit 3")).await;
        assert_eq!(output, Output::error("one\ntwo\nthree\n[exit code 3]"));
        assert_eq!(bench().run(args("true")).await, Output::ok("(no output)"));
        assert_eq!(bench().run(args("pwd; cat")).await.text.lines().count(), 1, "input is empty, not a wait");
    }

    #[tokio::test]
    async fn a_command_runs_where_it_is_told_with_a_home() {
        let bench = bench();
        std::fs::create_dir(bench.toolbox.paths().resolve("sub")).unwrap();
        let there = bench.run(Args { cwd: Some("sub".into()), ..args("pwd; echo $HOME") }).await.text;
        let expected = format!("{0}/workspace/sub\n{0}/workspace/.home\n", bench.dir.path().display());
        assert_eq!(there, expected);
        let nowhere = bench.run(Args { cwd: Some("nowhere".into()), ..args("pwd") }).await;
        assert!(nowhere.is_error && nowhere.text.starts_with("/workspace/nowhere is no directory"));
    }

    #[tokio::test]
    async fn a_command_that_floods_keeps_head_and_tail() {
        let output = bench().run(args("echo first; head -c 100000000 /dev/zero; echo last")).await;
        assert!(!output.is_error && output.text.len() < 4000, "{}", output.text.len());
        assert!(output.text.starts_with("first\n") && output.text.ends_with("last\n"));
        assert!(output.text.contains("99999011 bytes cut out here"), "{}", output.text);
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_stopped_with_its_children() {
        let bench = bench();
        let command = "sleep 1000 & echo $! > child; echo begun; trap '' TERM; while :; do sleep 1; done";
        let output = bench.run(Args { timeout_s: Some(1), ..args(command) }).await;
        assert!(output.is_error && output.text.starts_with("begun\n[stopped after 1 s"), "{}", output.text);
        until_dead(&bench.read_until("child", "\n").await).await;
    }

    #[tokio::test]
    async fn a_process_left_behind_does_not_hold_the_answer() {
        let bench = bench();
        let begun = Instant::now();
        let output = bench.run(args("sleep 1000 & echo $! > child; echo done")).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "it must not wait for the sleeper");
        assert!(!output.is_error && output.text.starts_with("done\n[a process"), "{}", output.text);
        let child = bench.read_until("child", "\n").await;
        assert!(lives(&child), "left behind on purpose");
        kill_process(&child);
    }

    fn kill_process(pid: &str) {
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_command_that_closes_its_output_is_waited_for() {
        let bench = bench();
        let output = bench.run(args("echo begun; exec >&- 2>&-; sleep 0.2; touch made; exit 3")).await;
        assert_eq!(output, Output::error("begun\n[exit code 3]"));
        assert!(bench.toolbox.paths().resolve("made").exists());
    }

    #[tokio::test]
    async fn an_interrupted_command_dies_with_its_group() {
        let bench = bench();
        let command = args("sleep 1000 & echo $! > child; wait");
        let child = tokio::select! {
            _ = bench.run(command) => panic!("it never ends by itself"),
            child = bench.read_until("child", "\n") => child,
        };
        until_dead(&child).await;
    }

    #[tokio::test]
    async fn a_background_command_answers_at_once_and_logs_its_end() {
        let bench = bench();
        let output = bench.run(Args { background: true, ..args("echo hello; exit 4") }).await;
        assert!(
            !output.is_error && output.text.contains("/workspace/.home/background/1.log"),
            "{}",
            output.text
        );
        let log = bench.read_until("~/background/1.log", "exit code").await;
        assert_eq!(log, "hello\n\n[exit code 4]\n");
        let second = bench.run(Args { background: true, ..args("true") }).await;
        assert!(second.text.contains("/2.log"));
    }

    #[tokio::test]
    async fn signals_missing_commands_and_binary_output_are_told() {
        let bench = bench();
        let killed = bench.run(args("kill -9 $$")).await;
        assert!(killed.is_error && killed.text.contains("killed by signal 9"));
        let missing = bench.run(args("no-such-command-here")).await;
        assert!(missing.is_error && missing.text.contains("127"));
        let binary = bench.run(args("printf 'a\\000\\377b'")).await;
        assert_eq!(binary, Output::ok("a\u{fffd}\u{fffd}b"));
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_its_writer() {
        let output = bench().run(args("yes | head -n 1")).await;
        assert_eq!(output, Output::ok("y\n"));
    }

    #[tokio::test]
    async fn an_image_without_a_shell_says_so_and_what_works() {
        let bench = bench();
        let toolbox = Toolbox::new(bench.toolbox.paths().clone(), None, bench.toolbox.limits().clone());
        let output = run(&toolbox, args("ls")).await;
        assert!(output.is_error);
        assert!(output.text.contains("no shell") && output.text.contains("write_file"));
    }

    #[test]
    fn nobody_asks_for_more_time_than_there_is() {
        let limits = Limits { command_s: 120, command_max_s: 600, ..host::begin().limits };
        for (asked, seconds) in [(None, 120), (Some(5), 5), (Some(6000), 600), (Some(0), 1)] {
            let args = Args { timeout_s: asked, ..args("x") };
            assert_eq!(time_limit(&args, &limits), Duration::from_secs(seconds));
        }
    }
}
