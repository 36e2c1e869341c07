//! One run: the host makes a box, gives it input, takes its letters, ends it and collects it.
//!
//! `supervisor` spawns one worker per run. The worker obeys [`Order`]s from dispatch and reports events to dispatch;
//! the last event is `Ended`. It decides nothing about other runs. If the worker itself fails, [`worker_failed`] ends
//! the run in its place.

mod adoption;
mod after_box_cleanup;
mod build_letters;
mod disk_watch;
mod end;
mod ensure_posture;
mod fetch_attachments;
mod gateway_session;
mod launch;
mod launch_error;
mod letters_from_agent;
#[cfg(test)]
mod protocol_limits_tests;
mod reaper;
mod rejected_files;
mod remove_overrun;
mod requests;
mod session_folder;
mod states;
mod worker_failed;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::{Close, CloseWhy, Interrupt, InterruptWhy};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use crate::channels::Channel;
use crate::dispatch::{Event, RunNo};
use crate::domain::group_settings::Group;
use crate::domain::{ChatId, Ending, Lane, MessageSeq, RunId, TurnId};
use crate::mailbox::RunMailbox;
use crate::policy::disk_overrun::DiskUsage;
use crate::policy::turn_input::tokens_of_window;
use crate::policy::turn_output_limits::Tally;
use crate::sandbox::Exit;
use crate::services::Services;
use crate::store::{Composed, InputLimits, RunRow, StoreError, letter_to_agent};
pub use adoption::Adopted;
pub use after_box_cleanup::sweep;
use build_letters::input_letter;
use disk_watch::{Excess, Watchdog};
pub use ensure_posture::{ProbeResult, RunDirs, SandboxContext, check_machine_limits};
use gateway_session::GatewaySession;
pub use launch::{BoxOf, spec_of};
pub use launch_error::LaunchError;
pub use reaper::{keep_reaping, remove_checks};
use states::{Deferred, Files, Life, Turn, TurnStage};
pub use worker_failed::{give_up, supervise};

/// The host ends a box that has not said `ready` within this time.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// If the box is silent for this long beyond its announced deadline, the host treats the runner as dead.
const SILENCE: Duration = Duration::from_secs(60);
/// Most platforms show "typing" for about five seconds.
const TYPING_EVERY: Duration = Duration::from_secs(4);
/// How often the run scans for letters if the kernel reports none: while a box starts or works, and while it listens.
const SCAN_BUSY: Duration = Duration::from_secs(1);
const SCAN_QUIET: Duration = Duration::from_secs(30);

/// An order of dispatch to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Write the input of the open turn.
    Feed,
    /// Write `interrupt`. A person's order does not apply to a turn that began after it.
    Interrupt(InterruptWhy, Option<MessageSeq>),
    /// Write `_close`.
    Close(CloseWhy),
    /// Send SIGTERM, and SIGKILL five seconds later.
    Terminate,
    /// Send SIGKILL, and end the run for this reason.
    Kill(Ending),
    /// Let go of the box, so that the next host adopts it.
    Leave,
}

/// The identity of a run, and where its worker reports.
#[derive(Debug, Clone)]
pub struct RunHandle {
    /// The run's number in this process.
    pub no: RunNo,
    pub run: RunId,
    pub lane: Lane,
    /// The channel to which the worker reports.
    pub events: UnboundedSender<Event>,
    /// The number of `Feed` orders that the worker has obeyed. Dispatch uses it to recognize outdated reports about a
    /// turn.
    fed: Arc<AtomicU64>,
}

impl RunHandle {
    pub fn new(no: RunNo, run: RunId, lane: Lane, events: UnboundedSender<Event>) -> Self {
        Self { no, run, lane, events, fed: Arc::default() }
    }

    fn obeyed_feed(&self) {
        self.fed.fetch_add(1, Ordering::Relaxed);
    }

    fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    /// Reports an event. The receiver is gone only when the host ends, and then nobody needs the report.
    fn report(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// A run that has a box.
struct Run {
    services: Arc<Services>,
    handle: RunHandle,
    group: Group,
    /// The session that the box continues.
    session: String,
    container: String,
    mailbox: RunMailbox,
    /// The gateway counts tokens per turn.
    gateway: GatewaySession,
    life: Life,
    /// The newest turn that the box was given. It may be over.
    turn: Option<Turn>,
    /// Whether the next input letter waits for files.
    files: Files,
    deferred: Deferred,
    /// What the box has written in this turn so far.
    tally: Tally,
    /// The text of the runner's `failed` letter.
    last_words: Option<String>,
    disk: DiskUse,
}

/// Measurements of the directories that the box can fill.
#[derive(Debug, Default)]
struct DiskUse {
    /// A directory above its limit, and how much may stay in it once the box is gone.
    excess: Option<(PathBuf, DiskUsage)>,
    /// What each directory held when its watch began, as far as the host could see.
    before: Vec<Option<DiskUsage>>,
}

/// The parts that a launch or an adoption made.
struct Parts {
    group: Group,
    session: String,
    container: String,
    mailbox: RunMailbox,
    gateway: GatewaySession,
    life: Life,
    turn: Option<Turn>,
}

/// Performs a run from its first to its last step and reports its end.
pub async fn live(services: Arc<Services>, handle: RunHandle, mut orders: UnboundedReceiver<Order>) {
    match launch::launch(&services, &handle).await {
        Ok(run) => run.follow_to_end(&mut orders).await,
        Err(error) => {
            let RunHandle { no, run, lane, .. } = &handle;
            tracing::warn!(%run, %lane, code = error.code, "the box did not start: {}", error.why);
            let ending = Ending::NeverStarted { code: error.code.to_owned(), why: error.why };
            let after = end::store_end(&services, run, lane, ending).await;
            if error.box_may_exist {
                reaper::spawn_reaper(&services);
            }
            handle.report(Event::Ended { run: *no, after, fed: 0 });
        }
    }
}

/// Continues a run of an earlier host.
pub async fn go_on(
    services: Arc<Services>,
    adopted: Adopted,
    handle: RunHandle,
    mut orders: UnboundedReceiver<Order>,
) {
    let mut run = adopted.into_run(&services, &handle);
    run.catch_up().await;
    run.follow_to_end(&mut orders).await;
}

/// Ends a run of an earlier host that cannot go on. This does not count as a failed attempt of its turn, and the lane
/// begins the turn again.
///
/// # Errors
/// The store cannot record the end.
pub async fn end_lost(services: &Services, row: &RunRow) -> crate::store::Result<()> {
    services
        .store
        .collect(row.run.clone(), row.lane.clone(), Ending::Killed, services.clock.wall())
        .await
        .map(drop)
}

/// Makes an id for a new run.
pub fn new_run_id() -> RunId {
    let text = uuid::Uuid::now_v7().hyphenated().to_string();
    match text.parse() {
        Ok(run) => run,
        Err(e) => unreachable!("a UUID is a run id: {e}"),
    }
}

/// The events that [`Run::listen`] waits for.
enum RunEvent {
    Order(Option<Order>),
    Exit(Exit),
    /// The box is still there after SIGTERM or SIGKILL.
    StillThere,
    /// A question has waited for a person as long as a box may wait.
    StillAsking,
    Silence,
    OverLimit(Excess),
    GatewayFailed,
    Typing,
    Fetched(crate::store::Result<()>),
    Letters,
}

/// Returns at this time, and never returns for `None`.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Run {
    fn new(services: &Arc<Services>, handle: &RunHandle, parts: Parts) -> Self {
        let Parts { group, session, container, mailbox, gateway, life, turn } = parts;
        Self {
            services: Arc::clone(services),
            handle: handle.clone(),
            group,
            session,
            container,
            mailbox,
            gateway,
            life,
            turn,
            files: Files::None,
            deferred: Deferred::default(),
            tally: Tally::default(),
            last_words: None,
            disk: DiskUse::default(),
        }
    }

    async fn follow_to_end(mut self, orders: &mut UnboundedReceiver<Order>) {
        // Without an exit, the host leaves the box untouched for the next host.
        let Some(exit) = self.listen(orders).await else { return self.gateway.leave() };
        let (handle, fed) = (self.handle.clone(), self.handle.fed());
        let after = self.collect(exit).await;
        handle.report(Event::Ended { run: handle.no, after, fed });
    }

    /// Waits from the start to the exit; returns `None` when the box is left to the next host. Each branch of the
    /// select only names the event. The loop handles the event outside the select, so that no branch cancels the
    /// handling half-way.
    async fn listen(&mut self, orders: &mut UnboundedReceiver<Order>) -> Option<Exit> {
        let engine = self.services.engine.clone();
        let container = self.container.clone();
        let open_turn = self.gateway.open_turn.subscribe();
        let mut watchdog =
            Watchdog::watch(&self.services, &self.group, &self.handle.run, &container, open_turn);
        let mut exit = std::pin::pin!(async move { engine.wait(&container).await });
        let mut typing = tokio::time::interval(TYPING_EVERY);
        typing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let (silent_at, suspend_at, kill_at) = (self.silent_at(), self.suspend_at(), self.life.kill_at());
            let scan = if silent_at.is_some() { SCAN_BUSY } else { SCAN_QUIET };
            let shows_typing = self.life.is_ready() && self.open_turn().is_some();
            let event = tokio::select! {
                // Letters come last, because only this branch can be kept ready for ever by a box.
                biased;
                exit = &mut exit => RunEvent::Exit(exit),
                order = orders.recv() => RunEvent::Order(order),
                () = at(kill_at) => RunEvent::StillThere,
                () = at(silent_at) => RunEvent::Silence,
                () = at(suspend_at) => RunEvent::StillAsking,
                excess = watchdog.excess() => RunEvent::OverLimit(excess),
                () = self.gateway.failed() => RunEvent::GatewayFailed,
                _ = typing.tick(), if shows_typing => RunEvent::Typing,
                done = fetch_attachments::arrival(&mut self.files) => RunEvent::Fetched(done),
                () = self.mailbox.next_change(scan) => RunEvent::Letters,
            };
            failpoint!("run.event");
            match event {
                RunEvent::Exit(exit) => {
                    self.disk.before = watchdog.before();
                    return Some(exit);
                }
                // If the supervisor is gone, the run leaves its box as a killed host does.
                RunEvent::Order(None | Some(Order::Leave)) => return None,
                RunEvent::Order(Some(order)) => self.obey(order).await,
                RunEvent::StillThere => self.kill(Ending::Killed).await,
                RunEvent::StillAsking => {
                    self.suspend_at_time(None);
                    self.handle.report(Event::Suspend { run: self.handle.no });
                }
                RunEvent::Silence => self.fell_silent().await,
                RunEvent::OverLimit(excess) => {
                    self.disk.excess = excess.reclaim;
                    self.end_over_limit(excess.ending).await;
                }
                RunEvent::GatewayFailed => self.kill(worker_failed::crashed(crate::workers::Panicked)).await,
                RunEvent::Typing => self.show_typing(),
                RunEvent::Fetched(done) => self.fetched(done).await,
                RunEvent::Letters => {
                    self.do_deferred().await;
                    if self.take_letters().await {
                        self.mailbox.ring();
                    }
                }
            }
        }
    }

    /// Returns the newest turn while the box works on it.
    fn open_turn(&self) -> Option<&Turn> {
        self.turn.as_ref().filter(|turn| turn.is_open())
    }

    /// Returns when silence means a dead runner. A box that listens, closes or is being ended may be silent.
    fn silent_at(&self) -> Option<Instant> {
        match (&self.life, self.turn.as_ref().map(|turn| &turn.stage)) {
            (Life::Starting { ready_by }, _) => Some(*ready_by),
            (Life::Ready, Some(TurnStage::Open { silent_at, .. })) => Some(*silent_at),
            _ => None,
        }
    }

    fn suspend_at(&self) -> Option<Instant> {
        match self.turn.as_ref().map(|turn| &turn.stage) {
            Some(TurnStage::Open { suspend_at, .. }) => *suspend_at,
            _ => None,
        }
    }

    /// Sets when the open turn is suspended for its question. `None` means that the turn has no open question.
    fn suspend_at_time(&mut self, time: Option<Instant>) {
        if let Some(TurnStage::Open { suspend_at, .. }) = self.turn.as_mut().map(|turn| &mut turn.stage) {
            *suspend_at = time;
        }
    }

    fn waits_for_person(&self) -> bool {
        let stage = self.turn.as_ref().map(|turn| &turn.stage);
        matches!(stage, Some(TurnStage::Open { suspend_at: Some(_), .. }))
    }

    /// Allows the box to be silent for this long, and [`SILENCE`] more.
    fn expect_silence(&mut self, announced: Duration) {
        if let Some(TurnStage::Open { silent_at, .. }) = self.turn.as_mut().map(|turn| &mut turn.stage) {
            *silent_at = Instant::now() + announced + SILENCE;
        }
    }

    /// Returns why the box was told to stop its newest turn, if it was.
    fn interrupted(&self) -> Option<InterruptWhy> {
        self.turn.as_ref()?.interrupted
    }

    /// Returns whether a letter waits for files of a turn of which the box has read nothing.
    fn fetches_unread(&self) -> bool {
        let read = |id| self.turn.as_ref().is_some_and(|turn| turn.id == id && turn.is_read());
        self.files.fetching_for().is_some_and(|id| !read(id))
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Feed => {
                self.handle.obeyed_feed();
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
            // The order also stops messages that wait for their files. Otherwise they would become the next turn.
            let now = self.services.clock.wall();
            match self.services.store.stop(self.handle.lane.clone(), order, now).await {
                Ok(true) => {}
                // The turn that the person meant ended while the order was on its way.
                Ok(false) => return,
                Err(e) => {
                    tracing::error!(run = %self.handle.run, code = e.code(), "a /stop was not stored: {e}")
                }
            }
        }
        let open = self.open_turn().map(|turn| (turn.id, turn.is_read()));
        let waits = self.files.fetching_for().is_some() || self.deferred.feed;
        let unread = match open {
            Some((_, read)) => waits && !read,
            None if order.is_some() => waits,
            // Without a person's order, the intended turn may have ended, and the turn that is open now must not be
            // stopped.
            None => self.fetches_unread(),
        };
        // What waits was stopped, or belongs to the next turn.
        self.files.cancel();
        self.deferred.feed = false;
        if unread {
            return self.end_unread(why, order).await;
        }
        // If no turn is open, the report of its end is already on its way to dispatch.
        if let Some((turn, _)) = open {
            if let Some(turn) = &mut self.turn {
                turn.interrupted = Some(why);
            }
            self.write(Some(turn), ToAgent::Interrupt(Interrupt { why })).await;
        }
    }

    /// Ends a turn of which the box has read nothing. It also ends the box, which may have been started for this turn
    /// only.
    async fn end_unread(&mut self, why: InterruptWhy, order: Option<MessageSeq>) {
        let now = self.services.clock.wall();
        match self.services.store.end_turn(self.handle.lane.clone(), why, order, now).await {
            Ok(_) => {
                self.end_turn();
                self.kill(Ending::Killed).await;
            }
            // If the store fails, the run's end decides about the turn.
            Err(e) => {
                tracing::error!(run = %self.handle.run, code = e.code(), "a turn ends with its box: {e}");
                self.kill(Ending::interrupted(why)).await;
            }
        }
    }

    /// Writes every message of the open turn that this box has not been given. If the lane has no open turn, the worker
    /// tells dispatch that the box listens.
    async fn feed(&mut self) {
        // Dispatch does not feed a box that it stops, but fetched files and a recovered store also lead here. The input
        // that is not written now goes to this box or the next one after the turn's end.
        if self.life.is_ending() || self.open_turn().is_some_and(|turn| turn.interrupted.is_some()) {
            return;
        }
        let (mut letters, mut failed) = (Vec::new(), None);
        // While files of the next letter are on their way, the letter waits. It then contains everything that came
        // meanwhile.
        while self.files.fetching_for().is_none() {
            let (run, group, ack) = (self.handle.run.clone(), self.group.clone(), self.mailbox.taken());
            let at = self.services.clock.wall();
            let turn_tokens = tokens_of_window(self.group.model.window);
            let limits = InputLimits { context: self.group.context, turn_tokens };
            let built = self
                .services
                .store
                .compose_input(
                    run.clone(),
                    self.handle.lane.clone(),
                    limits,
                    self.files.patience(),
                    at,
                    move |n, state| input_letter(&run, n, ack, at, &group, state),
                )
                .await;
            match built {
                Ok(Composed::Letter(turn, chat, letter)) => {
                    self.begin_turn(turn, chat);
                    self.files = Files::None;
                    self.stage("input");
                    letters.push(letter);
                }
                Ok(Composed::Files(turn, files)) => self.fetch(turn, files),
                Ok(Composed::Nothing) => {
                    self.files = Files::None;
                    break;
                }
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        // The box finds them together and takes all of them into one call of its model.
        for letter in letters {
            self.put(&letter.name, &letter.bytes);
            failpoint!("run.input.written");
        }
        if let Some(e) = failed {
            return self.not_fed(&e).await;
        }
        self.tell_verdicts().await;
        match self.services.store.open_turn(self.handle.lane.clone()).await {
            Ok(None) => {
                self.end_turn();
                self.report_turn_closed(false);
            }
            Ok(Some(_)) => {}
            Err(e) => self.defer_feed(&e),
        }
    }

    /// Writes every letter that the agent has not acknowledged. A letter that already lies there is no error.
    async fn write_again(&mut self) {
        match self.services.store.unacknowledged(self.handle.run.clone()).await {
            Ok(letters) => letters.iter().for_each(|letter| self.put(&letter.name, &letter.bytes)),
            Err(e) => {
                tracing::error!(run = %self.handle.run, code = e.code(), "letters wait: {e}");
                self.deferred.letters = true;
            }
        }
        if self.deferred.letters && !self.mailbox.stands() {
            tracing::error!(run = %self.handle.run, code = "ipc.dir_gone", "the letter directory was removed: the box is ended");
            self.kill(Ending::Killed).await;
        }
    }

    async fn not_fed(&mut self, why: &StoreError) {
        if why.passes() {
            return self.defer_feed(why);
        }
        // The messages are in the store. A box that cannot be fed must not keep its lane.
        tracing::error!(run = %self.handle.run, code = why.code(), "the box cannot be fed: {why}");
        self.kill(Ending::Crashed { code: None, oom: false, why: why.to_string() }).await;
    }

    /// Notes that the store failed, so that the next scan asks again.
    pub(super) fn defer_feed(&mut self, why: &StoreError) {
        tracing::error!(run = %self.handle.run, code = why.code(), "the box is fed later: {why}");
        self.deferred.feed = true;
    }

    /// Retries work that the store could not take earlier.
    async fn do_deferred(&mut self) {
        let Deferred { letters, feed, verdicts } = std::mem::take(&mut self.deferred);
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

    /// Notes that the box has an input of this turn.
    fn begin_turn(&mut self, id: TurnId, chat: ChatId) {
        let silent_at = Instant::now() + SILENCE;
        match &mut self.turn {
            Some(Turn { id: newest, stage: TurnStage::Open { read, silent_at: at, .. }, .. })
                if *newest == id =>
            {
                (*read, *at) = (true, silent_at);
            }
            turn => {
                *turn = Some(Turn::open(id, chat, true, silent_at));
                self.tally = Tally::default();
            }
        }
        self.gateway.open_turn.send_replace(Some(id));
        self.show_typing();
        self.mark_taken(id);
    }

    fn end_turn(&mut self) {
        self.drop_draft();
        if let Some(turn) = &mut self.turn {
            turn.stage = TurnStage::Over;
        }
        self.gateway.open_turn.send_replace(None);
    }

    fn report_turn_closed(&self, next: bool) {
        let RunHandle { no, .. } = self.handle;
        self.handle.report(Event::TurnClosed { run: no, next, fed: self.handle.fed() });
    }

    fn channel(&self) -> Option<(Arc<dyn Channel>, ChatId)> {
        let chat = &self.open_turn()?.chat;
        Some((self.services.channels.of(chat)?, chat.clone()))
    }

    fn show_typing(&self) {
        if let Some((channel, chat)) = self.channel() {
            let show = async move { channel.typing(&chat).await };
            drop(self.services.workers.once("a typing notice", show));
        }
    }

    /// Has the messages of the turn marked as taken, where the channel does that.
    fn mark_taken(&self, turn: TurnId) {
        if self.channel().is_some_and(|(channel, chat)| channel.taken_mark(&chat).is_some()) {
            let services = Arc::clone(&self.services);
            drop(self.services.workers.once("the marks of a turn", async move {
                match services.store.want_marks(turn).await {
                    Ok(()) => services.outbox_signal.notify(),
                    Err(e) => tracing::warn!(%turn, code = e.code(), "its messages get no marks: {e}"),
                }
            }));
        }
    }

    /// Makes a letter: first its row, then its file.
    async fn write(&mut self, turn: Option<TurnId>, body: ToAgent) {
        let (run, ack, at) = (self.handle.run.clone(), self.mailbox.taken(), self.services.clock.wall());
        let kind = body.kind();
        let made = self
            .services
            .store
            .add_letter(self.handle.run.clone(), turn, kind, at, move |n| {
                letter_to_agent(&run, turn, n, ack, at, body).to_bytes()
            })
            .await;
        match made {
            Ok(letter) => self.put(&letter.name, &letter.bytes),
            Err(e) => {
                tracing::error!(run = %self.handle.run, code = e.code(), "the {kind} letter was not stored: {e}")
            }
        }
    }

    /// Writes the file of a letter whose row is stored. If that fails, a later scan writes it from the row.
    fn put(&mut self, name: &str, bytes: &[u8]) {
        if let Err(e) = self.mailbox.write(name, bytes) {
            tracing::error!(run = %self.handle.run, code = "ipc.write", "a letter waits: {e}");
            self.deferred.letters = true;
        }
    }

    async fn ask_to_close(&mut self, why: CloseWhy) {
        self.life.close();
        let highest = match self.services.store.highest_written(self.handle.run.clone()).await {
            Ok(n) => n,
            Err(e) => {
                tracing::error!(run = %self.handle.run, code = e.code(), "_close was not written: {e}");
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
        let (ack, at) = (self.mailbox.taken(), self.services.clock.wall());
        let body = ToAgent::Close(Close { why, reason: reason.to_owned() });
        let letter = letter_to_agent(&self.handle.run, None, highest, ack, at, body);
        match letter.to_bytes() {
            Ok(bytes) => self.put(&letter.file_name(), &bytes),
            Err(e) => tracing::error!(run = %self.handle.run, code = e.code.as_str(), "{e}"),
        }
        failpoint!("run.close.written");
    }

    async fn fell_silent(&mut self) {
        if matches!(self.life, Life::Starting { .. }) {
            let why = format!("the box did not get ready within {} s", READY_WITHIN.as_secs());
            self.kill(Ending::NeverStarted { code: "box.silent".into(), why }).await;
        } else if self.fetches_unread() {
            // The box waits for the host's answer.
            self.expect_silence(Duration::ZERO);
        } else {
            let ending = Ending::Silent { seconds: SILENCE.as_secs() };
            tracing::warn!(run = %self.handle.run, code = "run.silent", "the box {ending}");
            self.kill(ending).await;
        }
    }

    fn stage(&self, name: &'static str) {
        let turn = self.open_turn().map(|turn| turn.id);
        self.services.store.stage(turn, None, Some(&self.handle.run), name, self.services.clock.now());
    }
}
