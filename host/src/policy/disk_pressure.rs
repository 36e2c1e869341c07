//! Decides what a full or nearly full disk means: whether messages are accepted, whether the ballast file is made,
//! what the owner is told. `maintenance` calls it with measurements.

/// The state of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskPressure {
    #[default]
    Fine,
    /// Less than the floor is left: running turns finish, and no new messages are accepted.
    Low,
    /// A commit failed for lack of space.
    Full,
    /// The disk is read-only.
    ReadOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskReading {
    /// Free bytes.
    pub free: u64,
    pub names: u64,
    pub read_only: bool,
    /// Whether the ballast file exists.
    pub ballast: bool,
    /// A commit failed for lack of space since the last reading.
    pub full: bool,
    /// A commit failed because the disk is read-only since the last reading.
    pub refused: bool,
}

/// The floor of free inodes for a file system with `all` inodes: a file system runs out of them as it does of bytes.
pub fn names_floor(all: u64) -> u64 {
    (all / 50).min(20_000)
}

/// The limits, in bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimits {
    /// Below this many free bytes no new messages are accepted.
    pub floor: u64,
    /// Below this many free inodes no new messages are accepted.
    pub names: u64,
    /// The size of the ballast file, which the host deletes when the disk is full.
    pub ballast: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskDecision {
    pub now: DiskPressure,
    /// Whether to create the ballast file.
    pub make_ballast: bool,
    /// Whether the host must tell the owner.
    pub tell: bool,
}

impl DiskPressure {
    /// Whether the host accepts new messages.
    pub fn takes_in(self) -> bool {
        self == Self::Fine
    }

    pub fn code(self) -> &'static str {
        match self {
            Self::Fine => "disk.fine",
            Self::Low => "disk.low",
            Self::Full => "disk.full",
            Self::ReadOnly => "disk.read_only",
        }
    }
}

/// Decides the new state from the old state and a reading.
///
/// There is a hysteresis: the disk counts as fine again only an eighth above the floor and with space for the ballast.
/// Otherwise the state of an almost full disk would change with every message.
pub fn decide(was: DiskPressure, seen: DiskReading, limits: DiskLimits) -> DiskDecision {
    let above = limits.floor.saturating_add(limits.floor / 8);
    let missing = if seen.ballast { 0 } else { limits.ballast };
    let names_again = seen.names >= limits.names + limits.names / 8;
    let roomy = names_again && seen.free >= above.saturating_add(missing);
    let now = match was {
        _ if seen.read_only || seen.refused => DiskPressure::ReadOnly,
        _ if seen.full => DiskPressure::Full,
        DiskPressure::Full if !roomy => DiskPressure::Full,
        DiskPressure::Low if seen.free < above || !names_again => DiskPressure::Low,
        _ if seen.free < limits.floor || seen.names < limits.names => DiskPressure::Low,
        _ => DiskPressure::Fine,
    };
    let make_ballast = now == DiskPressure::Fine && missing > 0 && roomy;
    DiskDecision { now, make_ballast, tell: now != was }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: DiskLimits = DiskLimits { floor: 256 * MIB, names: 20_000, ballast: 64 * MIB };

    fn seen(free: u64, ballast: bool) -> DiskReading {
        DiskReading {
            free: free * MIB,
            names: 1 << 20,
            read_only: false,
            ballast,
            full: false,
            refused: false,
        }
    }

    fn now(was: DiskPressure, seen: DiskReading) -> DiskPressure {
        decide(was, seen, LIMITS).now
    }

    #[test]
    fn a_disk_fills_up_and_is_emptied() {
        use DiskPressure::{Fine, Full, Low};
        assert!(decide(Fine, seen(1000, false), LIMITS).make_ballast);
        assert!(!decide(Fine, seen(300, false), LIMITS).make_ballast, "it would eat up the floor");
        assert_eq!(now(Fine, seen(256, true)), Fine);
        assert_eq!(now(Fine, seen(255, true)), Low);
        assert_eq!(now(Low, seen(270, true)), Low, "not at the brim");
        assert_eq!(now(Low, seen(288, true)), Fine);
        assert_eq!(now(Low, DiskReading { full: true, ..seen(64, false) }), Full);
        let crowded = |names| DiskReading { names, ..seen(1000, true) };
        assert_eq!((now(Fine, crowded(19_999)), now(Low, crowded(22_499))), (Low, Low));
        assert_eq!((now(Fine, crowded(20_000)), now(Low, crowded(22_500))), (Fine, Fine));
        // Deleting the ballast makes space, but not enough to accept messages again.
        assert_eq!(now(Full, seen(320, false)), Full);
        let back = decide(Full, seen(352, false), LIMITS);
        assert_eq!(back, DiskDecision { now: Fine, make_ballast: true, tell: true });
        assert!(!decide(Full, seen(60, false), LIMITS).tell, "it is told once");
    }

    #[test]
    fn a_disk_that_may_not_be_written_is_told_from_a_full_one() {
        let refused = DiskReading { refused: true, full: true, ..seen(900, true) };
        assert_eq!(now(DiskPressure::Fine, refused), DiskPressure::ReadOnly);
        let mounted = DiskReading { read_only: true, ..seen(900, true) };
        assert_eq!(now(DiskPressure::ReadOnly, mounted), DiskPressure::ReadOnly);
        assert_eq!(now(DiskPressure::ReadOnly, seen(900, true)), DiskPressure::Fine);
    }

    #[test]
    fn without_a_floor_only_a_commit_that_fails_shuts() {
        let none = DiskLimits { floor: 0, names: 0, ballast: 0 };
        assert_eq!(decide(DiskPressure::Fine, seen(0, false), none).now, DiskPressure::Fine);
        let full = DiskReading { full: true, ..seen(0, false) };
        assert_eq!(decide(DiskPressure::Fine, full, none).now, DiskPressure::Full);
    }
}
