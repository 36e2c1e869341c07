//! When a box has filled too much of the disk, and how much of it may stay.

use crate::domain::Ending;
use crate::text;

/// What a box may still write in a directory that was over its limit when the box was made: room to clear up in, for an
/// agent too. And what it may write in a minute once the disk itself is nearly full.
pub const SLACK: DiskUsage = DiskUsage { bytes: 64 << 20, names: 10_000 };
/// Names in one directory tree, where the file system has many. A package tree has a hundred thousand.
const NAMES: u64 = 1_000_000;
/// No directory has more than this part of all names that the file system was made for.
const NAMES_SHARE: u64 = 4;

/// A directory that a box fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitedDir {
    /// `disk.workspace`
    pub code: &'static str,
    /// What people call it: "workspace".
    pub name: &'static str,
    /// The setting that limits it: `limits.workspace_mib`.
    pub setting: &'static str,
    pub limit: DiskUsage,
}

/// What a directory holds, or may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Names of any kind.
    pub names: u64,
}

impl DiskUsage {
    pub const NOTHING: Self = Self { bytes: 0, names: 0 };

    /// What it is more than `most`.
    #[must_use]
    pub fn beyond(self, most: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(most.bytes), names: self.names.saturating_sub(most.names) }
    }

    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(more.bytes), names: self.names.saturating_add(more.names) }
    }

    /// The larger of each.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), names: self.names.max(other.names) }
    }
}

/// A box that is ended, and what may stay of what it wrote: the newest files beyond that are removed, or one box would
/// have taken the room of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overrun {
    /// How the run ends.
    pub ending: Ending,
    /// What may stay in the directory.
    pub keep: DiskUsage,
}

/// The names that one directory may hold on a file system that was made for `all`.
pub fn names_limit(all: u64) -> u64 {
    NAMES.min(all / NAMES_SHARE)
}

/// Whether the box is ended. `before` is what the directory held when the box was made; `lately`, while the disk is
/// nearly full, what it held a minute or two ago: who has filled it since is ended, and not who had it full by then.
pub fn over(
    place: &LimitedDir,
    before: DiskUsage,
    lately: Option<DiskUsage>,
    now: DiskUsage,
) -> Option<Overrun> {
    let LimitedDir { code, name, setting, limit } = *place;
    let ended = |code, what, keep| Some(Overrun { ending: Ending::OverLimit { code, what }, keep });
    let (room, keep) = (limit.or(before.and(SLACK)), limit.or(before));
    if now.bytes > room.bytes {
        let (holds, most) = (text::size(now.bytes), text::size(limit.bytes));
        return ended(
            code,
            format!("filled its {name} with {holds}, and {most} may be kept ({setting})"),
            keep,
        );
    }
    if now.names > room.names {
        let what = format!(
            "filled its {name} with more than {} files, which is its share of what the disk has room for",
            limit.names
        );
        return ended(code, what, keep);
    }
    let lately = lately?;
    let room = lately.and(SLACK);
    if now.bytes > room.bytes || now.names > room.names {
        let (wrote, made) =
            (text::size(now.bytes.saturating_sub(lately.bytes)), now.names.saturating_sub(lately.names));
        let what = format!("wrote {wrote} and {made} files into its {name} while the disk is nearly full");
        return ended("disk.low", what, room);
    }
    None
}

/// Every box is ended when the disk is as good as full and stays so: one of them holds on to the room, and by no name
/// that could be looked at.
pub fn nobody_goes_on() -> Ending {
    let what = "was at work while the disk is as good as full";
    Ending::OverLimit { code: "disk.low", what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const WORKSPACE: LimitedDir = LimitedDir {
        code: "disk.workspace",
        name: "workspace",
        setting: "limits.workspace_mib",
        limit: DiskUsage { bytes: 1024 * MIB, names: 100_000 },
    };

    fn held(mib: u64) -> DiskUsage {
        DiskUsage { bytes: mib * MIB, names: 5 }
    }

    fn names(names: u64) -> DiskUsage {
        DiskUsage { names, ..held(1) }
    }

    fn told(before: DiskUsage, lately: Option<DiskUsage>, now: DiskUsage) -> Option<(String, DiskUsage)> {
        over(&WORKSPACE, before, lately, now).map(|over| (over.ending.to_string(), over.keep))
    }

    #[test]
    fn b5_a_workspace_is_full_at_its_limit() {
        assert_eq!(told(held(10), None, held(1024)), None);
        let (what, keep) = told(held(10), None, held(1025)).unwrap();
        assert_eq!(
            what,
            "was ended (disk.workspace): it filled its workspace with 1 GiB, and 1 GiB may be kept (limits.workspace_mib)"
        );
        assert_eq!(keep.bytes, 1024 * MIB, "what is beyond the limit goes");
    }

    #[test]
    fn who_is_over_the_limit_already_gets_room_to_clear_up() {
        assert_eq!(told(held(2000), None, held(2064)), None);
        let (_, keep) = told(held(2000), None, held(2065)).unwrap();
        assert_eq!(keep.bytes, 2000 * MIB, "what was there before stays");
        assert_eq!(told(held(2000), None, held(500)), None);
    }

    #[test]
    fn names_run_out_too() {
        assert!(told(names(1), None, names(100_001)).unwrap().0.contains("more than 100000 files"));
        assert_eq!(told(names(200_000), None, names(200_000)), None, "it can be cleared up");
        assert_eq!((names_limit(u64::MAX), names_limit(400_000)), (1_000_000, 100_000));
    }

    #[test]
    fn on_a_nearly_full_disk_nobody_goes_on_filling_it() {
        assert_eq!(told(held(1), Some(held(100)), held(164)), None);
        let (what, keep) = told(held(1), Some(held(100)), held(165)).unwrap();
        assert!(what.contains("65 MiB and 0 files into its workspace"), "{what}");
        assert_eq!(keep.bytes, 164 * MIB);
        assert!(told(names(1), Some(names(10)), names(10_011)).unwrap().0.contains("10001 files"));
    }
}
