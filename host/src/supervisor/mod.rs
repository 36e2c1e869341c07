//! Event → `dispatch` → effects → do. The one worker that owns the state of all lanes.
//!
//! Everything that can start, stop or end a box arrives here: news from intake, events of runs, signals; dispatch
//! decides; this room performs. It never waits for a box, a platform or a model: what takes time is a worker of its
//! own that reports back.

mod commands;

use commands::insist;
pub use commands::unfinished;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ipc_schema::letters::to_agent::InterruptWhy;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::dispatch::{Dispatch, Effect, Event, Found, RunNo, Settings, Unfinished};
use crate::domain::{Lane, MessageSeq};
use crate::intake::News;
use crate::run::{self, Adopted, Order};
use crate::services::Services;
use crate::store::Suspended;
use crate::text;

/// What the operator wants of the whole host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The first signal: finish.
    Drain(Unfinished),
    /// The second signal: end now.
    EndNow,
}

/// The wires that lead here.
#[derive(Debug, Clone)]
pub struct Wires {
    /// From intake.
    pub news: UnboundedSender<News>,
    /// From the operator.
    pub signals: UnboundedSender<Signal>,
}

/// The supervisor's end of the wires.
pub struct Supervisor {
    services: Arc<Services>,
    dispatch: Dispatch,
    settings: Settings,
    news: UnboundedReceiver<News>,
    signals: UnboundedReceiver<Signal>,
    /// For wakes that follow from what is performed here.
    own: UnboundedSender<News>,
    events: UnboundedReceiver<Event>,
    event_sender: UnboundedSender<Event>,
    runs: HashMap<RunNo, UnboundedSender<Order>>,
    /// Found at boot, until dispatch has given them their numbers.
    adopted: HashMap<Lane, Adopted>,
}

impl Supervisor {
    /// A supervisor with nothing to do yet, and the wires that reach it.
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

    /// Goes on where an earlier host stopped. Comes before any news.
    pub fn take_over(&mut self, recovered: Recovered) {
        for adopted in recovered.adopted {
            let (lane, found, stopping) = (adopted.lane().clone(), adopted.found(), adopted.is_stopping());
            let outdated = adopted.is_outdated();
            self.adopted.insert(lane.clone(), adopted);
            let facts = self.services.facts(&lane.group);
            self.handle(Event::Adopt { lane: lane.clone(), facts, found });
            if stopping {
                self.handle(Event::Stop { lane: lane.clone(), order: None });
            }
            // Before any wake: a message that was stored after `/new` is for the next box.
            if outdated {
                self.handle(Event::Renew { lane });
            }
        }
        for Suspended { lane, until } in recovered.suspended {
            let facts = self.services.facts(&lane.group);
            let left = until.since(self.services.clock.wall());
            self.handle(Event::Suspended { lane, left, facts });
        }
        for lane in recovered.waiting {
            let facts = self.services.facts(&lane.group);
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

    /// One event to its end. `true` when the host is drained.
    fn handle(&mut self, event: Event) -> bool {
        tracing::debug!(?event, "event");
        let effects = self.dispatch.handle(self.services.clock.now().mono, event);
        let drained = effects.contains(&Effect::Drained);
        for effect in effects {
            tracing::debug!(?effect, "effect");
            self.perform(effect);
        }
        drained
    }

    fn event_of(&mut self, news: News) -> Option<Event> {
        match news {
            News::Wake(lane) => {
                let facts = self.services.facts(&lane.group);
                Some(Event::Wake { lane, facts })
            }
            News::FollowUp(lane) => {
                let facts = self.services.facts(&lane.group);
                Some(Event::FollowUp { lane, facts })
            }
            News::Suspended(lane, left) => {
                let facts = self.services.facts(&lane.group);
                Some(Event::Suspended { lane, left, facts })
            }
            News::Answered(lane) => {
                let facts = self.services.facts(&lane.group);
                Some(Event::Answered { lane, facts })
            }
            News::Command(row) => self.command(row),
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start { lane, run } => {
                let (orders, receiver) = unbounded_channel();
                self.runs.insert(run, orders);
                let (services, events) = (Arc::clone(&self.services), self.event_sender.clone());
                tokio::spawn(run::live(services, lane, run, receiver, events));
            }
            Effect::Adopt { lane, run } => {
                let Some(adopted) = self.adopted.remove(&lane) else { return };
                let (orders, receiver) = unbounded_channel();
                self.runs.insert(run, orders);
                let (services, events) = (Arc::clone(&self.services), self.event_sender.clone());
                tokio::spawn(run::go_on(services, adopted, run, receiver, events));
            }
            Effect::Leave { run } => self.order(run, Order::Leave),
            Effect::Feed { run } => self.order(run, Order::Feed),
            Effect::Interrupt { run, why, order } => self.order(run, Order::Interrupt(why, order)),
            Effect::Close { run, why } => self.order(run, Order::Close(why)),
            Effect::Terminate { run } => self.order(run, Order::Terminate),
            Effect::Kill { run, ending } => self.order(run, Order::Kill(ending)),
            Effect::Expire { .. } => self.expire_questions(),
            Effect::EndTurn { lane, order } => self.end_turn(lane, order),
            Effect::TellWaiting { lane } => self.tell_waiting(lane),
            Effect::Drained => {}
        }
    }

    /// A run that has just ended takes no more orders: its `Ended` is on the way.
    fn order(&self, run: RunNo, order: Order) {
        if let Some(orders) = self.runs.get(&run) {
            let _ = orders.send(order);
        }
    }

    fn end_turn(&self, lane: Lane, order: Option<MessageSeq>) {
        let (services, own) = (Arc::clone(&self.services), self.own.clone());
        tokio::spawn(async move {
            let stop = || {
                let now = services.clock.wall();
                services.store.end_turn(lane.clone(), InterruptWhy::Stop, order, now)
            };
            let Some(next) = insist(format!("/stop in {lane}"), stop).await else { return };
            services.bell.ring();
            if next.is_some() {
                let _ = own.send(News::Wake(lane));
            }
        });
    }

    fn expire_questions(&self) {
        let (services, own) = (Arc::clone(&self.services), self.own.clone());
        tokio::spawn(async move {
            let what = "the end of questions";
            let lanes = insist(what, || services.store.expire_questions(services.clock.wall())).await;
            for lane in lanes.unwrap_or_default() {
                let _ = own.send(News::Answered(lane));
            }
            // A wall clock that fell behind says that there is time left: they are asked about again.
            let waiting = insist(what, || services.store.suspended()).await;
            for Suspended { lane, until } in waiting.unwrap_or_default() {
                let left = until.since(services.clock.wall()).max(Duration::from_secs(1));
                let _ = own.send(News::Suspended(lane, left));
            }
        });
    }

    fn tell_waiting(&self, lane: Lane) {
        let (services, working) = (Arc::clone(&self.services), self.settings.working);
        tokio::spawn(async move {
            let text = text::waiting_for_slot(working);
            let now = services.clock.wall();
            match services.store.tell_open_turn(lane.clone(), "waiting", text, now).await {
                Ok(()) => services.bell.ring(),
                Err(e) => tracing::error!(%lane, code = e.code(), "the wait was not told: {e}"),
            }
        });
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

/// Stands at the wall of every run that an earlier host left, and finds the lanes that want one. Sockets are bound
/// and letters are watched when this returns, so it comes before anything is polled. Each step may be the last one
/// of this host too: the next one begins anew.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn recover(services: &Arc<Services>) -> crate::store::Result<Recovered> {
    failpoint!("supervisor.recover.begin");
    let mut recovered = Recovered::default();
    let mut in_use = HashSet::new();
    for row in services.store.unended_runs().await? {
        failpoint!("supervisor.recover.run");
        let (run, lane) = (row.run.clone(), row.lane.clone());
        match Adopted::stand(services, row.clone()).await {
            Ok(adopted) => {
                in_use.insert(run.to_string());
                recovered.adopted.push(adopted);
            }
            Err(run::Never { code, why, .. }) => {
                tracing::warn!(%run, %lane, code, "a run of an earlier host cannot go on: {why}");
                run::give_up(services, &row).await?;
            }
        }
    }
    failpoint!("supervisor.recover.sweep");
    sweep(services, &in_use);
    let busy =
        |lane: &Lane| recovered.adopted.iter().any(|a| a.lane() == lane && a.found() != Found::Listening);
    services.store.open_forgotten(services.clock.wall()).await?;
    let (open, suspended) = (services.store.open_turns().await?, services.store.suspended().await?);
    failpoint!("supervisor.recover.turns");
    let asks = |lane: &Lane| suspended.iter().any(|s| s.lane == *lane);
    recovered.waiting =
        open.into_iter().map(|turn| turn.lane).filter(|lane| !busy(lane) && !asks(lane)).collect();
    recovered.suspended = suspended;
    Ok(recovered)
}

/// Removes the letter directories of runs that have ended: the earlier host died before it came to that. They are
/// listed here, before this host makes any.
fn sweep(services: &Arc<Services>, in_use: &HashSet<String>) {
    let groups = crate::disk::inside(&services.install.root.ipc());
    let all = groups.iter().flat_map(|group| crate::disk::inside(group));
    let left =
        all.filter(|path| !path.file_name().is_some_and(|name| in_use.contains(&*name.to_string_lossy())));
    tokio::spawn(run::sweep(Arc::clone(services), left.collect()));
}
