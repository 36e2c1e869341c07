//! The engine that a world's boxes run on.

use std::process::Stdio;
use std::sync::OnceLock;

use tokio::process::Command;

/// The image of one static binary, made once per machine.
const BUSYBOX: &str = "lazaret-journeys-busybox";

/// This machine's engine.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: String,
    image: String,
}

impl Engine {
    /// This machine's Docker engine, with an image made from `busybox`.
    ///
    /// # Panics
    /// When no engine answers, or the image cannot be made.
    pub fn docker() -> Self {
        static READY: OnceLock<()> = OnceLock::new();
        READY.get_or_init(make_busybox_image);
        let socket =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        Self { socket, image: BUSYBOX.to_owned() }
    }

    /// Its address.
    pub fn socket(&self) -> String {
        self.socket.clone()
    }

    /// The image for groups that name none.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The names of an install's boxes, running or not.
    pub async fn boxes(&self, install: &str) -> Vec<String> {
        let filter = format!("label=lazaret.install={install}");
        docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])
            .await
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// Runs the engine's command line, which tests use to look at what the host did through the API.
///
/// # Panics
/// When it fails.
pub async fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).stdin(Stdio::null()).output().await;
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        other => panic!("docker {} failed: {other:?}", args.join(" ")),
    }
}

fn make_busybox_image() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/busybox-image.sh");
    match std::process::Command::new(script).arg(BUSYBOX).output() {
        Ok(output) if output.status.success() => {}
        other => panic!("no busybox image: {other:?}"),
    }
}
