//! Checks the source of an extra mount on the disk, before each box.
//!
//! The engine later resolves the path itself, and follows links. So the host accepts a path only if nobody but root
//! and the host's user can put a link into it. Each directory above the source must belong to one of them. Others must
//! not have the right to write to it. If they do, it must be sticky and its entry on the path must belong to root or
//! to the host's user, because then others cannot move that entry.

#![allow(clippy::disallowed_methods, reason = "sources of extra mounts, from the root down and by handles")]

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::policy::mounts::{MountError, SECRETS};

const STICKY: u32 = 0o1000;
const WRITE_BY_OTHERS: u32 = 0o022;

/// Resolves a source without following links, and checks each directory on the way.
///
/// # Errors
/// Why the host does not mount it.
pub fn check_source(source: &Path) -> Result<(), MountError> {
    let source_path = || source.to_owned();
    let io = |e: Errno| MountError::Io { source_path: source_path(), why: e.to_string() };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = PathBuf::from("/");
    let mut dir: OwnedFd = fs::open("/", flags, Mode::empty()).map_err(io)?;
    let mut above: Stat = fs::fstat(&dir).map_err(io)?;
    for part in source.components().filter(|part| *part != Component::RootDir) {
        if FileType::from_raw_mode(above.st_mode) != FileType::Directory {
            return Err(MountError::Gone { source_path: source_path() });
        }
        let here = match fs::openat(&dir, part.as_os_str(), flags, Mode::empty()) {
            Ok(here) => here,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(MountError::Gone { source_path: source_path() }),
            Err(e) => return Err(io(e)),
        };
        let stat = fs::fstat(&here).map_err(io)?;
        let from = std::mem::replace(&mut at, PathBuf::new()).join(part);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(MountError::Link { source_path: source_path(), link: from });
        }
        if let Some(why) = exchangeable(&above, &stat) {
            let dir = from.parent().unwrap_or(Path::new("/")).to_owned();
            return Err(MountError::Exchangeable { source_path: source_path(), dir, why });
        }
        (at, dir, above) = (from, here, stat);
    }
    match FileType::from_raw_mode(above.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => holds_no_secret(&dir, source),
        _ => Err(MountError::Kind { source_path: source_path() }),
    }
}

/// A directory that contains `.ssh` is a home directory, whatever its name. This checks only the direct entries.
fn holds_no_secret(dir: &OwnedFd, source: &Path) -> Result<(), MountError> {
    let held = SECRETS.iter().find(|name| fs::statat(dir, **name, AtFlags::SYMLINK_NOFOLLOW).is_ok());
    match held {
        Some(name) => {
            let why = format!("holds {name}, a usual name of secrets");
            Err(MountError::Secret { source_path: source.to_owned(), why })
        }
        None => Ok(()),
    }
}

/// Whether another user may replace `inner`, an entry of `dir`, and why.
fn exchangeable(dir: &Stat, inner: &Stat) -> Option<String> {
    let trusted = |uid: u32| uid == 0 || uid == rustix::process::geteuid().as_raw();
    if !trusted(dir.st_uid) {
        return Some(format!("belongs to user {}", dir.st_uid));
    }
    if dir.st_mode & WRITE_BY_OTHERS == 0 {
        return None;
    }
    let stays = dir.st_mode & STICKY != 0 && trusted(inner.st_uid);
    (!stays).then(|| format!("may be written by others (mode {:o})", dir.st_mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn code(path: &Path) -> &'static str {
        check_source(path).map_or_else(|e| e.code(), |()| "ok")
    }

    fn mode(path: &Path, mode: u32) {
        std_fs::set_permissions(path, std_fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn b2_a_source_is_taken_if_nobody_else_can_exchange_it() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        let photos = root.join("photos");
        std_fs::create_dir_all(photos.join("2024")).unwrap();
        std_fs::write(photos.join("list.txt"), "").unwrap();
        assert_eq!(code(&photos.join("2024")), "ok", "the sticky /tmp above it does not matter");
        assert_eq!(code(&photos.join("list.txt")), "ok");
        assert_eq!(code(&photos.join("2025")), "mount.gone");
        assert_eq!(code(&photos.join("list.txt/x")), "mount.gone");

        symlink("/etc", photos.join("link")).unwrap();
        assert_eq!(code(&photos.join("link")), "mount.link");
        symlink(&photos, root.join("way")).unwrap();
        assert_eq!(code(&root.join("way/2024")), "mount.link", "also in the middle");

        mode(&photos, 0o777);
        assert_eq!(code(&photos.join("2024")), "mount.exchangeable");
        assert_eq!(code(&photos), "ok", "what is in it is the owner's affair");
        mode(&photos, 0o775);
        assert_eq!(code(&photos.join("2024")), "mount.exchangeable");
        mode(&photos, 0o1777);
        assert_eq!(code(&photos.join("2024")), "ok");
    }

    #[test]
    fn what_is_no_file_or_holds_secrets_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("s")).unwrap();
        assert_eq!(code(&root.join("s")), "mount.kind");
        assert_eq!(code(&root), "ok");
        std_fs::create_dir(root.join(".ssh")).unwrap();
        assert_eq!(code(&root), "mount.secret");
        std_fs::remove_dir(root.join(".ssh")).unwrap();
        symlink("/nowhere", root.join(".env")).unwrap();
        assert_eq!(code(&root), "mount.secret", "a link of that name too");
    }
}
