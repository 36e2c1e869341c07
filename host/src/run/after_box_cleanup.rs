//! Cleans the disk when a box is gone: opens the folders that the box locked, removes what it wrote beyond its limit,
//! and removes its letter directories.
//!
//! A box makes folders as its group's user and can lock them (mode 0700). Root can enter them; a host that is not root
//! cannot count, reclaim or remove what lies in them. Only the owner of a folder can change its mode. So the host
//! starts a helper box with the same posture and user and without an agent, and this box opens the folders
//! (`agent-runner unlock-dirs`). The box also takes setuid and setgid bits from files, which only their owner and root
//! can do. The host makes a helper box only when it found a locked folder or such a file, and at most once in a run's
//! end. A host that is root takes the bits at night (`maintenance`), because it saves the walk at a run's end.
//!
//! The run's end waits for the cleanup, and so does the lane's next box. Otherwise the next box could fill its
//! workspace meanwhile, its files would count as those of the ended box, and they would be removed first as the newest.
//! Nothing waits for the removal of the letter directories, because no other box mounts them. A box of the group's
//! other lane may run meanwhile: it only sees its own folders opened to a group that it is a member of.
//!
//! Rejected: helper boxes made ahead or kept (most runs lock nothing, and a box starts in half a second), and user
//! namespaces that map the box's user (they need a root helper and subordinate ids for every group).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipc_schema::names_and_paths::{FROM_AGENT, box_path};
use ipc_schema::text_sanitize;

use super::disk_watch::places;
use super::ensure_posture::SandboxContext;
use super::launch::{BoxOf, spec_of};
use super::launch_error::LaunchError;
use super::reaper::reap;
use super::remove_overrun::{Count, Reclaimed, count, reclaim};
use super::states::Turn;
use super::{Run, new_run_id};
use crate::domain::group_settings::Group;
use crate::domain::{GroupName, Lane, RunId, Session};
use crate::host_files;
use crate::mailbox::clear_run_dir;
use crate::policy::backoff::doubling;
use crate::policy::disk_overrun::{DiskUsage, over};
use crate::sandbox::Trial;
use crate::sandbox::this_process;
use crate::services::Services;
use crate::text;

/// A busy machine starts a box in a third of this; the rest is more than the time limit of the runner's work.
const WITHIN: Duration = Duration::from_secs(45);
/// The host asks an unreachable engine again after this time, which doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

impl Run {
    /// Prepares the disk for the next run. If the host dies here, the next host finds and removes the letter directory.
    /// It does not reclaim the rest: the owner sees it in the workspace's size.
    pub(super) async fn tidy_up(mut self) {
        let mut beyond: Vec<(PathBuf, DiskUsage)> = self.disk.excess.take().into_iter().collect();
        // No folder is locked to root, so the host saves the walk. Only the machine's owner can repair what root may
        // not do.
        let mut asked = rustix::process::geteuid().is_root();
        if !asked && self.needs_owner().await {
            asked = self.open_up().await;
            beyond.extend(self.beyond().await);
        }
        let mut taken = self.take_back(&beyond).await;
        // The host may be able to list a folder and still not be allowed to remove its entries.
        if taken.shut && !asked {
            asked = self.open_up().await;
            taken = taken.and(self.take_back(&beyond).await);
        }
        self.tell_taken(taken).await;
        let (dir, group) = (self.mailbox.dir().to_owned(), self.handle.lane.group.clone());
        clear(&self.services, group, dir, asked);
    }

    /// Returns whether a directory that the box may write holds something that only the box's user can change: a folder
    /// that is locked, or a file with a setuid or setgid bit.
    async fn needs_owner(&self) -> bool {
        let dirs = places(&self.services, &self.group).into_iter().map(|(_, path)| path);
        for path in dirs.chain([self.mailbox.dir().join(FROM_AGENT)]) {
            if self.counted(path).await.is_some_and(|count| count.shut || count.set_id) {
                return true;
            }
        }
        false
    }

    /// Starts the helper box. Logs what stays locked and how to open it. Returns whether the engine could be reached;
    /// if not, the removal of the letter directory asks again.
    async fn open_up(&self) -> bool {
        let Err(error) = open(&self.services, &self.group, self.mailbox.dir()).await else { return true };
        let LaunchError { code, why, .. } = &error;
        let workspace = self.services.install.root.workspace(&self.handle.lane.group);
        let dir = workspace.display();
        tracing::warn!(
            run = %self.handle.run, code,
            "what lies in folders that the box has shut is not counted: {why}. The end of the group's next run tries \
             again; as root, `chmod -R g+rwX {dir}` opens them"
        );
        !is_away(&error)
    }

    /// Returns the directories above their limit, now that the host can count everything, by the rule for a living box.
    /// What was there before the run does not count for it, even if the host sees it for the first time now.
    async fn beyond(&self) -> Vec<(PathBuf, DiskUsage)> {
        let mut beyond = Vec::new();
        for (n, (place, path)) in places(&self.services, &self.group).into_iter().enumerate() {
            let Some(Count { all, old, .. }) = self.counted(path.clone()).await else { continue };
            let before = self.disk.before.get(n).copied().flatten().map_or(old, |before| before.or(old));
            if let Some(over) = over(&place, before, None, all) {
                let DiskUsage { bytes, names } = all;
                let code = place.code;
                tracing::warn!(run = %self.handle.run, code, bytes, names, "a box had shut more than it may keep");
                beyond.push((path, over.keep));
            }
        }
        beyond
    }

    /// Removes the newest of what the box wrote beyond its limit.
    async fn take_back(&self, beyond: &[(PathBuf, DiskUsage)]) -> Reclaimed {
        let mut all = Reclaimed::default();
        if beyond.is_empty() {
            return all;
        }
        let since = begun(&self.handle.run);
        let transcript = Path::new(&self.session).join(format!("{}.jsonl", self.session));
        for (path, keep) in beyond.iter().cloned() {
            let (shown, transcript) = (path.display().to_string(), transcript.clone());
            let taking = move || reclaim(&path, since, keep, Some(&transcript));
            match host_files::blocking(taking).await {
                Ok(taken) => {
                    let Reclaimed { files, bytes, .. } = taken;
                    if files > 0 {
                        tracing::warn!(
                            run = %self.handle.run, code = "disk.reclaim", files, bytes,
                            "the newest files of {shown} were removed"
                        );
                    }
                    all = all.and(taken);
                }
                Err(e) => tracing::warn!(run = %self.handle.run, code = "disk.reclaim", "{shown}: {e}"),
            }
        }
        all
    }

    /// Counts on a blocking thread.
    async fn counted(&self, path: PathBuf) -> Option<Count> {
        let (since, uid, shown) = (begun(&self.handle.run), self.mailbox.uid(), path.display().to_string());
        match host_files::blocking(move || count(&path, since, uid)).await {
            Ok(count) => Some(count),
            Err(e) => {
                tracing::warn!(run = %self.handle.run, code = "disk.usage", "{shown}: {e}");
                None
            }
        }
    }

    async fn tell_taken(&self, taken: Reclaimed) {
        let (Some(Turn { chat, .. }), Reclaimed { files: 1.., .. }) = (&self.turn, taken) else { return };
        let text = text::taken_back(taken.files, taken.bytes);
        self.services.notice(chat, &format!("reclaim:{}", self.handle.run), text).await;
    }
}

/// Returns when a run began, in seconds since 1970. The run's id contains this time (RFC 9562, version 7).
fn begun(run: &RunId) -> i64 {
    let id = uuid::Uuid::parse_str(run.as_str()).ok();
    let at = id.and_then(|id| id.get_timestamp()).map_or(u64::MAX, |at| at.to_unix().0);
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// Removes the directories of ended runs that an earlier host left. Where a box locked one, the host reaps leftover
/// boxes before it opens the directory, because a living box could lock it again.
pub async fn sweep(services: Arc<Services>, left: Vec<PathBuf>) {
    let root = rustix::process::geteuid().is_root();
    let mut shut = Vec::new();
    for dir in left {
        match cleared(&dir).await {
            Err(e) if !root && e.kind() == io::ErrorKind::PermissionDenied => shut.push(dir),
            Err(e) => stays(&dir, &e),
            Ok(()) => {}
        }
    }
    if shut.is_empty() {
        return;
    }
    reap(Arc::clone(&services)).await;
    for dir in shut {
        let group = dir.parent().and_then(|group| group.file_name()?.to_str()?.parse().ok());
        // A folder whose name is no group's name never belonged to a run.
        if let Some(group) = group {
            clear_shut(Arc::clone(&services), group, dir, false).await;
        }
    }
}

/// Removes the directory of an ended run in a worker of its own, because no other box mounts it.
pub(super) fn clear(services: &Arc<Services>, group: GroupName, dir: PathBuf, asked: bool) {
    let name = format!("the removal of {}", dir.display());
    let shared = Arc::clone(services);
    let work = move || clear_shut(Arc::clone(&shared), group.clone(), dir.clone(), asked);
    drop(services.workers.keep(name, work));
}

/// Removes the directory of an ended run. Opens locked folders in it first, unless a helper box was already asked to.
/// Waits for an engine that cannot be reached.
async fn clear_shut(services: Arc<Services>, group: GroupName, dir: PathBuf, mut asked: bool) {
    failpoint!("run.clear.before");
    for tries in 1.. {
        match cleared(&dir).await {
            Ok(()) => return,
            Err(e) if asked || e.kind() != io::ErrorKind::PermissionDenied => return stays(&dir, &e),
            Err(_) => {}
        }
        let settings = services.install.group(&group);
        let settings = settings.unwrap_or_else(|_| services.install.default_group(group.clone()));
        match open(&services, &settings, &dir).await {
            Err(error) if is_away(&error) => {
                tracing::warn!(code = error.code, "{} stays for now: {}", dir.display(), error.why);
                tokio::time::sleep(doubling(FIRST, tries, LONGEST)).await;
            }
            opened => {
                if let Err(error) = opened {
                    tracing::warn!(code = error.code, "{} is shut: {}", dir.display(), error.why);
                }
                asked = true;
            }
        }
    }
}

fn is_away(error: &LaunchError) -> bool {
    matches!(error.code, "engine.away" | "engine.hangs")
}

async fn cleared(dir: &Path) -> io::Result<()> {
    let dir = dir.to_owned();
    host_files::blocking(move || clear_run_dir(&dir)).await
}

fn stays(dir: &Path, why: &io::Error) {
    let dir = dir.display();
    tracing::warn!(
        code = "mailbox.dir",
        "{dir} is left behind: {why}. The next start tries again; as root, `rm -r {dir}` removes it"
    );
}

/// Opens the folders that a group's agent locked, in its own directories and below `dir`, the directory of an ended
/// run. The helper box is the group's next box with another program and without the mounts of the settings, because the
/// host does not count those. No program of the image runs in the helper box, so it uses the pinned image without a
/// check.
async fn open(services: &Services, group: &Group, dir: &Path) -> Result<(), LaunchError> {
    let failed = |why: String| LaunchError::new("box.open", why);
    let known = services.store.group(&group.name, services.clock.wall()).await?;
    let pin = services.store.pin(&group.name).await?;
    let image = pin.as_ref().map_or(group.image.as_str(), |pin| &pin.now.id);
    let image = services.engine.image(image).await?;
    let context = SandboxContext::from(services);
    // Some of the directories may have been removed.
    let dirs = context.run_dirs(&group.name, dir)?;
    let group = Group { mounts: Vec::new(), ..group.clone() };
    let (lane, run) = (Lane::conversation(group.name.clone()), new_run_id());
    let session = Session::of_helpers();
    let of = BoxOf { lane: &lane, run: &run, uid: known.uid, session: &session };
    let spec = spec_of(context, &of, &group, image, dirs).await?;
    let mut spec = spec.for_check(format!("lazaret-open-{run}"), &this_process(), "unlock-dirs");
    // The folder may be that of an ended session.
    for mount in spec.mounts.iter_mut().filter(|mount| mount.target == box_path::SESSION) {
        mount.source = services.install.root.sessions(&group.name);
    }
    let tried = services.engine.run_one_shot(&spec, WITHIN).await?;
    match tried {
        Trial::Ended { exit, .. } if exit.code == Some(0) => {
            tracing::info!(group = %group.name, "what an agent has shut was opened, and no file is setuid or setgid");
            Ok(())
        }
        Trial::Ended { exit, words } => {
            let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let code = exit.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
            Err(failed(format!(
                "the box that opens them ended with exit code {code}: {}",
                text_sanitize::line(last, 200)
            )))
        }
        Trial::NotStarted(why) => Err(failed(format!("the box that opens them did not start: {why}"))),
        Trial::StillRunning => {
            Err(failed(format!("the box that opens them did not end within {} s", WITHIN.as_secs())))
        }
    }
}
