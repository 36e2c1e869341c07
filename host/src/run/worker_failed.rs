//! Ends a run whose own worker failed: the worker panicked, or dispatch gave it up because it no longer answers.
//!
//! The lane must go on. So this code stores the run's end, removes the box and reports `Ended`. It knows nothing of the
//! worker's state except the [`RunHandle`]. It repeats until it succeeds. Each of its steps must be idempotent,
//! because the worker may have failed after it stored the end.

use std::sync::Arc;
use std::time::Duration;

use super::RunHandle;
use super::after_box_cleanup::clear;
use super::end::{store_end, until_stored};
use super::reaper::spawn_reaper;
use crate::dispatch::{After, Event};
use crate::domain::{Ending, Lane};
use crate::policy::sandbox_plan::box_name;
use crate::services::Services;
use crate::workers::Panicked;

/// If the worker failed right after it stored the run's end, the turn gets its next run after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// Performs a run's work. A panic in it counts as a crash of the run.
pub async fn supervise(services: Arc<Services>, handle: RunHandle, work: impl Future<Output = ()>) {
    let name = format!("run {}", handle.run);
    if let Err(panicked) = services.workers.caught(&name, work).await {
        give_up(services, handle, crashed(panicked)).await;
    }
}

/// Returns the ending of a run whose work panicked in this host.
pub(super) fn crashed(panicked: Panicked) -> Ending {
    Ending::Crashed { code: None, oom: false, why: panicked.to_string() }
}

/// Ends a run whose worker is gone.
pub async fn give_up(services: Arc<Services>, handle: RunHandle, ending: Ending) {
    let name = format!("the end of run {}", handle.run);
    let workers = services.workers.clone();
    workers.kept(&name, || end(Arc::clone(&services), &handle, ending.clone())).await;
}

async fn end(services: Arc<Services>, handle: &RunHandle, ending: Ending) {
    let RunHandle { no, run, lane, .. } = handle;
    tracing::warn!(%run, %lane, code = "run.given_up", "the host ends the run: {ending}");
    // The row is stored before the box is removed, as in every end of a run.
    let after = match store_end(&services, run, lane, ending).await {
        After::Idle => what_waits(&services, lane).await,
        after => after,
    };
    if let Err(e) = services.engine.remove(&box_name(run)).await {
        tracing::warn!(%run, code = e.code(), "the box was not removed yet: {e}");
    }
    // The reaper also removes a probe box that the worker was about to remove.
    spawn_reaper(&services);
    let dir = services.install.root.run_ipc(&lane.group, run);
    clear(&services, lane.group.clone(), dir, false);
    handle.report(Event::Ended { run: *no, after, fed: handle.fed() });
}

/// Reads from the store what the lane waits for. Storing an end a second time does not return it again.
async fn what_waits(services: &Services, lane: &Lane) -> After {
    let facts = services.facts(lane);
    let suspended = until_stored("what the lane waits for", || services.store.suspended()).await;
    if let Some(suspended) = suspended.into_iter().find(|suspended| suspended.lane == *lane) {
        return After::Suspended(suspended.until.since(services.clock.wall()), facts);
    }
    match until_stored("the lane's open turn", || services.store.open_turn(lane.clone())).await {
        Some(_) => After::Wake(AGAIN, facts),
        None => After::Idle,
    }
}
