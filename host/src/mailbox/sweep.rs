//! Removing a tree that a box has made.
//!
//! Its depth is the box's choice, so nothing here recurses, and no path grows with it: every directory is first
//! renamed up to one level, and is then listed, emptied and removed there. One descriptor is open at a time.

use std::fs;
use std::io;
use std::path::Path;

/// A tree larger than this is left for the operator: the letter budget is far below.
const ENTRIES: u64 = 1_000_000;

/// Removes the tree at `dir`; one that is gone is no error.
pub(super) fn remove(dir: &Path) {
    super::cover::uncover(&dir.join(ipc_schema::layout::FROM_AGENT));
    match flatten(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => tracing::warn!(code = "mailbox.dir", "{} is left behind: {e}", dir.display()),
    }
}

fn flatten(dir: &Path) -> io::Result<()> {
    let mut flat = dir.as_os_str().to_owned();
    flat.push(".gone");
    let flat = Path::new(&flat);
    fs::create_dir_all(flat)?;
    // What an interrupted sweep left lies here too, under numbers that must not be used again.
    let mut next: u64 = fs::read_dir(flat)?.flatten().filter_map(|e| number(&e)).max().map_or(0, |n| n + 1);
    let mut waiting: Vec<u64> = fs::read_dir(flat)?.flatten().filter_map(|e| number(&e)).collect();
    match fs::rename(dir, flat.join(next.to_string())) {
        Ok(()) => waiting.push(next),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut seen = 0;
    while let Some(n) = waiting.pop() {
        let here = flat.join(n.to_string());
        for entry in fs::read_dir(&here)? {
            let entry = entry?;
            seen += 1;
            if seen > ENTRIES {
                return Err(io::Error::other(format!("it holds more than {ENTRIES} entries")));
            }
            // The type of the entry itself: a link is removed, never followed.
            if entry.file_type()?.is_dir() {
                next += 1;
                fs::rename(entry.path(), flat.join(next.to_string()))?;
                waiting.push(next);
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir(&here)?;
    }
    fs::remove_dir(flat)
}

fn number(entry: &fs::DirEntry) -> Option<u64> {
    entry.file_name().to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a30_a_tree_deeper_than_any_stack_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        fs::create_dir(&run).unwrap();
        // Built upside down, because no path is long enough for the other way.
        for n in 0..20_000 {
            let outer = root.path().join(format!("o{n}"));
            fs::create_dir(&outer).unwrap();
            fs::write(outer.join("f"), b"").unwrap();
            fs::rename(&run, outer.join("d")).unwrap();
            fs::rename(&outer, &run).unwrap();
        }
        std::os::unix::fs::symlink("/etc", run.join("link")).unwrap();
        remove(&run);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
        remove(&run);
    }
}
