//! The host's side of the boundary: the letter directories of each run, and one watcher for all of them.
//!
//! `run` writes letters to the agent and reads letters from it with this module. Inotify reports new letters, but
//! nothing depends on that: [`RunMailbox::next_change`] also returns after a period that the caller chooses, and
//! [`RunMailbox::pass`] lists the directory. The host takes letters strictly in number order. It refuses, removes and
//! counts all other files in the directory. This module trusts no file from a box, and opens none by its path.

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

use ipc_schema::letter_writer::{LetterDir, WriteError, Written};
use ipc_schema::names_and_paths::{self, FROM_AGENT, FileName, TO_AGENT};
use ipc_schema::untrusted_fs::UntrustedDir;

use crate::domain::RunId;
use crate::domain::limits::Budget;
use crate::host_files::{self, shared_dir};
pub use archive::{Archive, MODEL};
use notifier::{LetterNotifier, Pause, Watcher};
#[cfg(test)]
pub use scan::{FAR_AHEAD, GAP_SCANS};
pub use scan::{Pass, ReceivedLetter, RefusedFile};
use tmpfs_mount::TmpfsMount;
pub use tmpfs_mount::{NoTmpfs, has_tmpfs};

/// The directory of the gateway's socket, next to the letter directories.
pub const SOCKET_DIR: &str = "gateway";

/// Why a run has no letter directories.
#[derive(Debug, thiserror::Error)]
pub enum MailboxError {
    #[error("the letter directory {path} cannot be made: {source}")]
    Dir { path: PathBuf, source: io::Error },
    #[error("letters cannot be watched: {0}; raise fs.inotify.max_user_instances")]
    Watch(#[from] notify::Error),
}

impl MailboxError {
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
    watcher: Arc<Watcher>,
    gid: u32,
    tmpfs: Arc<Mutex<TmpfsUse>>,
}

/// Whether a tmpfs limits the letter directories of new runs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TmpfsUse {
    /// The host mounts one for each run. It does not know yet whether the engine sees the mount.
    Untested,
    /// A box has written a letter into one.
    Works,
    Never(NoTmpfs),
}

impl Mailbox {
    /// Starts the watcher. Boxes may use the directories through group `gid`.
    ///
    /// # Errors
    /// [`MailboxError::Watch`] when the kernel gives no inotify instance.
    pub fn new(gid: u32) -> Result<Self, MailboxError> {
        let watcher = Arc::new(Watcher::new()?);
        let tmpfs = Arc::new(Mutex::new(TmpfsUse::Never(NoTmpfs::Off)));
        Ok(Self { watcher, gid, tmpfs })
    }

    /// Makes the host mount a tmpfs with the run's budget for each run, if it may mount.
    #[must_use]
    pub fn with_limits(self) -> Self {
        *lock(&self.tmpfs) = TmpfsUse::Untested;
        self
    }

    /// Creates a run's directories, opens them, and starts to watch for letters. The caller does this before the box
    /// starts. Afterwards the host resolves no path below them.
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
    ) -> Result<RunMailbox, MailboxError> {
        let (to, from, socket) = (dir.join(TO_AGENT), dir.join(FROM_AGENT), dir.join(SOCKET_DIR));
        host_files::dir(dir, 0o700).map_err(failed(dir))?;
        shared_dir(&to, self.gid, 0o2750).map_err(failed(&to))?;
        shared_dir(&from, self.gid, 0o2770).map_err(failed(&from))?;
        shared_dir(&socket, self.gid, 0o2750).map_err(failed(&socket))?;
        let tmpfs = self.mount_tmpfs(&from, budget);
        let mut mailbox = self.attach(dir, run, uid, 1, budget, archive)?;
        mailbox.tmpfs = tmpfs;
        Ok(mailbox)
    }

    fn mount_tmpfs(&self, from: &Path, budget: Budget) -> Option<TmpfsMount> {
        if matches!(*lock(&self.tmpfs), TmpfsUse::Never(_)) {
            return None;
        }
        match TmpfsMount::over(from, self.gid, budget) {
            Ok(mount) => Some(mount),
            Err(e) => {
                go_without(&self.tmpfs, NoTmpfs::NotAllowed(e.to_string()));
                None
            }
        }
    }

    /// Opens the directories of a run that an earlier host began. Only the host can write to their parent. `taken` is
    /// the highest letter number with a stored outcome.
    ///
    /// # Errors
    /// [`MailboxError::Dir`] if a directory is gone, because `/run` is empty after a reboot.
    pub fn reopen(
        &self,
        dir: &Path,
        run: RunId,
        uid: u32,
        taken: u64,
        budget: Budget,
        archive: Archive,
    ) -> Result<RunMailbox, MailboxError> {
        self.attach(dir, run, uid, taken + 1, budget, archive)
    }

    fn attach(
        &self,
        dir: &Path,
        run: RunId,
        uid: u32,
        next: u64,
        budget: Budget,
        archive: Archive,
    ) -> Result<RunMailbox, MailboxError> {
        let (to, from) = (dir.join(TO_AGENT), dir.join(FROM_AGENT));
        let unacknowledged = letters_in(&to);
        let to = LetterDir::open(&to).map_err(failed(&to))?;
        let from_handle = UntrustedDir::open(&from).map_err(failed(&from))?;
        let notifier = Arc::new(LetterNotifier::new());
        self.watcher.watch(from.clone(), &notifier);
        Ok(RunMailbox {
            to,
            from: from_handle,
            watcher: Arc::clone(&self.watcher),
            from_path: from,
            dir: dir.to_owned(),
            run,
            uid,
            next,
            gap: 0,
            notifier,
            pause: Pause::none(),
            archive,
            budget,
            unacknowledged,
            not_removable: HashSet::new(),
            tmpfs: None,
            tmpfs_use: Arc::clone(&self.tmpfs),
        })
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> MailboxError {
    let path = path.to_owned();
    move |source| MailboxError::Dir { path, source }
}

fn go_without(tmpfs: &Mutex<TmpfsUse>, why: NoTmpfs) {
    tracing::warn!(
        code = "mailbox.cover",
        "letters are on the disk, and the host counts them against their budget: {why}"
    );
    *lock(tmpfs) = TmpfsUse::Never(why);
}

impl Drop for RunMailbox {
    fn drop(&mut self) {
        self.watcher.unwatch(self.from_path.clone());
    }
}

/// Removes the directories of a run without an agent, on a separate thread. The box is gone, so nothing changes the
/// files meanwhile.
pub fn remove_run_dir(dir: &Path) {
    let dir = dir.to_owned();
    let removing = std::thread::Builder::new().name("sweep".into()).spawn(move || {
        if let Err(e) = clear_run_dir(&dir) {
            tracing::warn!(code = "mailbox.dir", "{} is left behind: {e}", dir.display());
        }
    });
    if let Err(e) = removing {
        tracing::warn!(code = "mailbox.dir", "the directories of a run stay until the next start: {e}");
    }
}

/// Removes the directories of an ended run. It blocks on the disk.
///
/// # Errors
/// The error of the first entry that could not be removed. All others are removed. `PermissionDenied` means that an
/// agent has locked a directory against a host that is not root.
pub fn clear_run_dir(dir: &Path) -> io::Result<()> {
    remove_tree::remove(dir)
}

/// The letters that an earlier host wrote into a directory.
fn letters_in(to: &Path) -> BTreeMap<u64, String> {
    let names =
        host_files::inside(to).into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
    names.filter_map(|name| Some((number(&name)?, name))).collect()
}

fn number(name: &str) -> Option<u64> {
    match names_and_paths::parse_name(name.as_bytes()) {
        Ok(FileName::Letter { n, .. }) => Some(n),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic cannot leave these maps half-changed, because every use of the lock is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The letter directories of one run. Dropping it ends the watch. The directories stay until [`RunMailbox::remove`],
/// because a box may still use them.
#[derive(Debug)]
pub struct RunMailbox {
    watcher: Arc<Watcher>,
    to: LetterDir,
    from: UntrustedDir,
    from_path: PathBuf,
    dir: PathBuf,
    run: RunId,
    uid: u32,
    next: u64,
    gap: u32,
    notifier: Arc<LetterNotifier>,
    pause: Pause,
    archive: Archive,
    budget: Budget,
    /// The tmpfs over from-agent, until a letter proves that the box writes into it.
    tmpfs: Option<TmpfsMount>,
    tmpfs_use: Arc<Mutex<TmpfsUse>>,
    /// The files of letters that the agent has not acknowledged, by number.
    unacknowledged: BTreeMap<u64, String>,
    /// Names of refused files that the host could not remove.
    not_removable: HashSet<OsString>,
}

impl RunMailbox {
    pub fn socket_dir(&self) -> PathBuf {
        self.dir.join(SOCKET_DIR)
    }

    /// Removes the directories of a run without an agent.
    pub fn remove(self) {
        remove_run_dir(&self.dir);
    }

    /// Whether the directories are still there.
    pub fn stands(&self) -> bool {
        host_files::there(&self.dir.join(TO_AGENT))
    }

    /// Whether the host has written `_close`.
    pub fn closes(&self) -> bool {
        host_files::there(&self.dir.join(TO_AGENT).join(ipc_schema::names_and_paths::CLOSE))
    }

    pub fn uid(&self) -> u32 {
        self.uid
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The highest letter number taken so far. The host acknowledges it.
    pub fn taken(&self) -> u64 {
        self.next - 1
    }

    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Writes a letter to the agent, and a copy to the archive.
    ///
    /// # Errors
    /// The error of [`LetterDir::put`].
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<Written, WriteError> {
        failpoint!("mailbox.write.before", |source| WriteError::Io { name: name.to_owned(), source });
        self.archive.keep(TO_AGENT, name, bytes);
        let written = self.to.put(name, bytes);
        failpoint!("mailbox.write.after");
        if let (Ok(_), Some(n)) = (&written, number(name)) {
            self.unacknowledged.insert(n, name.to_owned());
        }
        written
    }

    /// Removes the files of letters up to the agent's acknowledgement. Their copies in the archive stay.
    pub fn prune(&mut self, ack: u64) {
        let later = self.unacknowledged.split_off(&ack.saturating_add(1));
        for name in std::mem::replace(&mut self.unacknowledged, later).into_values() {
            let path = self.dir.join(TO_AGENT).join(&name);
            if let Err(e) = host_files::remove(&path) {
                tracing::warn!(run = %self.run, code = "mailbox.prune", "{}: {e}", path.display());
            }
        }
    }

    /// Makes the next [`RunMailbox::next_change`] return at once, because there are more letters to take.
    pub fn ring(&self) {
        self.notifier.notify();
    }

    /// Waits until a letter may have come: until the kernel reports one, or until `period` is over. It returns sooner
    /// if the directory is not watched.
    pub async fn next_change(&self, period: Duration) {
        self.notifier.notified(period).await;
        self.pause.over().await;
    }
}
