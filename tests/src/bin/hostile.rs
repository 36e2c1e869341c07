//! Runs the attacks on the box. See [`journeys::hostile`].
//!
//! - `hostile cases [ONLY=a15] [RUNTIME=runsc]`: runs every case, prints one line for each, and last `N of N held`.
//!   `runsc` is gVisor; `runsc-uncounted` is gVisor without control groups, which limits no memory, processes or
//!   processors
//! - `hostile race [SECONDS=60]`: swaps a file with four other kinds of files while a reader reads its name
//! - `hostile flood`: measures how long a flooding box lives, how many files it leaves, and how it slows another group
//!
//! The last two commands end with one line of JSON. Each command fails if a promise was broken. `make hostile` builds
//! the needed binaries.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use journeys::hostile::{Harness, cases, race_and_flood_measured};
use journeys::settings::Settings;
use tokio::task::JoinSet;

const USAGE: &str = "usage: hostile cases|race|flood [ONLY=words] [RUNTIME=name] [SECONDS=60]";

/// Returns the lines of each group's settings.
fn of_groups(settings: &Settings) -> String {
    settings.text("RUNTIME").map(|name| format!("runtime = {name:?}")).unwrap_or_default()
}

/// Runs every case whose name contains a word of `only`. The line of a case says whether it is broken.
async fn all(settings: &str, only: &str) -> Result<ExitCode, String> {
    let chosen = |name: &str| only.split([',', ' ']).any(|word| name.contains(word));
    let harness = Arc::new(Harness::open(settings).await);
    let mut running = JoinSet::new();
    for case in cases().into_iter().filter(|case| chosen(case.name)) {
        let harness = Arc::clone(&harness);
        running.spawn(async move { harness.run(&case).await });
    }
    let (mut held, mut of) = (0, 0);
    let mut broken = Vec::new();
    let mut losses: BTreeMap<&str, usize> = BTreeMap::new();
    while let Some(outcome) = running.join_next().await {
        let outcome = outcome.map_err(|e| e.to_string())?;
        println!("{}", outcome.line());
        of += 1;
        if outcome.broken.is_some() {
            broken.push(outcome.name);
            continue;
        }
        held += 1;
        if let Some(line) = outcome.loss {
            *losses.entry(line).or_default() += 1;
        }
    }
    match Arc::into_inner(harness) {
        Some(harness) => harness.close().await,
        None => return Err("a case is still running".to_owned()),
    }
    if of == 0 {
        return Err(format!("no case's name contains {only:?}"));
    }
    if !broken.is_empty() {
        println!("broken: {}", broken.join(" "));
    }
    if !losses.is_empty() {
        let lines: Vec<String> = losses.iter().map(|(line, n)| format!("{line} {n}")).collect();
        println!(
            "{} of them by a loss that status names: {}",
            losses.values().sum::<usize>(),
            lines.join(", ")
        );
    }
    println!("{held} of {of} held");
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run() -> Result<ExitCode, String> {
    let (settings, words) = Settings::of_arguments();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["cases"] => all(&of_groups(&settings), &settings.text("ONLY").unwrap_or_default()).await,
        ["race"] => {
            let seconds = settings.number("SECONDS", 60)?;
            let told = race_and_flood_measured::race(seconds, &of_groups(&settings)).await;
            println!("{told}");
            let some = |name: &str| told[name].as_u64().is_some_and(|n| n > 0);
            let held = told["leaks"] == 0 && some("taken") && some("letters_swapped_in_a_box");
            Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ["flood"] => {
            let told = race_and_flood_measured::flood(&of_groups(&settings)).await;
            println!("{told}");
            let floods = told["floods"].as_array().cloned().unwrap_or_default();
            let cleared = floods.iter().all(|flood| flood["files_left"].as_u64().is_some_and(|n| n <= 64));
            let held = told["host_alive"] == true && !floods.is_empty() && cleared;
            Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ => Err(USAGE.to_owned()),
    }
}

fn main() -> ExitCode {
    // The check of a case may block its thread, so there are more threads than parallel cases.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("hostile: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run()) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("hostile: {why}");
            ExitCode::FAILURE
        }
    }
}
