//! A whole install in a temporary directory: settings, a running host, a model server and the servers
//! of chat platforms.

mod ann_at_home;
mod engine;
mod host_process;
mod host_user;
mod observe;
mod whatsapp;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::engine::unmount_below;
use crate::model::{KEY, ModelServer};
use crate::telegram::{TOKEN, TelegramServer};
use whatsapp_server::WhatsAppServer;

pub use engine::{Engine, docker};
pub use host_process::HostProcess;
use host_user::User;
pub use whatsapp::{ACCOUNT, LinkCommand};

/// A step that takes longer than this has failed. The time allows for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The final states of an outbox row.
const ENDS: [&str; 3] = ["sent", "failed", "expired"];

/// The rate limits of the host's calls to Telegram.
pub const PACE: [&str; 3] = [
    "LAZARET_CHANNELS_TELEGRAM_CHAT_BURST",
    "LAZARET_CHANNELS_TELEGRAM_ROOM_PER_MINUTE",
    "LAZARET_CHANNELS_TELEGRAM_BOT_PER_SECOND",
];

/// An install with its servers.
///
/// Rust drops the fields in this order: the host, the boxes that a failed test left, the servers, and last the
/// directory.
pub struct World {
    host: Option<HostProcess>,
    _leftovers: Leftovers,
    pub model: ModelServer,
    pub telegram: TelegramServer,
    whatsapp: Option<WhatsAppServer>,
    env: BTreeMap<String, String>,
    engine: Engine,
    /// The host's binary.
    program: PathBuf,
    /// The user that runs the host; `None` if the host runs as root.
    user: Option<User>,
    root: tempfile::TempDir,
}

/// Removes the boxes and mounts that a failed test left in the middle of a turn.
struct Leftovers {
    root: PathBuf,
    engine: Engine,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if let Ok(install) = std::fs::read_to_string(self.root.join("state/install")) {
            self.engine.remove_boxes(install.trim());
        }
        // A killed host has not removed its letter directories.
        unmount_below(&self.root);
    }
}

impl World {
    /// Builds an install on this machine's engine, without starting the host. Its boxes use `busybox`, an image of one
    /// static binary, which starts in a fraction of a second. Panics if the engine is away: the test then fails and is
    /// never skipped.
    pub async fn new() -> Self {
        Self::on(Engine::docker()).await
    }

    /// Like [`World::new`], on the given engine.
    pub async fn on(engine: Engine) -> Self {
        let root = match tempfile::Builder::new().prefix("lazaret-journey-").tempdir() {
            Ok(root) => root,
            Err(e) => panic!("no place for a world: {e}"),
        };
        let (model, telegram) = (ModelServer::start().await, TelegramServer::start().await);
        let mut env = BTreeMap::new();
        let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
        set("PATH", &std::env::var("PATH").unwrap_or_default());
        set("HOME", &root.path().to_string_lossy());
        set("LAZARET_ROOT", &root.path().to_string_lossy());
        set("LAZARET_RUNNER", &runner().to_string_lossy());
        set("LAZARET_IMAGE", engine.image());
        // The hosts reserve free space on the disk. With the default sizes, many worlds at once would fill it.
        set("LAZARET_HOST_BALLAST_MIB", "1");
        set("LAZARET_HOST_FREE_FLOOR_MIB", "16");
        set("DOCKER_HOST", &engine.socket());
        if let Some(lacks) = engine.accepted() {
            set("LAZARET_ENGINE_ACCEPT", &lacks);
        }
        set("ANTHROPIC_API_KEY", KEY);
        set("ANTHROPIC_BASE_URL", &model.anthropic_url());
        set("TELEGRAM_BOT_TOKEN", TOKEN);
        set("LAZARET_CHANNELS_TELEGRAM_BASE_URL", &telegram.url());
        // Nor must they run out of turns. The store's own tests are about these limits.
        set("LAZARET_LIMITS_SENDER_TURNS", "0");
        set("LAZARET_LIMITS_CHAT_TURNS", "0");
        // Most journeys must not wait for Telegram's rate limits. The journey about the rate limits removes these
        // variables.
        for limit in PACE {
            set(limit, "100000");
        }
        let leftovers = Leftovers { root: root.path().to_owned(), engine: engine.clone() };
        Self {
            host: None,
            _leftovers: leftovers,
            model,
            telegram,
            whatsapp: None,
            env,
            engine,
            program: lazaret(),
            user: None,
            root,
        }
    }

    /// Sets an environment variable for the host and for every command.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Removes an environment variable again.
    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.env.remove(name);
        self
    }

    /// Returns a command line of the host, for a test that must own the process.
    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = match &self.user {
            Some(user) => user.command(),
            None => tokio::process::Command::new(&self.program),
        };
        command.args(args).env_clear().envs(&self.env).kill_on_drop(true);
        command
    }

    /// Returns the install's root directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Writes a file below the root directory.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(name);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, content));
        if let Err(e) = written {
            panic!("{}: {e}", path.display());
        }
    }

    /// Starts the host and waits until it is up. If it does not come up, the panic shows its log.
    pub async fn up(&mut self) -> &mut Self {
        if let Err(why) = self.try_up().await {
            panic!("{why}");
        }
        self
    }

    /// Like [`World::up`], for a host that may end before it is up. Then the error has its log.
    pub async fn try_up(&mut self) -> Result<(), String> {
        assert!(self.host.is_none(), "the host is up already");
        self.host = Some(HostProcess::start(self.command(&["up"]), self.root()).await?);
        Ok(())
    }

    /// Returns whether a host runs, and forgets one that has ended by itself.
    pub fn is_up(&mut self) -> bool {
        if self.host.as_mut().is_some_and(HostProcess::has_ended) {
            self.host = None;
        }
        self.host.is_some()
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn host(&mut self) -> &mut HostProcess {
        match &mut self.host {
            Some(host) => host,
            None => panic!("the host was not started"),
        }
    }

    /// Kills the host with SIGKILL.
    pub async fn kill_host(&mut self) {
        match self.host.take() {
            Some(host) => host.kill().await,
            None => panic!("the host was not started"),
        }
    }

    /// Stops the host with SIGTERM, like an operator. The host must end in time and with success.
    pub async fn stop_host(&mut self) {
        assert_eq!(self.try_stop().await, Some(0), "{}", self.log());
    }

    /// Like [`World::stop_host`], for a host that may end with an error. Returns its exit code, or `None` if a signal
    /// ended it.
    pub async fn try_stop(&mut self) -> Option<i32> {
        match self.host.take() {
            Some(host) => host.stop().await,
            None => panic!("the host was not started"),
        }
    }

    /// Stops the host with two signals, like an operator who does not want to wait: it ends every box first.
    pub async fn end_now(&mut self) {
        if let Some(host) = self.host.take() {
            host.signal(rustix::process::Signal::TERM);
            // Two signals at once would be one.
            tokio::time::sleep(Duration::from_millis(100)).await;
            host.stop().await;
        }
    }

    /// Writes these lines to `lazaret chat`, one turn each, and returns its output. A turn may fail, which ends the
    /// chat with 1.
    pub async fn chat(&self, lines: &str) -> String {
        let output = self.run(&["chat"], lines).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let went = matches!(output.status.code(), Some(0 | 1)) && !err.contains("lazaret: ");
        assert!(went, "the chat failed:\n{out}{err}\n{}", self.log());
        out.into_owned()
    }

    /// Runs a command line to its end.
    pub async fn run(&self, args: &[&str], stdin: &str) -> Output {
        host_process::run(self.command(args), args, stdin).await
    }

    /// Runs a command that must succeed, and returns its output.
    pub async fn lazaret(&self, args: &[&str]) -> String {
        let output = self.run(args, "").await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // `status` ends with 3 if no host runs, and with 4 if a channel cannot read.
        let went =
            output.status.success() || args[0] == "status" && matches!(output.status.code(), Some(3 | 4));
        assert!(went, "lazaret {} failed:\n{out}{err}", args.join(" "));
        out.into_owned()
    }

    /// Admits the chat that waits under this address to a group. What it wrote before is not answered.
    pub async fn admit(&self, address: &str, group: &str) {
        let code = self.code_of(address).await;
        self.lazaret(&["groups", "admit", &code, "--group", group, "--unanswered"]).await;
    }

    /// Waits until a chat asks to be admitted, and returns its code.
    pub async fn code_of(&self, address: &str) -> String {
        self.patiently(&format!("{address} waits to be admitted"), async || {
            let listed = self.lazaret(&["groups", "list", "--json"]).await;
            let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
            let waiting = listed["waiting"].as_array().cloned().unwrap_or_default();
            let chat = waiting.iter().find(|chat| chat["chat"] == address)?;
            chat["code"].as_str().map(str::to_owned)
        })
        .await
    }

    /// Waits until a message's turn is over and everything is sent. Returns the message's trace.
    pub async fn settled(&self, message: &str) -> serde_json::Value {
        self.patiently(&format!("{message} is settled"), async || {
            let output = self.run(&["trace", message, "--json"], "").await;
            let trace: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            let turn = &trace["turn"];
            let over = turn["state"].as_str().is_some_and(|state| state != "open");
            let sent = turn["said"]
                .as_array()?
                .iter()
                .all(|part| part["held"].is_string() || ENDS.iter().any(|end| part["state"] == *end));
            (over && sent).then_some(trace)
        })
        .await
    }

    /// Repeats `attempt` until it returns a value. Panics after `PATIENCE`.
    pub async fn patiently<T, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let asked = tokio::time::Instant::now();
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            assert!(asked.elapsed() < PATIENCE, "timed out while waiting until {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a step that must end within `PATIENCE`. If it does not, the panic shows the host's log.
    pub async fn soon<T>(&self, what: &str, step: impl Future<Output = T>) -> T {
        match tokio::time::timeout(PATIENCE, step).await {
            Ok(done) => done,
            Err(_) => panic!("timed out while waiting until {what}\n{}", self.log()),
        }
    }

    /// Returns the host's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root().join("host.log")).unwrap_or_default()
    }

    /// Returns the letters folder of a group's newest run.
    pub fn newest_letters(&self, group: &str) -> PathBuf {
        let dir = self.root().join("state/letters").join(group);
        let mut runs: Vec<PathBuf> =
            std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
        runs.sort();
        match runs.pop() {
            Some(run) => run,
            None => panic!("no letters in {}", dir.display()),
        }
    }

    /// Returns the names of this install's boxes that the engine still has.
    pub async fn boxes(&self) -> Vec<String> {
        let id = std::fs::read_to_string(self.root().join("state/install")).unwrap_or_default();
        self.engine.boxes(id.trim()).await
    }

    /// Stops the host like an operator. Panics if the host does not end in time, leaves a box, or broke a rule of the
    /// model's or a platform's wire.
    pub async fn finish(mut self) {
        if let Some(host) = self.host.take() {
            let code = host.stop().await;
            assert_eq!(code, Some(0), "the host ended with {code:?}\n{}", self.log());
            assert_eq!(self.boxes().await, Vec::<String>::new(), "boxes are left behind");
        }
        self.model.finish();
        self.telegram.finish();
        if let Some(whatsapp) = self.whatsapp {
            whatsapp.finish();
        }
    }
}

/// Returns the host's binary: the one that `make test` built, or else the one next to the test's own.
pub(crate) fn lazaret() -> PathBuf {
    built("LAZARET_BIN", "lazaret")
}

/// Returns the evil agent, a static binary that replaces the runner.
pub(crate) fn evil_agent() -> PathBuf {
    built("LAZARET_EVIL_BIN", "evil-agent")
}

/// Returns the static runner.
pub(crate) fn runner() -> PathBuf {
    built("LAZARET_RUNNER_BIN", "agent-runner")
}

fn built(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = workspace.join("target/release").join(name);
    assert!(path.exists(), "{} is missing: run `make build`, or set {variable}", path.display());
    path
}
