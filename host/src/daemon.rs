//! The wiring, on one page: build, recover, announce, spawn, wait, drain.

#![allow(clippy::disallowed_methods, reason = "the state folder itself, and what the machine says of it")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::channels::{Channels, LettersFolder, Surroundings};
use crate::clock::Clock;
use crate::config::{ConfigError, Install, Root, first};
use crate::delivery;
use crate::disk;
use crate::dispatch::{Settings, Unfinished};
use crate::domain::{ChatKind, GroupName};
use crate::gateway::Gateway;
use crate::images::{self, CheckContext, Images};
use crate::intake;
use crate::mailbox::Mailbox;
use crate::maintenance;
use crate::run;
use crate::sandbox::Engine;
use crate::services::{Bell, Gate, Probes, Runner, Services};
use crate::store::{Admission, BALLAST, Store, StoreError};
use crate::supervisor::{self, Signal, Supervisor, Wires};

/// The gid of the group that host and boxes share, where root starts without a group `lazaret`.
const FALLBACK_GID: u32 = 20_000;
/// What is still to be said when the boxes are gone is sent within this time; the rest is sent by the next host.
const LAST_REPLIES: Duration = Duration::from_secs(10);

/// With less than this, in bytes, a start would fail somewhere on its way.
const LITTLE: u64 = 4 << 20;

/// Why the host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another host runs on this state.
    #[error("another lazaret runs on {path}{}; end it first, or choose another LAZARET_ROOT", holder.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who holds it, where the system tells.
        holder: Option<u32>,
    },
    /// Something of the machine.
    #[error("{what}: {why}")]
    Machine {
        /// What was tried.
        what: String,
        /// What the system said, and what to do.
        why: String,
        /// The machine's word.
        code: &'static str,
    },
}

impl StartError {
    fn machine(code: &'static str, what: impl Into<String>, why: impl ToString) -> Self {
        Self::Machine { what: what.into(), why: why.to_string(), code }
    }

    /// The machine's word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Locked { .. } => "host.locked",
            Self::Machine { code, .. } => code,
        }
    }
}

/// A host that runs.
pub struct Host {
    /// Everything the rooms share.
    pub services: Arc<Services>,
    wires: Wires,
    work: JoinSet<()>,
    replies: JoinSet<()>,
    polling: CancellationToken,
    delivering: CancellationToken,
    _lock: File,
}

impl Host {
    /// Builds, recovers, announces and spawns.
    ///
    /// # Errors
    /// The first thing that is missing, before anything is sent or received.
    pub async fn start(root: Root, env: &BTreeMap<String, String>) -> Result<Self, StartError> {
        let clock = Clock::new();
        prepare(&root)?;
        let lock = take_lock(&root.lock())?;
        let install = Arc::new(Install::load(root.clone(), env)?);
        let store = Store::open(&root.database())?;
        let gid = shared_gid(&root.state())?;
        let channels = build_channels(&install, clock)?;
        let engine = engine(&install, env);
        let runner = Runner::install(&runner_binary(env)?, &root.runners())
            .map_err(|why| StartError::machine("runner.missing", "the runner", why))?;
        let id = install_id(&root.state().join("install"))?;
        let place = place(&root, &id, gid, &runner);
        let services = Arc::new(Services {
            images: Images::new(engine.clone(), store.clone(), clock, place),
            engine,
            mailbox: Mailbox::new(gid)
                .map_err(|e| StartError::machine(e.code(), "letters", e))?
                .with_limits(),
            gateway: gateway(&install)?,
            runner,
            id,
            bell: Bell::default(),
            gate: Gate::default(),
            probes: Probes::default(),
            store,
            clock,
            install,
            channels,
            gid,
        });
        admit_configured(&services).await?;
        let recovered = supervisor::recover(&services).await?;
        failpoint!("daemon.recover.sending");
        delivery::recover(&services).await?;
        let settings = Settings {
            working: services.install.file.host.working_runs,
            boxes: services.install.file.host.live_boxes,
            drain: services.install.file.host.drain.0,
        };
        let (mut supervisor, wires) = Supervisor::new(Arc::clone(&services), settings);
        supervisor.take_over(recovered);
        tokio::spawn(run::keep_reaping(Arc::clone(&services)));
        images::sweep(&root);
        failpoint!("daemon.recover.commands");
        for command in supervisor::unfinished(&services).await? {
            let _ = wires.news.send(command);
        }
        let mut host = Self {
            services,
            wires,
            work: JoinSet::new(),
            replies: JoinSet::new(),
            polling: CancellationToken::new(),
            delivering: CancellationToken::new(),
            _lock: lock,
        };
        host.spawn(supervisor);
        Ok(host)
    }

    fn spawn(&mut self, supervisor: Supervisor) {
        self.work.spawn(supervisor.run());
        // Before the first poll: a host that starts on a full disk reads nothing.
        let watch = maintenance::Watch::begin(&self.services);
        tokio::spawn(maintenance::run(Arc::clone(&self.services), watch, self.polling.clone()));
        for channel in self.services.channels.all() {
            let (services, channel) = (Arc::clone(&self.services), Arc::clone(channel));
            let delivering =
                delivery::deliver(Arc::clone(&services), Arc::clone(&channel), self.delivering.clone());
            self.replies.spawn(delivering);
            tokio::spawn(intake::poll(services, channel, self.wires.news.clone(), self.polling.clone()));
        }
    }

    /// Returns when the supervisor has ended although nobody told it to: the host cannot go on.
    pub async fn collapsed(&mut self) {
        self.work.join_next().await;
        tracing::error!(code = "host.collapsed", "the supervisor has ended; start the host again");
    }

    /// Returns when the database is found damaged: what is stored from then on may be lost, so the host ends.
    pub fn damaged(&self) -> impl Future<Output = ()> + use<> {
        let mut trouble = self.services.store.faults();
        async move {
            // A store that is gone cannot be found damaged any more.
            if trouble.wait_for(|t| t.damaged.is_some()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops polling and lets turns finish.
    pub fn drain(&self, unfinished: Unfinished) {
        self.polling.cancel();
        let _ = self.wires.signals.send(Signal::Drain(unfinished));
    }

    /// Ends every box now, when it is called: for the second signal.
    pub fn ender(&self) -> impl Fn() + use<> {
        let signals = self.wires.signals.clone();
        move || {
            let _ = signals.send(Signal::EndNow);
        }
    }

    /// Waits until every box is gone or left to the next host, and what was to be said is sent.
    pub async fn drained(mut self) {
        self.work.join_next().await;
        self.delivering.cancel();
        let sent = async { while self.replies.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_REPLIES, sent).await.is_err() {
            tracing::warn!(code = "delivery.left", "some replies wait for the next start");
        }
        self.services.store.close().await;
    }
}

/// Makes what every install has. Nothing that the host makes from here on is for other users of the machine.
fn prepare(root: &Root) -> Result<(), StartError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    let failed = |path: &Path, e: io::Error| StartError::machine("state.dir", path.display().to_string(), e);
    make_room(root)?;
    first::lay_out(root).map_err(|e| failed(root.path(), e))?;
    let state = root.state();
    fs::create_dir_all(&state).map_err(|e| failed(&state, e))?;
    let private = root.host_socket_dir();
    fs::create_dir_all(&private).map_err(|e| failed(&private, e))?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).map_err(|e| failed(&private, e))
}

/// A disk that may not be written is told before anything fails on it; one that is full gets its ballast back, which is
/// room enough to start in and to say so.
fn make_room(root: &Root) -> Result<(), StartError> {
    let state = root.state();
    let there = [state.as_path(), root.path()].into_iter().find(|path| path.exists());
    let Some(Ok(room)) = there.map(disk::room) else { return Ok(()) };
    if room.read_only {
        let why =
            "lies on a disk that is mounted read-only; make it writable, or choose another LAZARET_ROOT";
        return Err(StartError::machine("disk.read_only", root.path().display().to_string(), why));
    }
    let ballast = state.join(BALLAST);
    if room.free < LITTLE && ballast.exists() {
        tracing::warn!(code = "disk.full", "the disk is full: the ballast is given back");
        disk::remove(&ballast)
            .map_err(|e| StartError::machine("disk.full", ballast.display().to_string(), e))?;
    }
    Ok(())
}

/// The lock that makes this the only host of its state; the kernel lets it go with the process.
fn take_lock(path: &Path) -> Result<File, StartError> {
    let failed = |e: io::Error| StartError::machine("host.lock", path.display().to_string(), e);
    let mut file =
        File::options().create(true).truncate(false).write(true).read(true).open(path).map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(StartError::Locked { path: path.to_owned(), holder: holder_of(&file) });
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// Who holds the lock: the kernel's word (proc_locks(5)), because what the file says is the last host's until this one
/// has written into it. Where the kernel shows nothing, such as in another pid namespace, nobody is named.
fn holder_of(file: &File) -> Option<u32> {
    let about = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", about.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&place.as_str());
        ours.then(|| fields.get(4)?.parse().ok()).flatten()
    })
}

/// Holds the lock of an install's state, for a command that must not meet a host. Makes the directory where there is
/// none.
///
/// # Errors
/// A host that runs; what the filesystem said.
pub fn hold(root: &Root) -> Result<File, StartError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    let state = root.state();
    fs::create_dir_all(&state)
        .map_err(|e| StartError::machine("state.dir", state.display().to_string(), e))?;
    take_lock(&root.lock())
}

/// An install's id, and the group that its host shares with boxes, for a command that stands beside the host.
///
/// # Errors
/// What the filesystem said.
pub fn identity(root: &Root) -> Result<(String, u32), StartError> {
    Ok((install_id(&root.state().join("install"))?, shared_gid(&root.state())?))
}

/// The group that host and boxes share. Root makes it `lazaret`'s (or a number of its own where there is none); a host
/// that is not root can only use the one that its state directory has.
fn shared_gid(state: &Path) -> Result<u32, StartError> {
    let failed = |e: io::Error| StartError::machine("state.gid", state.display().to_string(), e);
    let now = fs::metadata(state).map_err(failed)?;
    if !rustix::process::geteuid().is_root() {
        if now.gid() == 0 {
            let why = "belongs to the group root, which boxes must not have; `chgrp` it to a group of yours";
            return Err(StartError::machine("state.gid", state.display().to_string(), why));
        }
        return Ok(now.gid());
    }
    let gid = group_named("lazaret").unwrap_or(FALLBACK_GID);
    std::os::unix::fs::chown(state, None, Some(gid)).map_err(failed)?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o2770)).map_err(failed)?;
    Ok(gid)
}

fn group_named(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

fn install_id(path: &Path) -> Result<String, StartError> {
    let failed = |e: io::Error| StartError::machine("state.install", path.display().to_string(), e);
    match fs::read_to_string(path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        _ => {
            let id = uuid::Uuid::now_v7().to_string();
            fs::write(path, format!("{id}\n")).map_err(failed)?;
            Ok(id)
        }
    }
}

/// The engine: the setting, or `DOCKER_HOST` where the setting is the default.
pub fn engine(install: &Install, env: &BTreeMap<String, String>) -> Engine {
    let configured = &install.file.engine.socket;
    let by_default = *configured == crate::config::schema::EngineFile::default().socket;
    let socket =
        env.get("DOCKER_HOST").filter(|host| by_default && host.starts_with("unix://")).unwrap_or(configured);
    Engine::new(socket)
}

fn place(root: &Root, id: &str, gid: u32, runner: &Runner) -> CheckContext {
    CheckContext {
        root: root.clone(),
        install: id.to_owned(),
        gid,
        runner: runner.digest.clone(),
        runner_dir: runner.dir.clone(),
    }
}

/// What a command needs to check images and pin them, beside a host that may be running.
///
/// # Errors
/// When there is no runner, or the install was never started.
pub fn images_of(
    install: &Install,
    env: &BTreeMap<String, String>,
    store: Store,
) -> Result<Images, StartError> {
    let (root, state) = (&install.root, install.root.state());
    let failed = |e: io::Error| StartError::machine("state.gid", state.display().to_string(), e);
    let gid = fs::metadata(&state).map_err(failed)?.gid();
    let runner = Runner::install(&runner_binary(env)?, &root.runners())
        .map_err(|why| StartError::machine("runner.missing", "the runner", why))?;
    let id = install_id(&state.join("install"))?;
    let place = place(root, &id, gid, &runner);
    Ok(Images::new(engine(install, env), store, Clock::new(), place))
}

fn gateway(install: &Install) -> Result<Arc<Gateway>, StartError> {
    let settings = crate::gateway::settings_of(install);
    Gateway::new(settings).map(Arc::new).map_err(|e| StartError::machine(e.code(), "the gateway", e))
}

/// The runner lies beside the host's binary, unless `LAZARET_RUNNER` names another.
pub fn runner_binary(env: &BTreeMap<String, String>) -> Result<PathBuf, StartError> {
    if let Some(path) = env.get("LAZARET_RUNNER") {
        return Ok(PathBuf::from(path));
    }
    let here = std::env::current_exe().map_err(|e| StartError::machine("runner.missing", "the runner", e))?;
    Ok(here.with_file_name(ipc_schema::directory_layout::RUNNER))
}

/// The channels of an install that are on.
fn build_channels(install: &Install, clock: Clock) -> Result<Channels, StartError> {
    let root = install.root.clone();
    let letters: LettersFolder = Arc::new(move |run| shown_letters(&root, run));
    let socket_dir = install.root.host_socket_dir();
    let mut channels = Channels::default();
    for settings in install.file.channels.all() {
        let host = Surroundings {
            secret: install.channel_secrets.get(&settings.name()),
            clock,
            socket_dir: &socket_dir,
            letters: Arc::clone(&letters),
        };
        let built = settings.build(&host).map_err(|e| StartError::machine(e.code, e.what, e.why))?;
        built.into_iter().for_each(|channel| channels.add(channel));
    }
    Ok(channels)
}

/// Admits the chats that groups have by themselves, and those that files name.
async fn admit_configured(services: &Services) -> Result<(), StartError> {
    let (install, now) = (&services.install, services.clock.wall());
    let known = services.store.chats().await?;
    let others = install.group_names().into_iter().filter(|group| !group.is_main());
    let mut wanted = Vec::new();
    for group in std::iter::once(GroupName::main()).chain(others) {
        for channel in services.channels.all() {
            let chat = channel.chat_of_group(&group);
            wanted.extend(chat.map(|chat| (chat, group.clone(), ChatKind::Direct, channel.name().as_str())));
        }
    }
    for (chat, group) in install.chats() {
        // A chat of a channel that this build does not have: `config check` and the group's runs say so.
        let Some(channel) = install.file.channels.named(chat.channel()) else { continue };
        let kind = channel.kind_of(&chat);
        wanted.push((chat, group, kind, ""));
    }
    for (chat, group, kind, title) in wanted {
        if known.iter().any(|(c, g, _)| *c == chat && *g == group) {
            continue;
        }
        services.store.group(&group, now).await?;
        let (title, by) = (title.to_owned(), "group.toml".to_owned());
        services.store.admit_chat(Admission { chat, group, kind, title, by, now }).await?;
    }
    Ok(())
}

fn shown_letters(root: &Root, run: &crate::domain::RunId) -> String {
    let letters = root.state().join("letters");
    let groups = fs::read_dir(&letters).into_iter().flatten().flatten();
    let dir = groups.map(|g| g.path().join(run.as_str())).find(|d| d.exists()).unwrap_or(letters);
    crate::config::shown_path(&dir)
}
