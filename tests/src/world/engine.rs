//! The engine that runs a world's boxes.

use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use hyper::Method;
use tokio::process::Command;

use crate::engine::{self, Answered, Dockerd, StandIn};

/// The image of one static binary. It is made once per machine.
const BUSYBOX: &str = "lazaret-journeys-busybox";

/// The flags that Debian's gVisor needs, as the host's refusal names them. A box reaches its host only through a socket
/// of the host's, so gVisor must allow such sockets.
const GVISOR: [&str; 2] = ["--host-uds=open", "--network=none"];
/// Switches gVisor's use of control groups off, for a machine that lacks one that gVisor needs. Then nothing limits the
/// boxes.
const UNCOUNTED: &str = "--ignore-cgroups";

/// This machine's engine, or an engine of one world: a stand-in or a real one. A clone is the same engine. An engine of
/// one world ends when its last clone is dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: String,
    image: String,
    own: Option<Own>,
}

#[derive(Debug, Clone)]
enum Own {
    StandIn(Arc<StandIn>),
    Docker(Arc<Dockerd>),
}

impl Engine {
    /// Returns this machine's Docker engine, and makes an image from `busybox`.
    pub fn docker() -> Self {
        static READY: OnceLock<()> = OnceLock::new();
        let socket =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        READY.get_or_init(|| make_busybox_image(&socket));
        Self { socket, image: BUSYBOX.to_owned(), own: None }
    }

    /// Starts a Docker engine that only this world uses, so the test may kill it. With `live_restore` its boxes keep
    /// running while it is down.
    pub fn own_docker(live_restore: bool) -> Self {
        let engine = Dockerd::start(live_restore);
        let socket = format!("unix://{}", engine.socket().display());
        make_busybox_image(&socket);
        Self { socket, image: BUSYBOX.to_owned(), own: Some(Own::Docker(Arc::new(engine))) }
    }

    /// Starts a Docker engine that only this world uses. It has gVisor as `runsc`, and as `runsc-uncounted` without
    /// limits.
    pub fn own_docker_with_gvisor() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/runsc.sh");
        let path = match std::process::Command::new(script).output() {
            Ok(output) if output.status.success() => {
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            }
            other => panic!("no gVisor: {other:?}"),
        };
        let uncounted: Vec<&str> = GVISOR.into_iter().chain([UNCOUNTED]).collect();
        let settings = serde_json::json!({ "runtimes": {
            "runsc": { "path": path, "runtimeArgs": GVISOR },
            "runsc-uncounted": { "path": path, "runtimeArgs": uncounted },
        } });
        let engine = Dockerd::configured(false, &settings.to_string());
        let socket = format!("unix://{}", engine.socket().display());
        make_busybox_image(&socket);
        Self { socket, image: BUSYBOX.to_owned(), own: Some(Own::Docker(Arc::new(engine))) }
    }

    /// Returns the Docker engine that only this world uses.
    pub fn dockerd(&self) -> &Dockerd {
        match &self.own {
            Some(Own::Docker(engine)) => engine,
            _ => panic!("only an engine of the test's own may be killed"),
        }
    }

    /// Starts a stand-in: it starts boxes in milliseconds and is no sandbox (see [`crate::engine`]). It needs root and
    /// a static busybox.
    pub async fn stand_in() -> Self {
        let engine = Self::stand_in_away();
        engine.start().await;
        engine
    }

    /// Returns a stand-in that does not run yet.
    pub fn stand_in_away() -> Self {
        let stand_in = StandIn::away();
        let socket = format!("unix://{}", stand_in.socket().display());
        Self { socket, image: engine::IMAGE.to_owned(), own: Some(Own::StandIn(Arc::new(stand_in))) }
    }

    /// Starts the stand-in, and waits until it answers.
    pub async fn start(&self) {
        self.expect_stand_in().start().await;
    }

    /// Removes an install's boxes from this machine's engine. The boxes of a world's own engine end with it.
    pub(super) fn remove_boxes(&self, install: &str) {
        if self.own.is_some() {
            return;
        }
        let docker = |args: &[&str]| {
            let output = std::process::Command::new("docker").args(args).stdin(Stdio::null()).output();
            output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
        };
        let filter = format!("label=lazaret.install={install}");
        let boxes = docker(&["ps", "--all", "--quiet", "--filter", &filter]);
        for id in boxes.lines() {
            docker(&["rm", "--force", "--volumes", id]);
        }
    }

    /// Ends the stand-in and every box.
    pub fn stop(&self) {
        self.expect_stand_in().stop();
    }

    fn expect_stand_in(&self) -> &StandIn {
        match &self.own {
            Some(Own::StandIn(stand_in)) => stand_in,
            _ => panic!("a test may not stop this machine's engine"),
        }
    }

    /// Makes one call to the stand-in's API. `path` includes the query, escaped.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&serde_json::Value>) -> Answered {
        let socket = self.expect_stand_in().socket();
        match engine::ask(&socket, method, path, body).await {
            Ok(answered) => answered,
            Err(e) => panic!("{path} at {}: {e}", socket.display()),
        }
    }

    /// Returns the posture gaps that an owner must accept on this engine, as a list in TOML.
    pub(super) fn accepted(&self) -> Option<String> {
        matches!(&self.own, Some(Own::StandIn(_))).then(|| format!("{:?}", engine::LACKS))
    }

    pub fn socket(&self) -> String {
        self.socket.clone()
    }

    /// Returns the image for groups that name none.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Returns the names of an install's boxes, running or not.
    pub async fn boxes(&self, install: &str) -> Vec<String> {
        if let Some(Own::StandIn(_)) = &self.own {
            return self.boxes_of_stand_in(install).await;
        }
        let filter = format!("label=lazaret.install={install}");
        docker(&["--host", &self.socket, "ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])
            .await
            .lines()
            .map(str::to_owned)
            .collect()
    }

    async fn boxes_of_stand_in(&self, install: &str) -> Vec<String> {
        let filters = format!("%7B%22label%22:%5B%22lazaret.install={install}%22%5D%7D");
        let listed =
            self.ask(Method::GET, &format!("/containers/json?all=1&filters={filters}"), None).await.json();
        let name = |listed: &serde_json::Value| {
            listed["Names"][0].as_str().unwrap_or_default().trim_start_matches('/').to_owned()
        };
        listed.as_array().into_iter().flatten().map(name).collect()
    }
}

/// Runs the engine's command line. Tests use it to check what the host did through the API.
pub async fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).stdin(Stdio::null()).output().await;
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        other => panic!("docker {} failed: {other:?}", args.join(" ")),
    }
}

fn make_busybox_image(socket: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/busybox-image.sh");
    match std::process::Command::new(script).env("DOCKER_HOST", socket).arg(BUSYBOX).output() {
        Ok(output) if output.status.success() => {}
        other => panic!("no busybox image: {other:?}"),
    }
}
