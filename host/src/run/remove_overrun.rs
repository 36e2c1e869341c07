//! Removes what a box wrote beyond its limit, once the box is gone: the files of a directory that were changed last,
//! and then the empty folders.
//!
//! Without it, the limit would end boxes but free nothing, and what one box wrote would keep taking everybody's room.
//! It keeps what the box did not change, and the transcript that its lane continues. It orders files by their change
//! time (ctime), which nobody can set. A change of a file's name or permissions counts as a change of the file.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use ipc_schema::untrusted_fs::{Entry, Kind, UntrustedDir, Walk, WalkStep};

use crate::policy::disk_overrun::DiskUsage;

/// The walk looks at this many names and keeps the rest.
const NAMES: u64 = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reclaimed {
    /// Removed files and other entries except folders.
    pub files: u64,
    /// The bytes that they took on the disk.
    pub bytes: u64,
    /// Whether a folder was locked against listing or removal, which only happens to a host that is not root.
    pub shut: bool,
}

impl Reclaimed {
    pub(super) fn and(self, more: Self) -> Self {
        Self {
            files: self.files + more.files,
            bytes: self.bytes.saturating_add(more.bytes),
            shut: self.shut || more.shut,
        }
    }
}

/// What a directory holds, and how much of it was there before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub all: DiskUsage,
    /// The part that was not changed since a given time.
    pub old: DiskUsage,
    /// Whether there are folders that the host could not enter.
    pub shut: bool,
    /// Whether files of the box's user have a setuid or setgid bit.
    pub set_id: bool,
}

/// Counts what lies below `path`, and what of it was last changed before `since` (seconds since 1970). Folders that are
/// locked by another user than `uid`, the box's user, do not count as locked.
///
/// # Errors
/// The directory cannot be opened.
pub(super) fn count(path: &Path, since: i64, uid: u32) -> io::Result<Count> {
    let none = DiskUsage { bytes: 0, names: 0 };
    let mut count = Count { all: none, old: none, shut: false, set_id: false };
    let mut walk = UntrustedDir::open(path)?.walk(NAMES)?;
    while let Some(step) = walk.next() {
        match step {
            WalkStep::Entry(entry) => {
                let one = DiskUsage { bytes: entry.on_disk / names_of(&entry), names: 1 };
                count.all = count.all.and(one);
                count.set_id |= entry.kind == Kind::File && entry.uid == uid && entry.mode & 0o6000 != 0;
                // A folder is removed only when it is empty.
                if entry.ctime < since || entry.kind == Kind::Folder {
                    count.old = count.old.and(one);
                }
            }
            // Below a folder that can be listed but not entered, the owner of an entry is unknown.
            WalkStep::Unread(e) => {
                count.shut |= is_shut(&e) && walk.owner().map_or(true, |owner| owner == uid)
            }
            WalkStep::Left => {}
        }
    }
    Ok(count)
}

/// Returns how many names share the disk space of an entry. The links of a folder all lead to itself.
fn names_of(entry: &Entry) -> u64 {
    if entry.kind == Kind::Folder { 1 } else { entry.links.max(1) }
}

fn is_shut(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::PermissionDenied
}

/// Removes the newest files below `path` until at most `keep` is left. It keeps files last changed before `since`
/// (seconds since 1970). It also keeps the file `spare` below `path`, unless this file alone takes half of
/// everything.
///
/// # Errors
/// The directory cannot be opened.
pub(super) fn reclaim(
    path: &Path,
    since: i64,
    keep: DiskUsage,
    spare: Option<&Path>,
) -> io::Result<Reclaimed> {
    let dir = UntrustedDir::open(path)?;
    let spared = |walk: &Walk, entry: &Entry| {
        let named = spare
            .is_some_and(|spare| walk.depth() == spare.components().count() as u64 && walk.path() == spare);
        named && entry.on_disk <= keep.bytes / 2
    };
    // Sums are kept per second, so that memory holds no list of a million paths. A box changes a thousand files in one
    // second.
    let mut seconds: BTreeMap<i64, DiskUsage> = BTreeMap::new();
    // Folders are remembered by inode, because removing an entry changes the folder's time.
    let mut folders: HashMap<u64, i64> = HashMap::new();
    let mut all = DiskUsage { bytes: 0, names: 0 };
    let mut walk = dir.walk(NAMES)?;
    while let Some(step) = walk.next() {
        let WalkStep::Entry(entry) = step else { continue };
        let one = DiskUsage { bytes: entry.on_disk / names_of(&entry), names: 1 };
        all = all.and(one);
        if entry.ctime >= since && !spared(&walk, &entry) {
            let second = seconds.entry(entry.ctime).or_insert(DiskUsage::NOTHING);
            *second = second.and(one);
            if entry.kind == Kind::Folder {
                folders.insert(entry.inode, entry.ctime);
            }
        }
    }
    // The oldest second of which files are removed, and how much of it must go.
    let mut oldest = None;
    for (second, held) in seconds.into_iter().rev() {
        let must = all.beyond(keep);
        if must == DiskUsage::NOTHING {
            break;
        }
        all = all.beyond(held);
        oldest = Some((second, must));
    }
    let Some((oldest, mut must)) = oldest else { return Ok(Reclaimed::default()) };
    let mut taken = Reclaimed::default();
    let mut walk = dir.walk(NAMES)?;
    while let Some(step) = walk.next() {
        // The change time, the bytes that removal frees, and whether people would call it a file.
        let (ctime, bytes, file) = match step {
            WalkStep::Entry(entry) if entry.kind == Kind::Folder || spared(&walk, &entry) => continue,
            // Removing the last name of a file frees its room.
            WalkStep::Entry(entry) => (entry.ctime, if entry.links <= 1 { entry.on_disk } else { 0 }, 1),
            WalkStep::Left => match folders.get(&walk.left_inode()) {
                Some(ctime) => (*ctime, 0, 0),
                None => continue,
            },
            WalkStep::Unread(e) => {
                taken.shut |= is_shut(&e);
                continue;
            }
        };
        if ctime < oldest || (ctime == oldest && must == DiskUsage::NOTHING) {
            continue;
        }
        match walk.unlink() {
            Ok(()) => {
                taken.files += file;
                taken.bytes = taken.bytes.saturating_add(bytes);
                if ctime == oldest {
                    must = must.beyond(DiskUsage { bytes, names: 1 });
                }
            }
            Err(e) => taken.shut |= is_shut(&e),
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::Duration;

    fn second() {
        std::thread::sleep(Duration::from_millis(1_100));
    }

    fn changed(path: &Path) -> i64 {
        fs::symlink_metadata(path).unwrap().ctime()
    }

    #[test]
    fn b5_the_newest_go_and_what_was_there_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::create_dir_all(at("deep/er")).unwrap();
        fs::write(at("deep/old"), vec![1; 3 << 20]).unwrap();
        second();
        fs::write(at("deep/er/first"), vec![1; 1 << 20]).unwrap();
        let since = changed(&at("deep/er/first"));
        second();
        fs::write(at("deep/er/last"), vec![1; 2 << 20]).unwrap();
        symlink(outside.path(), at("link")).unwrap();
        // A forged modification time changes nothing.
        fs::File::open(at("deep/er/last")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();

        let keep = |mib: u64| DiskUsage { bytes: mib << 20, names: 1_000 };
        assert_eq!(reclaim(dir.path(), since, keep(7), None).unwrap(), Reclaimed::default());
        let taken = reclaim(dir.path(), since, keep(5), None).unwrap();
        assert!(taken.files == 2 && taken.bytes >= 2 << 20, "{taken:?}");
        assert!(at("deep/er/first").exists() && !at("deep/er/last").exists());
        assert!(outside.path().exists(), "a link is removed, not followed");
        let taken = reclaim(dir.path(), since, keep(0), None).unwrap();
        assert_eq!(taken.files, 1);
        assert!(at("deep/old").exists(), "it was there before the box");
    }

    #[test]
    fn what_was_there_before_is_counted_apart() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("deep")).unwrap();
        fs::write(at("deep/old"), vec![1; 3 << 20]).unwrap();
        second();
        fs::write(at("new"), vec![1; 1 << 20]).unwrap();
        let Count { all, old, shut, .. } = count(dir.path(), changed(&at("new")), 0).unwrap();
        assert_eq!((all.names, old.names, shut), (3, 2, false));
        assert!(all.bytes >= 4 << 20 && (3 << 20..4 << 20).contains(&old.bytes), "{all:?} {old:?}");
    }

    #[test]
    fn the_transcript_that_is_continued_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("one-1/deep")).unwrap();
        for (name, mib) in [("junk", 4), ("one-1/deep/one-1.jsonl", 1), ("one-1/one-1.jsonl", 1)] {
            fs::write(at(name), vec![1; mib << 20]).unwrap();
        }
        let since = changed(&at("junk"));
        let keep = |mib: u64| DiskUsage { bytes: mib << 20, names: 1_000 };
        let taken =
            |mib| reclaim(dir.path(), since, keep(mib), Some(Path::new("one-1/one-1.jsonl"))).unwrap();
        assert_eq!(taken(2).files, 2);
        assert!(at("one-1/one-1.jsonl").exists(), "it was changed last");
        assert_eq!(taken(0).files, 1);
    }

    #[test]
    fn names_are_taken_back_like_bytes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("old"), b"x").unwrap();
        second();
        (0..50).for_each(|n| fs::write(dir.path().join(format!("n{n}")), b"").unwrap());
        let since = changed(&dir.path().join("n0"));
        let taken = reclaim(dir.path(), since, DiskUsage { bytes: u64::MAX, names: 10 }, None).unwrap();
        assert_eq!(taken.files, 41, "no more of a second than must go");
        assert!(dir.path().join("old").exists());
    }

    /// Only the last name of a file frees its room; each earlier name frees nothing.
    #[test]
    fn b5_a_file_of_many_names_is_taken_back_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("big"), vec![1; 8 << 20]).unwrap();
        let since = changed(&dir.path().join("big"));
        (0..99)
            .for_each(|n| fs::hard_link(dir.path().join("big"), dir.path().join(format!("l{n}"))).unwrap());
        let taken = reclaim(dir.path(), since, DiskUsage { bytes: 4 << 20, names: 1_000 }, None).unwrap();
        let left = UntrustedDir::open(dir.path()).unwrap().usage(10_000).unwrap();
        assert!(left.bytes <= 4 << 20 && taken.bytes >= 8 << 20, "{taken:?}, and left are {left:?}");
    }

    #[test]
    fn b5_folders_go_too_but_none_that_holds_something() {
        let dir = tempfile::tempdir().unwrap();
        (0..500).for_each(|n| fs::create_dir_all(dir.path().join(format!("n{n}/deep"))).unwrap());
        fs::write(dir.path().join("n7/old"), b"x").unwrap();
        second();
        let since = changed(&dir.path().join("n7")) + 1;
        assert_eq!(
            reclaim(dir.path(), since, DiskUsage::NOTHING, None).unwrap(),
            Reclaimed::default(),
            "before it"
        );
        let since = since - 3_600;
        let taken = reclaim(dir.path(), since, DiskUsage { bytes: u64::MAX, names: 10 }, None).unwrap();
        let left = UntrustedDir::open(dir.path()).unwrap().usage(10_000).unwrap();
        assert!((2..=11).contains(&left.entries), "{taken:?}, and left are {left:?}");
        assert!(dir.path().join("n7").exists() == dir.path().join("n7/old").exists());
    }
}
