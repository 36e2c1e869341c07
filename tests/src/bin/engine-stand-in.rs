//! The engine stand-in as a process: see [`journeys::engine`] for what it is, and what it is not.
//!
//! `engine-stand-in --socket PATH --state DIR` serves until SIGTERM or SIGINT; with `--until-input-ends`, also until
//! its standard input ends. `--box` is for itself: a box's PID 1.

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
    // A terminal's Ctrl-C and a killed test must not take it along with the host. A leader of a group has to stay in
    // its session; whoever made it one has seen to that.
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
    // An input that cannot be read is over, too.
    while let Ok(1..) = input.read(&mut [0; 64]).await {}
}

fn main() -> ExitCode {
    // A box's PID 1 has one thread while it gives up its rights, so there is no runtime yet.
    if std::env::args_os().nth(1).is_some_and(|first| first == "--box") {
        return engine::live_in_box();
    }
    let served = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let served = runtime.block_on(serve());
            // The reader of the standard input may be waiting still.
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
