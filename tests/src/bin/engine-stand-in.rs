//! Runs the engine stand-in as a process. [`journeys::engine`] says what it does and what it lacks.
//!
//! `engine-stand-in --socket PATH --state DIR` serves until SIGTERM or SIGINT. With `--until-input-ends` it also ends
//! when its standard input ends. The stand-in itself uses `--box` to start the PID 1 of a box.

use std::path::PathBuf;
use std::process::ExitCode;

use journeys::engine;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: engine-stand-in --socket PATH --state DIR [--until-input-ends]";

struct Arguments {
    socket: PathBuf,
    state: PathBuf,
    until_input_ends: bool,
}

fn arguments(mut given: impl Iterator<Item = std::ffi::OsString>) -> Result<Arguments, String> {
    let (mut socket, mut state, mut until_input_ends) = (None, None, false);
    while let Some(name) = given.next() {
        match name.to_str() {
            Some("--socket") => socket = given.next().map(PathBuf::from),
            Some("--state") => state = given.next().map(PathBuf::from),
            Some("--until-input-ends") => until_input_ends = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let (socket, state) = socket.zip(state).ok_or(USAGE)?;
    Ok(Arguments { socket, state, until_input_ends })
}

async fn serve() -> Result<(), String> {
    let Arguments { socket, state, until_input_ends } = arguments(std::env::args_os().skip(1))?;
    // The stand-in gets a session of its own: Ctrl-C on a terminal, or a killed test, must not end it together with the
    // host. The call fails if this process leads a process group already; then its starter has separated it.
    let _ = rustix::process::setsid();
    let heard = |kind| signal(kind).map_err(|e| format!("signals cannot be heard: {e}"));
    let (mut term, mut int) = (heard(SignalKind::terminate())?, heard(SignalKind::interrupt())?);
    let ended = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = input_ended(), if until_input_ends => {}
        }
    };
    engine::serve(&socket, &state, ended).await.map_err(|e| e.to_string())
}

async fn input_ended() {
    let mut input = tokio::io::stdin();
    // A read error counts as the end of the input too.
    while let Ok(1..) = input.read(&mut [0; 64]).await {}
}

fn main() -> ExitCode {
    // A box's PID 1 must have only one thread while it drops its privileges, so this path starts no runtime.
    if std::env::args_os().nth(1).is_some_and(|first| first == "--box") {
        return engine::live_in_box();
    }
    let served = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let served = runtime.block_on(serve());
            // The task that reads the standard input may still wait.
            runtime.shutdown_background();
            served
        }
        Err(e) => Err(format!("no runtime: {e}")),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
