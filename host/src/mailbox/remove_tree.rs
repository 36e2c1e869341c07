//! Removes a tree that a box made. The box chose its depth and its width, so the removal is bounded.

use std::io;
use std::path::Path;

use ipc_schema::untrusted_fs::UntrustedDir;

/// The operator must remove a larger tree. The letter budget is far smaller.
const ENTRIES: u64 = 1_000_000;

/// Removes the tree at `dir`, whose parent belongs to the host. A tree that does not exist is no error.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
    super::tmpfs_mount::unmount_at(&dir.join(ipc_schema::names_and_paths::FROM_AGENT));
    match UntrustedDir::open(parent).and_then(|parent| parent.remove_tree(name, ENTRIES)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a30_what_a_run_left_is_removed_and_nothing_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        fs::create_dir_all(run.join("from-agent/a/b/c")).unwrap();
        fs::write(run.join("from-agent/a/b/f"), b"").unwrap();
        std::os::unix::fs::symlink("/etc", run.join("from-agent/link")).unwrap();
        remove(&run).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
        remove(&run).unwrap();
        remove(&root.path().join("no/such")).unwrap();
    }
}
