//! Minute by minute: whether the clock was set, whether a copy is due, whether something has been kept long enough.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::retention;
use crate::backup;
use crate::clock::{Follower, Stepped};
use crate::domain::WallMs;
use crate::policy::nightly;
use crate::services::Services;
use crate::store;
use crate::text;

/// How often the wall clock is asked whether it is night. A sleep until then would miss a clock that is set.
const MINUTE: Duration = Duration::from_secs(60);
/// After the start, which has enough to do: a host that is started again and again must not copy each time.
const START: Duration = Duration::from_secs(10);
/// Between two looks at what letters take: so long they may be above their budget.
const HOUR: Duration = Duration::from_secs(3600);
/// Nothing is cleared away for so long after the clock was set: ages are told by a clock that somebody just moved.
const AFTER_STEP: Duration = Duration::from_secs(24 * 3600);
/// After a copy that failed.
const AGAIN: Duration = Duration::from_secs(3600);

pub(super) async fn run(services: &Services, stop: &CancellationToken) {
    let mut not_before = services.clock.now().mono + START;
    let (mut follower, mut clear_at) = (Follower::default(), HOUR);
    let mut cleared = None;
    loop {
        failpoint!("maintenance.nightly.look");
        let now = services.clock.now();
        if let Some(stepped) = services.clock.check(&mut follower) {
            follow(services, stepped).await;
            clear_at = now.mono + AFTER_STEP;
        }
        if now.mono >= clear_at {
            clear_at = now.mono + HOUR;
            clear_away(services, now.wall, &mut cleared).await;
        }
        if now.mono >= not_before && copy_is_due(services, now.wall) && !copy(services, now.wall).await {
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

fn copy_is_due(services: &Services, now: WallMs) -> bool {
    let last = backup::newest(&services.install.root, now).map(|(_, at)| at);
    let file = &services.install.file;
    nightly::due(now, &file.zone, file.host.night_hour.min(23), nightly::spread(&services.id), last)
}

/// Whether it was made.
async fn copy(services: &Services, now: WallMs) -> bool {
    let (root, keep) = (services.install.root.clone(), services.install.file.keep.copies);
    let made = tokio::task::spawn_blocking(move || {
        let copied = backup::nightly(&root, now)?;
        backup::rotate(&root, keep, now)?;
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
            if e.code() == "store.damaged" {
                examine(services).await;
            }
            // `status` shows the counter; where it cannot be stored either, the log has said it.
            let _ = services.store.count("backup.failed", 1).await;
            false
        }
        Err(e) => {
            tracing::error!(code = "backup.failed", "the copy was not made: {e}");
            false
        }
    }
}

/// A copy that is not sound may be the copy's fault: the database itself is asked.
async fn examine(services: &Services) {
    let path = services.install.root.database();
    if let Ok(Err(e)) = tokio::task::spawn_blocking(move || store::check(&path)).await {
        services.store.report_damage(&e);
    }
}

/// What waits moves along with the clock that is followed, and first: a kill in between makes it younger, never too
/// old.
async fn follow(services: &Services, stepped: Stepped) {
    let by = text::duration(Duration::from_millis(stepped.by.unsigned_abs()));
    let way = if stepped.by > 0 { "forward" } else { "back" };
    if !stepped.confirmed {
        tracing::warn!(
            code = "clock.stepped",
            "the system's clock was set {way} by {by}; followed if it stands for a minute"
        );
        return;
    }
    // What is being stored meanwhile is stamped a little later.
    let before = services.clock.wall().plus(MINUTE);
    match services.store.move_times(stepped.by, before).await {
        Ok(()) => {
            services.clock.adopt(stepped.by);
            services.bell.ring();
            tracing::warn!(code = "clock.stepped", "the system's clock stands {way} by {by}: it is followed");
        }
        Err(e) => tracing::error!(code = e.code(), "the clock is not followed yet: {e}"),
    }
}

/// Letters by the hour, everything once in 24 hours.
async fn clear_away(services: &Services, now: WallMs, cleared: &mut Option<WallMs>) {
    let (root, keep) = (&services.install.root, &services.install.file.keep);
    let everything = cleared.is_none_or(|last| now.since(last) > AFTER_STEP);
    let done = if everything {
        retention::all(root, &services.store, keep, now).await
    } else {
        retention::letters(root, &services.store, keep, now)
            .await
            .map(|runs| retention::Gone { runs, ..Default::default() })
    };
    match done {
        Ok(gone) => {
            if gone != retention::Gone::default() {
                let retention::Gone { runs, media, transcripts, rows } = gone;
                tracing::info!(
                    "kept long enough: letters of {runs} runs, {media} attachments, {transcripts} transcripts, {rows} rows"
                );
            }
            if everything {
                *cleared = Some(now);
            }
        }
        Err(e) => tracing::warn!(code = e.code(), "nothing was cleared away: {e}"),
    }
}
