//! A stand-in for the container engine, for journeys that need dozens of boxes, each within milliseconds.
//!
//! It implements the calls of the Docker Engine API that the host makes
//! (<https://docs.docker.com/reference/api/engine/version/v1.41/>), with their answers and their errors. It runs each
//! box's entrypoint in its own mount, pid, net, ipc and uts namespaces, on a small root filesystem: one static busybox,
//! `/proc`, a minimal `/dev`, and the spec's mounts.
//!
//! **It is no sandbox.** It has no seccomp profile and no cgroup, so memory, processors and processes are not limited.
//! It claims to have seccomp, because the engine that it replaces has it. Journeys on Docker test the sandbox; journeys
//! on the stand-in test, faster, how the host handles boxes.
//!
//! Its state is in memory: the containers end with the stand-in, as in a Docker engine without live-restore. It is a
//! separate process (`engine-stand-in`), so that it survives the kill of a host.

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

/// The posture lines that the stand-in's boxes lack. A test's settings accept these gaps.
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

/// The inputs that all containers share.
#[derive(Debug)]
struct Setup {
    image: Image,
    /// An empty directory. Each box mounts its root over it, in its own mount namespace.
    root: PathBuf,
}

/// Serves the API at `socket` until `ended` resolves, then ends every box. No other stand-in may use the directory
/// `state`. Fails if the process is not root, if there is no static busybox, or if it cannot listen.
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
