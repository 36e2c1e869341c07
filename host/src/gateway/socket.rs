//! Binding a run's socket.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener as StdListener;

use rustix::fs::{AtFlags, Gid, Mode, chmodat, chownat, renameat, unlinkat};
use rustix::io::Errno;
use tokio::net::UnixListener;

use super::GatewayError;

/// The socket's name in its directory, which the box sees as `/run/lazaret`.
pub const SOCKET_NAME: &str = "gateway.sock";

/// The name under which a socket gets its mode and group before anyone can find it.
const DRAFT_NAME: &str = ".gateway.sock";

/// Binds `gateway.sock` in `directory`, with mode 0660 and group `gid`, and replaces the socket of a host that
/// is gone.
///
/// The path of a unix socket may have 107 bytes (unix(7)), which an install's root may use up alone; so the
/// directory is named by its handle, through `/proc/self/fd`. The socket is bound under a draft name, prepared and
/// renamed: a runner that looks finds the old socket or the finished new one, never none and never one that it
/// may not open.
///
/// # Errors
/// When a step fails. `directory` must be the host's own, out of every box's reach for writing: names in it are
/// trusted. Giving the socket to `gid` needs a host that is root or a member of that group.
pub fn bind(directory: impl AsFd, gid: u32) -> Result<UnixListener, GatewayError> {
    let directory = directory.as_fd();
    match unlinkat(directory, DRAFT_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed("removing an old draft", errno)),
    }
    let path = format!("/proc/self/fd/{}/{DRAFT_NAME}", directory.as_raw_fd());
    let listener = StdListener::bind(path).map_err(|source| GatewayError::Socket { step: "bind", source })?;
    chmodat(directory, DRAFT_NAME, Mode::from_raw_mode(0o660), AtFlags::empty())
        .map_err(|errno| failed("setting mode 0660", errno))?;
    chownat(directory, DRAFT_NAME, None, Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("giving it to the group `lazaret`; is the host a member of it?", errno))?;
    renameat(directory, DRAFT_NAME, directory, SOCKET_NAME)
        .map_err(|errno| failed("renaming it into place", errno))?;
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(|source| GatewayError::Socket { step: "handing it to the runtime", source })
}

fn failed(step: &'static str, errno: Errno) -> GatewayError {
    GatewayError::Socket { step, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use tokio::net::UnixStream;

    use super::*;

    fn own_gid() -> u32 {
        rustix::process::getegid().as_raw()
    }

    #[tokio::test]
    async fn a_socket_binds_below_a_path_longer_than_the_kernel_takes() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let listener = bind(std::fs::File::open(&deep).unwrap(), own_gid()).unwrap();

        let handle = std::fs::File::open(&deep).unwrap();
        let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", handle.as_raw_fd());
        let meta = std::fs::metadata(&path).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.mode() & 0o7777, 0o660);
        assert_eq!(meta.gid(), own_gid());
        let (client, served) = tokio::join!(UnixStream::connect(&path), listener.accept());
        client.unwrap();
        served.unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_host_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(root.path()).unwrap();
        drop(bind(&directory, own_gid()).unwrap());
        std::fs::write(root.path().join(DRAFT_NAME), "left by a crash").unwrap();

        let listener = bind(&directory, own_gid()).unwrap();
        let connecting = UnixStream::connect(root.path().join(SOCKET_NAME));
        let (client, served) = tokio::join!(connecting, listener.accept());
        client.unwrap();
        served.unwrap();
        assert!(!root.path().join(DRAFT_NAME).exists());
    }
}
