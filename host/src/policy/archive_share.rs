//! Decides how much of an archive one tree may take, so that no agent can make an archive larger than its group's
//! limits, or use up the list of files for the other groups.

use super::disk_overrun::SLACK;

/// The most bytes of holes of one tree. An archive stores holes as zeros, and a box can make a hole of any length.
const HOLES: u64 = 1 << 30;
/// The most entries of a tree that only the host and the owner write.
const ENTRIES: u64 = 20_000_000;

/// The settings' limit for a tree that an agent writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimit {
    pub bytes: u64,
    pub names: u64,
    /// The setting: `limits.workspace_mib`.
    pub setting: &'static str,
}

/// What one entry takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryCost {
    /// Bytes of the archive, without holes.
    pub bytes: u64,
    /// Bytes of holes.
    pub holes: u64,
    /// Bytes of the list of files.
    pub listed: usize,
}

/// The list of files: half of it is divided equally among the trees of agents, and whoever comes first may take of the
/// other half. So no tree can take the part of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRoom {
    own: usize,
    common: usize,
}

impl ListRoom {
    /// `trees` is the number of trees that agents write.
    pub fn new(bytes: usize, trees: usize) -> Self {
        Self { own: bytes / 2 / trees.max(1), common: bytes / 2 }
    }
}

/// What one tree may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveShare {
    bytes: u64,
    holes: u64,
    listed: usize,
    limit: Option<TreeLimit>,
}

impl ArchiveShare {
    /// The share of a tree. Only what agents write has a limit.
    ///
    /// A tree may hold a little more than its limit ([`SLACK`]). An archive takes less for a file than the disk does,
    /// unless the file has a long path, several names, or holes.
    pub fn new(limit: Option<TreeLimit>, list: ListRoom) -> Self {
        let Some(TreeLimit { bytes, .. }) = limit else {
            return Self { bytes: u64::MAX, holes: HOLES, listed: 0, limit };
        };
        Self { bytes: bytes.saturating_add(SLACK.bytes), holes: bytes.min(HOLES), listed: list.own, limit }
    }

    /// The most entries that the archive takes of this tree.
    pub fn names(&self) -> u64 {
        self.limit.map_or(ENTRIES, |limit| limit.names.saturating_add(SLACK.names))
    }

    /// Takes what an entry costs.
    ///
    /// # Errors
    /// The reason why the entry stays out. The share is as before.
    pub fn take(&mut self, cost: EntryCost, list: &mut ListRoom) -> Result<(), String> {
        let holes = self.holes.checked_sub(cost.holes).ok_or_else(|| {
            format!("{} bytes of it are holes, and the archive takes no more holes here", cost.holes)
        })?;
        let bytes = self.bytes.checked_sub(cost.bytes).ok_or_else(|| {
            let (setting, mib) = self.limit.map_or(("the disk", 0), |limit| (limit.setting, limit.bytes >> 20));
            format!("the archive has taken as much here as {setting} = {mib} allows; raise it, or copy this by hand")
        })?;
        let of_common = cost.listed.saturating_sub(self.listed);
        let common = list
            .common
            .checked_sub(of_common)
            .ok_or("there are more files than the list of the archive can hold")?;
        list.common = common;
        *self = Self { bytes, holes, listed: self.listed.saturating_sub(cost.listed), ..*self };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: TreeLimit = TreeLimit { bytes: 64 << 20, names: 1_000, setting: "limits.workspace_mib" };

    #[test]
    fn an_agents_tree_takes_its_limit_once_in_bytes_and_once_in_holes() {
        let mut list = ListRoom::new(1_000, 1);
        let mut share = ArchiveShare::new(Some(LIMIT), list);
        let cost = |bytes, holes| EntryCost { bytes, holes, listed: 0 };
        assert_eq!(share.names(), 11_000);
        assert_eq!(share.take(cost(128 << 20, 0), &mut list), Ok(()));
        let told = share.take(cost(1, 0), &mut list).unwrap_err();
        assert!(told.contains("limits.workspace_mib = 64 allows"), "{told}");
        assert_eq!(share.take(cost(0, 64 << 20), &mut list), Ok(()), "holes have a part of their own");
        assert!(share.take(cost(0, 1), &mut list).unwrap_err().contains("holes"));
        let mut hosts = ArchiveShare::new(None, list);
        assert_eq!(hosts.take(cost(1 << 50, 0), &mut list), Ok(()));
    }

    #[test]
    fn a_tree_cannot_take_another_ones_part_of_the_list() {
        let mut list = ListRoom::new(1_000, 2);
        let [mut first, mut second] = [ArchiveShare::new(Some(LIMIT), list); 2];
        let cost = EntryCost { bytes: 1, holes: 0, listed: 50 };
        let taken = std::iter::from_fn(|| first.take(cost, &mut list).ok()).count();
        assert_eq!(taken, 15, "its own quarter, and the half that is for all");
        assert!(first.take(cost, &mut list).unwrap_err().contains("list of the archive"));
        let taken = std::iter::from_fn(|| second.take(cost, &mut list).ok()).count();
        assert_eq!(taken, 5, "its own quarter");
    }
}
