//! The end of a run: signals, last letters, the log, the removal of the box, and the stored end, which decides what
//! happens to its turn.

use std::time::Duration;

use ipc_schema::text_sanitize;
use tokio::time::Instant;

use super::Run;
use super::reaper::spawn_reaper;
use super::states::Life;
use crate::dispatch::After;
use crate::domain::{Ending, Lane, RunId};
use crate::policy::retry::STORE_AGAIN;
use crate::sandbox::Exit;
use crate::services::Services;
use crate::text;
use crate::turns::Collected;

/// SIGTERM is given this long.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// A box that is still there after SIGKILL gets it again.
pub(super) const KILL_AGAIN: Duration = Duration::from_secs(5);
/// A box may leave this many passes of letters behind; a pass takes 64, and more names than a directory's budget end
/// the box.
pub(super) const LAST_PASSES: u32 = 400;
/// How much of stdout and stderr is kept.
const LOG_BYTES: usize = 64 * 1024;
/// How much of it a person sees when a box dies.
const LAST_WORDS: usize = 300;

impl Run {
    /// SIGTERM, five seconds, SIGKILL.
    pub(super) async fn terminate(&mut self) {
        self.signal("SIGTERM").await;
        self.life.end(Ending::Finished, Instant::now() + TERM_GRACE);
    }

    /// SIGKILL. The first reason stays. It is sent until the box has ended: an engine that was away when it was first
    /// asked would leave the lane waiting for ever.
    pub(super) async fn kill(&mut self, ending: Ending) {
        self.signal("SIGKILL").await;
        self.life.end(ending, Instant::now() + KILL_AGAIN);
    }

    async fn signal(&self, signal: &str) {
        if let Err(e) = self.services.engine.signal(&self.container, signal).await {
            tracing::warn!(run = %self.run, code = e.code(), "the box was not signalled: {e}");
        }
    }

    /// After the exit: takes the last letters, keeps the log, removes the box, and decides what its turn is worth.
    pub(super) async fn collect(mut self, exit: Exit) -> After {
        // Three quiet passes: a number that is missing is waited for twice.
        let mut quiet = 0;
        for _ in 0..LAST_PASSES {
            quiet = if self.take_letters().await { 0 } else { quiet + 1 };
            if quiet == 3 {
                break;
            }
        }
        self.tell_rest();
        failpoint!("run.collect.letters");
        let log = self.services.engine.log_tail(&self.container, LOG_BYTES).await.unwrap_or_else(|e| {
            tracing::debug!(run = %self.run, code = e.code(), "no log: {e}");
            Vec::new()
        });
        self.mailbox.archive().keep(".", "runner.log", &log);
        let ending = self.ending(exit, &log);
        tracing::info!(run = %self.run, lane = %self.lane, "the box {ending}");
        self.gateway.close();
        // First the row, then the box: a host that dies in between finds a box without a run, which it removes; the
        // other way round it would find a run whose box is gone, and no exit code to decide by.
        let after = store_end(&self.services, &self.run, &self.lane, ending).await;
        if let Err(e) = self.services.engine.remove(&self.container).await {
            tracing::warn!(run = %self.run, code = e.code(), "the box was not removed yet: {e}");
            spawn_reaper(&self.services);
        }
        self.tidy_up().await;
        after
    }

    fn ending(&self, exit: Exit, log: &[u8]) -> Ending {
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
        // A turn that was told to stop has stopped, however its box ended; also over the death of a host.
        if let Some(why) = self.open_turn().and_then(|turn| turn.interrupted) {
            return Ending::interrupted(why);
        }
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
    services.bell.ring();
    let facts = services.facts(&lane.group);
    match collected {
        Collected::Idle => After::Idle,
        Collected::Next(_, wait) => After::Wake(wait, facts),
        Collected::Suspended(until) => After::Suspended(until.since(services.clock.wall()), facts),
    }
}

/// Asks the store until it answers: the lane cannot go on without.
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
