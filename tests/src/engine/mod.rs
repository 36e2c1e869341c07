//! An engine stand-in for journeys that need dozens of boxes, each within milliseconds.
//!
//! It speaks the calls of the Docker Engine API that the host makes
//! (<https://docs.docker.com/reference/api/engine/version/v1.41/>), with their answers and their errors, and runs each
//! box's entrypoint in mount, pid, net, ipc and uts namespaces of its own, around a small root: one static busybox,
//! `/proc`, a minimal `/dev`, and the spec's mounts.
//!
//! **It is no sandbox.** It has no seccomp profile and no cgroup: memory, processors and processes are not limited. It
//! claims to have seccomp, because it stands in for an engine that does. Journeys on Docker test the sandbox; journeys
//! on the stand-in test, faster, what the host does with boxes.
//!
//! Its state is in memory: containers end with the stand-in, as they do without live-restore. It is a process of its
//! own (`engine-stand-in`), so that it survives the kill of a host.

mod answer;
mod api;
mod box_output;
mod client;
mod container;
mod containers;
mod dockerd;
mod filesystem;
mod image;
mod init;
mod proxy;
mod query;
mod spawn;
mod spec;
mod stand_in_process;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;

pub use client::{Answered, ask};
pub use dockerd::{Dockerd, unmount_below};
pub use image::NAME as IMAGE;
pub use init::live as live_in_box;
pub use proxy::Proxy;
pub use stand_in_process::StandIn;

use containers::Containers;
use image::Image;

/// The posture lines that its boxes lack. A test's settings accept these gaps.
pub const LACKS: [&str; 7] =
    ["seccomp", "syscalls", "room-at-once", "memory-limit", "swap-limit", "pids-limit", "cpu-limit"];

/// Why the stand-in cannot serve.
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

/// What every container is made from.
#[derive(Debug)]
struct Setup {
    image: Image,
    /// An empty directory: each box mounts its root over it, in a mount namespace of its own.
    root: PathBuf,
}

/// Serves the API at `socket` until `ended` resolves, then ends every box. `state` is a directory of its own.
///
/// # Errors
/// If it is not root, there is no static busybox, or it cannot listen.
pub async fn serve(socket: &Path, state: &Path, ended: impl Future<Output = ()>) -> Result<(), NotServing> {
    if !rustix::process::geteuid().is_root() {
        let why = "run the journeys as root, or those on Docker only";
        return Err(NotServing::new("it makes namespaces and mounts, and is not root", why));
    }
    let shown = |path: &Path| path.display().to_string();
    let root = state.join("root");
    std::fs::create_dir_all(&root).map_err(|e| NotServing::new(shown(&root), e))?;
    let image = Image::make(&state.join("image"))?;
    // A killed stand-in leaves its socket behind.
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
