//! Checks a group's mounts against those that the install allows. An error names the file, the line and the fix.

use std::path::Path;

use super::schema::{GroupFile, InstallFile};
use super::{ConfigError, Root, line_and_column};
use crate::domain::group_settings::ExtraMount;
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
    ConfigError::new(line_and_column::of_member(path, text, list, n), e.to_string()).coded(e.code())
}
