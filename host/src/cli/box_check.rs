//! `lazaret box check` starts a box as a group's runs get it and checks its protection from inside and outside. It says
//! how to fix each loss. It also searches the box and the group's files for the install's keys.

mod secret_scan;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use secret_scan::Canary;

use super::{CliError, Done, Here};
use crate::clock::Clock;
use crate::config::Install;
use crate::daemon;
use crate::domain::{GroupName, Lane, Session};
use crate::policy::image_selection::of_next_run;
use crate::policy::posture::{PostureFinding, Standing};
use crate::policy::sandbox_plan::ContainerSpec;
use crate::run::{self, LaunchError, ProbeResult, RunDirs, SandboxContext};
use crate::sandbox::{Engine, Probed};
use crate::services::Runner;
use crate::terminal_output::safe_line;

/// Check the protection of boxes.
#[derive(Debug, Args)]
pub struct Box {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a box as a group's runs get it, and check its protection from inside and outside.
    Check {
        /// The group whose box is checked.
        #[arg(default_value = "main")]
        group: GroupName,
    },
}

impl From<LaunchError> for CliError {
    fn from(e: LaunchError) -> Self {
        Self::Plain(format!("{} ({})", e.why, e.code))
    }
}

pub(super) async fn run(here: &Here, verb: Box) -> Done {
    let Verb::Check { group } = verb.verb;
    let looked = look(here, group).await?;
    here.print(&looked.json(), looked.table());
    Ok(if looked.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Looked {
    group: GroupName,
    spec: ContainerSpec,
    engine: String,
    probed: Probed,
    canary: Canary,
    /// The checks of the box, and the result of the search for keys.
    lines: Vec<PostureFinding>,
}

async fn look(here: &Here, group: GroupName) -> Result<Looked, CliError> {
    // The check creates files as the host does, so it uses the host's umask.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    // The check looks for the keys in the box, so it needs them.
    let install = Install::load(here.root.clone(), &here.env)?;
    let settings = install.group(&group)?;
    let store = here.store()?;
    let known = store.group(&group, Clock::new().wall()).await?;
    let pin = store.pin(&group).await?;
    let image = of_next_run(&settings.image, pin.as_ref());
    let engine = daemon::engine(&install, &here.env)?;
    let facts = engine.facts().await.map_err(|e| CliError::Plain(e.to_string()))?;
    let image = engine.image(image).await.map_err(|e| CliError::Plain(e.to_string()))?;
    let runner =
        Runner::install(&daemon::runner_binary(&here.env)?, &here.root.runners()).map_err(CliError::Plain)?;
    let (id, gid) = daemon::identity(&here.root)?;
    let context = SandboxContext { engine: &engine, install: &install, id: &id, gid, runner: &runner };

    let (lane, next) = (Lane::conversation(group.clone()), run::new_run_id());
    let dirs = RunDirs::below(&here.root.run_ipc(&group, &next));
    let session = Session::of_helpers();
    let of = run::BoxOf { lane: &lane, run: &next, uid: known.uid, session: &session };
    let spec = run::spec_of(context, &of, &settings, image, dirs).await?;
    run::check_machine_limits(&spec, &facts)?;
    let ProbeResult { findings: mut lines, probed } =
        context.probe(&spec, &settings, known.uid, &next, &facts).await?;

    let mut canary = Canary::of(&install);
    for (place, bytes) in &probed.texts {
        canary.bytes(place, bytes);
    }
    running(&engine, &id, &mut canary).await?;
    canary.install(&install, &group);
    lines.push(key_line(&canary));
    Ok(Looked { group, spec, engine: facts.version, probed, canary, lines })
}

impl Looked {
    fn count(&self, standing: Standing) -> usize {
        self.lines.iter().filter(|line| line.standing == standing).count()
    }

    /// Returns whether nothing is lost except what the owner has accepted by name.
    fn is_whole(&self) -> bool {
        self.count(Standing::Lost) + self.count(Standing::Named) == 0
    }

    fn json(&self) -> Value {
        let Self { canary, probed, .. } = self;
        json!({
            "group": self.group.as_str(),
            "posture": self.spec.posture(),
            "engine": self.engine,
            "runtime": self.spec.runtime,
            "lines": self.lines,
            "syscalls": probed.report.calls,
            "network": probed.report.network,
            "canary": {
                "secrets": canary.secrets(),
                "places": canary.read,
                "unread": canary.unread.named,
                "unread_more": canary.unread.more,
                "hits": canary.hits.named,
                "hits_more": canary.hits.more,
            },
            "held": self.count(Standing::Held),
            "unknown": self.count(Standing::Unknown),
            "lost": self.count(Standing::Lost),
            "of": self.lines.len(),
            "ms": u64::try_from(probed.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn table(&self) -> String {
        let runtime = self.spec.runtime.as_deref().unwrap_or("the engine's default runtime");
        let mut text = format!(
            "box of group {}, engine {}, {runtime}, posture {}\n\n",
            self.group,
            self.engine,
            self.spec.posture()
        );
        self.lines.iter().for_each(|line| text += &told(line));
        for place in &self.canary.unread.named {
            text += &format!("{:<10}not read for keys: {place}\n", "");
        }
        if self.canary.unread.more > 0 {
            text += &format!("{:<10}not read for keys: {} more\n", "", self.canary.unread.more);
        }
        text += &format!("\n{} of {} held", self.count(Standing::Held), self.lines.len());
        for (standing, what) in [
            (Standing::Lost, "lost: no run of this group starts before this is fixed"),
            (Standing::Unknown, "cannot be checked from here"),
            (Standing::Accepted, "lost and accepted by the owner"),
            (Standing::Runtime, "not offered by this runtime"),
            (Standing::Named, "lost, but runs go on (`lazaret status` shows them)"),
        ] {
            let count = self.count(standing);
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text
    }
}

/// Searches the engine's data and the logs of the boxes that run now.
async fn running(engine: &Engine, install: &str, canary: &mut Canary) -> Result<(), CliError> {
    for found in engine.boxes(install).await.map_err(|e| CliError::Plain(e.to_string()))? {
        // A box that has ended since it was listed is skipped.
        if let Ok(account) = engine.inspect(&found.container).await {
            canary.bytes(&format!("inspect of run {}", found.run), &account);
        }
        if let Ok(log) = engine.log_tail(&found.container, 2 << 20).await {
            canary.bytes(&format!("the log of run {}", found.run), &log);
        }
    }
    Ok(())
}

fn key_line(canary: &Canary) -> PostureFinding {
    let expected = format!("{} keys and tokens, in none of {} places", canary.secrets(), canary.read);
    let clean = canary.hits.is_empty();
    if canary.secrets() == 0 {
        return PostureFinding {
            name: "key-canary",
            standing: Standing::Unknown,
            seen: "no key or token is set, so there is nothing to search for".into(),
            expected: "the keys that the host has".into(),
            fix: "run the command with the environment of the host",
            acceptable: false,
        };
    }
    let unread = canary.unread.named.len() + canary.unread.more;
    let (standing, seen, fix) = match (clean, unread) {
        (false, _) => (
            Standing::Lost,
            format!("found in {}", canary.hits.shown()),
            "revoke that key where it was issued, set a new one, and remove it from the place named",
        ),
        (true, 0) => (Standing::Held, expected.clone(), ""),
        (true, _) => (
            Standing::Unknown,
            format!("{expected}, and {unread} places could not be read"),
            "look at the places below yourself, or run the command as root",
        ),
    };
    PostureFinding { name: "key-canary", standing, seen, expected, fix, acceptable: false }
}

/// Formats a line of the table, and a second line with the fix where there is one.
fn told(finding: &PostureFinding) -> String {
    let (word, fix) = match finding.standing {
        Standing::Held => ("ok", false),
        Standing::Unknown => ("?", true),
        Standing::Accepted => ("accepted", true),
        Standing::Runtime => ("runtime", true),
        Standing::Named => ("named", true),
        Standing::Lost => ("LOST", true),
    };
    let PostureFinding { name, expected, seen, .. } = finding;
    let (expected, seen) = (safe_line(expected), safe_line(seen));
    let mut line = match finding.standing {
        Standing::Held => format!("{word:<8}  {name:<18}  {expected}"),
        _ if seen == expected => format!("{word:<8}  {name:<18}  {seen}"),
        _ => format!("{word:<8}  {name:<18}  {seen}; asked for: {expected}"),
    };
    if fix {
        line += &format!("\n{:<30}fix: {}", "", finding.fix);
    }
    line + "\n"
}
