//! `make bench`: measures the speed goals on this machine and prints one line of JSON for each.
//!
//! `bench [start|history] [N=30] [IMAGE=lazaret-agent] [--verbose]`
//!
//! `start` measures the start of a box. `history` compares an install of a million messages with a young one.

use std::process::ExitCode;

use journeys::bench;

#[tokio::main]
async fn main() -> ExitCode {
    let (mut n, mut image, mut verbose, mut history) = (30, "lazaret-agent".to_owned(), false, false);
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("N", number)) if number.parse().is_ok_and(|n: usize| n > 0) => {
                n = number.parse().unwrap_or(n)
            }
            Some(("IMAGE", name)) => name.clone_into(&mut image),
            None if argument == "start" => history = false,
            None if argument == "history" => history = true,
            None if argument == "--verbose" => verbose = true,
            _ => {
                eprintln!(
                    "bench: unknown argument {argument:?}; known are start, history, N=30, IMAGE=lazaret-agent, --verbose"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if history {
        bench::history(n).await;
    } else {
        bench::start(&image, n, verbose).await;
    }
    ExitCode::SUCCESS
}
