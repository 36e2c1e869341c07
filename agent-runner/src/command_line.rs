//! The command line: `run` performs a run; the other commands answer one question of the host and exit.

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
use crate::{inspect_image, loopback_proxy, probe, run_loop, sight, unlock_dirs};

/// The agent inside the box. The host starts it and controls it by letters below /ipc.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Perform one run, from the host's `begin` letter to its `_close`
    Run {
        /// Directory that holds /ipc, /session, /workspace and /run/lazaret; for tests
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Write an inventory of this image to a file for the host, and exit
    InspectImage,
    /// Give the shared group access to directories that the agent made private, and exit
    UnlockDirs,
    /// Decode the picture on the standard input and write it, scaled down, to the standard output. The runner calls it
    #[command(hide = true)]
    FitPicture,
    /// Report what this box can see and do, and wait until the host removes it
    Probe {
        /// Directory that holds /ipc; for tests
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
}

/// The exit code that a shell reports for a process ended by SIGTERM.
const TERMINATED: u8 = 128 + 15;

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let command = Args::parse().command;
    if let Command::Probe { root } = &command {
        // Before anything starts a thread: some of the system calls that it tries affect one thread only, and some
        // work only in a process with one thread.
        return probe::run(&BoxPaths::below(root));
    }
    if matches!(command, Command::FitPicture) {
        return sight::fit_picture();
    }
    // The host reads files through the shared group. Nobody else may.
    umask(Mode::from_raw_mode(0o007));
    log_to_stderr();
    let root = match command {
        Command::Run { root } | Command::Probe { root } => root,
        Command::InspectImage => return write_inventory(),
        Command::UnlockDirs => return unlock(),
        Command::FitPicture => return sight::fit_picture(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the async runtime; check the limit on file descriptors");
            return ExitCode::FAILURE;
        }
    };
    let paths = BoxPaths::below(&root);
    #[cfg(feature = "failpoints")]
    if let Err(why) = ::failpoint::arm_by_directory(&paths.workspace()) {
        tracing::error!(why, "cannot arm the failpoints");
        return ExitCode::FAILURE;
    }
    if root == Path::new("/") {
        // With another root (in tests) the loopback belongs to the machine.
        let gateway = paths.socket();
        runtime.spawn(async move { loopback_proxy::serve(&gateway).await });
    }
    let code = runtime.block_on(run_until_told(paths));
    // A file tool may still block its thread. The process does not wait for it.
    runtime.shutdown_background();
    ExitCode::from(code)
}

fn write_inventory() -> ExitCode {
    match inspect_image::inspect(&BoxPaths::below("/")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot write the image inventory");
            ExitCode::FAILURE
        }
    }
}

fn unlock() -> ExitCode {
    match unlock_dirs::unlock(&BoxPaths::below("/")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The host keeps the last line.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// SIGTERM ends the run at once. That is safe because only this task writes the transcript, whole lines at a time.
/// Dropping the run also kills the command that it waits for.
async fn run_until_told(paths: BoxPaths) -> u8 {
    let mut term = match signal(SignalKind::terminate()) {
        Ok(term) => term,
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM");
            return 1;
        }
    };
    tokio::select! {
        code = run_loop::run(paths, |paths| Gateway::new(paths.socket())) => code,
        _ = term.recv() => {
            tracing::info!("ending on SIGTERM");
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
