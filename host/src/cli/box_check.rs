//! `lazaret box check`: a box of a group's real posture, looked at from inside and outside, line by line, with the fix for
//! each loss; and this install's keys, which must be nowhere in it.

use ipc_schema::text::safe_line;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::canary::Canary;
use super::{CliError, Done, Here};
use crate::clock::Clock;
use crate::daemon;
use crate::domain::{GroupName, Lane};
use crate::parts::Runner;
use crate::policy::posture::{Finding, Standing};

use crate::run::{self, Ground, Never, Walls};
use crate::sandbox::Engine;

/// Look at what boxes are.
#[derive(Debug, Args)]
pub struct Box {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a box as a group's runs get it, look at it from inside and outside, and hold it against what was asked for.
    Check {
        /// Whose.
        #[arg(default_value = "main")]
        group: GroupName,
    },
}

impl From<Never> for CliError {
    fn from(never: Never) -> Self {
        Self::Plain(format!("{} ({})", never.why, never.code))
    }
}

pub(super) async fn run(here: &Here, verb: Box) -> Done {
    let Verb::Check { group } = verb.verb;
    // As the host sets it: what is made here is the host's.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    let install = here.install()?;
    let settings = install.group(&group)?;
    let store = here.store()?;
    let known = store.group(&group, Clock::new().wall()).await?;
    let pin = store.pin(&group).await?;
    let image = pin.as_ref().and_then(|pin| pin.serves(&settings.image)).unwrap_or(&settings.image);
    let engine = daemon::engine(&install, &here.env);
    let facts = engine.facts().await.map_err(|e| CliError::Plain(e.to_string()))?;
    let image = engine.image(image).await.map_err(|e| CliError::Plain(e.to_string()))?;
    let runner =
        Runner::install(&daemon::runner_binary(&here.env)?, &here.root.runners()).map_err(CliError::Plain)?;
    let (id, gid) = daemon::identity(&here.root)?;
    let ground = Ground { engine: &engine, install: &install, id: &id, gid, runner: &runner };

    let (lane, next) = (Lane::conversation(group.clone()), run::new_run_id());
    let walls = Walls::below(&here.root.run_ipc(&group, &next));
    let spec = run::spec_of(ground, &lane, &next, known.uid, &settings, image, walls).await?;
    run::possible(&spec, &facts)?;
    let seen = ground.probe(&spec, &settings, known.uid, &next, &facts).await?;

    let mut canary = Canary::of(&install);
    for (place, bytes) in &seen.probed.texts {
        canary.bytes(place, bytes);
    }
    running(&engine, &id, &mut canary).await?;
    canary.install(&install, &group, known.uid);
    let keys = key_line(&canary);

    let all: Vec<&Finding> = seen.findings.iter().chain([&keys]).collect();
    let count = |standing| all.iter().filter(|f| f.standing == standing).count();
    let (held, unknown, lost) = (count(Standing::Held), count(Standing::Unknown), count(Standing::Lost));
    let score = format!("{held} of {}", all.len());
    let calls = &seen.probed.report.calls;
    let json = json!({
        "group": group.as_str(),
        "posture": spec.posture(),
        "engine": facts.version,
        "runtime": spec.runtime,
        "lines": all,
        "syscalls": calls,
        "network": seen.probed.report.network,
        "canary": { "secrets": canary.secrets(), "places": canary.read, "unread": canary.unread, "hits": canary.hits },
        "held": held, "unknown": unknown, "lost": lost, "of": all.len(),
        "ms": u64::try_from(seen.probed.took.as_millis()).unwrap_or(u64::MAX),
    });
    let runtime = spec.runtime.as_deref().unwrap_or("the engine's default runtime");
    let mut text =
        format!("box of group {group}, engine {}, {runtime}, posture {}\n\n", facts.version, spec.posture());
    for finding in &all {
        text += &told(finding);
    }
    for place in &canary.unread {
        text += &format!("      not read for keys: {}\n", safe_line(place));
    }
    text += &format!("\n{score} held");
    for (count, what) in [
        (lost, "lost"),
        (unknown, "not to be seen from here"),
        (count(Standing::Accepted), "accepted"),
        (count(Standing::Runtime), "lost under this runtime"),
        (count(Standing::Named), "named"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    here.print(&json, text);
    // A loss that nobody has accepted by name is one, also where runs go on.
    Ok(if lost + count(Standing::Named) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Boxes that live now: their account and their log.
async fn running(engine: &Engine, install: &str, canary: &mut Canary) -> Result<(), CliError> {
    for found in engine.boxes(install).await.map_err(|e| CliError::Plain(e.to_string()))? {
        // One that ends between the list and the look has nothing more to tell.
        if let Ok(account) = engine.account(&found.container).await {
            canary.bytes(&format!("inspect of run {}", found.run), &account);
        }
        if let Ok(log) = engine.log_tail(&found.container, 2 << 20).await {
            canary.bytes(&format!("the log of run {}", found.run), &log);
        }
    }
    Ok(())
}

fn key_line(canary: &Canary) -> Finding {
    let expected = format!("{} keys and tokens, found in none of {} places", canary.secrets(), canary.read);
    let clean = canary.hits.is_empty();
    if canary.secrets() == 0 {
        return Finding {
            name: "key-canary",
            standing: Standing::Unknown,
            seen: "no key or token is set here, so there is nothing to look for".into(),
            expected: "the keys that the host has".into(),
            fix: "run it with the environment that the host runs with",
            acceptable: false,
        };
    }
    Finding {
        name: "key-canary",
        standing: if clean { Standing::Held } else { Standing::Lost },
        seen: if clean { expected.clone() } else { format!("found in {}", canary.hits.join(", ")) },
        expected,
        fix: "make that key invalid where it was issued, set a new one, and take it out of the place named",
        acceptable: false,
    }
}

/// One line of the table; where there is something to do, another with the fix.
fn told(finding: &Finding) -> String {
    let (mark, fix) = match finding.standing {
        Standing::Held => ("ok  ", false),
        Standing::Unknown => ("?   ", false),
        Standing::Accepted => ("acc ", true),
        Standing::Runtime => ("run ", true),
        Standing::Named => ("loss", true),
        Standing::Lost => ("LOST", true),
    };
    let Finding { name, expected, seen, .. } = finding;
    let (expected, seen) = (safe_line(expected), safe_line(seen));
    let mut line = if seen == expected {
        format!("{mark}  {name:<18}  {seen}\n")
    } else {
        format!("{mark}  {name:<18}  {seen}; asked for {expected}\n")
    };
    if fix {
        line += &format!("      {:<18}  fix: {}\n", "", finding.fix);
    }
    line
}
