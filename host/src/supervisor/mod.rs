//! Owns the state of all lanes. It receives everything that can start, stop or end a box: news from intake, events of
//! runs, signals of the operator. `dispatch` decides, and the supervisor performs.
//!
//! The supervisor never waits for a box, a platform, a model or the store: anything slow runs in a worker of its own
//! that reports back. The supervisor is the one worker that cannot restart after a panic, because it owns the lanes'
//! state. The host then ends, and the next host recovers.

mod chat_commands;
mod model_and_usage;
mod task_commands;

use chat_commands::insist;
pub use chat_commands::unfinished;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipc_schema::letters::to_agent::InterruptWhy;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::channels::RenewalOrder;
use crate::dispatch::{AdoptedState, After, Dispatch, Effect, Event, Renewal, RunNo, Settings, Unfinished};
use crate::domain::{Ending, Lane, MessageSeq, RunId};
use crate::intake::News;
use crate::run::{self, Adopted, LaunchError, Order, RunHandle};
use crate::services::Services;
use crate::store::Suspended;
use crate::text;

/// A lane whose run has no worker here gets another run after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// A signal of the operator to the whole host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The first signal: finish the open turns.
    Drain(Unfinished),
    /// The second signal: end now.
    EndNow,
}

/// The senders that reach the supervisor.
#[derive(Debug, Clone)]
pub struct Wires {
    pub news: UnboundedSender<News>,
    pub signals: UnboundedSender<Signal>,
}

/// Receives events, asks dispatch, and performs what it decides.
pub struct Supervisor {
    services: Arc<Services>,
    dispatch: Dispatch,
    settings: Settings,
    news: UnboundedReceiver<News>,
    signals: UnboundedReceiver<Signal>,
    /// For news that results from the supervisor's own effects.
    own: UnboundedSender<News>,
    events: UnboundedReceiver<Event>,
    event_sender: UnboundedSender<Event>,
    runs: HashMap<RunNo, Worker>,
    /// Runs found at boot, until dispatch has given them their numbers.
    adopted: HashMap<Lane, Adopted>,
}

/// The worker of a run that has not reported its end.
struct Worker {
    handle: RunHandle,
    orders: UnboundedSender<Order>,
    task: AbortHandle,
}

impl Supervisor {
    /// Makes an idle supervisor, and the senders that reach it.
    pub fn new(services: Arc<Services>, settings: Settings) -> (Self, Wires) {
        let (own, news) = unbounded_channel();
        let (signal_sender, signals) = unbounded_channel();
        let (event_sender, events) = unbounded_channel();
        let supervisor = Self {
            services,
            dispatch: Dispatch::new(settings),
            settings,
            news,
            signals,
            own: own.clone(),
            events,
            event_sender,
            runs: HashMap::new(),
            adopted: HashMap::new(),
        };
        (supervisor, Wires { news: own, signals: signal_sender })
    }

    /// Continues the work of an earlier host. `daemon` calls it before any news arrives.
    pub fn take_over(&mut self, recovered: Recovered) {
        for adopted in recovered.adopted {
            let (lane, found, stopping) = (adopted.lane().clone(), adopted.found(), adopted.is_stopping());
            let outdated = adopted.is_outdated();
            self.adopted.insert(lane.clone(), adopted);
            let facts = self.services.facts(&lane);
            self.handle(Event::Adopt { lane: lane.clone(), facts, found });
            if stopping {
                self.handle(Event::Stop { lane: lane.clone(), order: None });
            }
            // This comes before any wake: a message that was stored after `/new` must go to the next box.
            if outdated {
                self.handle(Event::Renew { lane });
            }
        }
        for Suspended { lane, until } in recovered.suspended {
            let facts = self.services.facts(&lane);
            let left = until.since(self.services.clock.wall());
            self.handle(Event::Suspended { lane, left, facts });
        }
        for lane in recovered.waiting {
            let facts = self.services.facts(&lane);
            self.handle(Event::Wake { lane, facts });
        }
    }

    /// Runs until everything is drained.
    pub async fn run(mut self) {
        loop {
            let due = self.dispatch.next_due();
            let tick = async {
                match due {
                    Some(due) => {
                        let left = due.saturating_sub(self.services.clock.now().mono);
                        tokio::time::sleep_until(Instant::now() + left).await;
                    }
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                Some(event) = self.events.recv() => Some(event),
                Some(signal) = self.signals.recv() => Some(match signal {
                    Signal::Drain(unfinished) => Event::Drain { unfinished },
                    Signal::EndNow => Event::EndNow,
                }),
                Some(news) = self.news.recv() => self.event_of(news),
                () = tick => Some(Event::Tick),
            };
            let Some(event) = event else { continue };
            if let Event::Ended { run, .. } = &event {
                self.runs.remove(run);
            }
            if self.handle(event) {
                return;
            }
        }
    }

    /// Handles one event completely. Returns `true` when the host is drained.
    fn handle(&mut self, event: Event) -> bool {
        failpoint!("supervisor.event");
        tracing::debug!("event: {event}");
        let effects = self.dispatch.handle(self.services.clock.now().mono, event);
        let drained = effects.contains(&Effect::Drained);
        for effect in effects {
            tracing::debug!("effect: {effect}");
            self.perform(effect);
        }
        drained
    }

    fn event_of(&mut self, news: News) -> Option<Event> {
        match news {
            News::Wake(lane) => {
                let facts = self.services.facts(&lane);
                Some(Event::Wake { lane, facts })
            }
            News::FollowUp(lane) => {
                let facts = self.services.facts(&lane);
                Some(Event::FollowUp { lane, facts })
            }
            News::Suspended(lane, left) => {
                let facts = self.services.facts(&lane);
                Some(Event::Suspended { lane, left, facts })
            }
            News::Answered(lane) => {
                let facts = self.services.facts(&lane);
                Some(Event::Answered { lane, facts })
            }
            News::Stop(lane, order) => Some(Event::Stop { lane, order: Some(order) }),
            News::Command(row) => self.command(row),
            News::Renew(order) => {
                self.renew(order);
                None
            }
        }
    }

    /// Ends the boxes of a group, and tells the operator which.
    fn renew(&mut self, order: RenewalOrder) {
        let lanes = self.dispatch.lanes().filter(|(lane, _)| lane.group == order.group);
        let found: Vec<_> = lanes.map(|(lane, state)| (lane.clone(), state.renewal())).collect();
        let renewal = found.iter().map(|(_, renewal)| *renewal).max().unwrap_or(Renewal::NoBox);
        for (lane, _) in found {
            self.handle(Event::Renew { lane });
        }
        // A client that does not wait has no interest in the answer.
        let _ = order.answer.send(renewal);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start { lane, run } => {
                self.spawn_run(run, run::new_run_id(), lane, |services, handle, orders| {
                    run::live(services, handle, orders)
                });
            }
            Effect::Adopt { lane, run } => {
                let Some(adopted) = self.adopted.remove(&lane) else { return };
                self.spawn_run(run, adopted.run().clone(), lane, |services, handle, orders| {
                    run::go_on(services, adopted, handle, orders)
                });
            }
            Effect::Leave { run } => self.order(run, Order::Leave),
            Effect::Feed { run } => self.order(run, Order::Feed),
            Effect::Interrupt { run, why, order } => self.order(run, Order::Interrupt(why, order)),
            Effect::Close { run, why } => self.order(run, Order::Close(why)),
            Effect::Terminate { run } => self.order(run, Order::Terminate),
            Effect::Kill { run, ending } => self.order(run, Order::Kill(ending)),
            Effect::GiveUp { lane, run, ending } => self.give_up(lane, run, ending),
            Effect::Expire { .. } => self.expire_questions(),
            Effect::EndTurn { lane, order } => self.end_turn(lane, order),
            Effect::TellWaiting { lane } => self.tell_waiting(lane),
            Effect::Drained => {}
        }
    }

    fn spawn_run<F>(
        &mut self,
        no: RunNo,
        run: RunId,
        lane: Lane,
        work: impl FnOnce(Arc<Services>, RunHandle, UnboundedReceiver<Order>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (orders, receiver) = unbounded_channel();
        let handle = RunHandle::new(no, run, lane, self.event_sender.clone());
        let work = work(Arc::clone(&self.services), handle.clone(), receiver);
        let task = tokio::spawn(run::supervise(Arc::clone(&self.services), handle.clone(), work));
        self.runs.insert(no, Worker { handle, orders, task: task.abort_handle() });
    }

    /// Sends an order to a run. A run that has just ended ignores it, and its `Ended` is on the way.
    fn order(&self, run: RunNo, order: Order) {
        if let Some(worker) = self.runs.get(&run) {
            let _ = worker.orders.send(order);
        }
    }

    /// Replaces the worker of a run that does not answer by one that only ends the run.
    fn give_up(&mut self, lane: Lane, no: RunNo, ending: Ending) {
        tracing::error!(%lane, code = "run.no_answer", "{no} does not answer: the host ends it");
        let Some(worker) = self.runs.get_mut(&no) else {
            // No worker exists that would report the end.
            let after = After::Wake(AGAIN, self.services.facts(&lane));
            let _ = self.event_sender.send(Event::Ended { run: no, after, fed: 0 });
            return;
        };
        worker.task.abort();
        let end = run::give_up(Arc::clone(&self.services), worker.handle.clone(), ending);
        worker.task = tokio::spawn(end).abort_handle();
    }

    fn end_turn(&self, lane: Lane, order: Option<MessageSeq>) {
        let (services, own) = (Arc::clone(&self.services), self.own.clone());
        spawn_task(&self.services, format!("/stop in {lane}"), move || {
            end_turn(Arc::clone(&services), own.clone(), lane.clone(), order)
        });
    }

    fn expire_questions(&self) {
        let (services, own) = (Arc::clone(&self.services), self.own.clone());
        let work = move || expire_questions(Arc::clone(&services), own.clone());
        spawn_task(&self.services, "the end of questions", work);
    }

    fn tell_waiting(&self, lane: Lane) {
        let (services, working) = (Arc::clone(&self.services), self.settings.working);
        spawn_task(&self.services, format!("the notice that {lane} waits"), move || {
            tell_waiting(Arc::clone(&services), lane.clone(), working)
        });
    }
}

/// Spawns slow work that follows from an event. It runs again after a panic, so it must be idempotent.
fn spawn_task<F>(services: &Services, name: impl fmt::Display, mut work: impl FnMut() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let task = move || {
        let work = work();
        async move {
            failpoint!("supervisor.task.before");
            work.await;
        }
    };
    drop(services.workers.keep(name, task));
}

async fn end_turn(
    services: Arc<Services>,
    own: UnboundedSender<News>,
    lane: Lane,
    order: Option<MessageSeq>,
) {
    let stop = || {
        let now = services.clock.wall();
        services.store.end_turn(lane.clone(), InterruptWhy::Stop, order, now)
    };
    let Some(next) = insist(format!("/stop in {lane}"), stop).await else { return };
    services.outbox_signal.notify();
    if next.is_some() {
        let _ = own.send(News::Wake(lane));
    }
}

async fn expire_questions(services: Arc<Services>, own: UnboundedSender<News>) {
    let what = "the end of questions";
    let lanes = insist(what, || services.store.expire_questions(services.clock.wall())).await;
    for lane in lanes.unwrap_or_default() {
        let _ = own.send(News::Answered(lane));
    }
    // If the wall clock fell behind, some questions still have time left. Their timers start again.
    let waiting = insist(what, || services.store.suspended()).await;
    for Suspended { lane, until } in waiting.unwrap_or_default() {
        let left = until.since(services.clock.wall()).max(Duration::from_secs(1));
        let _ = own.send(News::Suspended(lane, left));
    }
}

async fn tell_waiting(services: Arc<Services>, lane: Lane, working: usize) {
    let text = text::waiting_for_slot(working);
    let now = services.clock.wall();
    match services.store.tell_open_turn(lane.clone(), "waiting", text, now).await {
        Ok(()) => services.outbox_signal.notify(),
        Err(e) => tracing::error!(%lane, code = e.code(), "the chat was not told that it waits: {e}"),
    }
}

/// What an earlier host left.
#[derive(Default)]
pub struct Recovered {
    adopted: Vec<Adopted>,
    /// Lanes with an open turn that no box works on.
    waiting: Vec<Lane>,
    /// Turns that wait for a person.
    suspended: Vec<Suspended>,
}

/// Adopts every run that an earlier host left, and finds the lanes that need one. When this returns, sockets are bound
/// and letters are watched, so it must finish before the first poll. The host may die at any step, and the next host
/// starts it again.
///
/// # Errors
/// The store cannot be read or written.
pub async fn recover(services: &Arc<Services>) -> crate::store::Result<Recovered> {
    failpoint!("supervisor.recover.begin");
    let mut recovered = Recovered::default();
    let mut in_use = HashSet::new();
    for row in services.store.unended_runs().await? {
        failpoint!("supervisor.recover.run");
        let (run, lane) = (row.run.clone(), row.lane.clone());
        match Adopted::attach(services, row.clone()).await {
            Ok(adopted) => {
                in_use.insert(run.to_string());
                recovered.adopted.push(adopted);
            }
            Err(LaunchError { code, why, .. }) => {
                tracing::warn!(%run, %lane, code, "a run of an earlier host cannot go on: {why}");
                run::end_lost(services, &row).await?;
            }
        }
    }
    failpoint!("supervisor.recover.sweep");
    sweep(services, &in_use);
    let (mut waiting, suspended) = open_lanes(services).await?;
    failpoint!("supervisor.recover.turns");
    waiting.retain(|lane| {
        let busy = |a: &Adopted| a.lane() == lane && a.found() != AdoptedState::Listening;
        !recovered.adopted.iter().any(busy)
    });
    Ok(Recovered { waiting, suspended, ..recovered })
}

/// Opens the turns that nobody opened. Returns the lanes whose open turn needs a box, and the turns that wait for a
/// person instead.
async fn open_lanes(services: &Services) -> crate::store::Result<(Vec<Lane>, Vec<Suspended>)> {
    services.store.open_forgotten(services.clock.wall()).await?;
    let (open, suspended) = (services.store.open_turns().await?, services.store.suspended().await?);
    let asks = |lane: &Lane| suspended.iter().any(|s| s.lane == *lane);
    Ok((open.into_iter().map(|turn| turn.lane).filter(|lane| !asks(lane)).collect(), suspended))
}

/// Returns what this host has stored and may not have announced: open turns, and commands without an outcome.
///
/// # Errors
/// The store cannot be read or written.
pub async fn unannounced(services: &Arc<Services>) -> crate::store::Result<Vec<News>> {
    let (waiting, _) = open_lanes(services).await?;
    let mut news = unfinished(services).await?;
    news.extend(waiting.into_iter().map(News::Wake));
    Ok(news)
}

/// Removes the letter directories of ended runs that an earlier host did not remove before it died. It lists them here,
/// before this host makes any.
fn sweep(services: &Arc<Services>, in_use: &HashSet<String>) {
    let groups = crate::host_files::inside(&services.install.root.ipc());
    let all = groups.iter().flat_map(|group| crate::host_files::inside(group));
    let left =
        all.filter(|path| !path.file_name().is_some_and(|name| in_use.contains(&*name.to_string_lossy())));
    let (services, left): (_, Vec<_>) = (Arc::clone(services), left.collect());
    let workers = services.workers.clone();
    drop(workers.keep("the removal of old letters", move || run::sweep(Arc::clone(&services), left.clone())));
}
