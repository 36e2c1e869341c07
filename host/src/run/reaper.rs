//! Boxes that belong to no run: their host died, or the engine was away, between a run's end and its box's.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::parts::Parts;
use crate::policy::retry::doubling;
use crate::sandbox::EngineError;
use crate::store::StoreError;

/// An engine that is away is asked again at first after this, at last after [`LONGEST`].
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum Later {
    #[error("{0}")]
    Engine(#[from] EngineError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Removes every box of this install whose run has ended, as soon as the engine can be asked.
pub async fn reap(parts: Arc<Parts>) {
    for tries in 1.. {
        match reap_once(&parts).await {
            Ok(()) => return,
            Err(e) => tracing::warn!(code = "run.reap", "boxes without a run stay for now: {e}"),
        }
        tokio::time::sleep(doubling(FIRST, tries, LONGEST)).await;
    }
}

/// First the boxes, then the rows: a run is a row before it has a box, so a box that is listed and has no living row
/// has ended.
async fn reap_once(parts: &Parts) -> Result<(), Later> {
    let boxes = parts.engine.boxes(&parts.id).await?;
    let rows = parts.store.unended_runs().await?;
    let alive: HashSet<&str> = rows.iter().map(|row| row.run.as_str()).collect();
    let mut stays = Ok(());
    let left = |run: &str| !alive.contains(run) && !parts.probes.is_alive(run);
    for found in boxes.iter().filter(|found| left(&found.run)) {
        tracing::info!(run = found.run, "a box without a run is removed");
        failpoint!("run.reap.box");
        if let Err(e) = parts.engine.remove(&found.container).await {
            stays = Err(e.into());
        }
    }
    stays
}
