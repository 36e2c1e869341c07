//! Mounts a small tmpfs over a run's from-agent directory, if this host may mount.
//!
//! The kernel then limits bytes and names. A box that writes without end gets ENOSPC, and the host's disk stays free.
//! Unmounting removes all files, however deep or locked they are. The tmpfs is larger than the budget, so that the
//! host first ends a box over its budget and reports the reason.
//!
//! An engine in another mount namespace does not see the host's mount, and its box writes into the directory beneath.
//! [`TmpfsMount::is_bypassed`] detects that with the first letter. From then on the mailbox mounts no tmpfs.

#![allow(
    clippy::disallowed_methods,
    reason = "the run's folder and its tmpfs: whether they are the same filesystem"
)]

use std::ffi::CString;
use std::fmt;
use std::io;
use std::path::Path;

use ipc_schema::untrusted_fs::UntrustedDir;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::domain::limits::Budget;

/// Why a letter directory has no tmpfs, so that only the host's own counting limits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTmpfs {
    /// [`Mailbox::with_limits`](super::Mailbox::with_limits) was not called.
    Off,
    /// mount(2) refused.
    NotAllowed(String),
    /// The engine is in another mount namespace.
    NotSeen,
}

impl fmt::Display for NoTmpfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("no limit was asked for"),
            Self::NotAllowed(why) => write!(f, "this host may not mount ({why})"),
            Self::NotSeen => f.write_str("the engine does not see what this host mounts"),
        }
    }
}

#[derive(Debug)]
pub(super) struct TmpfsMount {
    /// The directory that the mount covers. The host opened it before the mount, so that it can still reach it.
    beneath: UntrustedDir,
}

impl TmpfsMount {
    pub(super) fn over(dir: &Path, gid: u32, budget: Budget) -> io::Result<Self> {
        let beneath = UntrustedDir::open(dir)?;
        // A quarter more than the budget, and at least space for one letter and its draft.
        let bytes = budget.bytes.saturating_add((budget.bytes / 4).max(1 << 20));
        let names = budget.names.saturating_add((budget.names / 4).max(16));
        let options = format!("size={bytes},nr_inodes={names},mode=2770,gid={gid}");
        let options = CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("lazaret", dir, "tmpfs", flags, Some(options.as_c_str()))?;
        Ok(Self { beneath })
    }

    /// Whether a box writes into the directory beneath it.
    pub(super) fn is_bypassed(&self) -> bool {
        self.beneath.names(1).is_ok_and(|seen| !seen.names.is_empty())
    }
}

/// Unmounts the tmpfs at `dir` with everything in it. Does nothing if there is none.
pub(super) fn unmount_at(dir: &Path) {
    // With DETACH an open handle, such as the watcher's, does not block the unmount.
    match unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => {}
        Err(e) => tracing::warn!(code = "mailbox.cover", "{} stays mounted: {e}", dir.display()),
    }
}

/// Whether a tmpfs is mounted at `from`, so that the kernel limits what a box leaves there.
pub fn has_tmpfs(from: &Path) -> bool {
    /// tmpfs (statfs(2)).
    const TMPFS: i64 = 0x0102_1994;
    let below = |path: &Path| rustix::fs::stat(path).map(|s| s.st_dev).ok();
    let own = from.parent().and_then(below) != below(from);
    own && rustix::fs::statfs(from).is_ok_and(|told| told.f_type == TMPFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    const SMALL: Budget = Budget { bytes: 1 << 20, names: 64 };

    /// Only root can mount, so without root the test has nothing to do.
    fn mounted() -> Option<(tempfile::TempDir, TmpfsMount)> {
        let dir = tempfile::tempdir().unwrap();
        let gid = fs::metadata(dir.path()).unwrap().gid();
        match TmpfsMount::over(dir.path(), gid, SMALL) {
            Ok(mount) => Some((dir, mount)),
            Err(e) => {
                assert!(!rustix::process::geteuid().is_root(), "root may mount: {e}");
                None
            }
        }
    }

    #[test]
    fn a17_a18_the_kernel_itself_stops_a_flood() {
        let Some((dir, mount)) = mounted() else { return };
        let full = fs::write(dir.path().join("big"), vec![1u8; 4 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        fs::remove_file(dir.path().join("big")).unwrap();
        let made = (0..200).take_while(|n| fs::write(dir.path().join(n.to_string()), b"").is_ok()).count();
        assert!((64..100).contains(&made), "{made} names");
        assert!(!mount.is_bypassed() && has_tmpfs(dir.path()));
        unmount_at(dir.path());
        assert!(!has_tmpfs(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it is gone with everything in it");
        unmount_at(dir.path());
    }

    #[test]
    fn a_box_that_does_not_see_the_tmpfs_is_noticed() {
        let Some((dir, mount)) = mounted() else { return };
        unmount_at(dir.path());
        fs::write(dir.path().join("0000000001-ready.json"), b"{}").unwrap();
        assert!(mount.is_bypassed());
    }
}
