//! What intake, run, delivery and supervisor share: handles to the rooms below them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipc_schema::names_and_paths::RUNNER;
use tokio::sync::{OnceCell, watch};

use crate::channels::Channels;
use crate::clock::Clock;
use crate::config::Install;
use crate::dispatch::Facts;
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChatId, GroupName};
use crate::gateway::Gateway;
use crate::host_files;
use crate::images::Images;
use crate::mailbox::Mailbox;
use crate::sandbox::Engine;
use crate::store::Store;
use crate::workers::Workers;

/// What the rooms of this floor share.
pub struct Services {
    pub store: Store,
    pub clock: Clock,
    pub install: Arc<Install>,
    pub engine: Engine,
    /// Which image a run is made of.
    pub images: Images,
    pub mailbox: Mailbox,
    pub gateway: Arc<Gateway>,
    pub channels: Channels,
    /// Tells delivery that something was queued.
    pub bell: OutboxSignal,
    /// Whether messages may be taken in.
    pub gate: IntakeGate,
    /// What makes this install's boxes ours.
    pub id: String,
    /// The group that host and boxes share.
    pub gid: u32,
    /// Digest and folder of the runner.
    pub runner: Runner,
    /// Postures that were found to hold.
    pub probes: Probes,
    /// The supervised set of workers.
    pub workers: Workers,
}

impl Services {
    /// Says something that belongs to no turn: once under one `key`. What cannot be stored is lost but for the log;
    /// nothing waits for it.
    pub async fn notice(&self, chat: &ChatId, key: &str, text: String) {
        let outgoing = OutgoingText::notice(chat, key, text);
        match self.store.say(None, outgoing, self.clock.wall()).await {
            Ok(()) => self.bell.ring(),
            Err(e) => tracing::warn!(code = e.code(), key, "the chat was not told: {e}"),
        }
    }

    /// What dispatch must know of a group. A group whose file is broken gets the defaults here; its run will be
    /// refused with the file, line and column.
    pub fn facts(&self, group: &GroupName) -> Facts {
        let (priority, limits) = match self.install.group(group) {
            Ok(group) => (group.priority, group.limits),
            Err(_) => Default::default(),
        };
        Facts {
            priority,
            idle_window: limits.idle_window.0,
            turn_limit: limits.turn.0,
            run_limit: limits.run.0,
        }
    }
}

/// Says that something was queued. Every channel's delivery hears every ring; one that comes while it is busy is kept.
#[derive(Debug, Clone)]
pub struct OutboxSignal(watch::Sender<u64>);

impl Default for OutboxSignal {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl OutboxSignal {
    /// Hears every ring from now on.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    pub fn ring(&self) {
        self.0.send_modify(|rings| *rings = rings.wrapping_add(1));
    }
}

/// Whether messages may be taken in: shut while nothing can be stored.
#[derive(Debug, Clone)]
pub struct IntakeGate(watch::Sender<bool>);

impl Default for IntakeGate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl IntakeGate {
    /// Opens or shuts it.
    pub fn set(&self, open: bool) {
        self.0.send_if_modified(|was| std::mem::replace(was, open) != open);
    }

    /// Returns when it is open.
    pub async fn opened(&self) {
        self.becomes(true).await;
    }

    /// Returns when it is shut.
    pub async fn shut(&self) {
        self.becomes(false).await;
    }

    async fn becomes(&self, open: bool) {
        // The sender is this gate.
        let _ = self.0.subscribe().wait_for(|now| *now == open).await;
    }
}

/// Which postures were found to hold in this host's life.
#[derive(Debug, Default)]
pub struct Probes {
    known: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
}

impl Probes {
    /// The one place where the answer to a question is, or comes to be: everyone who asks waits at the same.
    pub fn of(&self, question: String) -> Arc<OnceCell<()>> {
        Arc::clone(locked(&self.known).entry(question).or_default())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every use is one call: a panic in between leaves nothing half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runner, in a folder named by its digest: boxes of an older one keep theirs.
#[derive(Debug, Clone)]
pub struct Runner {
    /// SHA-256, cut to 16 hex digits.
    pub digest: String,
    /// The folder that is mounted.
    pub dir: PathBuf,
}

impl Runner {
    /// Copies the runner at `binary` into the install.
    ///
    /// # Errors
    /// What the filesystem said, with the path.
    pub fn install(binary: &Path, runners: &Path) -> Result<Self, String> {
        let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        let bytes = host_files::read(binary).map_err(|e| failed(binary, e))?;
        let digest: String = ipc_schema::sha256_hex(&bytes).chars().take(16).collect();
        let dir = runners.join(&digest);
        let target = dir.join(RUNNER);
        if !host_files::there(&target) {
            host_files::dir(&dir, 0o755).map_err(|e| failed(&dir, e))?;
            host_files::put(&target, &bytes, 0o755, None).map_err(|e| failed(&target, e))?;
        }
        Ok(Self { digest, dir })
    }
}
