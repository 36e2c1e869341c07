//! What follows when a run's own worker fails: it panicked, or dispatch gave it up because it no longer answers.
//!
//! The lane must go on, so this stores the run's end, removes its box and reports `Ended`, with nothing of what the
//! worker knew but its [`WorkerHandle`]. It is itself repeated until it succeeds, and each of its steps may be the
//! second one of its kind: the worker may have failed after it had stored the end.

use std::sync::Arc;
use std::time::Duration;

use super::disk_cleanup::clear;
use super::end::{store_end, until_stored};
use super::reaper::spawn_reaper;
use super::worker_handle::WorkerHandle;
use crate::dispatch::{After, Event};
use crate::domain::{Ending, Lane};
use crate::policy::sandbox_plan::box_name;
use crate::services::Services;
use crate::workers::Panicked;

/// A turn whose run's end was stored by a worker that failed right after gets its next run after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Does a run's work. A panic in it counts as a crash of the run.
pub async fn supervise(services: Arc<Services>, handle: WorkerHandle, work: impl Future<Output = ()>) {
    let name = format!("run {}", handle.run);
    if let Err(panicked) = services.workers.caught(&name, work).await {
        give_up(services, handle, crashed(panicked)).await;
    }
}

/// The end of a run whose work in this host panicked.
pub(super) fn crashed(panicked: Panicked) -> Ending {
    Ending::Crashed { code: None, oom: false, why: panicked.to_string() }
}

/// Ends a run whose worker is gone.
pub async fn give_up(services: Arc<Services>, handle: WorkerHandle, ending: Ending) {
    let name = format!("the end of run {}", handle.run);
    let workers = services.workers.clone();
    workers.kept(&name, || end(Arc::clone(&services), &handle, ending.clone())).await;
}

async fn end(services: Arc<Services>, handle: &WorkerHandle, ending: Ending) {
    let WorkerHandle { no, run, lane, .. } = handle;
    tracing::warn!(%run, %lane, code = "run.given_up", "the host ends the run: {ending}");
    // The row before the box, as in every other end of a run.
    let after = match store_end(&services, run, lane, ending).await {
        After::Idle => what_waits(&services, lane).await,
        after => after,
    };
    if let Err(e) = services.engine.remove(&box_name(run)).await {
        tracing::warn!(%run, code = e.code(), "the box was not removed yet: {e}");
    }
    // Also for a probe box that the worker was about to remove.
    spawn_reaper(&services);
    let dir = services.install.root.run_ipc(&lane.group, run);
    clear(&services, lane.group.clone(), dir, false);
    handle.report(Event::Ended { run: *no, after, fed: handle.fed() });
}

/// What a lane waits for, by the store. An end that was stored before says nothing of it a second time.
async fn what_waits(services: &Services, lane: &Lane) -> After {
    let facts = services.facts(&lane.group);
    let suspended = until_stored("what the lane waits for", || services.store.suspended()).await;
    if let Some(suspended) = suspended.into_iter().find(|suspended| suspended.lane == *lane) {
        return After::Suspended(suspended.until.since(services.clock.wall()), facts);
    }
    match until_stored("the lane's open turn", || services.store.open_turn(lane.clone())).await {
        Some(_) => After::Wake(AGAIN, facts),
        None => After::Idle,
    }
}
