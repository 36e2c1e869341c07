//! Failpoints: named places at which a test can kill, delay, fail or panic a test build of the host or the runner.
//!
//! Only builds with the feature `failpoints` contain this crate. A failpoint in the code is one line,
//! `failpoint!("module.step.when")`, and expands to nothing without the feature. [`TABLE`] lists all failpoints.
//!
//! A rule is `NAME=N*ACTION`: it performs the action once, at the N-th hit of that failpoint. A process writes each hit
//! as a line into the trace file before it acts, and reads the earlier hits from there when it starts. So hits are
//! counted over restarts: a host that its rule killed and that starts again with the same environment is not killed
//! again. A failpoint without a line in the trace was never reached.

mod table;

pub use table::{Kind, Point, Side, TABLE};

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

/// The environment variable with the host's rules, separated by `;`. (A scan for this word tells a test build from a
/// release.)
pub const RULES: &str = "LAZARET_FAILPOINTS";
/// The environment variable with the path of the host's trace file.
pub const TRACE: &str = "LAZARET_FAILPOINTS_TRACE";
/// The environment variable with the path of a file that holds a number of milliseconds: so far ahead is the host's
/// wall clock.
pub const CLOCK: &str = "LAZARET_CLOCK_AHEAD";
/// The file with the runner's rules, in the group's workspace. The posture fixes the runner's environment, so a
/// variable cannot carry them.
pub const RULES_FILE: &str = ".failpoints";
/// The runner's trace file, next to its rules.
pub const TRACE_FILE: &str = ".failpoints.trace";

/// The action of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Kills this process with SIGKILL.
    Kill,
    /// Returns the caller's own error.
    Error,
    /// Returns the error "No space left on device".
    Enospc,
    /// Returns the error "Input/output error".
    Eio,
    /// Blocks the thread. A runtime has one worker thread less during this time.
    Delay(Duration),
    /// Panics in the worker.
    Panic,
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis = text.strip_prefix("delay(").and_then(|rest| rest.strip_suffix(')')?.parse().ok());
        match (text, millis) {
            ("kill", _) => Ok(Self::Kill),
            ("error", _) => Ok(Self::Error),
            ("enospc", _) => Ok(Self::Enospc),
            ("eio", _) => Ok(Self::Eio),
            ("panic", _) => Ok(Self::Panic),
            (_, Some(millis)) => Ok(Self::Delay(Duration::from_millis(millis))),
            _ => Err(format!("{text:?} is no action: kill, error, enospc, eio, panic, delay(MILLISECONDS)")),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    name: String,
    at: u64,
    action: Action,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("{text:?} is no rule: NAME=N*ACTION");
        let (name, what) = text.split_once('=').ok_or_else(shape)?;
        let (at, action) = what.split_once('*').ok_or_else(shape)?;
        if !TABLE.iter().any(|point| point.name == name) {
            return Err(format!("there is no failpoint {name:?}"));
        }
        Ok(Self { name: name.to_owned(), at: at.parse().map_err(|_| shape())?, action: action.parse()? })
    }
}

/// The rules, and the number of hits of each failpoint.
#[derive(Debug, Default)]
struct Armed {
    rules: Vec<Rule>,
    hits: HashMap<String, u64>,
    trace: Option<File>,
}

impl Armed {
    fn new(rules: &str, trace: Option<&Path>) -> Result<Self, String> {
        let rules = rules.split([';', '\n']).map(str::trim).filter(|rule| !rule.is_empty());
        let rules = rules.map(str::parse).collect::<Result<Vec<Rule>, _>>()?;
        let mut hits = HashMap::new();
        let told = trace.map(std::fs::read_to_string).and_then(Result::ok).unwrap_or_default();
        for name in told.lines().filter_map(|line| line.split(' ').next()) {
            *hits.entry(name.to_owned()).or_default() += 1;
        }
        let open = |path| File::options().create(true).append(true).open(path).map_err(|e| e.to_string());
        Ok(Self { rules, hits, trace: trace.map(open).transpose()? })
    }

    fn hit(&mut self, name: &str) -> Option<Action> {
        let count = self.hits.entry(name.to_owned()).or_default();
        *count += 1;
        let action = self.rules.iter().find(|r| r.name == name && r.at == *count).map(|r| r.action);
        let line = match action {
            Some(action) => format!("{name} {action:?}\n"),
            None => format!("{name}\n"),
        };
        // One write(2) per line, so that the lines of several threads do not mix. If the trace cannot be written, the
        // sweep reports the failpoint as never reached.
        let _ = self.trace.as_mut().map(|trace| trace.write_all(line.as_bytes()));
        action
    }
}

static ARMED: OnceLock<Mutex<Armed>> = OnceLock::new();

/// Arms the host from its environment. An invalid rule is an error, so that a sweep with a misspelt name cannot pass.
pub fn arm_by_environment() -> Result<(), String> {
    let rules = std::env::var(RULES).unwrap_or_default();
    let trace = std::env::var_os(TRACE);
    set(Armed::new(&rules, trace.as_deref().map(Path::new))?)
}

/// Arms the runner from the files in its workspace, if there are rules. An invalid rule is an error.
pub fn arm_by_directory(dir: &Path) -> Result<(), String> {
    match std::fs::read_to_string(dir.join(RULES_FILE)) {
        Ok(rules) => set(Armed::new(&rules, Some(&dir.join(TRACE_FILE)))?),
        Err(_) => Ok(()),
    }
}

fn set(armed: Armed) -> Result<(), String> {
    ARMED.set(Mutex::new(armed)).map_err(|_| "armed twice".to_owned())
}

/// Counts a hit of a failpoint, and performs the action of its rule: it may return an error, panic, or not return.
pub fn hit(name: &'static str) -> io::Result<()> {
    let Some(armed) = ARMED.get() else { return Ok(()) };
    // The lock is released before the action: a delay at one failpoint must not delay the others.
    let action = armed.lock().unwrap_or_else(PoisonError::into_inner).hit(name);
    match action {
        None => Ok(()),
        Some(Action::Kill) => {
            let _ = kill_process(getpid(), Signal::KILL);
            // PID 1 of a namespace cannot kill itself with SIGKILL, but it can abort.
            std::process::abort()
        }
        Some(Action::Error) => Err(io::Error::other(format!("as failpoint {name} says"))),
        Some(Action::Enospc) => Err(Errno::NOSPC.into()),
        Some(Action::Eio) => Err(Errno::IO.into()),
        Some(Action::Delay(time)) => {
            std::thread::sleep(time);
            Ok(())
        }
        Some(Action::Panic) => panic!("as failpoint {name} says"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fires_at_its_hit_once_and_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("trace");
        let rules = "store.tx1.begin=2*enospc;store.tx2.begin=1*delay(20)";
        let mut armed = Armed::new(rules, Some(&trace)).unwrap();
        assert_eq!(armed.hit("store.tx1.begin"), None);
        assert_eq!(armed.hit("store.tx2.begin"), Some(Action::Delay(Duration::from_millis(20))));
        let mut next = Armed::new(rules, Some(&trace)).unwrap();
        assert_eq!(next.hit("store.tx1.begin"), Some(Action::Enospc));
        assert_eq!(next.hit("store.tx2.begin"), None, "an earlier process already hit it");
        assert_eq!(std::fs::read_to_string(&trace).unwrap().lines().count(), 4);
    }

    #[test]
    fn a_panic_is_an_action_and_does_not_hold_the_rules() {
        set(Armed::new("run.event=1*panic", None).unwrap()).unwrap();
        assert!(std::panic::catch_unwind(|| hit("run.event")).is_err());
        assert!(hit("run.event").is_ok(), "the rule fires only once");
    }

    #[test]
    fn a_misspelt_rule_is_refused() {
        for bad in
            ["store.tx1.begin", "store.tx9.begin=1*kill", "store.tx1.begin=x*kill", "store.tx1.begin=1*die"]
        {
            assert!(Armed::new(bad, None).is_err(), "{bad}");
        }
    }
}
