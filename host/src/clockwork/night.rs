//! Minute by minute: whether the clock was set, whether a copy is due, whether something has been kept long enough.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clear;
use crate::backup;
use crate::clock::{Follower, Stepped};
use crate::domain::WallMs;
use crate::parts::Parts;
use crate::policy::night;
use crate::say;
use crate::store;

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

pub(super) async fn run(parts: &Parts, stop: &CancellationToken) {
    let mut not_before = parts.clock.now().mono + START;
    let (mut follower, mut clear_at) = (Follower::default(), HOUR);
    let mut cleared = None;
    loop {
        let now = parts.clock.now();
        if let Some(stepped) = parts.clock.check(&mut follower) {
            follow(parts, stepped).await;
            clear_at = now.mono + AFTER_STEP;
        }
        if now.mono >= clear_at {
            clear_at = now.mono + HOUR;
            clear_away(parts, now.wall, &mut cleared).await;
        }
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
    let last = backup::newest(&parts.install.root, now).map(|(_, at)| at);
    let file = &parts.install.file;
    night::due(now, file.zone.0, file.host.night_hour.min(23), night::spread(&parts.id), last)
}

/// Whether it was made.
async fn copy(parts: &Parts, now: WallMs) -> bool {
    let (root, keep) = (parts.install.root.clone(), parts.install.file.keep.copies);
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
                examine(parts).await;
            }
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

/// A copy that is not sound may be the copy's fault: the database itself is asked.
async fn examine(parts: &Parts) {
    let path = parts.install.root.database();
    if let Ok(Err(e)) = tokio::task::spawn_blocking(move || store::check(&path)).await {
        parts.store.is_damaged(&e);
    }
}

/// What waits moves along with the clock that is followed, and first: a kill in between makes it younger, never too
/// old.
async fn follow(parts: &Parts, stepped: Stepped) {
    let by = say::duration(Duration::from_millis(stepped.by.unsigned_abs()));
    let way = if stepped.by > 0 { "forward" } else { "back" };
    if !stepped.stands {
        tracing::warn!(
            code = "clock.stepped",
            "the system's clock was set {way} by {by}; followed if it stands for a minute"
        );
        return;
    }
    // What is being stored meanwhile is stamped a little later.
    let before = parts.clock.wall().plus(MINUTE);
    match parts.store.move_times(stepped.by, before).await {
        Ok(()) => {
            parts.clock.adopt(stepped.by);
            parts.bell.ring();
            tracing::warn!(code = "clock.stepped", "the system's clock stands {way} by {by}: it is followed");
        }
        Err(e) => tracing::error!(code = e.code(), "the clock is not followed yet: {e}"),
    }
}

/// Letters by the hour, everything once in 24 hours.
async fn clear_away(parts: &Parts, now: WallMs, cleared: &mut Option<WallMs>) {
    let (root, keep) = (&parts.install.root, &parts.install.file.keep);
    let everything = cleared.is_none_or(|last| now.since(last) > AFTER_STEP);
    let done = if everything {
        clear::all(root, &parts.store, keep, now).await
    } else {
        clear::letters(root, &parts.store, keep, now)
            .await
            .map(|runs| clear::Gone { runs, ..Default::default() })
    };
    match done {
        Ok(gone) => {
            if gone != clear::Gone::default() {
                let clear::Gone { runs, media, transcripts, rows } = gone;
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
