//! The nightly copy of the database.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backup;
use crate::domain::WallMs;
use crate::parts::Parts;
use crate::policy::night;

/// How often the wall clock is asked whether it is night. A sleep until then would miss a clock that is set.
const MINUTE: Duration = Duration::from_secs(60);
/// After the start, which has enough to do: a host that is started again and again must not copy each time.
const START: Duration = Duration::from_secs(10);
/// After a copy that failed.
const AGAIN: Duration = Duration::from_secs(3600);

pub(super) async fn run(parts: &Parts, stop: &CancellationToken) {
    let mut not_before = parts.clock.now().mono + START;
    loop {
        let now = parts.clock.now();
        if now.mono >= not_before && copy_is_due(parts, now.wall) && !copy(parts, now.wall).await {
            not_before = now.mono + AGAIN;
        }
        let pause = match not_before.saturating_sub(now.mono) {
            Duration::ZERO => MINUTE,
            left => left.min(MINUTE),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn copy_is_due(parts: &Parts, now: WallMs) -> bool {
    let last = backup::newest(&parts.install.root).map(|(_, at)| at);
    let file = &parts.install.file;
    night::due(now, file.zone.0, file.host.night_hour.min(23), night::spread(&parts.id), last)
}

/// Whether it was made.
async fn copy(parts: &Parts, now: WallMs) -> bool {
    let (root, keep) = (parts.install.root.clone(), parts.install.file.keep.copies);
    let made = tokio::task::spawn_blocking(move || {
        let copied = backup::nightly(&root, now)?;
        backup::rotate(&root, keep)?;
        Ok::<_, backup::BackupError>(copied)
    });
    match made.await {
        Ok(Ok(copied)) => {
            let (path, kib) = (copied.path.display(), copied.bytes >> 10);
            tracing::info!("the database is copied to {path}: {} rows, {kib} KiB, verified", copied.rows);
            true
        }
        Ok(Err(e)) => {
            tracing::error!(code = e.code(), "there is no copy of the database tonight: {e}");
            // `status` shows the counter; where it cannot be stored either, the log has said it.
            let _ = parts.store.count("backup.failed", 1).await;
            false
        }
        Err(e) => {
            tracing::error!(code = "backup.failed", "the copy was not made: {e}");
            false
        }
    }
}
