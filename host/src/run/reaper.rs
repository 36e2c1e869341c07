//! Removes boxes that belong to no run, because their host died, or the engine was away, between the run's end and the
//! box's removal. `daemon` runs it every hour; a run that could not remove its box also calls it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::WallMs;
use crate::policy::backoff::doubling;
use crate::policy::sandbox_plan::CHECK_BOX_LIFETIME;
use crate::sandbox::{EngineError, ListedBox, is_alive, this_process};
use crate::services::Services;
use crate::store::StoreError;

/// The host asks an unreachable engine again after this time, which doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum Later {
    #[error("{0}")]
    Engine(#[from] EngineError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0} are in use by a check")]
    InUse(usize),
}

/// A command that was killed during a probe leaves a box; the reaper removes it after this time at the latest.
const EVERY: Duration = Duration::from_secs(3600);

/// Reaps at once, and then every hour.
pub async fn keep_reaping(services: Arc<Services>) {
    loop {
        reap(Arc::clone(&services)).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// Spawns a worker that reaps once.
pub(super) fn spawn_reaper(services: &Arc<Services>) {
    let reaping = Arc::clone(services);
    drop(services.workers.keep("the reaper", move || reap(Arc::clone(&reaping))));
}

/// Removes every box of this install whose run has ended, as soon as the engine answers.
pub(super) async fn reap(services: Arc<Services>) {
    for tries in 1.. {
        match reap_once(&services).await {
            Ok(()) => return,
            Err(e @ Later::InUse(_)) => tracing::debug!("boxes without a run stay for now: {e}"),
            Err(e) => tracing::warn!(code = "run.reap", "boxes without a run stay for now: {e}"),
        }
        tokio::time::sleep(doubling(FIRST, tries, LONGEST)).await;
    }
}

/// Lists the boxes before it reads the rows. A run has a row before it has a box, so a listed box without a living row
/// has ended.
async fn reap_once(services: &Services) -> Result<(), Later> {
    let boxes = services.engine.boxes(&services.id).await?;
    let rows = services.store.unended_runs().await?;
    let alive: HashSet<&str> = rows.iter().map(|row| row.run.as_str()).collect();
    let (in_use, left): (Vec<_>, Vec<_>) = boxes
        .iter()
        .filter(|found| !alive.contains(found.run.as_str()))
        .partition(|found| is_in_use(found, services.clock.wall()));
    let mut stays = if in_use.is_empty() { Ok(()) } else { Err(Later::InUse(in_use.len())) };
    for found in left {
        tracing::info!(run = found.run, "a box without a run is removed");
        failpoint!("run.reap.box");
        if let Err(e) = services.engine.remove(&found.container).await {
            stays = Err(e.into());
        }
    }
    stays
}

/// Removes the boxes of checks that this host has begun. It calls this when it ends: nobody waits for their result any
/// more.
pub async fn remove_checks(services: &Services) {
    let me = this_process();
    match services.engine.boxes(&services.id).await {
        Ok(boxes) => {
            for found in boxes.iter().filter(|found| found.checker.as_ref() == Some(&me)) {
                if let Err(e) = services.engine.remove(&found.container).await {
                    tracing::warn!(code = e.code(), "the box of a check stays until the next start: {e}");
                }
            }
        }
        Err(e) => tracing::warn!(code = e.code(), "boxes of checks stay until the next start: {e}"),
    }
}

/// Returns whether a check still uses this box: a check of this host, or of a command beside it.
fn is_in_use(found: &ListedBox, now: WallMs) -> bool {
    let lives = found.checker.as_deref().is_some_and(is_alive);
    // The engine's clock may be ahead of the host's, which follows a change of the system's time later.
    lives && Duration::from_millis(now.0.abs_diff(found.made.0)) < CHECK_BOX_LIFETIME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_goes_on_keeps_its_box_and_a_dead_process_does_not() {
        let found =
            |checker| ListedBox { container: "c".into(), run: "r".into(), made: WallMs(100_000), checker };
        let in_use = |checker, now| is_in_use(&found(checker), WallMs(now));
        let me = Some(this_process());
        assert!(in_use(me.clone(), 101_000));
        assert!(
            !in_use(Some(format!("{}@1", std::process::id())), 101_000),
            "an earlier host with the same id"
        );
        assert!(!in_use(Some("4294967295@1".into()), 101_000), "its process is gone");
        assert!(!in_use(me.clone(), 100_000 + 300_000), "no check takes so long");
        assert!(!in_use(None, 101_000), "a run's");
        assert!(in_use(me, 50_000), "the engine's clock is ahead");
    }
}
