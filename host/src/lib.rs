//! `lazaret`: the trusted host process and its command line.
//!
//! The rooms, from the top: `cli` and `daemon`; `supervisor` over `intake`, `run`, `delivery` and `maintenance`;
//! `actions` and `services`, beside `gateway`, `backup` and `images`; `config`; `channels`, `store`, `sandbox`,
//! `mailbox`, `model`, `spool`, `volumes`; the pure `dispatch`, `turns`, `policy`, `schedule` and `text`; `domain`.
//! Imports point down only, and `tests/tests/layers.rs` holds it.
//!
//! It is a library so that the fuzz targets (`tests/fuzz`) can call `fuzz_targets`. Every room is private, so nothing
//! else can be built upon it, and the compiler still finds code that no one calls.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make and read files as they like"))]

#[macro_use]
mod failpoint;

mod actions;
mod backup;
mod channels;
mod cli;
mod clock;
mod config;
mod daemon;
mod delivery;
mod dispatch;
mod domain;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod gateway;
mod host_files;
mod http;
mod images;
mod intake;
mod mailbox;
mod maintenance;
mod model;
mod policy;
mod random;
mod run;
mod sandbox;
mod schedule;
mod scheduler;
mod services;
mod spool;
mod store;
mod supervisor;
mod tasks;
mod telemetry;
mod terminal_output;
mod text;
mod turns;
mod unix_socket;
mod volumes;
mod workers;

use std::process::ExitCode;

use clap::Parser;

/// The whole program, from its arguments to its exit code.
pub fn main() -> ExitCode {
    let args = cli::Args::parse();
    telemetry::start(args.quiet());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return terminal_output::failed("host.runtime", &e),
    };
    let ended = runtime.block_on(cli::run(args));
    // A worker that reads standard input cannot be interrupted; it must not hold back the exit.
    runtime.shutdown_background();
    telemetry::log_left_out();
    match ended {
        Ok(code) => code,
        Err(e) => e.tell(),
    }
}
