//! Reads an archive of an install, and puts it in the install's place.
//!
//! An archive can come from anybody, and agents have filled parts of an honest one. So [`read`] refuses every entry
//! that leads out of its tree before anything is written, and the restore keeps neither setuid, setgid and sticky bits
//! nor owners that do not belong where they are.

#![allow(
    clippy::disallowed_methods,
    reason = "archives, and a staging folder of the host's own in which nobody else writes"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use ipc_schema::refusal::quote;
use tar::{Entry, EntryType};

use super::entry_names::Names;
use super::layout::{
    BESIDE_LIST, CHANNELS, Contents, DATABASE, KEPT, LIST, MANIFEST, SETTINGS, TreeOf, VOLUMES, belongs,
    tree_of, volumes,
};
use super::{BackupError, stamp};
use crate::config::Root;
use crate::domain::{GroupName, WallMs};
use crate::host_files::{self, Digesting};
use crate::store::{self, Restored, Transcripts};

/// Returns whether a file is a tar archive and not a database.
pub fn is_archive(path: &Path) -> bool {
    let mut header = [0; 262];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.get(257..262) == Some(b"ustar".as_slice())
}

/// Reads a whole archive and compares every file with the list at its end.
pub(super) fn read(path: &Path) -> Result<Contents, BackupError> {
    let file = File::open(path).map_err(|e| BackupError::file(path, e))?;
    read_from(path, BufReader::new(file))
}

/// Entry of the fuzz target: an accepted archive lists only files of an install.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    if let Ok(contents) = read_from(Path::new("x.tar"), data) {
        use std::path::Component::Normal;
        let plain = |name: &str| Path::new(name).components().all(|part| matches!(part, Normal(_)));
        assert!(contents.files.keys().all(|name| belongs(name) && plain(name)), "{contents:?}");
    }
}

fn read_from(path: &Path, bytes: impl Read) -> Result<Contents, BackupError> {
    let wrong = |why: String| BackupError::archive(path, why);
    let mut archive = tar::Archive::new(bytes);
    let mut digests = BTreeMap::new();
    let mut names = Names::default();
    let mut contents = None;
    for entry in archive.entries().map_err(|e| wrong(e.to_string()))? {
        let mut entry = entry.map_err(|e| wrong(e.to_string()))?;
        let path = entry.path().map_err(|e| wrong(e.to_string()))?.into_owned();
        let name = path.to_string_lossy().into_owned();
        let shown = quote(&name, 300);
        if !belongs(&name) {
            return Err(wrong(format!("{shown} does not belong in an archive")));
        }
        let kind = entry.header().entry_type();
        names.take(&path, kind == EntryType::Directory).map_err(|why| wrong(format!("{shown}: {why}")))?;
        match kind {
            EntryType::Directory => {}
            // An agent may make links inside a tree. A link in place of the tree itself would redirect everything in
            // it.
            EntryType::Symlink if tree_of(&path).is_some() => {}
            EntryType::Link => {
                let target = entry.link_name().map_err(|e| wrong(e.to_string()))?.unwrap_or_default();
                let digest = linked(&path, &target, &digests).ok_or_else(|| {
                    wrong(format!("{shown} is a second name of no earlier file of its tree"))
                })?;
                digests.insert(name, digest);
            }
            EntryType::Regular if name == MANIFEST => {
                let mut text = Vec::new();
                let most = LIST + BESIDE_LIST;
                let mut capped = (&mut entry).take(most as u64 + 1);
                capped.read_to_end(&mut text).map_err(|e| wrong(e.to_string()))?;
                if text.len() > most {
                    return Err(wrong(format!("its list has more than {} MiB", most >> 20)));
                }
                contents = Some(serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?);
            }
            EntryType::Regular => {
                let mut digest = Digesting::new(io::sink());
                io::copy(&mut entry, &mut digest).map_err(|e| wrong(e.to_string()))?;
                digests.insert(name, digest.done().1);
            }
            other => return Err(wrong(format!("{shown} is a {other:?}"))),
        }
    }
    let contents: Contents =
        contents.ok_or_else(|| wrong("it is incomplete: the list at its end is missing".into()))?;
    if contents.v != 1 {
        return Err(wrong(format!("it has version {}, and this lazaret reads version 1", contents.v)));
    }
    if let Some((name, _)) = contents.files.iter().find(|(name, digest)| digests.get(*name) != Some(digest)) {
        return Err(wrong(format!("{} is missing or was changed", quote(name, 300))));
    }
    if let Some(name) = digests.keys().find(|name| !contents.files.contains_key(*name)) {
        return Err(wrong(format!("{} is not on its list", quote(name, 300))));
    }
    Ok(contents)
}

/// Returns the digest of a file's second name: that of an earlier file in the same tree. Its digest stands under the
/// file's exact name, and names in an archive are plain, so the target leads nowhere else.
fn linked(path: &Path, target: &Path, digests: &BTreeMap<String, String>) -> Option<String> {
    let same = tree_of(path).is_some_and(|tree| tree_of(target) == Some(tree));
    let digest = target.to_str().and_then(|target| digests.get(target));
    digest.filter(|_| same).cloned()
}

/// The owners of what a restore writes. An archive restores users by number: its database gives each group its number
/// on every machine.
struct Owners {
    /// The host's user.
    host: u32,
    /// The group that the host shares with boxes. What a box may open gets it.
    shared: u32,
    /// The group of `state/`. What only the host opens gets it.
    state: u32,
    /// The user of each group's boxes.
    boxes: BTreeMap<String, u32>,
    /// Owner and group of the settings: those of the folder that they lie in.
    settings: (u32, u32),
}

impl Owners {
    /// A file belongs to the group's user only in the group's own tree, and only if the archive says so.
    fn of(&self, name: &Path, archived: u64) -> (u32, u32) {
        if !name.starts_with("state") {
            return self.settings;
        }
        // The folder of the tree is a part of it here.
        let Some(TreeOf { kind, group }) = tree_of(&name.join("x")) else { return (self.host, self.state) };
        let (group, gid) = match kind.as_str() {
            "workspaces" | "sessions" => (group, self.shared),
            // The boxes of `main` alone write there.
            "global" => (Some(GroupName::main().to_string()), self.shared),
            "inbox" => (None, self.shared),
            _ => (None, self.state),
        };
        let user = group.and_then(|group| self.boxes.get(&group)).copied();
        (user.filter(|user| u64::from(*user) == archived).unwrap_or(self.host), gid)
    }
}

/// Restores an install from an archive. It moves what was there to `replaced-<time>` in the same folder. The caller
/// holds the host's lock. What boxes may read gets the group `gid`.
///
/// # Errors
/// The archive is damaged, and nothing was changed; or the disk failed, and the restore must be run again.
pub fn restore(root: &Root, gid: u32, from: &Path, now: WallMs) -> Result<(Contents, Restored), BackupError> {
    let contents = read(from)?;
    // `state/` can be another file system, and a rename cannot cross to it: so there are two staging folders.
    let (top, state) = (root.path().join(".restored"), root.state().join(".restored"));
    // Nobody else may enter them. With the setgid bit, a host that is not root gives the files to the shared group.
    for (staged, mode) in [(&top, 0o700), (&state, 0o2700)] {
        clear(staged)?;
        host_files::dir(staged, mode).map_err(|e| BackupError::file(staged, e))?;
    }
    let database = state.join(DATABASE);
    unpack_database(from, &database)?;
    store::verify(&database)?;
    let seen = |path: &Path| fs::metadata(path).map_err(|e| BackupError::file(path, e));
    let above = seen(root.path())?;
    let owners = Owners {
        host: rustix::process::geteuid().as_raw(),
        shared: gid,
        state: seen(&root.state())?.gid(),
        boxes: store::box_users(&database)?,
        settings: (above.uid(), above.gid()),
    };
    unpack(from, &top, &state, &owners)?;
    // The folder moves to `replaced-<time>`, and a mounted file system would move with it.
    for volume in volumes(root) {
        volume.close().map_err(|e| BackupError::file(&volume.dir, e))?;
    }
    let stamp = stamp(now);
    store::begin_restore(&root.database(), from)?;
    let moves = SETTINGS.map(|name| (top.join(name), root.path(), name)).into_iter();
    let state_root = root.state();
    // The archive has no image files: it has the files that were in them.
    let mut in_state = KEPT.into_iter().chain([VOLUMES]).collect::<Vec<_>>();
    // An archive without keys leaves the links of this install as they are.
    if state.join("state").join(CHANNELS).exists() {
        in_state.push(CHANNELS);
    }
    let in_state =
        in_state.into_iter().map(|name| (state.join("state").join(name), state_root.as_path(), name));
    for (staged, place, name) in moves.chain(in_state) {
        exchange(&staged, place, name, &stamp)?;
    }
    let restored = store::restore(&root.database(), &database, Transcripts::MatchCopy, &stamp)?;
    for staged in [&top, &state] {
        clear(staged)?;
    }
    Ok((contents, restored))
}

/// Unpacks the database alone, because it says which users the other files may belong to.
fn unpack_database(from: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = |e: io::Error| BackupError::file(from, e);
    let mut archive = tar::Archive::new(File::open(from).map_err(failed)?);
    for entry in archive.entries_with_seek().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if entry.path().map_err(failed)?.as_ref() == Path::new(DATABASE) {
            let parent = to.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(parent).map_err(|e| BackupError::file(parent, e))?;
            entry.set_mask(0o7077);
            entry.unpack(to).map_err(failed)?;
            return Ok(());
        }
    }
    Err(BackupError::archive(from, "it has no database"))
}

fn unpack(from: &Path, top: &Path, state: &Path, owners: &Owners) -> Result<(), BackupError> {
    let failed = |e: io::Error| BackupError::file(from, e);
    let file = File::open(from).map_err(failed)?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    archive.set_preserve_permissions(true);
    let mut folders = Vec::new();
    for entry in archive.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let inside = entry.path().map_err(failed)?.into_owned();
        if [MANIFEST, DATABASE].iter().any(|done| inside == Path::new(done)) {
            continue;
        }
        let place = if inside.starts_with("state") { state } else { top };
        let parent = place.join(inside.parent().unwrap_or(Path::new("")));
        match entry.header().entry_type() {
            // Folders are restored last, because one without write permission could not be filled.
            EntryType::Directory => {
                folders.push((entry, inside, place));
                continue;
            }
            EntryType::Link => {
                fs::create_dir_all(&parent)
                    .and_then(|()| link(&entry, &inside, place))
                    .map_err(|e| BackupError::file(&parent, e))?;
            }
            _ => {
                fs::create_dir_all(&parent).map_err(|e| BackupError::file(&parent, e))?;
                put(entry, &inside, place, owners).map_err(failed)?;
            }
        }
    }
    for (folder, inside, place) in folders.into_iter().rev() {
        put(folder, &inside, place, owners).map_err(failed)?;
    }
    Ok(())
}

/// Restores one entry with the rights and the owner that it may have. Only a folder keeps a setgid bit.
fn put(mut entry: Entry<'_, impl Read>, inside: &Path, place: &Path, owners: &Owners) -> io::Result<()> {
    let uid = entry.header().uid()?;
    let folder = entry.header().entry_type() == EntryType::Directory;
    entry.set_mask(if folder { 0o5000 } else { 0o7000 });
    entry.unpack_in(place)?;
    // Only root gives files away.
    if owners.host == 0 {
        let (uid, gid) = owners.of(inside, uid);
        lchown(place.join(inside), Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Gives a file that this restore wrote a second name. [`read`] has checked that both lie in one tree.
fn link(entry: &Entry<'_, impl Read>, inside: &Path, place: &Path) -> io::Result<()> {
    let target = place.join(entry.link_name()?.unwrap_or_default());
    if !fs::symlink_metadata(&target)?.is_file() {
        return Err(io::Error::other("a second name of something that is no file"));
    }
    fs::hard_link(target, place.join(inside))
}

/// Moves what is there to `replaced-<time>`, and the staged file or folder to its place.
fn exchange(staged: &Path, place: &Path, name: &str, stamp: &str) -> Result<(), BackupError> {
    let present = place.join(name);
    if present.symlink_metadata().is_ok() {
        let replaced = place.join(format!("replaced-{stamp}"));
        fs::create_dir_all(&replaced)
            .and_then(|()| fs::rename(&present, replaced.join(name)))
            .map_err(|e| BackupError::file(&present, e))?;
    }
    if staged.exists() {
        fs::rename(staged, &present).map_err(|e| BackupError::file(&present, e))?;
    }
    Ok(())
}

fn clear(dir: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(BackupError::file(dir, e)),
        _ => Ok(()),
    }
}
