//! Measures a box's writable directories as long as the box lives, and tells the run when a directory holds too much.
//!
//! Most file systems have no limit per directory, so the host measures: at once when the disk has lost much room since
//! the last time, else every ten seconds while a turn runs and every minute while the box listens. Measuring a large
//! tree takes time, so while the disk loses little, measuring takes at most a twentieth of the time.
//!
//! An unlinked file that a descriptor or a mapping keeps is in no directory. The host finds it in the tables of the
//! box's processes (under gVisor, of the processes that serve the box) and counts it to the workspace. Some hiding
//! places remain, such as a descriptor in a socket's queue. So when the disk stays almost full, the host ends every
//! box, and the kernel frees what the boxes held.
//!
//! A host that is not root sees neither those tables nor the content of folders that the box locked. It opens and
//! counts those folders when the box is gone ([`super::after_box_cleanup`]).

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ipc_schema::TurnId;
use ipc_schema::untrusted_fs::UntrustedDir;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::domain::group_settings::Group;
use crate::domain::{Ending, RunId};
use crate::host_files::{self, Room};
use crate::policy::disk_overrun::{DiskUsage, LimitedDir, SLACK, names_limit, nobody_goes_on, over};
use crate::policy::disk_pressure::names_floor;
use crate::sandbox::unlinked;
use crate::services::Services;

/// How often the host asks for the free room, which costs one system call: while a turn runs, and while the box listens
/// (a listening box can write too).
const GLANCE: Duration = Duration::from_millis(250);
const GLANCE_QUIET: Duration = Duration::from_secs(1);
/// If the disk has lost this much since the last measurement, the next one is due.
const LOST: DiskUsage = DiskUsage { bytes: 64 << 20, names: 10_000 };
/// A measurement is due after this time while a turn runs, and while the box listens.
const BUSY: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(60);
/// Measuring may take this part of the time while the disk loses little, and half of the time while it fills.
const SHARE: u32 = 20;
/// The host remembers what a directory held for one to two of these periods.
const LATELY: Duration = Duration::from_secs(60);
/// If less than half of the free floor is left for this long, every box ends.
const AS_GOOD_AS_FULL: Duration = Duration::from_secs(30);

/// A box has filled more than its limit.
#[derive(Debug)]
pub(super) struct Excess {
    pub ending: Ending,
    /// The directory, and how much may stay in it.
    pub reclaim: Option<(PathBuf, DiskUsage)>,
}

/// Watches until it is dropped.
pub(super) struct Watchdog {
    excess: mpsc::Receiver<Excess>,
    watching: AbortHandle,
    before: Vec<Arc<OnceLock<DiskUsage>>>,
}

/// Lists the directories that a group's box can fill, with their limits.
pub(super) fn places(services: &Services, group: &Group) -> Vec<(LimitedDir, PathBuf)> {
    let (root, limits) = (&services.install.root, &group.limits);
    let names = host_files::room(&root.state()).map_or(u64::MAX, |room| room.all_names);
    let place = |code, name, setting, bytes| LimitedDir {
        code,
        name,
        setting,
        limit: DiskUsage { bytes, names: names_limit(names) },
    };
    // In a file system of its own, the agent can clear up a full workspace in the same turn. It cannot clear up
    // transcripts, because nobody could write the next entry.
    let workspace = if limits.disk_images { u64::MAX } else { limits.workspace() };
    let mut places = vec![
        (
            place("disk.workspace", "workspace", "limits.workspace_mib", workspace),
            root.workspace(&group.name),
        ),
        (
            place("disk.session", "transcripts", "limits.session_mib", limits.session()),
            root.sessions(&group.name),
        ),
    ];
    if group.name.is_main() {
        let shared = place("disk.global", "shared folder", "limits.workspace_mib", limits.workspace());
        places.push((shared, root.global()));
    }
    places
}

impl Watchdog {
    /// Starts to watch the directories that a box of the group can write.
    pub(super) fn watch(
        services: &Arc<Services>,
        group: &Group,
        run: &RunId,
        container: &str,
        open_turn: watch::Receiver<Option<TurnId>>,
    ) -> Self {
        let watched = |(place, path)| Watched { place, path, before: Arc::default(), marks: None };
        let places: Vec<Watched> = places(services, group).into_iter().map(watched).collect();
        let before = places.iter().map(|watched| Arc::clone(&watched.before)).collect();
        let (tell, excess) = mpsc::channel(1);
        let (container, shared) = (container.to_owned(), Arc::clone(services));
        let look = move || {
            let (services, container) = (Arc::clone(&shared), container.clone());
            watch(services, places.clone(), container, open_turn.clone(), tell.clone())
        };
        let watching = services.workers.keep(format!("the disk watch of run {run}"), look).abort_handle();
        Self { excess, watching, before }
    }

    /// Returns what each of [`places`] held at its first measurement, where there was one.
    pub(super) fn before(&self) -> Vec<Option<DiskUsage>> {
        self.before.iter().map(|before| before.get().copied()).collect()
    }

    /// Waits until the box has filled too much. The watchdog reports this once.
    pub(super) async fn excess(&mut self) -> Excess {
        match self.excess.recv().await {
            Some(excess) => excess,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// A directory, and what it held at earlier moments.
#[derive(Clone)]
struct Watched {
    place: LimitedDir,
    path: PathBuf,
    /// What it held when the box was made.
    before: Arc<OnceLock<DiskUsage>>,
    /// Two measurements: one from a minute or two ago, and one from at most a minute ago.
    marks: Option<[(Instant, DiskUsage); 2]>,
}

impl Watched {
    fn lately(&mut self, now: DiskUsage) -> DiskUsage {
        let mark = (Instant::now(), now);
        let marks = self.marks.get_or_insert([mark, mark]);
        if marks[1].0.elapsed() >= LATELY {
            *marks = [marks[1], mark];
        }
        marks[0].1
    }
}

async fn watch(
    services: Arc<Services>,
    mut places: Vec<Watched>,
    container: String,
    mut open_turn: watch::Receiver<Option<TurnId>>,
    tell: mpsc::Sender<Excess>,
) {
    let state = services.install.root.state();
    let floor = services.install.file.host.free_floor_mib << 20;
    let mut pause = Duration::ZERO;
    let mut looked = Instant::now();
    let mut then: Option<Room> = None;
    let mut full_since: Option<Instant> = None;
    loop {
        // The host reads this before it waits for a change, so that the next round sees a turn that begins meanwhile.
        let busy = open_turn.borrow_and_update().is_some();
        let room = host_files::room(&state).ok();
        let below = |part: u64| {
            room.as_ref().is_some_and(|room| {
                room.free < floor / part || room.names < names_floor(room.all_names) / part
            })
        };
        let (low, full) = (below(1), below(2));
        let lost = matches!((&then, &room), (Some(then), Some(now))
            if then.free.saturating_sub(now.free) > LOST.bytes || then.names.saturating_sub(now.names) > LOST.names);
        let period = if busy { BUSY } else { QUIET };
        let rested = looked.elapsed() >= if lost || low { pause } else { pause * SHARE };
        if then.is_none() || (rested && (lost || looked.elapsed() >= period)) {
            failpoint!("run.disk.look");
            then = room;
            let began = Instant::now();
            for p in &mut places {
                if let Some(excess) = look(p, &container, low).await {
                    // If nobody receives this, the run has ended already.
                    let _ = tell.send(excess).await;
                    return;
                }
            }
            looked = Instant::now();
            pause = began.elapsed();
        }
        full_since = full.then(|| full_since.unwrap_or_else(Instant::now));
        if full_since.is_some_and(|since| since.elapsed() > AS_GOOD_AS_FULL) {
            let _ = tell.send(Excess { ending: nobody_goes_on(), reclaim: None }).await;
            return;
        }
        let glance = if busy { GLANCE } else { GLANCE_QUIET };
        let _ = tokio::time::timeout(glance, open_turn.changed()).await;
    }
}

/// Measures one directory on a blocking thread.
async fn look(watched: &mut Watched, container: &str, low: bool) -> Option<Excess> {
    let (path, container) = (watched.path.clone(), container.to_owned());
    let is_workspace = watched.place.code == "disk.workspace";
    // It is enough to know that one name more than allowed is there.
    let most =
        watched.place.limit.names.max(watched.before.get().map_or(0, |held| held.names)) + SLACK.names + 1;
    // The host owns the parent directory. From the directory itself on, it follows no link.
    let measured = host_files::blocking(move || {
        let used = UntrustedDir::open(&path).and_then(|dir| dir.usage(most))?;
        let hidden = if is_workspace { unlinked(&container, &path) } else { 0 };
        let names = if used.truncated { most } else { used.entries };
        Ok::<_, std::io::Error>(DiskUsage { bytes: used.bytes.saturating_add(hidden), names })
    });
    let now = match measured.await {
        Ok(held) => held,
        Err(e) => {
            tracing::warn!(code = "disk.usage", "{}: {e}", watched.path.display());
            return None;
        }
    };
    let before = *watched.before.get_or_init(|| now);
    let lately = watched.lately(now);
    let over = over(&watched.place, before, low.then_some(lately), now)?;
    Some(Excess { ending: over.ending, reclaim: Some((watched.path.clone(), over.keep)) })
}
