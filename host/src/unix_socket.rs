//! Unix sockets at paths of any length.
//!
//! A socket's address holds 107 bytes (unix(7)), and the path of an install can be longer. So the host opens the
//! directory and gives the address through its descriptor: `/proc/self/fd/N/name`.

#![allow(clippy::disallowed_methods, reason = "sockets of the host in folders of the host")]

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

fn through_handle(dir: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    let handle = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()));
    Ok((handle, path))
}

/// Binds `dir/name` with this mode and, where one is given, this group. It replaces a socket that an earlier host has
/// left. The caller holds the host's lock, so no other host uses that socket.
///
/// # Errors
/// What bind(2), chown(2) and chmod(2) say.
pub fn bind(dir: &Path, name: &str, mode: u32, gid: Option<u32>) -> io::Result<UnixListener> {
    let (_handle, path) = through_handle(dir, name)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(mode))?;
    chown(&path, None, gid)?;
    Ok(listener)
}

/// Connects to `dir/name`, a socket of the host. What listens there must run as root, as this process's user, or as
/// the user that the folder belongs to: another process would read what a person types.
///
/// # Errors
/// What connect(2) says, or that a stranger listens.
pub async fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let (handle, path) = through_handle(dir, name)?;
    let stream = UnixStream::connect(path).await?;
    let listens = stream.peer_cred()?.uid();
    let trusted = [0, rustix::process::geteuid().as_raw(), handle.metadata()?.uid()];
    if trusted.contains(&listens) {
        return Ok(stream);
    }
    let why = format!(
        "a process of the user {listens} listens at {}/{name}, and that is not the host",
        dir.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deep_root_is_no_obstacle_and_a_dead_hosts_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(150));
        fs::create_dir(&deep).unwrap();
        drop(bind(&deep, "s", 0o600, None).unwrap());
        let _listener = bind(&deep, "s", 0o600, None).unwrap();
        assert_eq!(fs::metadata(deep.join("s")).unwrap().permissions().mode() & 0o777, 0o600);
        connect(&deep, "s").await.unwrap();
    }
}
