//! A small memory filesystem over a run's from-agent directory, where this host may mount one.
//!
//! It is the kernel's own limit on bytes and names: a box that writes without end gets ENOSPC, the host's disk is not
//! touched, and what the box leaves goes with the mount, however deep or locked it is. It is larger than the budget,
//! so that a box over its budget is found and ended with a reason before its letters fail without one.
//!
//! A host in a mount namespace of its own mounts where no engine sees it. The box then writes beneath the cover, into
//! the directory itself: [`Cover::missed`] finds that with the first letter, and the mailbox goes without from then on.

#![allow(
    clippy::disallowed_methods,
    reason = "the run's folder and its cover: whether they are the same filesystem"
)]

use std::ffi::CString;
use std::fmt;
use std::io;
use std::path::Path;

use ipc_schema::untrusted_fs::UntrustedDir;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::domain::limits::Budget;

/// Why letters lie on the host's disk, held to their budget only by being looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uncovered {
    /// It was not asked for.
    Off,
    /// mount(2) refused.
    NotAllowed(String),
    /// The engine lives in another mount namespace.
    NotSeen,
}

impl fmt::Display for Uncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("no limit was asked for"),
            Self::NotAllowed(why) => write!(f, "this host may not mount ({why})"),
            Self::NotSeen => f.write_str("the engine does not see what this host mounts"),
        }
    }
}

/// The directory beneath a mount, held from before it was covered.
#[derive(Debug)]
pub(super) struct Cover {
    beneath: UntrustedDir,
}

impl Cover {
    /// Covers `dir`.
    pub(super) fn over(dir: &Path, gid: u32, budget: Budget) -> io::Result<Self> {
        let beneath = UntrustedDir::open(dir)?;
        // A quarter beyond the budget, and at least room for one letter and its draft.
        let bytes = budget.bytes.saturating_add((budget.bytes / 4).max(1 << 20));
        let names = budget.names.saturating_add((budget.names / 4).max(16));
        let options = format!("size={bytes},nr_inodes={names},mode=2770,gid={gid}");
        let options = CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("lazaret", dir, "tmpfs", flags, Some(options.as_c_str()))?;
        Ok(Self { beneath })
    }

    /// Whether somebody writes beneath it.
    pub(super) fn missed(&self) -> bool {
        self.beneath.names(1).is_ok_and(|seen| !seen.names.is_empty())
    }
}

/// Takes a cover away, with all that lies in it. A directory without one stays as it is.
pub(super) fn uncover(dir: &Path) {
    // Detached: a handle on it, such as a watch's, does not keep it in its place.
    match unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => {}
        Err(e) => tracing::warn!(code = "mailbox.cover", "{} stays mounted: {e}", dir.display()),
    }
}

/// Whether the kernel limits what a box leaves in `from-agent`.
pub fn is_covered(from: &Path) -> bool {
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

    /// Tests of the mount itself need to be root; who is not has nothing to cover with.
    fn covered() -> Option<(tempfile::TempDir, Cover)> {
        let dir = tempfile::tempdir().unwrap();
        let gid = fs::metadata(dir.path()).unwrap().gid();
        match Cover::over(dir.path(), gid, SMALL) {
            Ok(cover) => Some((dir, cover)),
            Err(e) => {
                assert!(!rustix::process::geteuid().is_root(), "root may mount: {e}");
                None
            }
        }
    }

    #[test]
    fn a17_a18_the_kernel_itself_stops_a_flood() {
        let Some((dir, cover)) = covered() else { return };
        let full = fs::write(dir.path().join("big"), vec![1u8; 4 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        fs::remove_file(dir.path().join("big")).unwrap();
        let made = (0..200).take_while(|n| fs::write(dir.path().join(n.to_string()), b"").is_ok()).count();
        assert!((64..100).contains(&made), "{made} names");
        assert!(!cover.missed() && is_covered(dir.path()));
        uncover(dir.path());
        assert!(!is_covered(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it is gone with all that was in it");
        uncover(dir.path());
    }

    #[test]
    fn who_does_not_see_the_cover_is_found_beneath_it() {
        let Some((dir, cover)) = covered() else { return };
        uncover(dir.path());
        fs::write(dir.path().join("0000000001-ready.json"), b"{}").unwrap();
        assert!(cover.missed());
    }
}
