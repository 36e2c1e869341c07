//! Checks a group's mounts against those that the install allows.

use super::schema::{GroupFile, InstallFile};
use super::{Mistake, Root, Source};
use crate::domain::group_settings::ExtraMount;
use crate::policy::mounts::{self, AllowedRoot, MountError};

/// The roots that the install allows.
pub(super) fn allowed(file: &InstallFile, root: &Root, source: &mut Source<'_>) -> Vec<AllowedRoot> {
    for (n, one) in file.mounts.allow.iter().enumerate() {
        if let Err(e) = mounts::check_root(&one.path, root.path()) {
            source.refuse(&["mounts", "allow", &n.to_string()], refused(&e));
        }
    }
    let root = |one: &super::schema::AllowedMountFile| AllowedRoot {
        path: one.path.clone(),
        writable: one.writable,
    };
    file.mounts.allow.iter().map(root).collect()
}

pub(super) fn of_group(
    file: &GroupFile,
    allowed: &[AllowedRoot],
    root: &Root,
    source: &mut Source<'_>,
) -> Vec<ExtraMount> {
    let wanted: Vec<ExtraMount> = file
        .mounts
        .iter()
        .map(|m| ExtraMount { source: m.source.clone(), target: m.target.clone(), writable: m.writable })
        .collect();
    for (n, e) in mounts::check(&wanted, allowed, root.path()) {
        source.refuse(&["mounts", &n.to_string()], refused(&e));
    }
    wanted
}

fn refused(e: &MountError) -> Mistake {
    Mistake::from(e.to_string()).coded(e.code())
}
