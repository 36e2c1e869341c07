//! The host's side of the wall: one watcher for all runs, and for each run both letter directories.
//!
//! A letter is noticed through inotify, but nothing depends on that: [`RunBox::rung`] also returns after a period
//! of the caller's choice, and what counts is what [`RunBox::pass`] finds. Letters are taken strictly in number
//! order; everything else in the directory is refused, removed and counted.

mod archive;
mod notifier;
mod remove_tree;
mod scan;
mod tmpfs_mount;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipc_schema::directory_layout::{self, FROM_AGENT, FileName, TO_AGENT};
use ipc_schema::letter_writer::{LetterDir, WriteError, Written};
use ipc_schema::untrusted_fs::UntrustedDir;

use crate::disk::{self, shared_dir};
use crate::domain::RunId;
use crate::domain::limits::Budget;
pub use archive::{Archive, MODEL};
use notifier::{Bell, Rest, Watch};
pub use scan::{Pass, Refused, Stamped};
use tmpfs_mount::Cover;
pub use tmpfs_mount::{Uncovered, is_covered};

/// The folder of the gateway's socket, beside the letter directories.
pub const SOCKET_DIR: &str = "gateway";

/// Why a run has no letter directories.
#[derive(Debug, thiserror::Error)]
pub enum MailboxError {
    /// A directory could not be made or opened.
    #[error("the letter directory {path} cannot be made: {source}")]
    Dir {
        /// Which.
        path: PathBuf,
        /// What the filesystem said.
        source: io::Error,
    },
    /// No watcher at all.
    #[error("letters cannot be watched: {0}; raise fs.inotify.max_user_instances")]
    Watch(#[from] notify::Error),
}

impl MailboxError {
    /// The machine's word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Dir { .. } => "mailbox.dir",
            Self::Watch(_) => "mailbox.watch",
        }
    }
}

/// One watcher for every run of the host.
#[derive(Debug)]
pub struct Mailbox {
    watch: Arc<Watch>,
    gid: u32,
    limits: Arc<Mutex<Limited>>,
}

/// Whether the kernel limits what runs leave in their directories.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Limited {
    /// It is asked to; whether the engine sees that is not known yet.
    Tried,
    /// A box has written through it.
    Proved,
    /// It cannot.
    Never(Uncovered),
}

impl Mailbox {
    /// Starts the watcher. Directories are shared with boxes through group `gid`.
    ///
    /// # Errors
    /// [`MailboxError::Watch`] when the kernel gives no inotify instance.
    pub fn new(gid: u32) -> Result<Self, MailboxError> {
        let watch = Arc::new(Watch::new()?);
        let limits = Arc::new(Mutex::new(Limited::Never(Uncovered::Off)));
        Ok(Self { watch, gid, limits })
    }

    /// The same, with a memory filesystem of a run's budget for each run where this host may mount one.
    #[must_use]
    pub fn with_limits(self) -> Self {
        *lock(&self.limits) = Limited::Tried;
        self
    }

    /// Makes a run's directories, opens their handles (before the box starts: from then on no path below them is
    /// walked) and watches what comes out.
    ///
    /// # Errors
    /// [`MailboxError::Dir`].
    pub fn open(
        &self,
        dir: &Path,
        run: RunId,
        uid: u32,
        budget: Budget,
        archive: Archive,
    ) -> Result<RunBox, MailboxError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| MailboxError::Dir { path, source }
        };
        let (to, from, socket) = (dir.join(TO_AGENT), dir.join(FROM_AGENT), dir.join(SOCKET_DIR));
        shared_dir(dir, self.gid, 0o2750).map_err(failed(dir))?;
        shared_dir(&to, self.gid, 0o2750).map_err(failed(&to))?;
        shared_dir(&from, self.gid, 0o2770).map_err(failed(&from))?;
        shared_dir(&socket, self.gid, 0o2750).map_err(failed(&socket))?;
        let cover = self.cover(&from, budget);
        let mut wall = self.stand(dir, run, uid, 1, budget, archive)?;
        wall.cover = cover;
        Ok(wall)
    }

    fn cover(&self, from: &Path, budget: Budget) -> Option<Cover> {
        if matches!(*lock(&self.limits), Limited::Never(_)) {
            return None;
        }
        match Cover::over(from, self.gid, budget) {
            Ok(cover) => Some(cover),
            Err(e) => {
                go_without(&self.limits, Uncovered::NotAllowed(e.to_string()));
                None
            }
        }
    }

    /// Stands at the wall of a run that an earlier host began: both directories are there, below a parent that only
    /// the host can write. `taken` is the highest number whose fate is stored.
    ///
    /// # Errors
    /// [`MailboxError::Dir`] when a directory is gone: a machine that was off has an empty `/run`.
    pub fn reopen(
        &self,
        dir: &Path,
        run: RunId,
        uid: u32,
        taken: u64,
        budget: Budget,
        archive: Archive,
    ) -> Result<RunBox, MailboxError> {
        self.stand(dir, run, uid, taken + 1, budget, archive)
    }

    fn stand(
        &self,
        dir: &Path,
        run: RunId,
        uid: u32,
        next: u64,
        budget: Budget,
        archive: Archive,
    ) -> Result<RunBox, MailboxError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| MailboxError::Dir { path, source }
        };
        let (to, from) = (dir.join(TO_AGENT), dir.join(FROM_AGENT));
        let lying = lying(&to);
        let to = LetterDir::open(&to).map_err(failed(&to))?;
        let from_handle = UntrustedDir::open(&from).map_err(failed(&from))?;
        let bell = Arc::new(Bell::new());
        self.watch.listen(from.clone(), &bell);
        Ok(RunBox {
            to,
            from: from_handle,
            watch: Arc::clone(&self.watch),
            from_path: from,
            dir: dir.to_owned(),
            run,
            uid,
            next,
            gap: 0,
            bell,
            rest: Rest::none(),
            archive,
            budget,
            lying,
            stuck: HashSet::new(),
            cover: None,
            limits: Arc::clone(&self.limits),
        })
    }
}

fn go_without(limits: &Mutex<Limited>, why: Uncovered) {
    tracing::warn!(
        code = "mailbox.cover",
        "letters lie on the disk and are held to their budget by looking: {why}"
    );
    *lock(limits) = Limited::Never(why);
}

impl Drop for RunBox {
    fn drop(&mut self) {
        self.watch.leave(self.from_path.clone());
    }
}

/// Removes the directories of a run in which no agent has lived, on a thread of its own. The box is gone, so nobody
/// races with this.
pub fn remove_run_dir(dir: &Path) {
    let dir = dir.to_owned();
    let removing = std::thread::Builder::new().name("sweep".into()).spawn(move || {
        if let Err(e) = clear_run_dir(&dir) {
            tracing::warn!(code = "mailbox.dir", "{} is left behind: {e}", dir.display());
        }
    });
    if let Err(e) = removing {
        tracing::warn!(code = "mailbox.dir", "what a run left stays until the next start: {e}");
    }
}

/// Removes what an ended run left, and says what could not be removed. It waits for the disk.
///
/// # Errors
/// The first thing that could not be removed, after all others were. `PermissionDenied`: an agent has shut a host out
/// that is not root.
pub fn clear_run_dir(dir: &Path) -> io::Result<()> {
    remove_tree::remove(dir)
}

/// The letters that an earlier host wrote into a directory.
fn lying(to: &Path) -> BTreeMap<u64, String> {
    let names = disk::inside(to).into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
    names.filter_map(|name| Some((number(&name)?, name))).collect()
}

fn number(name: &str) -> Option<u64> {
    match directory_layout::parse_name(name.as_bytes()) {
        Ok(FileName::Letter { n, .. }) => Some(n),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while the lock was held cannot leave these maps half-changed: every use is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run's wall. Dropped, it is not watched any more; its directories stay, because a box may still use them, until
/// [`RunBox::remove`].
#[derive(Debug)]
pub struct RunBox {
    watch: Arc<Watch>,
    to: LetterDir,
    from: UntrustedDir,
    from_path: PathBuf,
    dir: PathBuf,
    run: RunId,
    uid: u32,
    next: u64,
    gap: u32,
    bell: Arc<Bell>,
    rest: Rest,
    archive: Archive,
    budget: Budget,
    /// What lies over from-agent, until the box has shown that it sees it.
    cover: Option<Cover>,
    limits: Arc<Mutex<Limited>>,
    /// Letters to the agent that are files now, by number.
    lying: BTreeMap<u64, String>,
    /// Names that were refused and could not be removed.
    stuck: HashSet<OsString>,
}

impl RunBox {
    /// Where the gateway's socket goes.
    pub fn socket_dir(&self) -> PathBuf {
        self.dir.join(SOCKET_DIR)
    }

    /// Removes the directories of a box that no agent has lived in.
    pub fn remove(self) {
        remove_run_dir(&self.dir);
    }

    /// Whether the directories are still there.
    pub fn stands(&self) -> bool {
        disk::there(&self.dir.join(TO_AGENT))
    }

    /// Whether `_close` was written.
    pub fn closes(&self) -> bool {
        disk::there(&self.dir.join(TO_AGENT).join(ipc_schema::directory_layout::CLOSE))
    }

    /// The box's user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The run's own folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The highest number taken so far: what the host acknowledges.
    pub fn taken(&self) -> u64 {
        self.next - 1
    }

    /// Where copies of the letters are kept.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Writes a letter to the agent, and its copy.
    ///
    /// # Errors
    /// What [`LetterDir::put`] says.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<Written, WriteError> {
        failpoint!("mailbox.write.before", |source| WriteError::Io { name: name.to_owned(), source });
        self.archive.keep(TO_AGENT, name, bytes);
        let written = self.to.put(name, bytes);
        failpoint!("mailbox.write.after");
        if let (Ok(_), Some(n)) = (&written, number(name)) {
            self.lying.insert(n, name.to_owned());
        }
        written
    }

    /// Removes letters that the agent has settled, up to its acknowledgement; their copies stay.
    pub fn prune(&mut self, ack: u64) {
        let kept = self.lying.split_off(&ack.saturating_add(1));
        for name in std::mem::replace(&mut self.lying, kept).into_values() {
            let path = self.dir.join(TO_AGENT).join(&name);
            if let Err(e) = disk::remove(&path) {
                tracing::warn!(run = %self.run, code = "mailbox.prune", "{}: {e}", path.display());
            }
        }
    }

    /// Lets the next [`RunBox::rung`] return at once: there is more to take.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Waits until something may have come: a notice of the kernel, or `period` at the latest: sooner
    /// where nobody listens to the directory.
    pub async fn rung(&self, period: Duration) {
        self.bell.rung(period).await;
        self.rest.over().await;
    }
}
