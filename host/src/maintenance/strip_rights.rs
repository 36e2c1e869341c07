//! Takes setuid, setgid and sticky bits and file capabilities from the files that agents keep. In a box they have no
//! effect (`no-new-privileges`). On the host's disk, another program could run such a file with the rights of the box's
//! user, its group, or more.
//!
//! `minute_loop` calls it once a day. A host that is not root cannot change these files: a helper box of their owner
//! does it at the end of each run (`run/after_box_cleanup.rs`), and what is left here is counted.

use std::path::{Path, PathBuf};

use ipc_schema::untrusted_fs::{UntrustedDir, WalkStep};

use crate::config::Root;
use crate::domain::GroupName;

/// The walk looks at this many names of a tree: more than any box may make.
const NAMES: u64 = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stripped {
    /// Files that had such rights.
    pub(super) files: u64,
    /// Files that still have them.
    pub(super) kept: u64,
}

/// Strips the files in the trees of these groups, and in the folder that all share.
pub(super) fn all(root: &Root, groups: &[GroupName]) -> Stripped {
    let of_groups = groups.iter().flat_map(|group| [root.workspace(group), root.sessions(group)]);
    let trees: Vec<PathBuf> = of_groups.chain([root.global()]).collect();
    let mut done = Stripped::default();
    trees.iter().for_each(|tree| below(tree, &mut done));
    done
}

fn below(tree: &Path, done: &mut Stripped) {
    // A group that had no run yet has no tree.
    let Ok(mut walk) = UntrustedDir::open(tree).and_then(|tree| tree.walk(NAMES)) else { return };
    while let Some(step) = walk.next() {
        let WalkStep::Entry(entry) = step else { continue };
        match walk.strip(&entry) {
            Ok(stripped) => done.files += u64::from(stripped),
            Err(_) => done.kept += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn g2_what_agents_keep_loses_its_special_rights_in_every_tree() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        let groups = [GroupName::main(), "family".parse().unwrap()];
        let mut files = Vec::new();
        for tree in [root.workspace(&groups[0]), root.sessions(&groups[1]), root.global()] {
            let folder = tree.join("deep/er");
            fs::create_dir_all(&folder).unwrap();
            for (name, mode) in [("tool", 0o6755), ("note", 0o640)] {
                fs::write(folder.join(name), "").unwrap();
                fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
                files.push((folder.join(name), mode & 0o777));
            }
        }
        assert_eq!(all(&root, &groups), Stripped { files: 3, kept: 0 });
        for (file, mode) in files {
            assert_eq!(
                fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
                mode,
                "{}",
                file.display()
            );
        }
        assert_eq!(all(&root, &groups), Stripped::default());
    }
}
