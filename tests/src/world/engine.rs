//! The engine that a world's boxes run on.

use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use hyper::Method;
use tokio::process::Command;

use crate::engine::{self, Answered, Dockerd, StandIn};

/// The image of one static binary, made once per machine.
const BUSYBOX: &str = "lazaret-journeys-busybox";

/// What Debian's gVisor needs to be told, as the host's refusal says: the box's only way to its host is a socket of the
/// host's. And what makes nobody count, which is how it runs where a machine lacks a control group that it wants.
const GVISOR: [&str; 2] = ["--host-uds=open", "--network=none"];
const UNCOUNTED: &str = "--ignore-cgroups";

/// This machine's engine, or one of a world's own: a stand-in or a real one. A clone is the same engine; an own one
/// ends with the last.
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
    /// This machine's Docker engine, with an image made from `busybox`.
    ///
    /// # Panics
    /// When no engine answers, or the image cannot be made.
    pub fn docker() -> Self {
        static READY: OnceLock<()> = OnceLock::new();
        let socket =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        READY.get_or_init(|| make_busybox_image(&socket));
        Self { socket, image: BUSYBOX.to_owned(), own: None }
    }

    /// A Docker engine of the world's own, which may be killed. With `live_restore` its boxes go on without it.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn own_docker(live_restore: bool) -> Self {
        let engine = Dockerd::start(live_restore);
        let socket = format!("unix://{}", engine.socket().display());
        make_busybox_image(&socket);
        Self { socket, image: BUSYBOX.to_owned(), own: Some(Own::Docker(Arc::new(engine))) }
    }

    /// A Docker engine of the world's own that knows gVisor by the name `runsc`; and by `runsc-uncounted`, where it
    /// keeps no limit.
    ///
    /// # Panics
    /// When it cannot be run, or gVisor is not to be had.
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

    /// The real engine that is the world's own.
    ///
    /// # Panics
    /// When it is another.
    pub fn dockerd(&self) -> &Dockerd {
        match &self.own {
            Some(Own::Docker(engine)) => engine,
            _ => panic!("only an engine of the test's own may be killed"),
        }
    }

    /// A stand-in that runs: boxes in milliseconds, and no sandbox (see [`crate::engine`]).
    ///
    /// # Panics
    /// When it cannot run: it needs root and a static busybox.
    pub async fn stand_in() -> Self {
        let engine = Self::stand_in_away();
        engine.start().await;
        engine
    }

    /// A stand-in that nobody has started yet.
    ///
    /// # Panics
    /// When there is no room for its files.
    pub fn stand_in_away() -> Self {
        let stand_in = StandIn::away();
        let socket = format!("unix://{}", stand_in.socket().display());
        Self { socket, image: engine::IMAGE.to_owned(), own: Some(Own::StandIn(Arc::new(stand_in))) }
    }

    /// Starts the stand-in, and waits until it answers.
    ///
    /// # Panics
    /// When it cannot run, runs already, or is this machine's own engine.
    pub async fn start(&self) {
        self.expect_stand_in().start().await;
    }

    /// Removes an install's boxes from this machine's engine; an own one takes its boxes along.
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

    /// Ends the stand-in, and every box with it.
    ///
    /// # Panics
    /// When it is this machine's own engine.
    pub fn stop(&self) {
        self.expect_stand_in().stop();
    }

    fn expect_stand_in(&self) -> &StandIn {
        match &self.own {
            Some(Own::StandIn(stand_in)) => stand_in,
            _ => panic!("this machine's engine is left alone"),
        }
    }

    /// One call of the stand-in's API; `path` holds the query, escaped.
    ///
    /// # Panics
    /// When it does not answer, or is this machine's own engine.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&serde_json::Value>) -> Answered {
        let socket = self.expect_stand_in().socket();
        match engine::ask(&socket, method, path, body).await {
            Ok(answered) => answered,
            Err(e) => panic!("{path} at {}: {e}", socket.display()),
        }
    }

    /// What an owner must accept to have boxes on it, as a list of TOML.
    pub(super) fn accepted(&self) -> Option<String> {
        matches!(&self.own, Some(Own::StandIn(_))).then(|| format!("{:?}", engine::LACKS))
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

fn make_busybox_image(socket: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/busybox-image.sh");
    match std::process::Command::new(script).env("DOCKER_HOST", socket).arg(BUSYBOX).output() {
        Ok(output) if output.status.success() => {}
        other => panic!("no busybox image: {other:?}"),
    }
}
