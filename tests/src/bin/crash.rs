//! Nothing lost, nothing said twice: the proof. See [`journeys::crash`].
//!
//! - `crash sweep [ONLY=store.] [SWEEP=docker] [AT_ONCE=3]`: each failpoint, each hit, each action
//! - `crash storm [KILLS=25] [MESSAGES=0] [CHANNEL=telegram|keyed] [POLICY=resend|edit|hold] [SEED=…]`: a random loop
//! - `crash rolling [N=100] [CHANNEL=…]`: restarts under load, and the longest pause of a chat
//! - `crash starts [GROUPS=100] [MESSAGES=10000]`: from the start to the first poll
//! - `crash rivals [N=100]`: two hosts started together
//! - `crash moments [N=1000]`: copies of the database and its log under load, each opened and judged
//! - `crash check DIR`: judges evidence again; what a run leaves lies in `target/crash/evidence`, or `EVIDENCE`
//!
//! Each ends with one line of JSON, and fails when a promise was broken. `make crash` builds what it needs; settings
//! can come from the environment, too.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use journeys::crash::invariants::moments;
use journeys::crash::panics::panics;
use journeys::crash::soak::{Storm, storm};
use journeys::crash::sweep::{Sweep, sweep};
use journeys::crash::{Channel, Evidence, Plan, Verdict, checker, measurements};
use journeys::settings::Settings;
use serde_json::json;

const USAGE: &str = "usage: crash sweep|panics|storm|moments|rolling|starts|rivals|check DIR [NAME=VALUE…]";

fn plan_of(settings: &Settings) -> Result<Plan, String> {
    let channel = match settings.text("CHANNEL").as_deref() {
        None | Some("telegram") => Channel::Telegram,
        Some("keyed") => Channel::Keyed,
        Some(other) => return Err(format!("CHANNEL={other}: telegram or keyed")),
    };
    let (groups, chats) = if channel == Channel::Keyed { (16, 16) } else { (12, 20) };
    let seed = settings.number("SEED", fastrand::u64(1..1_000_000))?;
    eprintln!("SEED={seed}");
    Ok(Plan {
        channel,
        policy: settings.text("POLICY"),
        groups,
        chats,
        lost: 0.01,
        busy: 0.05,
        down: 0.01,
        seed,
    })
}

/// The verdict's line last, what was broken before it.
fn told(verdict: &Verdict) -> Result<ExitCode, String> {
    for what in verdict.broken.iter().take(30) {
        eprintln!("broken: {what}");
    }
    println!("{}", serde_json::to_string(verdict).map_err(|e| e.to_string())?);
    Ok(if verdict.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run() -> Result<ExitCode, String> {
    let (settings, words) = Settings::of_arguments();
    let evidence = settings.text("EVIDENCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/crash/evidence"),
        PathBuf::from,
    );
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["storm"] => {
            let plan = Storm {
                town: plan_of(&settings)?,
                kills: settings.number("KILLS", 25)?,
                messages: settings.number("MESSAGES", 0)?,
            };
            told(&storm(plan, &evidence.join("storm")).await)
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
        ["panics"] => {
            panics().await;
            Ok(ExitCode::SUCCESS)
        }
        ["rolling"] => {
            let plan = Plan { lost: 0.0, busy: 0.0, down: 0.0, ..plan_of(&settings)? };
            let (verdict, longest) =
                measurements::rolling(settings.number("N", 100)?, plan, &evidence.join("rolling")).await;
            println!("{}", json!({ "longest_pause_ms": longest }));
            told(&verdict)
        }
        ["moments"] => {
            let plan = Plan { lost: 0.0, busy: 0.0, down: 0.0, ..plan_of(&settings)? };
            let count = settings.number("N", 1000)?;
            let many = usize::try_from(count).unwrap_or(usize::MAX);
            let (verdict, replayed) = moments(many, plan, &evidence.join("moments")).await;
            println!("{}", json!({ "copies": count, "with_a_log_to_replay": replayed }));
            told(&verdict)
        }
        ["starts"] => {
            let count = |name, default| {
                settings.number(name, default).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
            };
            println!("{}", measurements::starts(count("GROUPS", 100)?, count("MESSAGES", 10_000)?).await);
            Ok(ExitCode::SUCCESS)
        }
        ["rivals"] => {
            let rounds = settings.number("N", 100)?;
            let came = measurements::rivals(rounds).await;
            println!("{came}");
            let held = came["exactly_one_ran"] == rounds && came["named_the_lock"] == rounds;
            Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ["check", dir] => {
            let evidence = Evidence::read(&PathBuf::from(dir)).map_err(|e| e.to_string())?;
            told(&checker::check(&evidence))
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
