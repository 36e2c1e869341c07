//! A container engine's double, for journeys that need boxes by the dozen and in milliseconds.
//!
//! It speaks the calls of the Docker Engine API that the host makes
//! (<https://docs.docker.com/reference/api/engine/version/v1.41/>), with their answers and their errors, and runs each
//! box's entrypoint in mount, pid, net, ipc and uts namespaces of its own, around a small root: one static busybox,
//! `/proc`, a minimal `/dev`, and the spec's mounts.
//!
//! **It is no sandbox.** There is no seccomp profile and no cgroup: memory, processors and processes are not limited,
//! nothing is ever killed for its memory, and the kernel keeps the engine's own word for nothing. It says that it has
//! seccomp, because it stands in for an engine that does. What a box must hold against an agent is shown by the
//! journeys on Docker; what the host does with boxes is shown faster here.
//!
//! Everything is in memory: containers end when the stand-in ends, as they do without live-restore. It is a process of
//! its own (`engine-stand-in`), so that it outlives a host that is killed.

mod answer;
mod api;
mod client;
mod container;
mod containers;
mod dockerd;
mod filesystem;
mod image;
mod init;
mod log;
mod process;
mod proxy;
mod query;
mod spawn;
mod spec;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;

pub use client::{Answered, ask};
pub use dockerd::{Dockerd, unmount_below};
pub use image::NAME as IMAGE;
pub use init::live as live_in_box;
pub use process::StandIn;
pub use proxy::Proxy;

use containers::Containers;
use image::Image;

/// What its boxes lack of the posture, by the names that a host finds: an owner who uses it has accepted that.
pub const LACKS: [&str; 7] =
    ["seccomp", "syscalls", "room-at-once", "memory-limit", "swap-limit", "pids-limit", "cpu-limit"];

/// Why the stand-in does not serve.
#[derive(Debug)]
pub struct NotServing {
    what: String,
    why: String,
}

impl NotServing {
    fn new(what: impl Into<String>, why: impl ToString) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

impl fmt::Display for NotServing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the engine stand-in cannot serve: {}: {}", self.what, self.why)
    }
}

impl std::error::Error for NotServing {}

/// What a box is made with.
#[derive(Debug)]
struct Setup {
    image: Image,
    /// An empty directory: each box mounts its root over it, in a mount namespace of its own.
    root: PathBuf,
}

/// Serves the API at `socket` until `ended` resolves, then ends every box. `state` is a directory of its own.
///
/// # Errors
/// When it is not root, there is no static busybox, or it cannot listen.
pub async fn serve(socket: &Path, state: &Path, ended: impl Future<Output = ()>) -> Result<(), NotServing> {
    if !rustix::process::geteuid().is_root() {
        let why = "run the journeys as root, or those on Docker only";
        return Err(NotServing::new("it makes namespaces and mounts, and is not root", why));
    }
    let shown = |path: &Path| path.display().to_string();
    let root = state.join("root");
    std::fs::create_dir_all(&root).map_err(|e| NotServing::new(shown(&root), e))?;
    let image = Image::make(&state.join("image"))?;
    // Where one stand-in was killed, the next takes its place.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(|e| NotServing::new(shown(socket), e))?;
    let containers = Arc::new(Containers::new(Setup { image, root }));
    tokio::select! {
        () = api::accept(listener, Arc::clone(&containers)) => {}
        () = ended => {}
    }
    containers.end_all().await;
    Ok(())
}
