//! What an archive holds: the names of its entries, and the list at its end.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Root;
use crate::domain::GroupName;
use crate::host_files;
use crate::volumes::Volume;

/// The name of the list at the end.
pub(super) const MANIFEST: &str = "manifest.json";
/// The database's name in the archive.
pub(super) const DATABASE: &str = "state/lazaret.db";
/// The folders of `state/` that go into an archive: what agents keep, and files that wait to be sent. The host can make
/// letters, copies of the runner and user lists again. The install's id stays out, so that two installs from one
/// archive never adopt each other's boxes. Agents fill the last folders, so if there is too much, these folders are
/// incomplete.
pub(super) const KEPT: [&str; 5] = ["inbox", "spool", "sessions", "global", "workspaces"];
/// Those of [`KEPT`] that have a folder for each group.
pub(super) const OF_GROUPS: [&str; 3] = ["inbox", "sessions", "workspaces"];
/// The folder of channels' own files. An archive has the keys of linked accounts only if it is asked for them.
pub(super) const CHANNELS: &str = "channels";
/// The folder of groups' image files. An archive has the files that are in the images.
pub(super) const VOLUMES: &str = "volumes";
/// The settings, and groups' settings and personalities.
pub(super) const SETTINGS: [&str; 2] = ["lazaret.toml", "groups"];

/// Bytes that the list of files may take: enough for a million names of usual length. Further files are left out.
pub(super) const LIST: usize = 256 << 20;
/// Bytes that the rest of the manifest may take.
pub(super) const BESIDE_LIST: usize = 16 << 20;

/// The list at the end of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub(super) v: u32,
    /// When the archive was written.
    pub at: String,
    pub schema: i64,
    /// Rows of all tables.
    pub rows: u64,
    /// The first entries of each tree that are not in the archive, each with the reason.
    pub left_out: Vec<String>,
    /// How many more entries are not in it.
    #[serde(default)]
    pub left_out_more: u64,
    /// Digest of each file. The names of one file have the same digest.
    pub(super) files: BTreeMap<String, String>,
}

impl Contents {
    pub fn files(&self) -> usize {
        self.files.len()
    }
}

pub(super) fn belongs(name: &str) -> bool {
    let kept = |rest: &str, kept: &str| rest == kept || rest.starts_with(&format!("{kept}/"));
    let in_state = |rest: &str| KEPT.iter().chain([&CHANNELS]).any(|name| kept(rest, name));
    name == MANIFEST
        || name == DATABASE
        || name == "lazaret.toml"
        || name == "groups"
        || name.starts_with("groups/")
        || name.strip_prefix("state/").is_some_and(|rest| in_state(rest.trim_end_matches('/')))
}

/// The part of an archive that one writer fills: what lies in a group's folder, or in a folder that belongs to no
/// group. Links lie in a tree, and hard links do not lead out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreeOf {
    /// `workspaces`, `global`, `groups`, …
    pub(super) kind: String,
    /// The folder's name, where the tree is a group's.
    pub(super) group: Option<String>,
}

/// Returns the tree of an entry. The folder of the tree itself and entries like the database are in none.
pub(super) fn tree_of(name: &Path) -> Option<TreeOf> {
    let mut parts = name.components();
    let mut next = || match parts.next()? {
        Component::Normal(part) => Some(part.to_str().unwrap_or_default()),
        _ => None,
    };
    let (kind, group) = match next()? {
        "groups" => ("groups", None),
        "state" => match next()? {
            kind if OF_GROUPS.contains(&kind) => (kind, Some(next()?.to_owned())),
            kind if KEPT.contains(&kind) => (kind, None),
            _ => return None,
        },
        _ => return None,
    };
    next()?;
    Some(TreeOf { kind: kind.to_owned(), group })
}

/// Lists the groups' file systems, by the names of their image files.
pub(super) fn volumes(root: &Root) -> Vec<Volume> {
    let names = host_files::inside(&root.volumes());
    let mut groups: Vec<GroupName> =
        names.iter().filter_map(|path| path.file_name()?.to_str()?.split('.').next()?.parse().ok()).collect();
    groups.sort();
    groups.dedup();
    groups.iter().flat_map(|group| root.volumes_of(group)).map(Volume::from).collect()
}

/// Joins like `join`, which would append a slash for an empty path and so turn a file into a folder.
pub(super) fn joined(base: &Path, more: &Path) -> PathBuf {
    if more.as_os_str().is_empty() { base.to_owned() } else { base.join(more) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_a_groups_folder_or_one_of_the_hosts() {
        let tree = |name: &str| tree_of(Path::new(name)).map(|tree| (tree.kind, tree.group));
        let of = |kind: &str, group: Option<&str>| Some((kind.to_owned(), group.map(str::to_owned)));
        assert_eq!(tree("state/workspaces/main/a/b"), of("workspaces", Some("main")));
        assert_eq!(tree("state/sessions/family/x"), of("sessions", Some("family")));
        assert_eq!(tree("state/global/x"), of("global", None));
        assert_eq!(tree("groups/main/CLAUDE.md"), of("groups", None));
        for name in [
            "state/workspaces",
            "state/workspaces/main",
            "state/workspaces/main/",
            "state/global",
            "groups",
            "lazaret.toml",
            DATABASE,
            MANIFEST,
            "state/channels/chat/a.db",
            "../groups/a",
        ] {
            assert_eq!(tree(name), None, "{name}");
        }
    }
}
