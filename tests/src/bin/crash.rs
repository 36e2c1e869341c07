//! Runs the crash tests. See [`journeys::crash`].
//!
//! - `crash sweep [ONLY=store.] [SWEEP=docker] [AT_ONCE=3]`: every failpoint, every hit, every action
//! - `crash soak [KILLS=25] [MESSAGES=0] [CHANNEL=telegram|terminal|whatsapp] [POLICY=resend|edit|hold] [ODD=0.2]
//!   [SEED=…]`: kills at random under load; `ODD` is the share of model calls with a refusal, a cut or odd elements
//! - `crash tasks [KILLS=200] [SEED=…]`: tasks that fire each minute on a clock that the test drives, under kills
//! - `crash rolling [N=100] [CHANNEL=…]`: restarts under load; prints the longest pause of a chat
//! - `crash starts [GROUPS=100] [MESSAGES=10000]`: measures the time from the start to the first poll
//! - `crash rivals [N=100]`: two hosts started together
//! - `crash invariants [N=1000]`: copies the database and its WAL under load and checks each copy
//! - `crash check DIR`: checks kept evidence again; a run keeps it in `target/crash/evidence` or `EVIDENCE`
//!
//! The earlier words `storm` (soak), `moments` (invariants) and `CHANNEL=keyed` (terminal) stay valid.
//!
//! Each command ends with one line of JSON and fails if a promise was broken. `make crash` builds the needed binaries.
//! Environment variables can give the settings too.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use journeys::crash::database_invariants::invariants;
use journeys::crash::soak::{Soak, soak};
use journeys::crash::sweep::{Sweep, sweep};
use journeys::crash::tasks::{Tasks, tasks};
use journeys::crash::worker_panics::panics;
use journeys::crash::{
    Channel, Evidence, Plan, Verdict, checker, restart_and_start_measurements, two_hosts_at_once,
};
use journeys::settings::Settings;
use serde_json::json;

const USAGE: &str =
    "usage: crash sweep|panics|soak|tasks|invariants|rolling|starts|rivals|check DIR [NAME=VALUE…]";

fn plan_of(settings: &Settings) -> Result<Plan, String> {
    let channel = match settings.text("CHANNEL").as_deref() {
        None | Some("telegram") => Channel::Telegram,
        Some("terminal" | "keyed") => Channel::Terminal,
        Some("whatsapp") => Channel::WhatsApp,
        Some(other) => return Err(format!("CHANNEL={other}: telegram, terminal or whatsapp")),
    };
    let (groups, chats) = if channel == Channel::Terminal { (16, 16) } else { (12, 20) };
    let seed = seed_of(settings)?;
    Ok(Plan {
        channel,
        policy: settings.text("POLICY"),
        groups,
        chats,
        lost: 0.01,
        busy: 0.05,
        down: 0.01,
        odd: settings.number("ODD", 0.0)?,
        seed,
    })
}

fn seed_of(settings: &Settings) -> Result<u64, String> {
    let seed = settings.number("SEED", fastrand::u64(1..1_000_000))?;
    eprintln!("SEED={seed}");
    Ok(seed)
}

/// Prints each broken promise, and the verdict as the last line.
fn print_verdict(verdict: &Verdict) -> Result<ExitCode, String> {
    print_line(verdict, &verdict.broken)
}

fn print_line(line: &impl serde::Serialize, broken: &[String]) -> Result<ExitCode, String> {
    for what in broken.iter().take(30) {
        eprintln!("broken: {what}");
    }
    println!("{}", serde_json::to_string(line).map_err(|e| e.to_string())?);
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run() -> Result<ExitCode, String> {
    let (settings, words) = Settings::of_arguments();
    let evidence = settings.text("EVIDENCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/crash/evidence"),
        PathBuf::from,
    );
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["soak" | "storm"] => {
            let plan = Soak {
                simulation: plan_of(&settings)?,
                kills: settings.number("KILLS", 25)?,
                messages: settings.number("MESSAGES", 0)?,
            };
            print_verdict(&soak(plan, &evidence.join("soak")).await)
        }
        ["sweep"] => {
            let what = Sweep {
                only: settings.text("ONLY").unwrap_or_default(),
                action: settings.text("ACTION"),
                docker: settings.text("SWEEP").as_deref() == Some("docker"),
                at_once: usize::try_from(settings.number("AT_ONCE", 3)?).unwrap_or(3),
            };
            let report = sweep(what, &evidence.join("sweep")).await;
            print!("{report}");
            println!("{}", report.line());
            Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ["tasks"] => {
            let show = Tasks { kills: settings.number("KILLS", 200)?, seed: seed_of(&settings)? };
            let line = tasks(show, &evidence.join("tasks")).await;
            print_line(&line, &line.broken)
        }
        ["panics"] => {
            panics().await;
            Ok(ExitCode::SUCCESS)
        }
        ["rolling"] => {
            let plan = Plan { lost: 0.0, busy: 0.0, down: 0.0, ..plan_of(&settings)? };
            let (verdict, longest) = restart_and_start_measurements::rolling(
                settings.number("N", 100)?,
                plan,
                &evidence.join("rolling"),
            )
            .await;
            println!("{}", json!({ "longest_pause_ms": longest }));
            print_verdict(&verdict)
        }
        ["invariants" | "moments"] => {
            let plan = Plan { lost: 0.0, busy: 0.0, down: 0.0, ..plan_of(&settings)? };
            let count = settings.number("N", 1000)?;
            let many = usize::try_from(count).unwrap_or(usize::MAX);
            let (verdict, replayed) = invariants(many, plan, &evidence.join("invariants")).await;
            println!("{}", json!({ "copies": count, "with_a_log_to_replay": replayed }));
            print_verdict(&verdict)
        }
        ["starts"] => {
            let count = |name, default| {
                settings.number(name, default).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
            };
            println!(
                "{}",
                restart_and_start_measurements::starts(count("GROUPS", 100)?, count("MESSAGES", 10_000)?)
                    .await
            );
            Ok(ExitCode::SUCCESS)
        }
        ["rivals"] => {
            let rounds = settings.number("N", 100)?;
            let came = two_hosts_at_once::rivals(rounds).await;
            println!("{came}");
            let held = came["exactly_one_ran"] == rounds && came["named_the_lock"] == rounds;
            Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ["check", dir] => {
            let evidence = Evidence::read(&PathBuf::from(dir)).map_err(|e| e.to_string())?;
            print_verdict(&checker::check(&evidence))
        }
        _ => Err(USAGE.to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(why) => {
            eprintln!("crash: {why}");
            ExitCode::FAILURE
        }
    }
}
