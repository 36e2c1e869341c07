//! Builds the host, recovers what an earlier host left, spawns the workers, waits, and drains. `lazaret up` calls it.
//! Set-up helpers have files of their own.

mod build_channels;
mod build_parts;
mod panic_counts;
mod start_error;
mod state_dir;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Install, Root, running_settings};
use crate::delivery;
use crate::dispatch::{Settings, Unfinished};
use crate::images::{self, Images};
use crate::intake::{self, News};
use crate::mailbox::Mailbox;
use crate::maintenance;
use crate::policy::backoff::STORE_AGAIN;
use crate::run;
use crate::scheduler;
use crate::services::{ChangeSignal, Drafts, IntakeGate, Probes, Runner, Services};
use crate::store::{HistoryIndex, Store};
use crate::supervisor::{self, Signal, Supervisor, Wires};
use crate::workers::Workers;
use build_channels::{admit_configured, note_off};
pub use build_parts::{engine, images_of, runner_binary};
pub use start_error::StartError;
pub use state_dir::{begin_anew, hold, identity, shared_gid};

/// The host sends remaining replies for this long after the boxes are gone; the next host sends the rest.
const LAST_REPLIES: Duration = Duration::from_secs(10);
/// A host that cannot go on closes its database within this time.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A running host.
pub struct Host {
    /// The handles that all workers share.
    pub services: Arc<Services>,
    wires: Wires,
    work: JoinSet<()>,
    replies: JoinSet<()>,
    polling: CancellationToken,
    delivering: CancellationToken,
    _lock: File,
}

impl Host {
    /// Builds the host, recovers, announces and spawns the workers.
    ///
    /// # Errors
    /// The first missing requirement, before the host sends or receives anything.
    pub async fn start(root: Root, env: &BTreeMap<String, String>) -> Result<Self, StartError> {
        state_dir::prepare(&root)?;
        let lock = state_dir::take_lock(&root.lock())?;
        state_dir::require_database(&root)?;
        let services = build(root, env)?;
        admit_configured(&services).await?;
        note_off(&services).await?;
        let recovered = supervisor::recover(&services).await?;
        failpoint!("daemon.recover.sending");
        delivery::recover(&services).await?;
        let host = &services.install.file.host;
        let settings = Settings { working: host.working_runs, boxes: host.live_boxes, drain: host.drain.0 };
        let (mut supervisor, wires) = Supervisor::new(Arc::clone(&services), settings);
        supervisor.take_over(recovered);
        images::sweep(&services.install.root);
        failpoint!("daemon.recover.commands");
        for command in supervisor::unfinished(&services).await? {
            let _ = wires.news.send(command);
        }
        running_settings::write(&services.install).map_err(|e| {
            StartError::machine(
                "state.dir",
                services.install.root.running_settings().display().to_string(),
                e,
            )
        })?;
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
        let services = &self.services;
        let workers = &services.workers;
        self.work.spawn(supervisor.run());
        let shared = || Arc::clone(services);
        let (counting, storing, reaping) = (shared(), shared(), shared());
        drop(workers.keep("the count of panics", move || panic_counts::count(Arc::clone(&counting))));
        drop(workers.keep("the watch on the store", move || panic_counts::watch_store(Arc::clone(&storing))));
        let (own, news, stop) = (shared(), self.wires.news.clone(), self.polling.clone());
        let schedule = move || scheduler::run(Arc::clone(&own), news.clone(), stop.clone());
        drop(workers.keep("the scheduler", schedule));
        drop(workers.keep("the hourly reaper", move || run::keep_reaping(Arc::clone(&reaping))));
        // The disk is checked before the first poll, so that a host on a full disk reads nothing.
        maintenance::spawn(services, &self.polling);
        for channel in services.channels.all() {
            let (own, to, stop) = (shared(), Arc::clone(channel), self.delivering.clone());
            let name = format!("delivery on {}", channel.name());
            let deliver = move || delivery::deliver(Arc::clone(&own), Arc::clone(&to), stop.clone());
            let own = workers.clone();
            self.replies.spawn(async move { own.kept(&name, deliver).await });
            let (own, from, stop) = (shared(), Arc::clone(channel), self.polling.clone());
            let (news, mut again) = (self.wires.news.clone(), false);
            let poll = move || {
                let missed = std::mem::replace(&mut again, true).then(|| (Arc::clone(&own), news.clone()));
                let poll = intake::poll(Arc::clone(&own), Arc::clone(&from), news.clone(), stop.clone());
                async move {
                    if let Some((services, news)) = missed {
                        announce_again(&services, &news).await;
                    }
                    poll.await;
                }
            };
            drop(workers.keep(format!("the poll of {}", channel.name()), poll));
        }
    }

    /// Returns when the host cannot go on: the supervisor ended by itself, or too many workers panicked. Boxes run on,
    /// and the next host adopts them.
    pub async fn collapsed(&mut self) {
        let workers = self.services.workers.clone();
        tokio::select! {
            ended = self.work.join_next() => {
                if ended.is_some_and(|ended| ended.is_err_and(|e| e.is_panic())) {
                    workers.note("the supervisor");
                }
                tracing::error!(code = "host.collapsed", "the supervisor has ended; start the host again");
            }
            () = workers.too_many() => {}
        }
        let store = &self.services.store;
        let last = async {
            panic_counts::count_now(&self.services).await;
            store.close().await;
        };
        // A store that does not answer must not hold up the end of the host.
        let _ = tokio::time::timeout(LAST_WORDS, last).await;
    }

    /// Returns when the database is found damaged. The host then ends, because later changes could be lost.
    pub fn damaged(&self) -> impl Future<Output = ()> + use<> {
        let mut trouble = self.services.store.faults();
        async move {
            // If the store is gone, nobody can find damage any more.
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

    /// Returns a function that ends every box at once, for the second signal.
    pub fn ender(&self) -> impl Fn() + use<> {
        let signals = self.wires.signals.clone();
        move || {
            let _ = signals.send(Signal::EndNow);
        }
    }

    /// Waits until every box is gone or left to the next host, and the remaining replies are sent.
    pub async fn drained(mut self) {
        self.work.join_next().await;
        self.delivering.cancel();
        let sent = async { while self.replies.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_REPLIES, sent).await.is_err() {
            tracing::warn!(code = "delivery.left", "some replies wait for the next start");
        }
        // An engine that does not answer must not hold up the end; the next start removes what is left.
        let _ = tokio::time::timeout(LAST_REPLIES, run::remove_checks(&self.services)).await;
        for channel in self.services.channels.all() {
            // What is not closed in time is closed by the end of the process.
            let _ = tokio::time::timeout(LAST_REPLIES, channel.close()).await;
        }
        self.services.store.close().await;
    }
}

/// Announces what the store holds for the supervisor. A poll that panicked may have stored messages without announcing
/// them, and the platform does not deliver them again. Announcing something twice is harmless.
async fn announce_again(services: &Arc<Services>, news: &UnboundedSender<News>) {
    loop {
        match supervisor::unannounced(services).await {
            Ok(missed) => return missed.into_iter().for_each(|missed| drop(news.send(missed))),
            Err(e) => tracing::error!(code = e.code(), "stored messages wait for the store: {e}"),
        }
        tokio::time::sleep(STORE_AGAIN).await;
    }
}

/// Builds the handles that all workers share.
fn build(root: Root, env: &BTreeMap<String, String>) -> Result<Arc<Services>, StartError> {
    let clock = Clock::new();
    let install = Arc::new(Install::load(root.clone(), env)?);
    let gid = state_dir::shared_gid(&root.state())?;
    let store = Store::open(&root.database())?;
    let workers = Workers::default();
    let channels = build_channels::build(&install, clock, &workers)?;
    let engine = engine(&install, env)?;
    let runner = Runner::install(&runner_binary(env)?, &root.runners())
        .map_err(|why| StartError::machine("runner.missing", "the runner", why))?;
    let id = state_dir::install_id(&root)?;
    let context = build_parts::check_context(&root, &id, gid, &runner);
    let mailbox = Mailbox::new(gid).map_err(|e| StartError::machine(e.code(), "letters", e))?;
    Ok(Arc::new(Services {
        history: HistoryIndex::new(&root.history_index()),
        images: Images::new(engine.clone(), store.clone(), clock, context),
        engine,
        mailbox: mailbox.with_limits(),
        gateway: build_parts::gateway(&install)?,
        transcriber: build_parts::transcriber(&install)?,
        runner,
        id,
        outbox_signal: ChangeSignal::default(),
        drafts: Drafts::default(),
        tasks_signal: ChangeSignal::default(),
        intake_gate: IntakeGate::default(),
        probes: Probes::default(),
        workers,
        store,
        clock,
        install,
        channels,
        gid,
    }))
}
