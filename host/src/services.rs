//! The handles that intake, run, delivery and supervisor share. `daemon` builds them.

mod drafts;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc_schema::names_and_paths::RUNNER;
use tokio::sync::{OnceCell, watch};

use crate::channels::Channels;
use crate::clock::Clock;
use crate::config::{ConfigError, Install};
use crate::dispatch::Facts;
use crate::domain::group_settings::Group;
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChatId, GroupName, Lane};
use crate::gateway::Gateway;
use crate::host_files;
use crate::images::Images;
use crate::mailbox::Mailbox;
use crate::model::transcription::Transcriber;
use crate::sandbox::Engine;
use crate::store::{HistoryIndex, Store};
use crate::text;
use crate::workers::Workers;
pub use drafts::{Draft, Drafts};

pub struct Services {
    pub store: Store,
    /// Finds what was said.
    pub history: HistoryIndex,
    pub clock: Clock,
    pub install: Arc<Install>,
    pub engine: Engine,
    /// Chooses the image of a run.
    pub images: Images,
    pub mailbox: Mailbox,
    pub gateway: Arc<Gateway>,
    pub channels: Channels,
    /// Turns voice messages into text, if the settings name an endpoint.
    pub transcriber: Option<Transcriber>,
    /// Tells delivery that a part was queued, or that a turn began or ended.
    pub outbox_signal: ChangeSignal,
    /// Drafts of replies for people who watch.
    pub drafts: Drafts,
    /// Tells the scheduler that tasks or the clock have changed.
    pub tasks_signal: ChangeSignal,
    /// Open while the host can store messages.
    pub intake_gate: IntakeGate,
    /// The install's id, which labels its boxes.
    pub id: String,
    /// The id of the group that host and boxes share.
    pub gid: u32,
    pub runner: Runner,
    /// The postures that passed their probe.
    pub probes: Probes,
    /// The supervised set of workers.
    pub workers: Workers,
}

impl Services {
    /// Queues a notice that belongs to no turn, once under one `key`. If the store fails, only the log has the text,
    /// and the caller goes on.
    pub async fn notice(&self, chat: &ChatId, key: &str, text: String) {
        let outgoing = OutgoingText::notice(chat, key, text);
        match self.store.say(None, outgoing, self.clock.wall()).await {
            Ok(()) => self.outbox_signal.notify(),
            Err(e) => tracing::warn!(code = e.code(), key, "the chat was not told: {e}"),
        }
    }

    /// Tells the operator, in the direct chats of `main`, once under one `key`.
    pub async fn tell_operator(&self, key: &str, text: &str) {
        let chats = self.store.direct_chats_of_main().await.unwrap_or_else(|e| {
            tracing::warn!(code = e.code(), key, "the operator was not told: {e}");
            Vec::new()
        });
        for chat in chats {
            self.notice(&chat, key, text.to_owned()).await;
        }
    }

    /// Returns a group's settings, with the model that `/model` has chosen.
    ///
    /// # Errors
    /// As [`Install::group`].
    pub async fn group_now(&self, name: &GroupName) -> Result<Group, ConfigError> {
        let mut group = self.install.group(name)?;
        self.choose_model(&mut group).await;
        Ok(group)
    }

    /// Puts the model that `/model` has chosen in the place of the file's. If the settings do not know it any more, the
    /// operator is told once, and the file's stays.
    pub async fn choose_model(&self, group: &mut Group) {
        let chosen = self.store.model_choice(group.name.clone()).await.unwrap_or_else(|e| {
            tracing::warn!(group = %group.name, code = e.code(), "the model of the settings is used: {e}");
            None
        });
        let Some((provider, model)) = chosen else { return };
        if let Some(known) = self.install.chosen(group, (&provider, &model)) {
            group.model = known;
            return;
        }
        let chosen = format!("{provider}/{model}");
        tracing::warn!(group = %group.name, code = "model.gone", "the settings do not know the chosen model {chosen}");
        let told = text::model_gone(&group.name, &chosen, &group.model.model);
        self.tell_operator(&format!("model:{}:{chosen}", group.name), &told).await;
    }

    /// Returns what dispatch must know of a lane. A group with an invalid file gets the defaults here; its run is then
    /// refused with the file, line and column.
    pub fn facts(&self, lane: &Lane) -> Facts {
        let (priority, limits) = match self.install.group(&lane.group) {
            Ok(group) => (group.priority, group.limits),
            Err(_) => Default::default(),
        };
        // Each fire of an isolated task has a session of its own, so its box gets no other turn.
        let idle_window = if lane.task_id().is_some() { Duration::ZERO } else { limits.idle_window.0 };
        Facts { priority, idle_window, turn_limit: limits.turn.0, run_limit: limits.run.0 }
    }
}

/// Signals a change to those who wait for one. Everyone receives every signal; one that comes while they are busy is
/// kept.
#[derive(Debug, Clone)]
pub struct ChangeSignal(watch::Sender<u64>);

impl Default for ChangeSignal {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl ChangeSignal {
    /// Receives every signal from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    pub fn notify(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The gate of intake. It is shut while the host cannot store anything.
#[derive(Debug, Clone)]
pub struct IntakeGate(watch::Sender<bool>);

impl Default for IntakeGate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl IntakeGate {
    /// Opens or shuts the gate.
    pub fn set(&self, open: bool) {
        self.0.send_if_modified(|was| std::mem::replace(was, open) != open);
    }

    /// Returns when the gate is open.
    pub async fn opened(&self) {
        self.becomes(true).await;
    }

    /// Returns when the gate is shut.
    pub async fn shut(&self) {
        self.becomes(false).await;
    }

    async fn becomes(&self, open: bool) {
        // The wait cannot fail, because this gate holds the sender.
        let _ = self.0.subscribe().wait_for(|now| *now == open).await;
    }
}

/// The postures that passed their probe in this host's life.
#[derive(Debug, Default)]
pub struct Probes {
    known: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
}

impl Probes {
    /// Returns the cell for the answer to a question. Everyone who asks the same question waits for the same cell.
    pub fn of(&self, question: String) -> Arc<OnceCell<()>> {
        Arc::clone(locked(&self.known).entry(question).or_default())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every use is a single call, so a panic leaves the map consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runner, in a folder named by its digest, so that boxes with an older runner keep theirs.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The first 16 hex digits of the SHA-256.
    pub digest: String,
    /// The folder that boxes mount.
    pub dir: PathBuf,
}

impl Runner {
    /// Copies the runner at `binary` into the install.
    ///
    /// # Errors
    /// The filesystem's error, with the path.
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
