//! Holds a talk of 300 turns. See [`journeys::longtalk`].
//!
//! `longtalk [TURNS=300] [WINDOW=60000] [SEED=1]`: its last line is one line of JSON. It fails if a fact is not found,
//! a request breaks its wire's rules, or a request is larger than the window. `make longtalk` builds the needed
//! binaries.

use std::process::ExitCode;

use journeys::longtalk::{Plan, talk};
use journeys::settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    let (settings, _) = Settings::of_arguments();
    let plan = (|| {
        let long = Plan::LONG;
        Ok::<_, String>(Plan {
            turns: settings.number("TURNS", long.turns)?,
            window: settings.number("WINDOW", long.window)?,
            seed: settings.number("SEED", long.seed)?,
            ..long
        })
    })();
    let plan = match plan {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = talk(plan, |turn| {
        if turn.is_multiple_of(25) {
            eprintln!("turn {turn} of {}", plan.turns);
        }
    })
    .await;
    outcome.protocol_faults.iter().for_each(|fault| eprintln!("{fault}"));
    println!("{}", outcome.line());
    if outcome.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
