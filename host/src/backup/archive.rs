//! Writes one file that holds an install: settings, groups, the database, and what agents keep.
//!
//! The writer adds the files before the database, so that a transcript never has later messages than the database.
//! Otherwise the runner would ignore the next messages, because their numbers are already in its transcript. A
//! transcript with fewer messages only misses some history.
//!
//! The last entry lists every file with its digest. An archive without this entry is incomplete.
//!
//! Agents decide what lies in their trees. So each group's folder is a tree of its own with a share of the archive
//! (`policy/archive_share.rs`), a file with several names is written once, and the mode loses setuid, setgid and the
//! sticky bit. Extended attributes, such as file capabilities, are not in an archive at all.

#![allow(
    clippy::disallowed_methods,
    reason = "archives and the host's own files; an agent's trees are walked by `tree`"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::BackupError;
use super::entry_names::Names;
use super::layout::{
    CHANNELS, Contents, DATABASE, KEPT, LIST, MANIFEST, OF_GROUPS, SETTINGS, joined, tree_of, volumes,
};
use super::restore::read;
use super::tree::{self, Found, LeftOut, SharedInode, Tree, What};
use crate::config::{Install, Root};
use crate::domain::{GroupName, WallMs};
use crate::host_files::{self, hex};
use crate::policy::archive_share::{ArchiveShare, EntryCost, ListRoom, TreeLimit};
use crate::policy::disk_overrun::names_limit;
use crate::store;

/// The bits of a mode that an archive keeps. A folder's setgid bit gives its files to the shared group.
const FILE_MODE: u32 = 0o777;
const FOLDER_MODE: u32 = 0o2777;
/// The size of an archive's blocks.
const BLOCK: u64 = 512;
/// A header has room for this many bytes of a path. A longer one takes an entry of its own.
const SHORT: usize = 100;

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
pub fn write(install: &Install, to: &Path, links: Links, now: WallMs) -> Result<Archived, BackupError> {
    if to.exists() {
        return Err(BackupError::file(to, "it exists already; a copy overwrites nothing"));
    }
    let part = host_files::beside(to, &format!(".{}.part", std::process::id()));
    let copy = host_files::beside(to, &format!(".db.{}.part", std::process::id()));
    let written = written(install, &part, &copy, links, now).and_then(|contents| {
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
    install: &Install,
    part: &Path,
    copy: &Path,
    links: Links,
    now: WallMs,
) -> Result<Contents, BackupError> {
    let root = &install.root;
    let failed = |e: io::Error| BackupError::file(part, e);
    for left in [copy, part] {
        host_files::remove(left).map_err(|e| BackupError::file(left, e))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part).map_err(failed)?;
    let mut tar = Tar {
        builder: Builder::new(BufWriter::new(file)),
        install,
        files: BTreeMap::new(),
        list: ListRoom::new(LIST, agents_trees(root)),
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
        let (path, named) = (root.state().join(name), Path::new("state").join(name));
        let added =
            if OF_GROUPS.contains(&name) { tar.of_groups(&path, &named) } else { tar.add(&path, &named) };
        added.map_err(failed)?;
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
    tar.list = ListRoom::new(LIST, 1);
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

/// Counts the trees that agents write.
fn agents_trees(root: &Root) -> usize {
    let folders = |name| host_files::inside(&root.state().join(name)).len();
    folders("sessions") + folders("workspaces") + 1
}

/// Returns the limit of a tree that an agent writes. Settings with mistakes have their defaults.
fn limit_of(install: &Install, name: &Path) -> Option<TreeLimit> {
    // The name of the tree itself is not in it.
    let tree = tree_of(&name.join("x"))?;
    let group = tree.group.and_then(|name| name.parse().ok()).unwrap_or_else(GroupName::main);
    let limits = install.group(&group).unwrap_or_else(|_| install.default_group(group)).limits;
    let (bytes, setting) = match tree.kind.as_str() {
        "workspaces" | "global" => (limits.workspace(), "limits.workspace_mib"),
        "sessions" => (limits.session(), "limits.session_mib"),
        _ => return None,
    };
    let all = host_files::room(&install.root.state()).map_or(u64::MAX, |room| room.all_names);
    Some(TreeLimit { bytes, names: names_limit(all), setting })
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

struct Tar<'a, W: Write> {
    builder: Builder<W>,
    install: &'a Install,
    files: BTreeMap<String, String>,
    list: ListRoom,
    names: Names,
    left_out: LeftOut,
    secrets: Vec<PathBuf>,
}

/// What the archive has of one tree.
struct Part {
    share: ArchiveShare,
    /// Each file with several names: the first one in the archive, and the digest.
    shared: HashMap<SharedInode, (String, String)>,
}

impl<W: Write> Tar<'_, W> {
    /// Adds the folder of each group as a tree of its own. It may be a file system of its own, too.
    fn of_groups(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path).is_err() {
            return Ok(());
        }
        self.folder(path, name)?;
        let mut folders = host_files::inside(path);
        folders.sort();
        for folder in folders {
            let named = name.join(folder.file_name().unwrap_or_default());
            if fs::symlink_metadata(&folder).is_ok_and(|seen| seen.is_dir()) {
                self.add(&folder, &named)?;
            } else {
                self.left_out.note(&named, "not a folder of a group");
            }
        }
        Ok(())
    }

    /// Adds a file or a tree under a name. Skips a missing one.
    fn add(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let Ok(seen) = fs::symlink_metadata(path) else { return Ok(()) };
        if seen.is_dir() {
            self.folder(path, name)?;
            self.left_out.begin_tree();
            let mut part = self.part(limit_of(self.install, name));
            let mut tree = Tree::open(path, name, part.share.names())?;
            while let Some(found) = tree.next(&mut self.left_out) {
                self.one(found, path, name, &mut part)?;
            }
            return Ok(());
        }
        let (Some(dir), Some(file)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let found = tree::one(dir, file)?;
        let mut part = self.part(None);
        self.one(found, path, name, &mut part)
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
        let mut part = self.part(None);
        self.one(found, path, name, &mut part)
    }

    fn part(&self, limit: Option<TreeLimit>) -> Part {
        Part { share: ArchiveShare::new(limit, self.list), shared: HashMap::new() }
    }

    fn one(&mut self, found: Found, under: &Path, name: &Path, part: &mut Part) -> io::Result<()> {
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
        header
            .set_mode(found.mode & if matches!(found.what, What::Folder) { FOLDER_MODE } else { FILE_MODE });
        header.set_uid(found.uid.into());
        header.set_gid(found.gid.into());
        header.set_mtime(found.mtime);
        header.set_size(0);
        let mut cost = EntryCost { bytes: BLOCK + path_bytes(&inside), ..EntryCost::default() };
        match found.what {
            What::Folder => {
                if !self.takes(part, cost, &inside) {
                    return Ok(());
                }
                header.set_entry_type(EntryType::Directory);
                self.builder.append_data(&mut header, inside, io::empty())
            }
            What::Link(target) => {
                cost.bytes += path_bytes(&target);
                if !self.takes(part, cost, &inside) {
                    return Ok(());
                }
                header.set_entry_type(EntryType::Symlink);
                self.builder.append_link(&mut header, inside, target)
            }
            What::File { file, bytes, holes, shared } => {
                let listed = inside.to_string_lossy().into_owned();
                // JSON needs at most six bytes for a byte of a name, and 80 for the digest and the quotes around it.
                cost.listed =
                    listed.len() * if listed.contains(|c: char| c.is_control()) { 6 } else { 2 } + 80;
                // Two names that are no UTF-8 can have one name in the list, so a link to it would be ambiguous.
                let shared = shared.filter(|_| !listed.contains(char::REPLACEMENT_CHARACTER));
                let first = shared.and_then(|inode| part.shared.get(&inode).cloned());
                if let Some((first, digest)) = first {
                    cost.bytes += path_bytes(Path::new(&first));
                    if self.takes(part, cost, &inside) {
                        header.set_entry_type(EntryType::Link);
                        self.builder.append_link(&mut header, &inside, first)?;
                        self.files.insert(listed, digest);
                    }
                    return Ok(());
                }
                cost.bytes += bytes.saturating_sub(holes).next_multiple_of(BLOCK);
                cost.holes = holes;
                if !self.takes(part, cost, &inside) {
                    return Ok(());
                }
                header.set_entry_type(EntryType::Regular);
                header.set_size(bytes);
                let mut exact = Exact { file: BufReader::new(file), left: bytes, digest: Sha256::new() };
                self.builder.append_data(&mut header, &inside, &mut exact)?;
                let digest = hex(exact.digest);
                if let Some(inode) = shared {
                    part.shared.insert(inode, (listed.clone(), digest.clone()));
                }
                self.files.insert(listed, digest);
                Ok(())
            }
        }
    }

    /// Returns whether the entry fits into its tree's share. Notes it as left out if not.
    fn takes(&mut self, part: &mut Part, cost: EntryCost, inside: &Path) -> bool {
        match part.share.take(cost, &mut self.list) {
            Ok(()) => true,
            Err(why) => {
                self.left_out.note(inside, &why);
                false
            }
        }
    }
}

/// The bytes that a path takes beside its header.
fn path_bytes(path: &Path) -> u64 {
    match path.as_os_str().len() {
        ..SHORT => 0,
        long => BLOCK + (long as u64 + 1).next_multiple_of(BLOCK),
    }
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
