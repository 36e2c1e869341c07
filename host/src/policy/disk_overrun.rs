//! Decides when a box has filled a directory beyond its limit, and how much of it may stay. The run's disk watch
//! calls it with measurements.

use crate::domain::Ending;
use crate::text;

/// How much a box may still write into a directory that was over its limit when the box started, because an agent
/// needs space to clean up. It is also how much a box may write in a minute while the disk is nearly full.
pub const SLACK: DiskUsage = DiskUsage { bytes: 64 << 20, names: 10_000 };
/// The most names in one directory tree. A package tree has a hundred thousand.
const NAMES: u64 = 1_000_000;
/// One directory may use at most this fraction of the file system's inodes.
const NAMES_SHARE: u64 = 4;

/// A directory to which a box may write, with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitedDir {
    /// The error code: `disk.workspace`, …
    pub code: &'static str,
    /// The name in notices: "workspace".
    pub name: &'static str,
    /// The setting that limits it: `limits.workspace_mib`.
    pub setting: &'static str,
    pub limit: DiskUsage,
}

/// What a directory contains or may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Names of any kind: files, directories, links.
    pub names: u64,
}

impl DiskUsage {
    pub const NOTHING: Self = Self { bytes: 0, names: 0 };

    /// The excess over `most`.
    #[must_use]
    pub fn beyond(self, most: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(most.bytes), names: self.names.saturating_sub(most.names) }
    }

    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(more.bytes), names: self.names.saturating_add(more.names) }
    }

    /// The larger one of each number.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), names: self.names.max(other.names) }
    }
}

/// A box that must end, and how much may stay in its directory. The host removes the newest files beyond that, so that
/// one box does not use up the space of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overrun {
    pub ending: Ending,
    pub keep: DiskUsage,
}

/// The most names in one directory, on a file system with `all` inodes.
pub fn names_limit(all: u64) -> u64 {
    NAMES.min(all / NAMES_SHARE)
}

/// Decides whether the box must end. `before` is what the directory contained when the box started. `lately` is set
/// while the disk is nearly full: it is what the directory contained a minute or two ago. So the host ends the box
/// that is filling the disk now, and not one that filled it before.
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

/// The ending of every box if the disk stays nearly full although no directory grows. Some box then holds deleted
/// files open, which no measurement of directories can find.
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
