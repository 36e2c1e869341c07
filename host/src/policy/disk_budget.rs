//! When a box has filled too much of the disk.

use crate::domain::Ending;
use crate::say;

/// What a box may still write in a directory that was over its limit when the box was made: room to clear up in, for an
/// agent too. And what it may write once the disk itself is nearly full.
pub const SLACK: u64 = 64 << 20;
/// Names in one directory tree. A package tree has a hundred thousand; a file system runs out of them as it does of
/// bytes.
pub const NAMES: u64 = 1_000_000;

/// A directory that a box fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// `disk.workspace`
    pub code: &'static str,
    /// What people call it: "workspace".
    pub name: &'static str,
    /// The setting that limits it: `limits.workspace_mib`.
    pub setting: &'static str,
    /// Its limit, in bytes.
    pub limit: u64,
}

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether there are more than [`NAMES`] names.
    pub crowded: bool,
}

/// Whether the box is ended. `before` is what the directory held when the box was made, `at_low` what it held when the
/// disk became nearly full, while it is.
pub fn over(place: &Place, before: Held, at_low: Option<Held>, now: Held) -> Option<Ending> {
    let Place { code, name, setting, limit } = *place;
    if now.bytes > limit.max(before.bytes.saturating_add(SLACK)) {
        let (holds, most) = (say::size(now.bytes), say::size(limit));
        let what = format!("filled its {name} with {holds}, of {most} ({setting})");
        return Some(Ending::OverLimit { code, what });
    }
    if now.crowded && !before.crowded {
        let what = format!("filled its {name} with more than {NAMES} files");
        return Some(Ending::OverLimit { code, what });
    }
    let low = at_low.filter(|low| now.bytes > low.bytes.saturating_add(SLACK))?;
    let wrote = say::size(now.bytes.saturating_sub(low.bytes));
    let what = format!("wrote {wrote} into its {name} while the disk is nearly full");
    Some(Ending::OverLimit { code: "disk.low", what })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const WORKSPACE: Place = Place {
        code: "disk.workspace",
        name: "workspace",
        setting: "limits.workspace_mib",
        limit: 1024 * MIB,
    };

    fn held(mib: u64) -> Held {
        Held { bytes: mib * MIB, crowded: false }
    }

    fn told(before: Held, at_low: Option<Held>, now: Held) -> Option<String> {
        over(&WORKSPACE, before, at_low, now).map(|ending| ending.to_string())
    }

    #[test]
    fn b5_a_workspace_is_full_at_its_limit() {
        assert_eq!(told(held(10), None, held(1024)), None);
        assert_eq!(
            told(held(10), None, held(1025)).unwrap(),
            "was ended (disk.workspace): it filled its workspace with 1 GiB, of 1 GiB (limits.workspace_mib)"
        );
    }

    #[test]
    fn who_is_over_the_limit_already_gets_room_to_clear_up() {
        assert_eq!(told(held(2000), None, held(2064)), None);
        assert!(told(held(2000), None, held(2065)).is_some());
        assert_eq!(told(held(2000), None, held(500)), None);
    }

    #[test]
    fn names_run_out_too() {
        let crowded = Held { crowded: true, ..held(1) };
        assert!(told(held(1), None, crowded).unwrap().contains("more than 1000000 files"));
        assert_eq!(told(crowded, None, crowded), None, "it can be cleared up");
    }

    #[test]
    fn on_a_nearly_full_disk_nobody_goes_on_writing() {
        assert_eq!(told(held(1), Some(held(100)), held(164)), None);
        assert!(told(held(1), Some(held(100)), held(165)).unwrap().contains("65 MiB into its workspace"));
    }
}
