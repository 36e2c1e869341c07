//! Reads who else on the machine may write to an install, for `policy::install_rights`.

use std::path::{Path, PathBuf};

use super::Root;
use crate::host_files::{self, Owner};
use crate::policy::install_rights::{Accounts, Place, PlaceKind, Risk, of_group, risks};

/// The accounts of /etc/passwd and /etc/group.
pub fn accounts() -> Accounts {
    let read = |path: &str| host_files::read_text(Path::new(path)).unwrap_or_default();
    Accounts::parse(&read("/etc/passwd"), &read("/etc/group"))
}

/// What lets others of the machine into this install. The host's user is this process's, or the one that `state/`
/// belongs to.
pub fn of_install(root: &Root) -> Vec<Risk> {
    of_host(root, host_files::own_uid())
}

/// As [`of_install`], for a command that talks to the host: its user is the one that `state/` belongs to.
pub fn of_running_host(root: &Root) -> Vec<Risk> {
    let state = host_files::owner(&root.state());
    of_host(root, state.map_or_else(|_| host_files::own_uid(), |state| state.uid))
}

fn of_host(root: &Root, host: u32) -> Vec<Risk> {
    let trusted = [0, host_files::own_uid(), host];
    let accounts = accounts();
    let mut found = Vec::new();
    // Who replaces a link on the way replaces the install, and so does who replaces what it leads to.
    for path in [Some(root.path().to_owned()), host_files::resolved(root.path())].into_iter().flatten() {
        for risk in risks(&way_to(&path), &trusted, &accounts) {
            if !found.contains(&risk) {
                found.push(risk);
            }
        }
    }
    // The host closes `state/` at its start.
    for path in [root.groups(), root.install_file()] {
        let own: Vec<Place> = place(&path, PlaceKind::Settings).into_iter().collect();
        found.extend(risks(&own, &trusted, &accounts));
    }
    if let Ok(state) = host_files::owner(&root.state()) {
        found.extend(of_group(state.gid, &root.state(), &trusted, &accounts));
    }
    found
}

/// The folders from `/` down to an install, as far as they exist.
fn way_to(root: &Path) -> Vec<Place> {
    let mut way: Vec<PathBuf> = root.ancestors().map(Path::to_owned).collect();
    way.reverse();
    let kind = |path: &Path| if path == root { PlaceKind::Root } else { PlaceKind::Above };
    way.iter().filter_map(|path| place(path, kind(path))).collect()
}

fn place(path: &Path, kind: PlaceKind) -> Option<Place> {
    let Owner { uid, gid, mode } = host_files::owner(path).ok()?;
    // Who owns a link can replace it, whoever owns what it leads to.
    let uid = host_files::link_owner(path).unwrap_or(uid);
    Some(Place { path: path.to_owned(), uid, gid, mode, kind })
}
