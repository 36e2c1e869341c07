//! Looks at what a box's writable directories hold for as long as it lives.
//!
//! Most file systems give a directory no limit of its own, so it is measured: at once when the disk has lost much since
//! the last time, else every ten seconds of work. Measuring a large tree takes time, and takes at most a twentieth of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipc_schema::TurnId;
use ipc_schema::untrusted_fs::UntrustedDir;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::disk;
use crate::domain::group::Group;
use crate::domain::{Ending, Lane};
use crate::parts::Parts;
use crate::policy::disk_budget::{Held, NAMES, Place, over};

/// How often the file system is asked for its free room: one system call.
const GLANCE: Duration = Duration::from_millis(250);
/// So much less free room than at the last look makes the next one due.
const LOST: u64 = 64 << 20;
/// A look is due after so long while a turn is worked on, and while the box listens.
const BUSY: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(60);
/// A look may take this part of the time.
const SHARE: u32 = 20;

/// Watches until it is dropped.
pub(super) struct Watchdog {
    over: mpsc::Receiver<Ending>,
    watching: AbortHandle,
}

impl Watchdog {
    /// Begins to watch the directories that the lane's box may write.
    pub(super) fn watch(
        parts: &Arc<Parts>,
        lane: &Lane,
        group: &Group,
        open_turn: watch::Receiver<Option<TurnId>>,
    ) -> Self {
        let root = &parts.install.root;
        let limits = &group.limits;
        let place = |code, name, setting, limit| Place { code, name, setting, limit };
        let mut places = vec![
            (
                place("disk.workspace", "workspace", "limits.workspace_mib", limits.workspace),
                root.workspace(&lane.group),
            ),
            (
                place("disk.session", "transcripts", "limits.session_mib", limits.session),
                root.sessions(&lane.group),
            ),
        ];
        if lane.group.is_main() {
            let shared = place("disk.global", "shared folder", "limits.workspace_mib", limits.workspace);
            places.push((shared, root.global()));
        }
        let (tell, over) = mpsc::channel(1);
        let watching = tokio::spawn(watch(Arc::clone(parts), places, open_turn, tell)).abort_handle();
        Self { over, watching }
    }

    /// Waits until the box has filled too much. It says so once.
    pub(super) async fn bites(&mut self) -> Ending {
        match self.over.recv().await {
            Some(ending) => ending,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// A directory, and what it held at the moments that count.
struct Watched {
    place: Place,
    path: PathBuf,
    before: Option<Held>,
    at_low: Option<Held>,
}

async fn watch(
    parts: Arc<Parts>,
    places: Vec<(Place, PathBuf)>,
    mut open_turn: watch::Receiver<Option<TurnId>>,
    tell: mpsc::Sender<Ending>,
) {
    let watched = |(place, path)| Watched { place, path, before: None, at_low: None };
    let mut places: Vec<Watched> = places.into_iter().map(watched).collect();
    let state = parts.install.root.state();
    let free = || disk::room(&state).map_or(u64::MAX, |room| room.free);
    let mut pause = Duration::ZERO;
    let (mut looked, mut free_then) = (Instant::now(), free());
    loop {
        let period = if open_turn.borrow_and_update().is_some() { BUSY } else { QUIET };
        let lost = free_then.saturating_sub(free()) > LOST;
        let first = places.iter().any(|p| p.before.is_none());
        if first || (looked.elapsed() >= pause && (lost || looked.elapsed() >= period)) {
            free_then = free();
            let began = Instant::now();
            let low = !parts.gate.is_open();
            for p in &mut places {
                if let Some(ending) = look(p, low).await {
                    // The run that would hear it has ended by itself when nobody does.
                    let _ = tell.send(ending).await;
                    return;
                }
            }
            looked = Instant::now();
            pause = began.elapsed() * SHARE;
        }
        // A box that listens may write all the same, but is no reason to wake four times a second.
        let glance = if period == BUSY { GLANCE } else { QUIET / 6 };
        let _ = tokio::time::timeout(glance, open_turn.changed()).await;
    }
}

/// Measures one directory, on a thread that may wait for the disk.
async fn look(watched: &mut Watched, low: bool) -> Option<Ending> {
    let path = watched.path.clone();
    // The parent is the host's own; from the directory itself on, nothing is followed.
    let measured =
        tokio::task::spawn_blocking(move || UntrustedDir::open(&path).and_then(|dir| dir.usage(NAMES)));
    let now = match measured.await {
        Ok(Ok(used)) => Held { bytes: used.bytes, crowded: used.truncated },
        Ok(Err(e)) => {
            tracing::warn!(code = "disk.usage", "{}: {e}", watched.path.display());
            return None;
        }
        Err(_) => return None,
    };
    let before = *watched.before.get_or_insert(now);
    watched.at_low = low.then(|| watched.at_low.unwrap_or(now));
    over(&watched.place, before, watched.at_low, now)
}
