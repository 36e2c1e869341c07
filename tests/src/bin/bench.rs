//! `make bench`: measures the speed goals on this machine and prints one line of JSON for each.
//!
//! `bench [start|history|recall|runner|idle] [N=30] [IMAGE=lazaret-agent] [--verbose]`
//!
//! `start` measures the start of a box. `history` compares an install of a million messages with a young one. `recall`
//! counts which memories the search index finds. `runner` measures the size, the memory and the start of the runner in
//! a box. `idle` measures the memory and the wake-ups of a host with nothing to do.

use std::process::ExitCode;

use journeys::bench;

#[tokio::main]
async fn main() -> ExitCode {
    let (mut n, mut image, mut verbose, mut show) =
        (30, "lazaret-agent".to_owned(), false, "start".to_owned());
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("N", number)) if number.parse().is_ok_and(|n: usize| n > 0) => {
                n = number.parse().unwrap_or(n)
            }
            Some(("IMAGE", name)) => name.clone_into(&mut image),
            None if ["start", "history", "recall", "runner", "idle"].contains(&argument.as_str()) => {
                argument.clone_into(&mut show)
            }
            None if argument == "--verbose" => verbose = true,
            _ => {
                eprintln!(
                    "bench: unknown argument {argument:?}; known are start, history, recall, runner, idle, N=30, IMAGE=lazaret-agent, --verbose"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    match &*show {
        "history" => bench::history(n).await,
        "recall" => {
            bench::recall().iter().for_each(|line| println!("{}", line.json()));
            println!("{}", bench::ten_thousand());
        }
        "idle" => bench::idle().await,
        "runner" => bench::runner(&image, n).await,
        _ => bench::start(&image, n, verbose).await,
    }
    ExitCode::SUCCESS
}
