//! Mounts of the two files, held against each other: an error names the file, the line and the fix.

use std::path::Path;

use toml_edit::{Document, Item};

use super::schema::{GroupFile, InstallFile};
use super::{ConfigError, Root};
use crate::domain::group::ExtraMount;
use crate::policy::mounts::{self, AllowedRoot, MountError};

/// The roots that the install allows.
pub(super) fn allowed(
    path: &Path,
    text: &str,
    file: &InstallFile,
    root: &Root,
) -> Result<Vec<AllowedRoot>, ConfigError> {
    let roots = file.mounts.allow.iter().enumerate().map(|(n, root_file)| {
        mounts::check_root(&root_file.path, root.path())
            .map_err(|e| refused(path, text, &["mounts", "allow"], n, &e))?;
        Ok(AllowedRoot { path: root_file.path.clone(), writable: root_file.writable })
    });
    roots.collect()
}

/// A group's mounts.
pub(super) fn of_group(
    path: &Path,
    text: &str,
    file: &GroupFile,
    allowed: &[AllowedRoot],
    root: &Root,
) -> Result<Vec<ExtraMount>, ConfigError> {
    let wanted: Vec<ExtraMount> = file
        .mounts
        .iter()
        .map(|m| ExtraMount { source: m.source.clone(), target: m.target.clone(), writable: m.writable })
        .collect();
    mounts::check(&wanted, allowed, root.path()).map_err(|(n, e)| refused(path, text, &["mounts"], n, &e))?;
    Ok(wanted)
}

fn refused(path: &Path, text: &str, list: &[&str], n: usize, e: &MountError) -> ConfigError {
    let line = line_of(text, list, n).map(|line| format!(":{line}")).unwrap_or_default();
    ConfigError::new(format!("{}{line}", path.display()), e.to_string()).coded(e.code())
}

/// The line of a list's member, written in one of the two ways that TOML has. A list from the environment has none.
fn line_of(text: &str, list: &[&str], n: usize) -> Option<usize> {
    let file = Document::parse(text.to_owned()).ok()?;
    let mut item: &Item = file.as_item();
    for name in list {
        item = item.get(name)?;
    }
    let span = match item {
        Item::Value(value) => value.as_array()?.get(n)?.span()?,
        Item::ArrayOfTables(tables) => tables.get(n)?.span()?,
        _ => return None,
    };
    Some(text.get(..span.start)?.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_in_its_file_however_it_is_written() {
        let inline = "persona = \"x\"\nmounts = [\n  { source = \"/a\" },\n  { source = \"/b\" },\n]\n";
        assert_eq!(line_of(inline, &["mounts"], 1), Some(4));
        let tables = "[[mounts]]\nsource = \"/a\"\n\n[[mounts]]\nsource = \"/b\"\n";
        assert_eq!(line_of(tables, &["mounts"], 1), Some(4));
        let install = "[mounts]\nallow = [\n  { path = \"/a\" },\n]\n";
        assert_eq!(line_of(install, &["mounts", "allow"], 0), Some(3));
        assert_eq!(line_of("", &["mounts"], 0), None);
    }
}
