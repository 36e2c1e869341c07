//! Removes boxes that belong to no run, because their host died, or the engine was away, between the run's end and the
//! box's removal. `daemon` runs it every hour; a run that could not remove its box also calls it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::WallMs;
use crate::host_files;
use crate::policy::backoff::doubling;
use crate::policy::sandbox_plan::CHECK_BOX_LIFETIME;
use crate::sandbox::{EngineError, ListedBox};
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
    #[error("{0} were made for a look, and not long ago")]
    Looked(usize),
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
            Err(e @ Later::Looked(_)) => tracing::debug!("boxes without a run stay for now: {e}"),
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
    let (looks, left): (Vec<_>, Vec<_>) = boxes
        .iter()
        .filter(|found| !alive.contains(found.run.as_str()))
        .partition(|found| somebody_looks(found, services.clock.began(), services.clock.wall()));
    let mut stays = if looks.is_empty() { Ok(()) } else { Err(Later::Looked(looks.len())) };
    for found in left {
        tracing::info!(run = found.run, "a box without a run is removed");
        failpoint!("run.reap.box");
        if let Err(e) = services.engine.remove(&found.container).await {
            stays = Err(e.into());
        }
    }
    stays
}

/// Returns whether a probe still uses this box: a probe of this host, or of a command beside it. Process ids are
/// reused, and a host in a container always has the same one. So a box from before this host's start does not belong to
/// this host.
fn somebody_looks(found: &ListedBox, started: WallMs, now: WallMs) -> bool {
    let Some(checker) = found.checker else { return false };
    let lives = match checker == std::process::id() {
        // The engine gives the time in whole seconds.
        true => found.made.0 + 1_000 > started.0,
        false => host_files::there(&Path::new("/proc").join(checker.to_string())),
    };
    // If the clock was set back, a box seems to come from the future. It then counts as unused.
    lives && found.made.0 <= now.0 + 1_000 && now.since(found.made) < CHECK_BOX_LIFETIME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_goes_on_is_left_alone_and_what_a_dead_process_left_is_not() {
        let found =
            |checker| ListedBox { container: "c".into(), run: "r".into(), made: WallMs(100_000), checker };
        let looks = |checker, started, now| somebody_looks(&found(checker), WallMs(started), WallMs(now));
        let me = Some(std::process::id());
        assert!(looks(me, 100_999, 101_000), "made in the second in which this host began");
        assert!(looks(Some(1), 200_000, 201_000), "a command beside this host");
        assert!(!looks(me, 101_000, 102_000), "an earlier host with the same number");
        assert!(!looks(Some(u32::MAX), 1, 101_000), "its process is gone");
        assert!(!looks(Some(1), 1, 100_000 + 300_000), "no look takes so long");
        assert!(!looks(None, 1, 101_000), "a run's");
        assert!(!looks(Some(1), 1, 50_000), "made in a time that has not come");
    }
}
