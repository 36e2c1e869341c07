//! The client of the container engine. `run`, `images` and `cli` use it to make, start, watch and remove boxes.
//!
//! It uses the engine's API and never its command line. It translates a [`ContainerSpec`], reports the engine's
//! answers, and makes no decisions. Every call has a timeout, so that an engine that hangs does not stop the channels.

mod image_inspect;
mod image_pull_build;
mod memory_watch;
mod mount_source;
mod one_shot;
mod posture_probe;
mod process_identity;
mod procfs;
mod spec_differences;
mod translate;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::errors::Error as Bollard;
use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bollard::{ClientVersion, Docker};
use futures_util::StreamExt;

use crate::domain::{Lane, WallMs};
use crate::policy::sandbox_plan::{ContainerSpec, label};
#[cfg(any(test, fuzzing))]
pub use image_inspect::first_file;
pub use image_pull_build::Recipe;
use memory_watch::MemoryWatch;
pub use mount_source::check_source;
pub use one_shot::Trial;
pub use posture_probe::{ProbeError, Probed};
pub use process_identity::{is_alive, this_process};
pub use procfs::unlinked;

/// The oldest supported API version, from engine 20.10. The posture was tested with it.
const OLDEST_API: (u32, u32) = (1, 41);
/// The timeout of calls that need no storage and no runtime: inspect, kill, list.
const QUICK: Duration = Duration::from_secs(10);
/// The timeout of calls that need storage or the runtime: create, start, remove.
const SLOW: Duration = Duration::from_secs(60);
/// The exit code of a box whose program was killed by SIGKILL.
const KILLED: i64 = 128 + 9;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "no container engine answers at {socket} ({why}); start one: `systemctl start docker`, or `dockerd` by hand"
    )]
    Away { socket: String, why: String },
    #[error(
        "this user may not use the engine's socket {socket}: add them to the group that owns it (usually \
         `sudo usermod -aG docker USER`, then log in again), or run as root"
    )]
    NoRights { socket: String },
    #[error("the engine at {socket} speaks API {found}; Lazaret needs 1.41 (Docker Engine 20.10) or later")]
    TooOld { socket: String, found: String },
    #[error(
        "the image {image} is not on this machine; build it (`lazaret image build` makes the default one) or pull it \
         (`lazaret image set GROUP {image}`, or `docker pull {image}`)"
    )]
    NoImage { image: String },
    #[error("{}", crate::policy::posture::no_runtime(runtime))]
    NoRuntime { runtime: String },
    /// The engine has no such container, or no such file in it.
    #[error("the engine refused to {what}: {why}")]
    Absent { what: &'static str, why: String },
    /// The container is not running.
    #[error("the engine refused to {what}: {why}")]
    NotRunning { what: &'static str, why: String },
    /// The engine is removing the container already.
    #[error("the engine refused to {what}: {why}")]
    RemovalInProgress { what: &'static str, why: String },
    /// The engine does not find the source of a mount.
    #[error("the engine refused to {what}: {why}")]
    NoMountSource { what: &'static str, path: PathBuf, why: String },
    #[error("the engine refused to {what}: {why}")]
    Refused { what: &'static str, why: String },
    /// A pull or a build failed.
    #[error("the image {image} could not be had: {why}")]
    NotFetched { image: String, why: String },
    #[error("the engine did not {what} within {seconds} s")]
    Hangs { what: &'static str, seconds: u64 },
    /// The host cannot write a file that it mounts into boxes.
    #[error("{path} cannot be made: {why}")]
    File { path: String, why: String },
}

impl EngineError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Away { .. } => "engine.away",
            Self::NoRights { .. } => "engine.no_rights",
            Self::TooOld { .. } => "engine.too_old",
            Self::NoImage { .. } => "image.missing",
            Self::NotFetched { .. } => "image.fetch",
            Self::NoRuntime { .. } => "box.runtime",
            Self::Absent { .. }
            | Self::NotRunning { .. }
            | Self::RemovalInProgress { .. }
            | Self::NoMountSource { .. }
            | Self::Refused { .. } => "engine.refused",
            Self::Hangs { .. } => "engine.hangs",
            Self::File { .. } => "engine.file",
        }
    }
}

/// What the engine reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// `20.10.24`
    pub version: String,
    /// `1.41`
    pub api: String,
    pub architecture: String,
    pub runtimes: Vec<String>,
    /// `name=seccomp,…`
    pub security: Vec<String>,
    /// `1` or `2`
    pub cgroups: String,
    /// Processors of the engine's machine. 0 if the engine does not report them.
    pub cpus: u64,
    /// Memory of the engine's machine in bytes. 0 if the engine does not report it.
    pub memory: u64,
}

/// How a box ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Absent if the engine does not have the box any more.
    pub code: Option<i64>,
    /// Whether the kernel killed it because its memory was used up.
    pub oom: bool,
}

/// The state of a box, as the engine reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxState {
    /// The engine does not have it.
    Absent,
    /// It was never started.
    Created,
    Running,
    Paused,
    Ended(Exit),
}

/// A box of this install in the engine's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBox {
    /// The engine's id for it.
    pub container: String,
    /// The run, from the label.
    pub run: String,
    /// When the engine made it, in whole seconds of the engine's clock.
    pub made: WallMs,
    /// The process that made it for a check. `None` for a box of a run.
    pub checker: Option<String>,
}

/// A client of the engine.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The first call that finds the socket sets it, because somebody may install an engine after the host has
    /// started.
    client: Arc<OnceLock<Docker>>,
    socket: String,
}

impl Engine {
    /// A client for the engine at `unix:///…`. It connects with the first call.
    pub fn new(socket: &str) -> Self {
        Self { client: Arc::default(), socket: socket.to_owned() }
    }

    fn docker(&self) -> Result<&Docker, EngineError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let path = self.socket.strip_prefix("unix://").unwrap_or(&self.socket);
        let version = ClientVersion { major_version: 1, minor_version: 41 };
        let client = Docker::connect_with_unix(path, SLOW.as_secs(), &version)
            .map_err(|e| EngineError::Away { socket: self.socket.clone(), why: e.to_string() })?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Asks the engine about itself.
    ///
    /// # Errors
    /// [`EngineError::Away`], [`EngineError::Hangs`] or [`EngineError::TooOld`].
    pub async fn facts(&self) -> Result<EngineFacts, EngineError> {
        let version = self.ask("say its version", QUICK, self.docker()?.version()).await?;
        let api = version.api_version.unwrap_or_default();
        let number = api.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        if number.is_none_or(|n: (u32, u32)| n < OLDEST_API) {
            return Err(EngineError::TooOld { socket: self.socket.clone(), found: api });
        }
        let info = self.ask("describe itself", QUICK, self.docker()?.info()).await?;
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        Ok(EngineFacts {
            version: version.version.unwrap_or_default(),
            api,
            architecture: version.arch.unwrap_or_default(),
            runtimes,
            cpus: info.ncpu.and_then(|n| n.try_into().ok()).unwrap_or_default(),
            memory: info.mem_total.and_then(|n| n.try_into().ok()).unwrap_or_default(),
            security: info.security_options.unwrap_or_default(),
            cgroups: info.cgroup_version.map(|v| v.to_string()).unwrap_or_default(),
        })
    }

    /// The versions of the engine and of its components, because a box's posture depends on them. It is one quick
    /// call.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn identity(&self) -> Result<String, EngineError> {
        let told = self.ask("say its version", QUICK, self.docker()?.version()).await?;
        let mut parts: Vec<String> = told
            .components
            .unwrap_or_default()
            .into_iter()
            .map(|c| format!("{} {}", c.name, c.version))
            .collect();
        parts.push(told.version.unwrap_or_default());
        parts.push(told.git_commit.unwrap_or_default());
        Ok(parts.join(", "))
    }

    /// Makes a box without starting it. Returns the engine's id for it.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        failpoint!("sandbox.create.before", |e| self.away(&e));
        let options = CreateContainerOptions { name: Some(spec.name.clone()), ..Default::default() };
        let body = translate::container(spec);
        let made =
            self.ask("make the box", SLOW, self.docker()?.create_container(Some(options), body)).await?;
        failpoint!("sandbox.create.after");
        Ok(made.id)
    }

    /// Starts a box.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        failpoint!("sandbox.start.before", |e| self.away(&e));
        let started = self.ask("start the box", SLOW, self.docker()?.start_container(container, None)).await;
        failpoint!("sandbox.start.after");
        started
    }

    /// Waits until a box has ended, and goes on waiting if the engine restarts meanwhile.
    pub async fn wait(&self, container: &str) -> Exit {
        let mut pause = Duration::from_millis(200);
        let mut memory = None;
        loop {
            if memory.is_none() {
                memory = self.memory_watch(container).await;
            }
            let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
            if let Ok(docker) = self.docker() {
                // The stream yields one item. An error means either that the box failed or that the engine went away,
                // so the code below asks for the state.
                let mut ended = docker.wait_container(container, Some(options));
                tokio::select! {
                    _ = ended.next() => {}
                    () = follow(&mut memory) => {}
                }
            }
            match self.state(container).await {
                Ok(BoxState::Ended(Exit { code: Some(KILLED), oom: false })) => {
                    let oom = match &mut memory {
                        Some(memory) => memory.has_killed().await,
                        None => false,
                    };
                    return Exit { code: Some(KILLED), oom };
                }
                Ok(BoxState::Ended(exit)) => return exit,
                Ok(BoxState::Absent | BoxState::Created) => return Exit { code: None, oom: false },
                Ok(BoxState::Running | BoxState::Paused) => {}
                Err(e) => tracing::debug!(code = e.code(), "waiting for box {container}: {e}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    async fn memory_watch(&self, container: &str) -> Option<MemoryWatch> {
        let told = self.ask("look at the box", QUICK, self.docker().ok()?.inspect_container(container, None));
        let told = told.await.ok()?;
        MemoryWatch::of(told.state?.pid?, &told.id?)
    }

    /// The state of a box.
    ///
    /// # Errors
    /// The engine's error. A box that the engine does not have is no error.
    pub async fn state(&self, container: &str) -> Result<BoxState, EngineError> {
        failpoint!("sandbox.state.before", |e| self.away(&e));
        let told =
            match self.ask("look at the box", QUICK, self.docker()?.inspect_container(container, None)).await
            {
                Err(EngineError::Absent { .. }) => return Ok(BoxState::Absent),
                told => told?,
            };
        let state = told.state.unwrap_or_default();
        Ok(match (state.status, state.running) {
            (Some(ContainerStateStatusEnum::CREATED), _) => BoxState::Created,
            (Some(ContainerStateStatusEnum::PAUSED), _) => BoxState::Paused,
            (_, Some(true)) => BoxState::Running,
            _ => BoxState::Ended(Exit { code: state.exit_code, oom: state.oom_killed == Some(true) }),
        })
    }

    /// Everything that the engine reports about a box, as JSON.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn inspect(&self, container: &str) -> Result<Vec<u8>, EngineError> {
        let told =
            self.ask("look at the box", QUICK, self.docker()?.inspect_container(container, None)).await?;
        Ok(serde_json::to_vec(&told).unwrap_or_default())
    }

    /// Resumes a paused box.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn unpause(&self, container: &str) -> Result<(), EngineError> {
        self.ask("resume the box", QUICK, self.docker()?.unpause_container(container)).await
    }

    /// Sends a signal. A box that has ended is no error.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn signal(&self, container: &str, signal: &str) -> Result<(), EngineError> {
        failpoint!("sandbox.signal.before", |e| self.away(&e));
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        match self.ask("signal the box", QUICK, self.docker()?.kill_container(container, Some(options))).await
        {
            Err(EngineError::NotRunning { .. } | EngineError::Absent { .. }) => Ok(()),
            other => other,
        }
    }

    /// The last bytes that a box wrote to stdout and stderr, at most `most`.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn log_tail(&self, container: &str, most: usize) -> Result<Vec<u8>, EngineError> {
        failpoint!("sandbox.log.before", |e| self.away(&e));
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("2000").build();
        let mut lines = self.docker()?.logs(container, Some(options));
        let mut tail = Vec::new();
        let read = async {
            while let Some(line) = lines.next().await {
                tail.extend_from_slice(&line?.into_bytes());
                if tail.len() > 2 * most {
                    tail.drain(..tail.len() - most);
                }
            }
            Ok(())
        };
        self.ask("give the box's log", QUICK, read).await?;
        tail.drain(..tail.len().saturating_sub(most));
        Ok(tail)
    }

    /// Removes a box, even a running one, with its anonymous volumes. A box that does not exist is no error.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn remove(&self, container: &str) -> Result<(), EngineError> {
        failpoint!("sandbox.remove.before", |e| self.away(&e));
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed =
            self.ask("remove the box", SLOW, self.docker()?.remove_container(container, Some(options))).await;
        failpoint!("sandbox.remove.after");
        match removed {
            Err(EngineError::Absent { .. } | EngineError::RemovalInProgress { .. }) => Ok(()),
            other => other,
        }
    }

    /// Every box with this install's label.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn boxes(&self, install: &str) -> Result<Vec<ListedBox>, EngineError> {
        self.labelled(vec![format!("{}={install}", label::INSTALL)]).await
    }

    /// The boxes of one lane. Before a run starts, the lane has one only if the engine was away when the host should
    /// have removed it.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn boxes_of_lane(&self, install: &str, lane: &Lane) -> Result<Vec<ListedBox>, EngineError> {
        self.labelled(vec![format!("{}={install}", label::INSTALL), format!("{}={lane}", label::LANE)]).await
    }

    async fn labelled(&self, labels: Vec<String>) -> Result<Vec<ListedBox>, EngineError> {
        failpoint!("sandbox.list.before", |e| self.away(&e));
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let boxes = self.ask("list the boxes", QUICK, self.docker()?.list_containers(Some(options))).await?;
        Ok(boxes
            .into_iter()
            .filter_map(|b| {
                let labels = b.labels.unwrap_or_default();
                let made = b.created.map_or(WallMs(0), |seconds| WallMs(seconds.saturating_mul(1000)));
                let checker = labels.get(label::CHECKER).filter(|process| !process.is_empty()).cloned();
                Some(ListedBox { container: b.id?, run: labels.get(label::RUN)?.clone(), made, checker })
            })
            .collect())
    }

    #[cfg(feature = "failpoints")]
    fn away(&self, why: &dyn std::error::Error) -> EngineError {
        EngineError::Away { socket: self.socket.clone(), why: with_causes(why) }
    }

    /// Makes one call with a timeout, and translates its error.
    async fn ask<T>(
        &self,
        what: &'static str,
        within: Duration,
        call: impl Future<Output = Result<T, Bollard>>,
    ) -> Result<T, EngineError> {
        let answered = tokio::time::timeout(within, call)
            .await
            .map_err(|_| EngineError::Hangs { what, seconds: within.as_secs() })?;
        answered.map_err(|e| match translate::error(e, what, within, &self.socket) {
            EngineError::Away { socket, .. } if self.lacks_rights() => EngineError::NoRights { socket },
            e => e,
        })
    }

    /// Whether this user may not connect to the socket.
    fn lacks_rights(&self) -> bool {
        use rustix::fs::Access;
        let path = self.socket.strip_prefix("unix://").unwrap_or(&self.socket);
        rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK) == Err(rustix::io::Errno::ACCESS)
    }
}

async fn follow(memory: &mut Option<MemoryWatch>) {
    match memory {
        Some(memory) => memory.follow().await,
        None => std::future::pending().await,
    }
}

/// An error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    text
}

/// Writes a file that boxes read. It writes another file and renames it, so that no box reads half of it.
fn write_shared(path: &Path, bytes: &[u8], mode: u32) -> Result<(), EngineError> {
    let failed =
        |e: std::io::Error| EngineError::File { path: path.display().to_string(), why: e.to_string() };
    crate::host_files::put(path, bytes, mode, None).map_err(failed)
}
