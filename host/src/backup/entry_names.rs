//! Checks the names in an archive: each name occurs once, and only folders have names below them. Otherwise an archive
//! could write through a link to another place, or hide a second file behind the digest of the first.

use std::collections::HashSet;
use std::path::{Component, Path};

use sha2::{Digest, Sha256};

/// The names so far, as digests, because paths can be long and there can be millions.
#[derive(Debug, Default)]
pub(super) struct Names {
    all: HashSet<[u8; 32]>,
    /// The digests of the names of files and links.
    no_folders: HashSet<[u8; 32]>,
}

impl Names {
    /// Adds a name. Different spellings of one path (`a//b`, `a/b/`) count as one name.
    ///
    /// # Errors
    /// The reason why the name is refused.
    pub(super) fn take(&mut self, path: &Path, folder: bool) -> Result<(), &'static str> {
        let mut digest = Sha256::new();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(part) = part else { return Err("its path is not plain") };
            digest.update(part.as_encoded_bytes());
            // No name contains a zero byte, so it separates them.
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
        // One letter in two encodings gives two file names.
        assert_eq!(take("caf\u{e9}", false), Ok(()));
        assert_eq!(take("cafe\u{301}", false), Ok(()));
    }
}
