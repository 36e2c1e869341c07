//! The command line, one file per verb. `main` calls [`run`].

mod backup;
mod box_check;
mod chat;
mod config;
mod doctor;
mod groups;
mod image;
mod letters;
mod link;
mod linked;
mod memory;
mod owners;
mod status;
mod tasks;
mod trace;
mod up;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::io::AsyncWriteExt;

use crate::backup::BackupError;
use crate::channels::linking::LinkError;
use crate::channels::terminal::wire::{FromClient, SOCKET};
use crate::config::running_settings::{self, Difference};
use crate::config::{ConfigError, Install, Root};
use crate::daemon::StartError;
use crate::host_files;
use crate::images::ImageError;
use crate::sandbox::EngineError;
use crate::schedule::ScheduleError;
use crate::store::{Store, StoreError};
use crate::tasks::TaskError;
use crate::terminal_output;
use crate::unix_socket;

/// A trusted host for agents in sealed containers.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110)]
pub struct Args {
    /// The install's directory: settings, groups and state. The default is /var/lib/lazaret if that exists, else
    /// ~/.local/share/lazaret.
    #[arg(long, env = "LAZARET_ROOT", global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the host in the foreground.
    Up(up::Up),
    /// Talk to the running host.
    Chat(chat::Chat),
    /// Show what the host is doing.
    Status,
    /// Check that the install has what it needs.
    Doctor(doctor::Doctor),
    /// Check the protection of boxes.
    Box(box_check::Box),
    /// List, add, show and remove groups, admit chats to them and revoke that, and undo a change of personality.
    Groups(groups::Groups),
    /// Show, add and remove owners: the people who may do everything.
    Owners(owners::Owners),
    /// Build, check, set and roll back the images of boxes.
    Image(image::Image),
    /// Show when scheduled work fires.
    Tasks(Box<tasks::Tasks>),
    /// Show, search and remove what the agents remember.
    Memory(memory::Memory),
    /// Show what happened to a message, step by step.
    Trace(trace::Trace),
    /// Link an account of a chat platform to this host.
    Link(link::Link),
    /// End the link of an account.
    Unlink(link::Unlink),
    /// Read the letters between host and agent.
    Ipc(letters::Ipc),
    /// Check and print the settings.
    Config(config::Config),
    /// Copy the database, or the whole install, while the host runs.
    Backup(backup::Backup),
    /// Put back a copy that `backup` or the host made.
    Restore(backup::Restore),
}

impl Args {
    /// Returns whether the terminal is shared with a person's chat or with a command's output.
    pub fn quiet(&self) -> bool {
        match &self.verb {
            Verb::Up(up) => up.chat,
            _ => true,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The host did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A copy or a restore failed.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A schedule or a time zone cannot be used.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Task(#[from] TaskError),
    /// An account cannot be linked or unlinked.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The thing that the person asked for does not exist or is not possible.
    #[error("{0}")]
    Plain(String),
}

impl CliError {
    /// The error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Config(e) => e.code(),
            Self::Backup(e) => e.code(),
            Self::Engine(e) => e.code(),
            Self::Image(e) => e.code(),
            Self::Schedule(e) => e.code(),
            Self::Task(e) => e.code(),
            Self::Link(e) => e.code,
            Self::Plain(_) => "cli",
        }
    }
}

impl CliError {
    /// Prints the error, a line for each mistake in the settings.
    pub fn tell(&self) -> ExitCode {
        match self {
            Self::Config(e) | Self::Start(StartError::Config(e)) => {
                let lines = e.mistakes().iter();
                lines
                    .map(|mistake| terminal_output::failed(mistake.code, mistake))
                    .fold(ExitCode::FAILURE, |_, code| code)
            }
            other => terminal_output::failed(other.code(), other),
        }
    }
}

type Done = Result<ExitCode, CliError>;

/// Runs the command of `args`.
///
/// # Errors
/// The error that the person is shown.
pub async fn run(args: Args) -> Done {
    let root = match args.root {
        Some(root) => root,
        None => default_root()?,
    };
    let root = Root::new(&root).map_err(|e| CliError::Plain(format!("{}: {e}", root.display())))?;
    let here = Here { root, json: args.json, env: std::env::vars().collect() };
    match args.verb {
        Verb::Up(up) => up::run(&here, &up).await,
        Verb::Chat(chat) => chat::run(&here, &chat).await,
        Verb::Status => status::run(&here).await,
        Verb::Doctor(doctor) => doctor::run(&here, &doctor).await,
        Verb::Box(verb) => box_check::run(&here, verb).await,
        Verb::Groups(groups) => groups::run(&here, groups).await,
        Verb::Owners(owners) => owners::run(&here, owners).await,
        Verb::Image(image) => image::run(&here, image).await,
        Verb::Tasks(tasks) => tasks::run(&here, *tasks).await,
        Verb::Memory(memory) => memory::run(&here, memory).await,
        Verb::Trace(trace) => trace::run(&here, &trace).await,
        Verb::Link(link) => link::run(&here, link).await,
        Verb::Unlink(unlink) => link::unlink(&here, unlink).await,
        Verb::Ipc(ipc) => letters::run(&here, ipc).await,
        Verb::Config(config) => config::run(&here, config).await,
        Verb::Backup(backup) => backup::run(&here, backup).await,
        Verb::Restore(restore) => backup::restore(&here, restore).await,
    }
}

/// The context that every verb gets.
struct Here {
    root: Root,
    json: bool,
    env: BTreeMap<String, String>,
}

impl Here {
    /// The settings, for a command that calls no provider and no platform.
    fn install(&self) -> Result<Install, CliError> {
        Ok(Install::load_for_command(self.root.clone(), &self.env)?)
    }

    /// Whether a host answers.
    async fn host_is_up(&self) -> bool {
        unix_socket::connect(&self.root.host_socket_dir(), SOCKET).await.is_ok()
    }

    /// Sends one line to a running host. Returns whether a host took it.
    async fn tell_host(&self, line: &FromClient) -> bool {
        let Ok(mut host) = unix_socket::connect(&self.root.host_socket_dir(), SOCKET).await else {
            return false;
        };
        let line = serde_json::to_string(line).unwrap_or_default();
        host.write_all(format!("{line}\n").as_bytes()).await.is_ok()
    }

    /// What the running host was started with and is different here. Empty if no host runs.
    async fn waiting_settings(&self, install: &Install) -> Vec<Difference> {
        if self.host_is_up().await { running_settings::differences(install) } else { Vec::new() }
    }

    /// Opens the store, possibly beside a running host: SQLite's locks order the two.
    fn store(&self) -> Result<Store, CliError> {
        Ok(Store::open_for_command(&self.database()?)?)
    }

    /// Opens the store for a command that only reads, so that no turn of a running host waits for it.
    fn store_to_read(&self) -> Result<Store, CliError> {
        Ok(Store::open_to_read(&self.database()?)?)
    }

    fn database(&self) -> Result<PathBuf, CliError> {
        let path = self.root.database();
        if host_files::there(&path) { Ok(path) } else { Err(self.no_install()) }
    }

    /// Refuses a root that nobody has made an install of, for a command that needs no database.
    fn is_install(&self) -> Result<(), CliError> {
        let made =
            [self.root.database(), self.root.install_file()].iter().any(|path| host_files::there(path));
        if made { Ok(()) } else { Err(self.no_install()) }
    }

    fn no_install(&self) -> CliError {
        let hint = "start the host once (`lazaret up`), or set LAZARET_ROOT";
        CliError::Plain(format!("there is no install at {}; {hint}", self.root.path().display()))
    }

    /// Prints JSON where the person asked for it, and the text otherwise.
    fn print(&self, json: &serde_json::Value, text: impl std::fmt::Display) {
        if self.json {
            terminal_output::print(json);
        } else {
            terminal_output::print(text);
        }
    }
}

/// A line for each setting that waits for a restart.
fn told_waiting(waiting: &[Difference]) -> String {
    waiting.iter().map(|one| format!("\nwaits for a restart: {one}")).collect()
}

/// Returns `/var/lib/lazaret` for a service's user, and the person's own data directory (XDG Base Directory
/// Specification) otherwise.
fn default_root() -> Result<PathBuf, CliError> {
    let service = PathBuf::from("/var/lib/lazaret");
    if host_files::there(&service) {
        return Ok(service);
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    data.or_else(home)
        .map(|dir| dir.join("lazaret"))
        .ok_or_else(|| CliError::Plain("neither LAZARET_ROOT nor HOME is set".into()))
}
