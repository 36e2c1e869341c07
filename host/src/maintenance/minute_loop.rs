//! Checks once a minute whether the clock was set, whether a copy is due, and whether retention has to run.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{retention, strip_rights};
use crate::backup;
use crate::clock::{Follower, Stepped};
use crate::domain::WallMs;
use crate::host_files;
use crate::policy::nightly;
use crate::services::Services;
use crate::store;
use crate::telemetry;
use crate::text;

/// How often the host checks whether it is night. A sleep until then would miss a change of the clock.
const MINUTE: Duration = Duration::from_secs(60);
/// How long the first check waits after the start, which is busy. A host that restarts again and again must not copy
/// each time.
const START: Duration = Duration::from_secs(10);
/// The time between two checks of the letters' size. They may exceed their budget for this long.
const HOUR: Duration = Duration::from_secs(3600);
/// The host removes nothing for this long after the clock was set, because ages depend on the clock.
const AFTER_STEP: Duration = Duration::from_secs(24 * 3600);
/// The nightly work indexes what was said for this long.
const INDEXING: Duration = MINUTE;
/// The host retries a failed copy after this time.
const AGAIN: Duration = Duration::from_secs(3600);

pub(super) async fn run(services: &Services, stop: &CancellationToken) {
    let mut not_before = services.clock.now().mono + START;
    let (mut follower, mut clear_at) = (Follower::default(), HOUR);
    let mut cleared = None;
    loop {
        failpoint!("maintenance.nightly.look");
        telemetry::log_left_out();
        let now = services.clock.now();
        if let Some(stepped) = services.clock.check(&mut follower) {
            follow(services, stepped).await;
            clear_at = now.mono + AFTER_STEP;
        }
        // Timers of the scheduler do not count the time that the machine sleeps, nor a clock that was set.
        services.tasks_signal.notify();
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

/// Makes the nightly copy. Returns whether it was made.
async fn copy(services: &Services, now: WallMs) -> bool {
    let (root, keep) = (services.install.root.clone(), services.install.file.keep.copies);
    let made = host_files::blocking(move || {
        let copied = backup::nightly(&root, now)?;
        backup::rotate(&root, keep, now)?;
        Ok::<_, backup::BackupError>(copied)
    });
    match made.await {
        Ok(copied) => {
            let (path, kib) = (copied.path.display(), copied.bytes >> 10);
            tracing::info!("the database is copied to {path}: {} rows, {kib} KiB, verified", copied.rows);
            true
        }
        Err(e) => {
            tracing::error!(code = e.code(), "there is no copy of the database tonight: {e}");
            if e.code() == "store.damaged" {
                examine(services).await;
            }
            // `status` shows this counter. If the store cannot take it, the log still has the error.
            let _ = services.store.count("backup.failed", 1).await;
            false
        }
    }
}

/// Checks the database itself, because a damaged copy does not prove that the database is damaged.
async fn examine(services: &Services) {
    let path = services.install.root.database();
    if let Err(e) = host_files::blocking(move || store::check(&path)).await {
        services.store.report_damage(&e);
    }
}

/// Follows a clock that was set. It first moves the times of waiting rows along. A kill in between makes them younger,
/// never too old.
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
    // Rows that are being stored meanwhile have slightly later times.
    let before = services.clock.wall().plus(MINUTE);
    match services.store.move_times(stepped.by, before).await {
        Ok(()) => {
            services.clock.adopt(stepped.by);
            services.outbox_signal.notify();
            tracing::warn!(code = "clock.stepped", "the system's clock stands {way} by {by}: it is followed");
        }
        Err(e) => tracing::error!(code = e.code(), "the clock is not followed yet: {e}"),
    }
}

/// Brings the history index up to date, so that the next search waits for little. What the limit leaves is indexed by
/// searches and by the next night.
async fn index_history(services: &Services) {
    if let Err(e) = services.history.catch_up(&services.store, INDEXING).await {
        tracing::warn!(code = e.code(), "the history is not indexed tonight: {e}");
    }
}

/// Takes special rights from what agents keep, and says in one line how many files had them.
async fn strip(services: &Services) {
    let groups = match services.store.sessions().await {
        Ok(groups) => groups.into_iter().map(|(group, _)| group).collect::<Vec<_>>(),
        Err(e) => {
            tracing::warn!(code = e.code(), "no special rights are taken from agents' files tonight: {e}");
            return;
        }
    };
    let root = services.install.root.clone();
    let strip_rights::Stripped { files, kept } =
        host_files::blocking(move || strip_rights::all(&root, &groups)).await;
    if files > 0 {
        tracing::warn!(
            code = "files.rights",
            files,
            "agents' files with setuid, setgid or capabilities lost these rights"
        );
    }
    if kept > 0 {
        tracing::warn!(
            code = "files.rights",
            kept,
            "agents' files keep setuid, setgid or capabilities, because only root can change them: the end of their \
             group's next run takes setuid and setgid; as root, `chmod ug-s` does"
        );
    }
}

/// Removes old letters every hour, and everything else once in 24 hours.
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
                strip(services).await;
                index_history(services).await;
            }
        }
        Err(e) => tracing::warn!(code = e.code(), "nothing was cleared away: {e}"),
    }
}
