//! What intake, run, delivery and supervisor share: handles to the rooms below them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipc_schema::layout::RUNNER;
use tokio::sync::watch;

use crate::channels::Channels;
use crate::clock::Clock;
use crate::config::Install;
use crate::dispatch::Facts;
use crate::domain::GroupName;
use crate::gateway::Gateway;
use crate::images::Images;
use crate::mailbox::Mailbox;
use crate::sandbox::Engine;
use crate::store::Store;

/// What the rooms of this floor share.
pub struct Parts {
    /// The store.
    pub store: Store,
    /// The clock.
    pub clock: Clock,
    /// The settings.
    pub install: Arc<Install>,
    /// The engine.
    pub engine: Engine,
    /// Which image a run is made of.
    pub images: Images,
    /// The letters' watcher.
    pub mailbox: Mailbox,
    /// The model path.
    pub gateway: Arc<Gateway>,
    /// Chat platforms.
    pub channels: Channels,
    /// Tells delivery that something was queued.
    pub bell: Bell,
    /// Whether messages may be taken in.
    pub gate: Gate,
    /// What makes this install's boxes ours.
    pub id: String,
    /// The group that host and boxes share.
    pub gid: u32,
    /// Digest and folder of the runner.
    pub runner: Runner,
}

impl Parts {
    /// What dispatch must know of a group. A group whose file is broken gets the defaults here; its run will be
    /// refused with the file, line and column.
    pub fn facts(&self, group: &GroupName) -> Facts {
        let (priority, limits) = match self.install.group(group) {
            Ok(group) => (group.priority, group.limits),
            Err(_) => Default::default(),
        };
        Facts { priority, idle_window: limits.idle_window, turn_limit: limits.turn, run_limit: limits.run }
    }
}

/// Says that something was queued. Every channel's delivery hears every ring; one that comes while it is busy is kept.
#[derive(Debug, Clone)]
pub struct Bell(watch::Sender<u64>);

impl Default for Bell {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Bell {
    /// Hears every ring from now on.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    /// Rings.
    pub fn ring(&self) {
        self.0.send_modify(|rings| *rings = rings.wrapping_add(1));
    }
}

/// Whether messages may be taken in: shut while nothing can be stored.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    /// Opens or shuts it.
    pub fn set(&self, open: bool) {
        self.0.send_if_modified(|was| std::mem::replace(was, open) != open);
    }

    /// Whether it is.
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
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
        use std::os::unix::fs::PermissionsExt;
        let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        let bytes = std::fs::read(binary).map_err(|e| failed(binary, e))?;
        let digest: String = ipc_schema::sha256_hex(&bytes).chars().take(16).collect();
        let dir = runners.join(&digest);
        let target = dir.join(RUNNER);
        if !target.exists() {
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::create_dir_all(&dir).map_err(|e| failed(&dir, e))?;
            std::fs::set_permissions(&dir, open.clone()).map_err(|e| failed(&dir, e))?;
            let staged = dir.join(format!(".{RUNNER}"));
            std::fs::write(&staged, bytes).map_err(|e| failed(&staged, e))?;
            std::fs::set_permissions(&staged, open).map_err(|e| failed(&staged, e))?;
            std::fs::rename(&staged, &target).map_err(|e| failed(&target, e))?;
        }
        Ok(Self { digest, dir })
    }
}
