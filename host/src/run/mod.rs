//! One box's life, top to bottom: born, fed, listened to, ended, collected.
//!
//! One worker per run owns everything of it. It is told what to do by [`Order`]s (dispatch decided them), and answers
//! with dispatch's events; the last one is always `Ended`.

mod adoption;
mod attachments;
mod begin;
mod disk_cleanup;
mod disk_watch;
mod end;
mod gateway_session;
mod launch;
mod letters;
mod probe;
mod reaper;
mod reclaim;
mod rejected_files;
mod requests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipc_schema::ToAgentLetter;
use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::{Close, CloseWhy, Interrupt, InterruptWhy};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use crate::channels::Channel;
use crate::dispatch::{Event, RunNo};
use crate::domain::group::Group;
use crate::domain::{ChatId, Ending, Lane, LetterId, MessageSeq, RunId, TurnId};
use crate::mailbox::RunBox;
use crate::policy::disk_budget::DiskUsage;
use crate::policy::log_limiter::LogLimiter;
use crate::policy::turn_quota::Tally;
use crate::sandbox::Exit;
use crate::services::Services;
use crate::store::{Composed, Patience, RunRow, StoreError};
pub use adoption::Adopted;
use attachments::Fetching;
use begin::input_letter;
pub use disk_cleanup::sweep;
use disk_watch::{Bite, Watchdog};
use gateway_session::Gate;
pub use launch::{Never, spec_of};
pub use probe::{Ground, Seen, Walls, possible};
pub use reaper::{keep_reaping, reap};

/// A box that is up this long without `ready` will not get there.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Silence beyond a declared deadline that means a dead runner.
const SILENCE: Duration = Duration::from_secs(60);
/// Most platforms show "typing" for about five seconds.
const TYPING_EVERY: Duration = Duration::from_secs(4);
/// Scans without a notice of the kernel, while a box starts or works, and while it listens.
const SCAN_BUSY: Duration = Duration::from_secs(1);
const SCAN_QUIET: Duration = Duration::from_secs(30);

/// What dispatch wants of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Write what the open turn holds.
    Feed,
    /// Write `interrupt`; a person's order means no turn that was begun after it.
    Interrupt(InterruptWhy, Option<MessageSeq>),
    /// Write `_close`.
    Close(CloseWhy),
    /// SIGTERM, five seconds, SIGKILL.
    Terminate,
    /// SIGKILL, and this is why.
    Kill(Ending),
    /// Let go of the box; it is the next host's.
    Leave,
}

/// A run that has a box.
struct Run {
    services: Arc<Services>,
    no: RunNo,
    run: RunId,
    lane: Lane,
    group: Group,
    container: String,
    wall: RunBox,
    events: UnboundedSender<Event>,
    /// The turn this box was given, and its chat.
    turn: Option<(TurnId, ChatId)>,
    /// The chat of its newest turn.
    last_chat: Option<ChatId>,
    /// The gateway, which counts tokens per turn.
    gate: Gate,
    ready: bool,
    /// When silence becomes death; none while listening.
    deadline: Option<Instant>,
    interrupted: Option<InterruptWhy>,
    close_asked: bool,
    /// Set when we end it: what its end is called.
    killed: Option<Ending>,
    /// When it gets SIGKILL, or gets it again: an engine that is away or hangs has not done it.
    die_at: Option<Instant>,
    /// The runner's own last words.
    failed: Option<String>,
    /// When a question has waited for as long as a box does.
    suspend_at: Option<Instant>,
    /// Files on their way that its next letter names.
    fetching: Option<Fetching>,
    patience: Patience,
    /// The turn that it has read something of; a box that has not is owed a word, and owes none.
    reads: Option<TurnId>,
    /// How many `Feed`s it has obeyed: dispatch tells by it what it says of its turn in time from what is out of date.
    fed: u64,
    owed: Owed,
    /// What the turn has written so far.
    tally: Tally,
    telling: LogLimiter,
    /// A directory that holds more than it may, and what may stay of it once the box is gone.
    reclaim: Option<(PathBuf, DiskUsage)>,
    /// What its directories held when its watch began, as far as the host could see.
    before: Vec<Option<DiskUsage>>,
}

/// What waits for the store, or for room on the disk.
#[derive(Debug, Default)]
struct Owed {
    letters: bool,
    feed: bool,
    verdicts: bool,
}

/// Lives a run from the first to the last step and reports its end.
pub async fn live(
    services: Arc<Services>,
    lane: Lane,
    no: RunNo,
    mut orders: UnboundedReceiver<Order>,
    events: UnboundedSender<Event>,
) {
    let run = new_run_id();
    match launch::born(&services, &lane, &run, no, &events).await {
        Ok(box_run) => to_its_end(box_run, &mut orders, events).await,
        Err(never) => {
            tracing::warn!(%run, %lane, code = never.code, "the box did not start: {}", never.why);
            let ending = Ending::NeverStarted { code: never.code.to_owned(), why: never.why };
            let after = end::settle(&services, &run, &lane, ending).await;
            if never.left {
                tokio::spawn(reap(Arc::clone(&services)));
            }
            // The receiver is gone only when the host is ending: there is nobody left to tell.
            let _ = events.send(Event::Ended { run: no, after, fed: 0 });
        }
    }
}

/// Lives on with a run of an earlier host.
pub async fn go_on(
    services: Arc<Services>,
    adopted: Adopted,
    no: RunNo,
    mut orders: UnboundedReceiver<Order>,
    events: UnboundedSender<Event>,
) {
    let mut box_run = adopted.into_run(&services, no, events.clone());
    box_run.catch_up().await;
    to_its_end(box_run, &mut orders, events).await;
}

/// Ends a run of an earlier host that cannot go on. It costs its turn nothing, which the lane then begins anew.
///
/// # Errors
/// When its end cannot be stored.
pub async fn give_up(services: &Services, row: &RunRow) -> crate::store::Result<()> {
    services
        .store
        .collect(row.run.clone(), row.lane.clone(), Ending::Killed, services.clock.wall())
        .await
        .map(drop)
}

async fn to_its_end(mut box_run: Run, orders: &mut UnboundedReceiver<Order>, events: UnboundedSender<Event>) {
    let no = box_run.no;
    // Without an exit the box is left to the next host: nothing of it is touched.
    if let Some(exit) = box_run.listen(orders).await {
        let fed = box_run.fed;
        let after = box_run.collect(exit).await;
        let _ = events.send(Event::Ended { run: no, after, fed });
    }
}

/// An id for a run that is about to begin.
pub fn new_run_id() -> RunId {
    let text = uuid::Uuid::now_v7().hyphenated().to_string();
    match text.parse() {
        Ok(run) => run,
        Err(e) => unreachable!("a UUID is a run id: {e}"),
    }
}

enum Happened {
    Order(Option<Order>),
    Exit(Exit),
    StillThere,
    StillAsking,
    Silence,
    OverLimit(Bite),
    Typing,
    Fetched(crate::store::Result<()>),
    Letters,
}

impl Run {
    /// From start to exit; `None` when the box is left to the next host. Every branch only names what happened; what
    /// follows from it is done outside the select, so that nothing is cancelled half-way.
    async fn listen(&mut self, orders: &mut UnboundedReceiver<Order>) -> Option<Exit> {
        let engine = self.services.engine.clone();
        let container = self.container.clone();
        let open_turn = self.gate.open_turn.subscribe();
        let mut watchdog = Watchdog::watch(&self.services, &self.group, &container, open_turn);
        let mut exit = std::pin::pin!(async move { engine.wait(&container).await });
        let mut typing = tokio::time::interval(TYPING_EVERY);
        typing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let scan = if self.deadline.is_some() { SCAN_BUSY } else { SCAN_QUIET };
            let deadline = self.deadline.unwrap_or_else(|| Instant::now() + SCAN_QUIET * 10);
            let die_at = self.die_at.unwrap_or(deadline);
            let suspend_at = self.suspend_at.unwrap_or(deadline);
            let happened = tokio::select! {
                // Letters last: they are the only branch that a box can keep ready for ever.
                biased;
                exit = &mut exit => Happened::Exit(exit),
                order = orders.recv() => Happened::Order(order),
                () = tokio::time::sleep_until(die_at), if self.die_at.is_some() => Happened::StillThere,
                () = tokio::time::sleep_until(deadline), if self.deadline.is_some() => Happened::Silence,
                () = tokio::time::sleep_until(suspend_at), if self.suspend_at.is_some() => Happened::StillAsking,
                bite = watchdog.bites() => Happened::OverLimit(bite),
                _ = typing.tick(), if self.turn.is_some() && self.ready => Happened::Typing,
                done = attachments::arrival(&mut self.fetching) => Happened::Fetched(done),
                () = self.wall.rung(scan) => Happened::Letters,
            };
            match happened {
                Happened::Exit(exit) => {
                    self.before = watchdog.before();
                    return Some(exit);
                }
                // A supervisor that is gone leaves its boxes as a killed host does.
                Happened::Order(None | Some(Order::Leave)) => return None,
                Happened::Order(Some(order)) => self.obey(order).await,
                Happened::StillThere => self.kill(Ending::Killed).await,
                Happened::StillAsking => {
                    self.suspend_at = None;
                    let _ = self.events.send(Event::Suspend { run: self.no });
                }
                Happened::Silence => self.fell_silent().await,
                Happened::OverLimit(bite) => {
                    self.reclaim = bite.reclaim;
                    self.end_over_limit(bite.ending).await;
                }
                Happened::Typing => self.show_typing(),
                Happened::Fetched(done) => self.fetched(done).await,
                Happened::Letters => {
                    self.settle_debts().await;
                    if self.take_letters().await {
                        self.wall.ring();
                    }
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Feed => {
                self.fed += 1;
                self.feed().await;
            }
            Order::Interrupt(why, order) => self.interrupt(why, order).await,
            Order::Close(why) => self.ask_to_close(why).await,
            Order::Terminate => self.terminate().await,
            Order::Kill(ending) => self.kill(ending).await,
            Order::Leave => {}
        }
    }

    async fn interrupt(&mut self, why: InterruptWhy, order: Option<MessageSeq>) {
        if let Some(order) = order {
            // What waits for its files was meant too, and would be the next turn's.
            let now = self.services.clock.wall();
            match self.services.store.stop(self.lane.clone(), order, now).await {
                Ok(true) => {}
                // The turn that was meant has ended while the order was on its way.
                Ok(false) => return,
                Err(e) => tracing::error!(run = %self.run, code = e.code(), "a /stop was not stored: {e}"),
            }
        }
        let open = self.turn.as_ref().map(|(turn, _)| *turn);
        let waits = self.fetching.is_some() || self.owed.feed;
        let unread = match open {
            Some(open) => waits && self.reads != Some(open),
            None if order.is_some() => waits,
            // Without an order the turn that was meant may have ended, and another be open that nobody means.
            None => self.fetching.as_ref().is_some_and(|fetching| self.reads != Some(fetching.turn)),
        };
        // What waits was stopped, or is the next turn's.
        (self.fetching, self.owed.feed) = (None, false);
        if unread {
            return self.end_unread(why, order).await;
        }
        // Without an open turn its end is on its way to dispatch.
        if let Some(turn) = open {
            self.interrupted = Some(why);
            self.write(Some(turn), ToAgent::Interrupt(Interrupt { why })).await;
        }
    }

    /// Ends a turn that the box has read nothing of; a box that was born for it may wait for nothing else, and goes
    /// too.
    async fn end_unread(&mut self, why: InterruptWhy, order: Option<MessageSeq>) {
        let now = self.services.clock.wall();
        match self.services.store.end_turn(self.lane.clone(), why, order, now).await {
            Ok(_) => {
                self.end_turn();
                self.kill(Ending::Killed).await;
            }
            // Then its run's end decides.
            Err(e) => {
                tracing::error!(run = %self.run, code = e.code(), "a turn ends with its box: {e}");
                self.kill(Ending::interrupted(why)).await;
            }
        }
    }

    /// Writes every message of the open turn that this box has not been given. A lane without an open turn has
    /// nothing for it: dispatch is told, so that the box listens.
    async fn feed(&mut self) {
        // Dispatch feeds no box that it stops; files that arrive, and a store that comes back, ask nobody. What is not
        // given now is given when the turn's end is known, to this box or the next.
        if self.killed.is_some() || (self.turn.is_some() && self.interrupted.is_some()) {
            return;
        }
        // Files of the next letter are on their way: with them all of it is made, and what came meanwhile.
        while self.fetching.is_none() {
            let (run, group, ack) = (self.run.clone(), self.group.clone(), self.wall.taken());
            let at = self.services.clock.wall();
            let built = self
                .services
                .store
                .compose_input(
                    run.clone(),
                    self.lane.clone(),
                    self.group.context,
                    self.patience,
                    at,
                    move |n, state| input_letter(&run, n, ack, at, &group, state),
                )
                .await;
            match built {
                Ok(Composed::Letter(turn, chat, letter)) => {
                    self.begin_turn(turn, chat);
                    (self.reads, self.patience) = (Some(turn), Patience::Whole);
                    self.stage("input");
                    self.put(&letter.name, &letter.bytes);
                    failpoint!("run.input.written");
                }
                Ok(Composed::Files(turn, files)) => self.fetch(turn, files),
                Ok(Composed::Nothing) => {
                    self.patience = Patience::Whole;
                    break;
                }
                Err(e) => return self.not_fed(&e).await,
            }
        }
        self.tell_verdicts().await;
        match self.services.store.open_turn(self.lane.clone()).await {
            Ok(None) => {
                self.end_turn();
                let _ = self.events.send(Event::TurnClosed { run: self.no, next: false, fed: self.fed });
            }
            Ok(Some(_)) => {}
            Err(e) => self.owe_feed(&e),
        }
    }

    /// Every letter that the agent has not acknowledged; one that lies there already is no error.
    async fn write_again(&mut self) {
        match self.services.store.unacknowledged(self.run.clone()).await {
            Ok(letters) => letters.iter().for_each(|letter| self.put(&letter.name, &letter.bytes)),
            Err(e) => {
                tracing::error!(run = %self.run, code = e.code(), "letters wait: {e}");
                self.owed.letters = true;
            }
        }
        if self.owed.letters && !self.wall.stands() {
            tracing::error!(run = %self.run, code = "ipc.dir_gone", "the letter directory was removed: the box is ended");
            self.kill(Ending::Killed).await;
        }
    }

    async fn not_fed(&mut self, why: &StoreError) {
        if why.passes() {
            return self.owe_feed(why);
        }
        // The messages are in the store; a box that cannot be fed must not keep its lane.
        tracing::error!(run = %self.run, code = why.code(), "the box cannot be fed: {why}");
        self.kill(Ending::Crashed { code: None, oom: false, why: why.to_string() }).await;
    }

    /// The store could not be asked: the next scan asks again.
    fn owe_feed(&mut self, why: &StoreError) {
        tracing::error!(run = %self.run, code = why.code(), "the box is fed later: {why}");
        self.owed.feed = true;
    }

    /// What could not be done when it was to be done, because the store could not take it.
    async fn settle_debts(&mut self) {
        let Owed { letters, feed, verdicts } = std::mem::take(&mut self.owed);
        if letters {
            self.write_again().await;
        }
        if verdicts {
            self.perform_open_requests().await;
        }
        if feed {
            self.feed().await;
        }
    }

    fn begin_turn(&mut self, turn: TurnId, chat: ChatId) {
        if self.turn.as_ref().is_none_or(|(now, _)| *now != turn) {
            self.interrupted = None;
            self.tally = Tally::default();
        }
        self.last_chat = Some(chat.clone());
        self.turn = Some((turn, chat));
        self.gate.open_turn.send_replace(Some(turn));
        self.deadline = Some(Instant::now() + SILENCE);
        self.show_typing();
    }

    fn end_turn(&mut self) {
        (self.turn, self.suspend_at) = (None, None);
        self.gate.open_turn.send_replace(None);
        self.deadline = None;
    }

    fn channel(&self) -> Option<(Arc<dyn Channel>, ChatId)> {
        let (_, chat) = self.turn.as_ref()?;
        Some((self.services.channels.of(chat)?, chat.clone()))
    }

    fn show_typing(&self) {
        if let Some((channel, chat)) = self.channel() {
            tokio::spawn(async move { channel.typing(&chat).await });
        }
    }

    /// Makes a letter, as a row and then as a file.
    async fn write(&mut self, turn: Option<TurnId>, body: ToAgent) {
        let (run, ack, at) = (self.run.clone(), self.wall.taken(), self.services.clock.wall());
        let kind = body.kind();
        let made = self
            .services
            .store
            .add_letter(self.run.clone(), turn, kind, at, move |n| {
                ToAgentLetter { id: LetterId::of_host(n), run, turn, n, ack, at: at.rfc3339(), body }
                    .to_bytes()
            })
            .await;
        match made {
            Ok(letter) => self.put(&letter.name, &letter.bytes),
            Err(e) => {
                tracing::error!(run = %self.run, code = e.code(), "the {kind} letter was not stored: {e}")
            }
        }
    }

    /// Writes a letter whose row is stored. One that cannot be written now is written from its row by a later scan.
    fn put(&mut self, name: &str, bytes: &[u8]) {
        if let Err(e) = self.wall.write(name, bytes) {
            tracing::error!(run = %self.run, code = "ipc.write", "a letter waits: {e}");
            self.owed.letters = true;
        }
    }

    async fn ask_to_close(&mut self, why: CloseWhy) {
        self.close_asked = true;
        self.deadline = None;
        let highest = match self.services.store.highest_written(self.run.clone()).await {
            Ok(n) => n,
            Err(e) => {
                tracing::error!(run = %self.run, code = e.code(), "_close was not written: {e}");
                return;
            }
        };
        let reason = match why {
            CloseWhy::Idle => "nothing to do for the idle window",
            CloseWhy::Yield => "another group needs the room",
            CloseWhy::Question => "a question waits for a person; the turn goes on with the answer",
            CloseWhy::Drain => "the host stops; an unfinished turn goes on with the next host",
            CloseWhy::Renew => "the next turn gets a new box",
        };
        let letter = ToAgentLetter {
            id: LetterId::of_host(highest),
            run: self.run.clone(),
            turn: None,
            n: highest,
            ack: self.wall.taken(),
            at: self.services.clock.wall().rfc3339(),
            body: ToAgent::Close(Close { why, reason: reason.to_owned() }),
        };
        match letter.to_bytes() {
            Ok(bytes) => self.put(&letter.file_name(), &bytes),
            Err(e) => tracing::error!(run = %self.run, code = e.code.as_str(), "{e}"),
        }
        failpoint!("run.close.written");
    }

    async fn fell_silent(&mut self) {
        if self.ready && self.fetching.as_ref().is_some_and(|fetching| self.reads != Some(fetching.turn)) {
            // It waits for us.
            self.deadline = Some(Instant::now() + SILENCE);
        } else if self.ready {
            let ending = Ending::Silent { seconds: SILENCE.as_secs() };
            tracing::warn!(run = %self.run, code = "run.silent", "the box {ending}");
            self.kill(ending).await;
        } else {
            let why = format!("the box did not get ready within {} s", READY_WITHIN.as_secs());
            self.kill(Ending::NeverStarted { code: "box.silent".into(), why }).await;
        }
    }

    fn stage(&self, name: &'static str) {
        let turn = self.turn.as_ref().map(|(turn, _)| *turn);
        self.services.store.stage(turn, None, Some(&self.run), name, self.services.clock.now());
    }
}
