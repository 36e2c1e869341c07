//! Ends a run: signals, the last letters, the log, the removal of the box, and the stored end, which decides what
//! happens to the run's turn.

use std::time::Duration;

use ipc_schema::text_sanitize;
use tokio::time::Instant;

use super::Run;
use super::reaper::spawn_reaper;
use super::states::Life;
use crate::dispatch::After;
use crate::domain::{Ending, Lane, RunId};
use crate::policy::backoff::STORE_AGAIN;
use crate::sandbox::Exit;
use crate::services::Services;
use crate::text::{self, Reader};
use crate::turns::Collected;

/// How long the box has to end after SIGTERM.
pub(super) const TERM_GRACE: Duration = Duration::from_secs(5);
/// If the box is still there this long after SIGKILL, the host sends SIGKILL again.
pub(super) const KILL_AGAIN: Duration = Duration::from_secs(5);
/// The host takes at most this many passes of letters after the exit. A pass takes 64 names, and a box with more names
/// than a directory's budget ends earlier.
pub(super) const LAST_PASSES: u32 = 400;
/// The host keeps this much of stdout and stderr.
const LOG_BYTES: usize = 64 * 1024;
/// The notice about a crashed box shows this much of it.
const LAST_WORDS: usize = 300;

impl Run {
    /// Sends SIGTERM, and SIGKILL five seconds later.
    pub(super) async fn terminate(&mut self) {
        self.signal("SIGTERM").await;
        self.life.end(Ending::Finished, Instant::now() + TERM_GRACE);
    }

    /// Sends SIGKILL until the box has ended; the first reason stays. A single signal could fail while the engine is
    /// away, and the lane would wait for ever.
    pub(super) async fn kill(&mut self, ending: Ending) {
        self.signal("SIGKILL").await;
        self.life.end(ending, Instant::now() + KILL_AGAIN);
    }

    async fn signal(&self, signal: &str) {
        if let Err(e) = self.services.engine.signal(&self.container, signal).await {
            tracing::warn!(run = %self.handle.run, code = e.code(), "the box was not signalled: {e}");
        }
    }

    /// Runs after the exit: takes the last letters, keeps the log, removes the box and stores the end, which decides
    /// about its turn.
    pub(super) async fn collect(mut self, exit: Exit) -> After {
        // The host stops after three passes without letters, because it waits two passes for a missing number.
        let mut quiet = 0;
        for _ in 0..LAST_PASSES {
            quiet = if self.take_letters().await { 0 } else { quiet + 1 };
            if quiet == 3 {
                break;
            }
        }
        self.drop_draft();
        failpoint!("run.collect.letters");
        let log = self.services.engine.log_tail(&self.container, LOG_BYTES).await.unwrap_or_else(|e| {
            tracing::debug!(run = %self.handle.run, code = e.code(), "no log: {e}");
            Vec::new()
        });
        self.mailbox.archive().keep(".", "runner.log", &log);
        let ending = self.ending(exit, &log);
        tracing::info!(run = %self.handle.run, lane = %self.handle.lane, "the box {ending}");
        self.gateway.close();
        // The host stores the row before it removes the box. If it dies in between, the next host finds a box without a
        // run and removes it. In the other order it would find a run without a box, and no exit code to decide by.
        let after = store_end(&self.services, &self.handle.run, &self.handle.lane, ending).await;
        if let Err(e) = self.services.engine.remove(&self.container).await {
            tracing::warn!(run = %self.handle.run, code = e.code(), "the box was not removed yet: {e}");
            spawn_reaper(&self.services);
        }
        self.tidy_up().await;
        after
    }

    fn ending(&self, exit: Exit, log: &[u8]) -> Ending {
        // A turn that the host told to stop counts as stopped, whatever ended its box, even silence or the death of a
        // host. Only a limit that the box broke says more.
        let over_limit = matches!(&self.life, Life::Ending { ending: Ending::OverLimit { .. }, .. });
        if let Some(why) = self.open_turn().and_then(|turn| turn.interrupted).filter(|_| !over_limit) {
            return Ending::interrupted(why);
        }
        match &self.life {
            Life::Ending { ending, .. } => return ending.clone(),
            Life::Closing { .. } if exit.code == Some(0) => return Ending::Finished,
            Life::Starting { .. } | Life::Ready | Life::Closing { .. } => {}
        }
        let last_words = || {
            let log = String::from_utf8_lossy(log);
            let line = log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing").trim();
            text_sanitize::line(line, LAST_WORDS)
        };
        let why = match exit.oom {
            true => format!("out of memory at {}", text::size(self.group.limits.memory())),
            false => self.last_words.clone().unwrap_or_else(last_words),
        };
        if self.life.is_ready() {
            return Ending::Crashed { code: exit.code, oom: exit.oom, why };
        }
        let code = exit.code.map_or_else(|| "none".to_owned(), |c| c.to_string());
        Ending::NeverStarted {
            code: "box.exited".into(),
            why: format!("the box ended with exit code {code}: {why}"),
        }
    }
}

/// Stores a run's end. Returns what its lane does next.
pub(super) async fn store_end(services: &Services, run: &RunId, lane: &Lane, ending: Ending) -> After {
    let collect = || services.store.collect(run.clone(), lane.clone(), ending.clone(), services.clock.wall());
    let collected = until_stored("the run's end", collect).await;
    services.outbox_signal.notify();
    if let (Ending::NeverStarted { why, .. }, Reader::Member) = (&ending, Reader::of(&lane.group)) {
        // A run is tried for a day. The operator reads each reason once a day, whichever group it stops first.
        let day = services.clock.wall().0.div_euclid(24 * 3600 * 1000);
        let key = format!("start:{day}:{}", ipc_schema::sha256_hex(why.as_bytes()));
        services.tell_operator(&key, &text::group_cannot_start(&lane.group, why)).await;
    }
    let facts = services.facts(lane);
    match collected {
        Collected::Idle => After::Idle,
        Collected::Next(_, wait) => After::Wake(wait, facts),
        Collected::Suspended(until) => After::Suspended(until.since(services.clock.wall()), facts),
    }
}

/// Asks the store until it answers, because the lane cannot go on without the answer.
pub(super) async fn until_stored<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = crate::store::Result<T>>,
{
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(e) => tracing::error!(code = e.code(), "{what} waits for the store: {e}"),
        }
        tokio::time::sleep(STORE_AGAIN).await;
    }
}
