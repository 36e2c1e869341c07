//! One container from creation to removal.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::watch;

use super::Setup;
use super::answer::Refused;
use super::box_output::{Lines, Log, Stream};
use super::spawn::{self, Line};
use super::spec::BoxSpec;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    Running { pid: i32, since: String },
    Exited { code: i32, since: String, at: String },
}

#[derive(Debug)]
pub(super) struct Container {
    pub id: String,
    pub name: String,
    pub image: &'static str,
    pub labels: BTreeMap<String, String>,
    spec: BoxSpec,
    /// The body of the call that created it. `inspect` reports it again.
    body: Value,
    created: i64,
    phase: watch::Sender<Phase>,
    /// The socket to the box's PID 1. Dropping it ends the box.
    line: Mutex<Option<Line>>,
    /// Serializes starts.
    starting: tokio::sync::Mutex<()>,
    removing: AtomicBool,
    log: Mutex<Log>,
}

/// The parts of a new container.
pub(super) struct New {
    pub id: String,
    pub name: String,
    pub image: &'static str,
    pub labels: BTreeMap<String, String>,
    pub spec: BoxSpec,
    pub body: Value,
}

impl Container {
    pub(super) fn new(new: New) -> Self {
        let New { id, name, image, labels, spec, body } = new;
        Self {
            id,
            name,
            image,
            labels,
            spec,
            body,
            created: jiff::Timestamp::now().as_second(),
            phase: watch::Sender::new(Phase::Created),
            line: Mutex::default(),
            starting: tokio::sync::Mutex::new(()),
            removing: AtomicBool::new(false),
            log: Mutex::default(),
        }
    }

    fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.phase(), Phase::Running { .. })
    }

    /// Starts the container. Returns `false` if it already runs.
    pub(super) async fn start(self: &Arc<Self>, setup: &Setup) -> Result<bool, Refused> {
        let _one = self.starting.lock().await;
        if self.runs() {
            return Ok(false);
        }
        if self.removing.load(Ordering::SeqCst) {
            let why = "container is marked for removal and cannot be started";
            return Err(Refused::new(409, why));
        }
        let spawned = spawn::spawn(setup, &self.spec).await.map_err(|why| {
            Refused::new(
                400,
                format!("failed to create shim task: OCI runtime create failed: {why}: unknown"),
            )
        })?;
        self.line().replace(spawned.line);
        self.phase.send_replace(Phase::Running { pid: spawned.pid, since: now() });
        tokio::spawn(Arc::clone(self).live(spawned.process));
        Ok(true)
    }

    /// Follows the box until it exits. The exit becomes visible only after all output was read, so that the log is
    /// complete.
    async fn live(self: Arc<Self>, mut process: Child) {
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        tokio::join!(self.listen(Stream::Stdout, stdout), self.listen(Stream::Stderr, stderr));
        let ended = process.wait().await;
        self.line().take();
        let code = ended.map_or(255, |status| {
            use std::os::unix::process::ExitStatusExt;
            status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255)
        });
        let since = match self.phase() {
            Phase::Running { since, .. } => since,
            Phase::Created | Phase::Exited { .. } => String::new(),
        };
        self.phase.send_replace(Phase::Exited { code, since, at: now() });
    }

    async fn listen(&self, stream: Stream, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let (mut lines, mut buffer) = (Lines::default(), vec![0; 8192]);
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            for record in lines.take(buffer.get(..count).unwrap_or_default()) {
                self.log().push(stream, record);
            }
        }
        if let Some(record) = lines.rest() {
            self.log().push(stream, record);
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn frames(&self, wanted: impl Fn(Stream) -> bool, tail: Option<usize>) -> Vec<u8> {
        self.log().frames(wanted, tail)
    }

    /// Sends a signal to PID 1. For SIGKILL it closes the box's socket, which ends the box, and waits for the exit, as
    /// the engine does. It does not kill the process, because `unshare` would report its killed child with an exit code
    /// and a message of its own.
    pub(super) async fn signal(&self, signal: Signal) -> Result<(), Refused> {
        let pid = match self.phase() {
            Phase::Running { pid, .. } => Pid::from_raw(pid),
            Phase::Created | Phase::Exited { .. } => None,
        };
        let Some(pid) = pid else {
            let why = format!("Cannot kill container: {}: Container {} is not running", self.id, self.id);
            return Err(Refused::new(409, why));
        };
        if signal == Signal::KILL {
            self.line().take();
            self.ended().await;
        } else {
            // A process that is just ending needs no signal. Its pid is not reused before `live` has waited for it.
            let _ = kill_process(pid, signal);
        }
        Ok(())
    }

    /// Waits until the container does not run, and returns its exit code; 0 if it never ran.
    pub(super) async fn ended(&self) -> i32 {
        let mut phase = self.phase.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let ended = phase.wait_for(|phase| !matches!(phase, Phase::Running { .. })).await;
        match ended.as_deref() {
            Ok(Phase::Exited { code, .. }) => *code,
            _ => 0,
        }
    }

    /// Prepares the removal: kills a running container if `force` is set. Refuses a second removal.
    pub(super) async fn end_for_good(&self, force: bool) -> Result<(), Refused> {
        if self.runs() && !force {
            let why = format!(
                "You cannot remove a running container {}. Stop the container before attempting removal or force remove",
                self.id
            );
            return Err(Refused::new(409, why));
        }
        if self.removing.swap(true, Ordering::SeqCst) {
            return Err(Refused::new(
                409,
                format!("removal of container {} is already in progress", self.id),
            ));
        }
        let _no_start = self.starting.lock().await;
        if self.runs() {
            // The container may have ended by itself meanwhile.
            let _ = self.signal(Signal::KILL).await;
        }
        Ok(())
    }

    /// The answer to `GET /containers/{id}/json`.
    pub(super) fn inspect(&self) -> Value {
        const NEVER: &str = "0001-01-01T00:00:00Z";
        let (status, pid, code, since, at) = match self.phase() {
            Phase::Created => ("created", 0, 0, NEVER.to_owned(), NEVER.to_owned()),
            Phase::Running { pid, since } => ("running", pid, 0, since, NEVER.to_owned()),
            Phase::Exited { code, since, at } => ("exited", 0, code, since, at),
        };
        let mut config = self.body.clone();
        let host_config = config.as_object_mut().and_then(|config| config.remove("HostConfig"));
        json!({
            "Id": self.id,
            "Name": format!("/{}", self.name),
            "Image": self.image,
            "Path": self.spec.program.first(),
            "Args": self.spec.program.get(1..),
            "State": {
                "Status": status,
                "Running": status == "running",
                "Paused": false,
                "Restarting": false,
                "OOMKilled": false,
                "Dead": false,
                "Pid": pid,
                "ExitCode": code,
                "Error": "",
                "StartedAt": since,
                "FinishedAt": at,
            },
            "Config": config,
            "HostConfig": host_config,
        })
    }

    /// Its entry in the answer to `GET /containers/json`.
    pub(super) fn listed(&self) -> Value {
        let (state, status) = match self.phase() {
            Phase::Created => ("created", "Created".to_owned()),
            Phase::Running { .. } => ("running", "Up".to_owned()),
            Phase::Exited { code, .. } => ("exited", format!("Exited ({code})")),
        };
        json!({
            "Id": self.id,
            "Names": [format!("/{}", self.name)],
            "Image": self.image,
            "ImageID": self.image,
            "Command": self.spec.program.join(" "),
            "Created": self.created,
            "Labels": self.labels,
            "State": state,
            "Status": status,
        })
    }
}

fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}
