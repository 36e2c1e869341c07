//! The program inside the box: it reads the host's letters, lets a model work with tools, and writes letters back.
//!
//! It has no settings and expects nothing of the image, not even a shell: everything it must know is in the
//! `begin` letter, and everything it remembers is in the session's transcript. It may be killed at any moment.
//!
//! It is a library so that the fuzz targets (`tests/fuzz`) can fuzz at `fuzz_targets`; every module is private.
//!
//! To read it in order: [`session`] (one run, from `begin` to the exit), [`turn`] (one turn; [`turn::step`] decides,
//! the rest performs), [`transcript`] (what is remembered), [`mailbox`] with [`inbox`] and [`outbox`] (letters),
//! [`model`], [`tools`], [`prompt`].

#[macro_use]
mod failpoint;

mod box_paths;
mod compaction_plan;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod inspect_image;
mod local_time;
mod loopback_proxy;
mod mailbox;
mod model;
mod probe;
mod prompt;
mod run_loop;
#[cfg(test)]
mod tests_support;
mod tool_policy;
mod tools;
mod transcript;
mod turn;
mod unlock_dirs;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::box_paths::BoxPaths;
use crate::model::Gateway;

/// The agent inside the box. It is started by the host, and told what to do by letters below /ipc.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Live one run: from the host's `begin` letter to its `_close`.
    Run {
        /// Where /ipc, /session, /workspace and /run/lazaret are found; for tests.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Say what this image offers, in a file for the host. No letter is read and no model is asked.
    InspectImage,
    /// Open the folders that an agent has shut to the group that host and boxes share.
    UnlockDirs,
    /// Report what this box is, from inside, and wait to be removed.
    Probe {
        /// Where /ipc is found; for tests.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
}

/// What a shell reports of a process that SIGTERM ended.
const TERMINATED: u8 = 128 + 15;

/// The whole program, from its arguments to its exit code.
pub fn main() -> ExitCode {
    let command = Args::parse().command;
    if let Command::Probe { root } = &command {
        // Before anything starts a thread: what it tries holds for a thread, and some of it for a lone one only.
        return probe::run(&BoxPaths::below(root));
    }
    // Files are shared with the host through the group, and with nobody else.
    umask(Mode::from_raw_mode(0o007));
    log_to_stderr();
    let root = match command {
        Command::Run { root } | Command::Probe { root } => root,
        Command::InspectImage => return inspect_image(),
        Command::UnlockDirs => return unlock_dirs(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no event loop can be had; are there limits on file descriptors?");
            return ExitCode::FAILURE;
        }
    };
    let paths = BoxPaths::below(&root);
    #[cfg(feature = "failpoints")]
    if let Err(why) = ::failpoint::arm_by_directory(&paths.session()) {
        tracing::error!(why, "no failpoints");
        return ExitCode::FAILURE;
    }
    if root == Path::new("/") {
        // Elsewhere (in tests) the loopback is the machine's own.
        let gateway = paths.socket();
        runtime.spawn(async move { loopback_proxy::serve(&gateway).await });
    }
    let code = runtime.block_on(run_until_told(paths));
    // A file tool may still sit on its thread; the process ends without it.
    runtime.shutdown_background();
    ExitCode::from(code)
}

fn inspect_image() -> ExitCode {
    match inspect_image::look(&BoxPaths::below("/")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "what the image offers cannot be told");
            ExitCode::FAILURE
        }
    }
}

fn unlock_dirs() -> ExitCode {
    match unlock_dirs::open(&BoxPaths::below("/")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The host keeps the last line.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// SIGTERM ends it at once, between two steps: the transcript is written whole lines at a time and never from
/// elsewhere. What was being waited for is dropped, and a command in hand is killed by that.
async fn run_until_told(paths: BoxPaths) -> u8 {
    let mut term = match signal(SignalKind::terminate()) {
        Ok(term) => term,
        Err(error) => {
            tracing::error!(%error, "SIGTERM cannot be caught");
            return 1;
        }
    };
    tokio::select! {
        code = run_loop::run(paths, |paths| Gateway::new(paths.socket())) => code,
        _ = term.recv() => {
            tracing::info!("told to end");
            TERMINATED
        }
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
}
