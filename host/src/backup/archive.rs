//! Writes and restores one file that holds an install: settings, groups, the database, and what agents keep.
//!
//! The writer adds the files before the database, so that a transcript never has later messages than the database.
//! Otherwise the runner would ignore the next messages, because their numbers are already in its transcript. A
//! transcript with fewer messages only misses some history.
//!
//! The last entry lists every file with its digest. An archive without this entry is incomplete.

#![allow(
    clippy::disallowed_methods,
    reason = "archives and what a restore puts in its place; an agent's trees are walked by `tree`"
)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
#[cfg(any(test, fuzzing))]
use std::path::Component;
use std::path::{Path, PathBuf};

use ipc_schema::refusal::quote;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::entry_names::Names;
use super::tree::{self, Found, LeftOut, Tree, What};
use super::{BackupError, stamp};
use crate::config::Root;
use crate::domain::{GroupName, WallMs};
use crate::host_files::{self, Digesting, hex};
use crate::store::{self, Restored, Transcripts};
use crate::volumes::Volume;

/// The name of the list at the end.
const MANIFEST: &str = "manifest.json";
/// The database's name in the archive.
const DATABASE: &str = "state/lazaret.db";
/// The folders of `state/` that go into an archive: what agents keep, and files that wait to be sent. The host can make
/// letters, copies of the runner and user lists again. The install's id stays out, so that two installs from one
/// archive never adopt each other's boxes. Agents fill the last folders, so if there is too much, these folders are
/// incomplete.
const KEPT: [&str; 5] = ["inbox", "spool", "sessions", "global", "workspaces"];
/// The folder of channels' own files. An archive has the keys of linked accounts only if it is asked for them.
const CHANNELS: &str = "channels";
/// The folder of groups' image files. An archive has the files that are in the images.
const VOLUMES: &str = "volumes";
/// The folders in which the images are mounted, each under its group's name.
const OF_GROUPS: [&str; 2] = ["state/sessions", "state/workspaces"];
/// The settings, and groups' settings and personalities.
const SETTINGS: [&str; 2] = ["lazaret.toml", "groups"];

/// Bytes that the list of files may take: enough for a million names of usual length. Further files are left out.
const LIST: usize = 256 << 20;
/// Bytes that the rest of the manifest may take.
const BESIDE_LIST: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    v: u32,
    /// When the archive was written.
    pub at: String,
    pub schema: i64,
    /// Rows of all tables.
    pub rows: u64,
    /// The first thousand entries that are not in the archive, each with the reason.
    pub left_out: Vec<String>,
    /// How many more entries are not in it.
    #[serde(default)]
    pub left_out_more: u64,
    /// Digest of each file.
    files: BTreeMap<String, String>,
}

impl Contents {
    pub fn files(&self) -> usize {
        self.files.len()
    }
}

/// An archive that was written and read again.
#[derive(Debug)]
pub struct Archived {
    pub path: PathBuf,
    pub bytes: u64,
    pub contents: Contents,
}

/// What becomes of the keys of linked accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    LeaveOut,
    TakeAlong,
}

/// Writes an install to `to`, while its host may be running, and reads it again.
///
/// # Errors
/// The file exists already, the disk fails, or the database is damaged.
pub fn write(root: &Root, to: &Path, links: Links, now: WallMs) -> Result<Archived, BackupError> {
    if to.exists() {
        return Err(BackupError::file(to, "it exists already; a copy overwrites nothing"));
    }
    let part = host_files::beside(to, &format!(".{}.part", std::process::id()));
    let copy = host_files::beside(to, &format!(".db.{}.part", std::process::id()));
    let written = written(root, &part, &copy, links, now).and_then(|contents| {
        host_files::sync(&part).map_err(|e| BackupError::file(&part, e))?;
        let read = read(&part)?;
        if read != contents {
            return Err(BackupError::archive(&part, "it does not contain what was written"));
        }
        fs::rename(&part, to)
            .and_then(|()| host_files::sync_dir(to.parent().unwrap_or(Path::new("."))))
            .map_err(|e| BackupError::file(to, e))?;
        let bytes = fs::metadata(to).map_or(0, |m| m.len());
        Ok(Archived { path: to.to_owned(), bytes, contents })
    });
    for left in [&copy, &part] {
        let _ = host_files::remove(left);
    }
    written
}

fn written(
    root: &Root,
    part: &Path,
    copy: &Path,
    links: Links,
    now: WallMs,
) -> Result<Contents, BackupError> {
    let failed = |e: io::Error| BackupError::file(part, e);
    for left in [copy, part] {
        host_files::remove(left).map_err(|e| BackupError::file(left, e))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part).map_err(failed)?;
    let mut tar = Tar {
        builder: Builder::new(BufWriter::new(file)),
        files: BTreeMap::new(),
        listed: 0,
        names: Names::default(),
        left_out: LeftOut::default(),
        secrets: secrets(root),
    };
    for name in SETTINGS {
        tar.add(&root.path().join(name), Path::new(name)).map_err(failed)?;
    }
    for volume in volumes(root) {
        volume.open().map_err(|e| BackupError::file(&volume.dir, e))?;
    }
    for name in KEPT {
        tar.add(&root.state().join(name), &Path::new("state").join(name)).map_err(failed)?;
    }
    for (keys, name) in keys(root) {
        if links == Links::LeaveOut {
            tar.left_out.note(&name, "the keys of a linked account; --links takes them along");
            continue;
        }
        let (folder, named) = (keys.parent().unwrap_or(&keys), name.parent().unwrap_or(&name));
        tar.folder(folder, named).map_err(failed)?;
        copy_keys(&keys, copy).map_err(|e| BackupError::file(&keys, e))?;
        tar.add(copy, &name).map_err(failed)?;
        host_files::remove(copy).map_err(|e| BackupError::file(copy, e))?;
    }
    let copied = store::back_up(&root.database(), copy)?;
    // The archive must contain the database, however long the list of files is.
    tar.listed = 0;
    tar.add(copy, Path::new(DATABASE)).map_err(failed)?;
    let contents = Contents {
        v: 1,
        at: now.rfc3339(),
        schema: copied.schema,
        rows: copied.rows,
        left_out: tar.left_out.named,
        left_out_more: tar.left_out.more,
        files: tar.files,
    };
    let text = serde_json::to_vec_pretty(&contents).map_err(|e| BackupError::file(part, e))?;
    let mut header = Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    // Other tools refuse a header without an owner.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(now.0 / 1000).unwrap_or(0));
    header.set_entry_type(EntryType::Regular);
    tar.builder.append_data(&mut header, MANIFEST, text.as_slice()).map_err(failed)?;
    tar.builder.into_inner().and_then(|mut file| file.flush()).map_err(failed)?;
    Ok(contents)
}

/// Lists the groups' file systems, by the names of their image files.
fn volumes(root: &Root) -> Vec<Volume> {
    let names = host_files::inside(&root.volumes());
    let mut groups: Vec<GroupName> =
        names.iter().filter_map(|path| path.file_name()?.to_str()?.split('.').next()?.parse().ok()).collect();
    groups.sort();
    groups.dedup();
    groups.iter().flat_map(|group| root.volumes_of(group)).map(Volume::from).collect()
}

/// Lists the databases of keys that channels have, with their names in the archive.
fn keys(root: &Root) -> Vec<(PathBuf, PathBuf)> {
    let folders = host_files::inside(&root.state().join(CHANNELS));
    let mut found: Vec<PathBuf> = folders.iter().flat_map(|folder| host_files::inside(folder)).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "db"));
    found.sort();
    let named = |path: PathBuf| {
        let inside = path.strip_prefix(root.state()).ok()?;
        let name = Path::new("state").join(inside);
        Some((path, name))
    };
    found.into_iter().filter_map(named).collect()
}

/// Copies a database that a host may be writing. The copy has the owner of the original, and nobody else can open it.
fn copy_keys(keys: &Path, copy: &Path) -> io::Result<()> {
    let to = copy.to_str().ok_or_else(|| io::Error::other("the path is no UTF-8"))?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(copy)?;
    let database = rusqlite::Connection::open_with_flags(keys, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
    let copied = database.and_then(|database| database.execute("VACUUM INTO ?1", [to]));
    copied.map_err(io::Error::other)?;
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(keys)?;
        chown(copy, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Lists the files of keys and tokens that the settings name.
fn secrets(root: &Root) -> Vec<PathBuf> {
    fn named(value: &toml::Value, key: &str, found: &mut Vec<String>) {
        match value {
            toml::Value::Table(table) => table.iter().for_each(|(k, v)| named(v, k, found)),
            toml::Value::String(file) if key.ends_with("_file") => found.push(file.clone()),
            _ => {}
        }
    }
    let text = fs::read_to_string(root.install_file()).unwrap_or_default();
    let mut found = Vec::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        named(&toml::Value::Table(table), "", &mut found);
    }
    found.into_iter().map(|file| root.path().join(file)).collect()
}

struct Tar<W: Write> {
    builder: Builder<W>,
    files: BTreeMap<String, String>,
    /// Bytes of the manifest so far.
    listed: usize,
    names: Names,
    left_out: LeftOut,
    secrets: Vec<PathBuf>,
}

impl<W: Write> Tar<W> {
    /// Adds a file or a tree under a name. Skips a missing one.
    fn add(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let Ok(seen) = fs::symlink_metadata(path) else { return Ok(()) };
        if seen.is_dir() {
            self.folder(path, name)?;
            let mut tree = Tree::open(path, name)?;
            while let Some(found) = tree.next(&mut self.left_out) {
                self.one(found, path, name)?;
            }
            // The walk does not enter other file systems, so the groups' own ones are added as trees. The host does not
            // control what is mounted further down, and an agent can change the path to it.
            let of_groups = OF_GROUPS.iter().any(|own| name == Path::new(own));
            for mounted in tree.mounted {
                if of_groups {
                    self.add(&path.join(&mounted), &name.join(&mounted))?;
                } else {
                    self.left_out.note(&name.join(&mounted), "another file system");
                }
            }
            return Ok(());
        }
        let (Some(dir), Some(file)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let found = tree::one(dir, file)?;
        self.one(found, path, name)
    }

    /// Adds a folder without what is in it.
    fn folder(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let seen = fs::symlink_metadata(path)?;
        let found = Found {
            path: PathBuf::new(),
            what: What::Folder,
            mode: seen.mode() & 0o7777,
            uid: seen.uid(),
            gid: seen.gid(),
            mtime: u64::try_from(seen.mtime()).unwrap_or(0),
        };
        self.one(found, path, name)
    }

    fn one(&mut self, found: Found, under: &Path, name: &Path) -> io::Result<()> {
        let (inside, path) = (joined(name, &found.path), joined(under, &found.path));
        if self.secrets.contains(&path) {
            self.left_out.note(&inside, "a secret");
            return Ok(());
        }
        // A tree can change during the walk, and some file systems then list a name twice.
        if let Err(why) = self.names.take(&inside, matches!(found.what, What::Folder)) {
            self.left_out.note(&inside, why);
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_mode(found.mode);
        header.set_uid(found.uid.into());
        header.set_gid(found.gid.into());
        header.set_mtime(found.mtime);
        header.set_size(0);
        match found.what {
            What::Folder => {
                header.set_entry_type(EntryType::Directory);
                self.builder.append_data(&mut header, inside, io::empty())
            }
            What::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                self.builder.append_link(&mut header, inside, target)
            }
            What::File { file, bytes } => {
                let listed = inside.to_string_lossy().into_owned();
                // JSON needs at most six bytes for a byte of a name, and 80 for the digest and the quotes around it.
                let more = listed.len() * if listed.contains(|c: char| c.is_control()) { 6 } else { 2 } + 80;
                if self.listed + more > LIST {
                    self.left_out.note(&inside, "there are more files than the list of the archive can hold");
                    return Ok(());
                }
                self.listed += more;
                header.set_entry_type(EntryType::Regular);
                header.set_size(bytes);
                let mut exact = Exact { file: BufReader::new(file), left: bytes, digest: Sha256::new() };
                self.builder.append_data(&mut header, &inside, &mut exact)?;
                self.files.insert(listed, hex(exact.digest));
                Ok(())
            }
        }
    }
}

/// Joins like `join`, which would append a slash for an empty path and so turn a file into a folder.
fn joined(base: &Path, more: &Path) -> PathBuf {
    if more.as_os_str().is_empty() { base.to_owned() } else { base.join(more) }
}

/// Reads exactly as many bytes as the header says, although the file may change meanwhile. It ignores additional bytes
/// and replaces missing ones with zeros.
struct Exact {
    file: BufReader<File>,
    left: u64,
    digest: Sha256,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most) else { return Ok(0) };
        let read = match self.file.read(buffer)? {
            0 => {
                buffer.fill(0);
                most
            }
            read => read,
        };
        self.digest.update(buffer.get(..read).unwrap_or_default());
        self.left -= read as u64;
        Ok(read)
    }
}

/// Returns whether a file is a tar archive and not a database.
pub fn is_archive(path: &Path) -> bool {
    let mut header = [0; 262];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.get(257..262) == Some(b"ustar".as_slice())
}

/// Reads a whole archive and compares every file with the list at its end.
fn read(path: &Path) -> Result<Contents, BackupError> {
    let file = File::open(path).map_err(|e| BackupError::file(path, e))?;
    read_from(path, BufReader::new(file))
}

/// Entry of the fuzz target: an accepted archive lists only files of an install.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    if let Ok(contents) = read_from(Path::new("x.tar"), data) {
        let plain =
            |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
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
            // An agent may make links inside a folder. A link in place of the folder itself would redirect everything
            // in it.
            EntryType::Symlink if !is_place(&name) => {}
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

fn belongs(name: &str) -> bool {
    let kept = |rest: &str, kept: &str| rest == kept || rest.starts_with(&format!("{kept}/"));
    let in_state = |rest: &str| KEPT.iter().chain([&CHANNELS]).any(|name| kept(rest, name));
    name == MANIFEST
        || name == DATABASE
        || name == "lazaret.toml"
        || name == "groups"
        || name.starts_with("groups/")
        || name.strip_prefix("state/").is_some_and(|rest| in_state(rest.trim_end_matches('/')))
}

/// Returns whether a name is a file or folder that a restore replaces, and not an entry inside one.
fn is_place(name: &str) -> bool {
    let name = name.trim_end_matches('/');
    let kept = |rest: &str| KEPT.contains(&rest) || rest == CHANNELS;
    SETTINGS.contains(&name)
        || name == DATABASE
        || name == MANIFEST
        || name.strip_prefix("state/").is_some_and(kept)
}

/// Restores an install from an archive. It moves what was there to `replaced-<time>` in the same folder. The caller
/// holds the host's lock.
///
/// # Errors
/// The archive is damaged, and nothing was changed; or the disk failed, and the restore must be run again.
pub fn restore(root: &Root, from: &Path, now: WallMs) -> Result<(Contents, Restored), BackupError> {
    let contents = read(from)?;
    // `state/` can be another file system, and a rename cannot cross to it: so there are two staging folders.
    let (top, state) = (root.path().join(".restored"), root.state().join(".restored"));
    for staged in [&top, &state] {
        clear(staged)?;
        fs::create_dir_all(staged).map_err(|e| BackupError::file(staged, e))?;
    }
    unpack(from, &top, &state)?;
    let database = state.join(DATABASE);
    store::verify(&database)?;
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

fn unpack(from: &Path, top: &Path, state: &Path) -> Result<(), BackupError> {
    let failed = |e: io::Error| BackupError::file(from, e);
    let file = File::open(from).map_err(failed)?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    archive.set_preserve_permissions(true);
    // The archive restores owners by number and not by name: the database gives each group its number on every machine.
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    let mut folders = Vec::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if entry.path().map_err(failed)?.as_ref() == Path::new(MANIFEST) {
            continue;
        }
        let below_state = entry.path().map_err(failed)?.starts_with("state");
        let place = if below_state { state } else { top };
        if entry.header().entry_type() == EntryType::Directory {
            // Folders are restored last, because one without write permission could not be filled.
            folders.push((entry, place));
        } else {
            let inside = entry.path().map_err(failed)?.into_owned();
            let parent = place.join(inside.parent().unwrap_or(Path::new("")));
            fs::create_dir_all(&parent).map_err(|e| BackupError::file(&parent, e))?;
            entry.unpack_in(place).map_err(failed)?;
        }
    }
    for (mut folder, place) in folders.into_iter().rev() {
        folder.unpack_in(place).map_err(failed)?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const NOW: WallMs = WallMs(1_795_000_000_000);

    fn write_file(root: &Root, name: &str, text: &str) {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn install() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(&dir.path().join("a")).unwrap();
        write_file(&root, "lazaret.toml", "[channels.telegram]\ntoken_file = \"groups/token\"\n");
        write_file(&root, "groups/main/CLAUDE.md", "You are Laz.");
        write_file(&root, "groups/token", "4242:secret");
        write_file(&root, "state/sessions/main/conversation-1.jsonl", "{}\n");
        write_file(&root, "state/letters/main/x/to-agent/0000000001-begin.json", "{}");
        let long = format!("state/workspaces/main/{}/{}", "d".repeat(150), "f".repeat(150));
        write_file(&root, &long, "a name that is too long for an old header");
        Store::open(&root.database()).unwrap().close().await;
        (dir, root)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn keys_of_linked_accounts_are_in_an_archive_only_if_it_is_asked_for_them() {
        let (dir, root) = install().await;
        let folder = root.state().join("channels/chat");
        host_files::dir(&folder, 0o700).unwrap();
        let keys = folder.join("device.db");
        let database = rusqlite::Connection::open(&keys).unwrap();
        // The last change is in the log beside the database, as under a host that runs.
        let made = "PRAGMA journal_mode = WAL; CREATE TABLE device (x); INSERT INTO device VALUES (42)";
        database.execute_batch(made).unwrap();
        write_file(&root, "state/channels/chat/lock", "");

        let (without, with) = (dir.path().join("without.tar"), dir.path().join("with.tar"));
        let archived = write(&root, &without, Links::LeaveOut, NOW).unwrap().contents;
        let named = "state/channels/chat/device.db";
        assert!(archived.left_out.iter().any(|left| left.contains(named)), "{:?}", archived.left_out);
        assert!(!archived.files.contains_key(named));
        let archived = write(&root, &with, Links::TakeAlong, NOW).unwrap().contents;
        assert!(
            archived.files.contains_key(named) && !archived.left_out.iter().any(|left| left.contains(named))
        );
        assert!(!archived.files.contains_key("state/channels/chat/lock"));

        drop(database);
        restore(&root, &without, NOW).unwrap();
        assert!(keys.exists(), "an archive without keys leaves the link as it is");
        fs::remove_dir_all(&folder).unwrap();
        restore(&root, &with, WallMs(NOW.0 + 1_000)).unwrap();
        assert_eq!((mode(&folder), mode(&keys)), (0o700, 0o600));
        let database = rusqlite::Connection::open(&keys).unwrap();
        assert_eq!(database.query_row("SELECT x FROM device", [], |row| row.get(0)), Ok(42));
    }

    #[tokio::test]
    async fn an_archive_holds_an_install_without_its_secrets_and_its_transport() {
        let (dir, root) = install().await;
        let tar = dir.path().join("a.tar");
        let archived = write(&root, &tar, Links::LeaveOut, NOW).unwrap();
        assert_eq!(archived.contents.left_out, [r#""groups/token" (a secret)"#]);
        assert!(is_archive(&tar) && !is_archive(&root.database()));
        let there = Root::new(&dir.path().join("b")).unwrap();
        fs::create_dir_all(there.state()).unwrap();
        let (contents, restored) = restore(&there, &tar, NOW).unwrap();
        assert_eq!((contents.files(), restored.replaced), (5, None));
        for name in ["groups/main/CLAUDE.md", "state/sessions/main/conversation-1.jsonl", "state/lazaret.db"]
        {
            assert!(there.path().join(name).exists(), "{name}");
        }
        for name in ["groups/token", "state/letters", ".restored", "state/.restored", "manifest.json"] {
            assert!(!there.path().join(name).exists(), "{name}");
        }
        drop(Store::open(&there.database()).unwrap());
    }

    #[tokio::test]
    async fn what_was_there_is_kept_beside() {
        let (dir, root) = install().await;
        let tar = dir.path().join("a.tar");
        write(&root, &tar, Links::LeaveOut, NOW).unwrap();
        write_file(&root, "groups/main/CLAUDE.md", "You are somebody else.");
        write_file(&root, "state/inbox/main/later.jpg", "came after the copy");
        restore(&root, &tar, NOW).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("groups/main/CLAUDE.md"), "You are Laz.");
        let stamp = stamp(NOW);
        assert_eq!(read(&format!("replaced-{stamp}/groups/main/CLAUDE.md")), "You are somebody else.");
        assert_eq!(read(&format!("state/replaced-{stamp}/inbox/main/later.jpg")), "came after the copy");
        assert!(root.state().join(format!("lazaret.db.replaced-{stamp}")).exists());
    }

    #[tokio::test]
    async fn an_archive_that_was_changed_or_cut_replaces_nothing() {
        let (dir, root) = install().await;
        let tar = dir.path().join("a.tar");
        write(&root, &tar, Links::LeaveOut, NOW).unwrap();
        let whole = fs::read(&tar).unwrap();
        let at = whole.windows(12).position(|w| w == b"You are Laz.").unwrap();
        let mut changed = whole.clone();
        changed[at] = b'Y' + 1;
        let cut = &whole[..whole.len() / 2];
        for (bytes, why) in [(changed.as_slice(), "groups/main/CLAUDE.md"), (cut, "")] {
            fs::write(&tar, bytes).unwrap();
            let error = restore(&root, &tar, NOW).unwrap_err();
            assert!(error.code() == "backup.archive" && error.to_string().contains(why), "{error}");
            assert!(root.path().join("groups/token").exists());
            drop(Store::open(&root.database()).unwrap());
        }
    }

    /// Builds a whole archive with additional entries, as somebody could by hand: links first, then files.
    fn planted(from: &[u8], links: &[(&str, &Path)], files: &[&str]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for entry in tar::Archive::new(from).entries().unwrap() {
            let mut entry = entry.unwrap();
            let (mut header, path) = (entry.header().clone(), entry.path().unwrap().into_owned());
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if path == Path::new(MANIFEST) {
                let plain = |kind| {
                    let mut header = Header::new_gnu();
                    header.set_entry_type(kind);
                    header.set_mode(0o644);
                    header.set_size(0);
                    header.set_uid(rustix::process::getuid().as_raw().into());
                    header.set_gid(rustix::process::getgid().as_raw().into());
                    header.set_mtime(0);
                    header
                };
                for (name, target) in links {
                    builder.append_link(&mut plain(EntryType::Symlink), name, target).unwrap();
                }
                let mut list: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                for name in files {
                    builder.append_data(&mut plain(EntryType::Regular), name, io::empty()).unwrap();
                    list["files"][name] = hex(Sha256::new()).into();
                }
                bytes = serde_json::to_vec(&list).unwrap();
                header.set_size(bytes.len() as u64);
            }
            builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[tokio::test]
    async fn what_an_archive_planted_carries_nothing_elsewhere() {
        let (dir, root) = install().await;
        let tar = dir.path().join("a.tar");
        write(&root, &tar, Links::LeaveOut, NOW).unwrap();
        let whole = fs::read(&tar).unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let sessions = Path::new("../../sessions");
        let (a, b) = ("state/workspaces/main/a", "state/workspaces/main/b");
        type Planted<'a> = (&'a [(&'a str, &'a Path)], &'a [&'a str], &'a str);
        let cases: [Planted<'_>; 5] = [
            (&[(a, &outside)], &["state/workspaces/main/a/newdir/x"], "below a link"),
            (&[(b, sessions)], &["state/workspaces/main/b/other/planted.jsonl"], "below a link"),
            (&[(a, &outside), (a, sessions)], &[], "comes twice"),
            (&[(a, &outside)], &[a], "comes twice"),
            (&[("state/global", &outside)], &[], "is a Symlink"),
        ];
        for (links, files, why) in cases {
            fs::write(&tar, planted(&whole, links, files)).unwrap();
            let error = restore(&root, &tar, NOW).unwrap_err();
            assert!(error.code() == "backup.archive" && error.to_string().contains(why), "{error}");
            assert!(error.to_string().contains("use another archive"), "{error}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
            assert!(!root.state().join("sessions/other").exists());
        }
        // An agent's own link is restored as it is, and nobody follows it.
        fs::write(&tar, planted(&whole, &[(a, &outside)], &["state/workspaces/main/ab"])).unwrap();
        restore(&root, &tar, NOW).unwrap();
        assert!(root.state().join("workspaces/main/a").is_symlink());
    }
}
