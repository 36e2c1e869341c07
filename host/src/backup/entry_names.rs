//! Names in an archive: each comes once, and none lies below what is no folder. A link that an archive planted would
//! carry what comes below it to another place; what comes twice cannot be held against one digest.

use std::collections::HashSet;
use std::path::{Component, Path};

use sha2::{Digest, Sha256};

/// What was seen so far, as digests: paths may be long, and there may be millions.
#[derive(Debug, Default)]
pub(super) struct Names {
    all: HashSet<[u8; 32]>,
    /// Those of files and links.
    no_folders: HashSet<[u8; 32]>,
}

impl Names {
    /// Takes a name, byte by byte as it is; spellings of one path (`a//b`, `a/b/`) are one name.
    ///
    /// # Errors
    /// Why it has no place.
    pub(super) fn take(&mut self, path: &Path, folder: bool) -> Result<(), &'static str> {
        let mut digest = Sha256::new();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(part) = part else { return Err("its path is not plain") };
            digest.update(part.as_encoded_bytes());
            // No name holds it.
            digest.update([0]);
            let above = parts.peek().is_some();
            if above && self.no_folders.contains(&<[u8; 32]>::from(digest.clone().finalize())) {
                return Err("it lies below a link or a file");
            }
        }
        let name = digest.finalize().into();
        if !self.all.insert(name) {
            return Err("it comes twice");
        }
        if !folder {
            self.no_folders.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_once_and_below_folders_alone() {
        let mut names = Names::default();
        let mut take = |path: &str, folder| names.take(Path::new(path), folder);
        assert_eq!(take("a", true), Ok(()));
        assert_eq!(take("a/link", false), Ok(()));
        assert_eq!(take("a/link2/x", false), Ok(()), "a name that only begins so");
        assert_eq!(take("a/link/deep/x", false), Err("it lies below a link or a file"));
        assert_eq!(take("a/", true), Err("it comes twice"));
        assert_eq!(take("a//link2/x", false), Err("it comes twice"));
        assert_eq!(take("a/../b", false), Err("its path is not plain"));
        assert_eq!(take("/a/b", false), Err("its path is not plain"));
        // One letter, two spellings: two files.
        assert_eq!(take("caf\u{e9}", false), Ok(()));
        assert_eq!(take("cafe\u{301}", false), Ok(()));
    }
}
