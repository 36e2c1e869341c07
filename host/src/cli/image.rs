//! `lazaret image` builds, checks and chooses the images of boxes. It works while the host runs; only runs that start
//! later use the change.

use ipc_schema::text_sanitize::safe_line;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::{CliError, Done, Here};
use crate::channels::terminal::wire::{FromClient, SOCKET, ToClient};
use crate::clock::Clock;
use crate::config::{Install, set_group_image};
use crate::daemon;
use crate::dispatch::Renewal;
use crate::domain::GroupName;
use crate::domain::image::{DEFAULT_IMAGE, Named, NotTaken, Pin, short};
use crate::domain::limits::RunLimits;
use crate::images::{self, BASE, DefaultImage};
use crate::policy::image_selection::{Rollback, of_next_run, roll_back};
use crate::policy::image_verdict::{ImageAbout, ImageCheck, Severity, check_name};
use crate::sandbox::{Engine, EngineError};
use crate::store::Store;
use crate::terminal_output::safe;
use crate::text;
use crate::unix_socket;

/// Build, check and choose the images of boxes.
#[derive(Debug, Args)]
pub struct Image {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the default image. Groups that use it get it with their next run, if it passes the check.
    Build {
        /// The Debian image to build from. The default is debian:bookworm-slim.
        #[arg(long, value_name = "IMAGE")]
        base: Option<String>,
        /// Build the image even if it exists and nothing has changed.
        #[arg(long)]
        again: bool,
    },
    /// Check an image from outside and, in a box with full protection, from inside. This changes nothing.
    Check {
        /// The image's name or id. Without it, the image of the group is checked.
        name: Option<String>,
        /// The group whose box is used for the check.
        #[arg(long, default_value = "main")]
        group: GroupName,
    },
    /// Pull an image if it is missing, check it, and use it for a group from the next run on.
    Set {
        /// The group that gets the image.
        group: GroupName,
        /// The image's name, such as python:3.12.
        name: String,
        /// Pull even if this machine has an image of this name.
        #[arg(long)]
        pull: bool,
        /// End the group's box too: an idle one now, a working one after its turn.
        #[arg(long)]
        now: bool,
    },
    /// Go back to the image that a group used before, or undo a change that was not taken. A second rollback undoes the
    /// first.
    Rollback {
        /// The group whose image is rolled back.
        group: GroupName,
        /// End the group's box too: an idle one now, a working one after its turn.
        #[arg(long)]
        now: bool,
    },
    /// List groups with their images, and the images that were refused.
    List,
}

pub(super) async fn run(here: &Here, image: Image) -> Done {
    match image.verb {
        Verb::Build { base, again } => build(here, base, again).await,
        Verb::Check { name, group } => check(here, name, &group).await,
        Verb::Set { group, name, pull, now } => set(here, &group, &name, pull, now).await,
        Verb::Rollback { group, now } => rollback(here, &group, now).await,
        Verb::List => list(here).await,
    }
}

/// Prints steps to standard error, because standard output carries the result. Skips a step that differs from the last
/// one only in a number.
fn print_steps() -> impl FnMut(&str) {
    let mut last = String::new();
    move |step: &str| {
        let words: String =
            step.trim_end_matches([' ', '%']).trim_end_matches(|c: char| c.is_ascii_digit()).into();
        let ends = step.ends_with("100 %");
        if !step.trim().is_empty() && (words != last || ends) {
            eprintln!("  {}", safe(step));
            last = words;
        }
    }
}

async fn build(here: &Here, base: Option<String>, again: bool) -> Done {
    let engine = daemon::engine(&here.install()?, &here.env)?;
    let plain = |e: std::io::Error| CliError::Plain(e.to_string());
    let built = images::recipe(BASE).map_err(plain)?;
    if base.is_none() && !again && built.is_built(&engine).await? {
        here.print(
            &json!({ "image": DEFAULT_IMAGE, "built": false }),
            "lazaret-agent exists, and nothing has changed since it was built",
        );
        return Ok(ExitCode::SUCCESS);
    }
    let base = match base {
        Some(base) => base,
        None => base_of(&engine, &built).await?,
    };
    eprintln!("building {DEFAULT_IMAGE} from {}", safe(&base));
    let recipe = images::recipe(&base).map_err(plain)?.recipe;
    let name = recipe.name.clone();
    engine.build(recipe, images::FETCH_WITHIN, print_steps()).await?;
    let id = engine.image(&name).await?.id;
    let text = format!(
        "{DEFAULT_IMAGE} is {}; groups get it with their next run, if it passes the check",
        short(&id)
    );
    here.print(&json!({ "image": DEFAULT_IMAGE, "id": id, "base": base, "built": true }), text);
    Ok(ExitCode::SUCCESS)
}

/// Chooses the image to build from: one that this machine has, else one from the registry. Without either, the error
/// says how to make one.
async fn base_of(engine: &Engine, built: &DefaultImage) -> Result<String, CliError> {
    /// A registry that does not answer within this time counts as unreachable.
    const REGISTRY: Duration = Duration::from_secs(120);
    for base in [BASE, built.offline_base.as_str()] {
        match engine.image(base).await {
            Ok(_) => return Ok(base.to_owned()),
            Err(EngineError::NoImage { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    eprintln!("pulling {BASE}");
    match engine.pull(BASE, REGISTRY, print_steps()).await {
        Ok(()) => Ok(BASE.to_owned()),
        Err(EngineError::NotFetched { why, .. }) => Err(CliError::Plain(format!(
            "there is no image to build from: {BASE} is not on this machine, and the registry says: {}\n\
             make one from a Debian mirror, as root:\n  \
             apt-get install mmdebstrap\n  \
             mmdebstrap --variant=minbase --include={} bookworm - | docker import - {}\n  \
             lazaret image build",
            safe(why.trim()),
            images::packages(),
            built.offline_base,
        ))),
        Err(e) => Err(e.into()),
    }
}

async fn check(here: &Here, name: Option<String>, group: &GroupName) -> Done {
    let install = here.install()?;
    let store = here.store()?;
    let pin = store.pin(group).await?;
    let name = match name {
        Some(name) => name,
        None => of_next_run(&install.group(group)?.image, pin.as_ref()).to_owned(),
    };
    check_name(&name).map_err(CliError::Plain)?;
    let about = daemon::engine(&install, &here.env)?.about_image(&name).await?;
    let verdict = daemon::images_of(&install, &here.env, store)?.check(&about).await?;
    here.print(&verdict_json(&name, &about, &verdict), verdict_text(&name, &about, &verdict));
    Ok(if verdict.broken().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn set(here: &Here, group: &GroupName, name: &str, pull: bool, now: bool) -> Done {
    let install = known_group(here, group)?;
    let store = here.store()?;
    let set = take(here, &install, &store, group, name, pull).await;
    if let Err(e) = &set {
        // `status` shows it, and a rollback undoes it instead of the image before.
        let refused =
            NotTaken { name: name.to_owned(), id: None, why: e.to_string(), at: Clock::new().wall() };
        store.image_refused(group, refused).await?;
    }
    let (told, mut json) = set?;
    let live = box_of(here, &install, &store, group, now).await?;
    json["box"] = live.json();
    here.print(&json, format!("{told}{}", live.told()));
    Ok(ExitCode::SUCCESS)
}

/// Fetches an image if need be, checks it and pins it. Returns what the person is told.
async fn take(
    here: &Here,
    install: &Install,
    store: &Store,
    group: &GroupName,
    name: &str,
    pull: bool,
) -> Result<(String, Value), CliError> {
    check_name(name).map_err(CliError::Plain)?;
    let engine = daemon::engine(install, &here.env)?;
    let images = daemon::images_of(install, &here.env, store.clone())?;
    if pull {
        fetch(&engine, name).await?;
    }
    let about = match engine.about_image(name).await {
        Err(EngineError::NoImage { .. }) if !pull => {
            fetch(&engine, name).await?;
            engine.about_image(name).await?
        }
        about => about?,
    };
    let verdict = images.check(&about).await?;
    if let Some(broken) = verdict.broken() {
        here.print(&verdict_json(name, &about, &verdict), verdict_text(name, &about, &verdict));
        let why = format!("{}; nothing was changed: group {group} keeps its image", broken.told);
        return Err(CliError::Plain(why));
    }
    let now = Clock::new().wall();
    store.group(group, now).await?;
    // The file is written before the pin. A run that starts in between reads the new name, checks the image and pins
    // the same one.
    set_group_image::set_image(&here.root, group, name)?;
    let to = Named { name: name.to_owned(), id: about.facts.id.clone() };
    store.pin_image(group, to.clone(), "terminal", now).await?;
    let text = format!(
        "{}\n\ngroup {group} uses {} from its next run on; `lazaret image rollback {group}` undoes it",
        verdict_text(name, &about, &verdict),
        to.shown()
    );
    let mut json = verdict_json(name, &about, &verdict);
    json["group"] = json!(group.as_str());
    Ok((text, json))
}

async fn fetch(engine: &Engine, name: &str) -> Result<(), CliError> {
    eprintln!("pulling {}", safe(name));
    Ok(engine.pull(name, images::FETCH_WITHIN, print_steps()).await?)
}

async fn rollback(here: &Here, group: &GroupName, now: bool) -> Done {
    let install = known_group(here, group)?;
    let store = here.store()?;
    let wanted = install.group(group)?.image;
    let nowhere = || CliError::Plain(format!("group {group} has used no other image before this one"));
    let pin = store.pin(group).await?.ok_or_else(nowhere)?;
    let (to, told) = match roll_back(&wanted, &pin) {
        Rollback::Nowhere => return Err(nowhere()),
        Rollback::Stays { never_taken } => {
            if wanted != pin.now.name {
                set_group_image::set_image(&here.root, group, &pin.now.name)?;
            }
            // The same image again: this forgets the one that was refused.
            store.pin_image(group, pin.now.clone(), "terminal", Clock::new().wall()).await?;
            let further = pin.before.as_ref().map_or_else(String::new, |before| {
                format!("; a second rollback goes back to {}", before.shown())
            });
            let (never_taken, serves) = (safe(never_taken), pin.now.shown());
            (&pin.now, format!("group {group} stays with {serves}: {never_taken} was never taken{further}"))
        }
        Rollback::To(to) => {
            let engine = daemon::engine(&install, &here.env)?;
            to_earlier(here, &engine, &store, group, &pin, to).await?;
            let from = pin.now.shown();
            let told = format!(
                "group {group} uses {} again from its next run on, instead of {from}; a second rollback undoes this",
                to.shown()
            );
            (to, told)
        }
    };
    // A box that is up while nothing changes goes on as it is.
    let live = match (to == &pin.now, now) {
        (true, false) => LiveBox::None,
        _ => box_of(here, &install, &store, group, now).await?,
    };
    let before = store.pin(group).await?.and_then(|pin| pin.before).as_ref().map(named);
    let json = json!({ "group": group.as_str(), "now": named(to), "before": before, "box": live.json() });
    here.print(&json, format!("{told}{}", live.told()));
    Ok(ExitCode::SUCCESS)
}

async fn to_earlier(
    here: &Here,
    engine: &Engine,
    store: &Store,
    group: &GroupName,
    pin: &Pin,
    to: &Named,
) -> Result<(), CliError> {
    // The rollback checks the image here, so that the next run does not fail because the image is missing.
    engine.image(&to.id).await.map_err(|e| match e {
        EngineError::NoImage { .. } => CliError::Plain(format!(
            "this machine no longer has {}; group {group} keeps {}",
            to.shown(),
            pin.now.shown()
        )),
        e => e.into(),
    })?;
    if to.name != pin.now.name {
        set_group_image::set_image(&here.root, group, &to.name)?;
    }
    if store.roll_back_pin(group, to.clone(), "terminal", Clock::new().wall()).await? {
        return Ok(());
    }
    Err(CliError::Plain(format!(
        "somebody has changed the image of group {group} meanwhile; run the command again"
    )))
}

/// What becomes of the box that a group has up while its image changes.
enum LiveBox {
    None,
    /// The host ends it.
    Ends(Renewal),
    /// It goes on with the image that it has. The limits say how long.
    GoesOn(Box<RunLimits>),
    /// No host runs, so nobody can end it.
    NoHost,
}

impl LiveBox {
    fn told(&self) -> String {
        let told = match self {
            Self::None | Self::Ends(Renewal::NoBox) => return String::new(),
            Self::Ends(Renewal::Closes) => "its idle box closes now".to_owned(),
            Self::Ends(Renewal::ClosesAfterTurn) => "its box works, and closes after this turn".to_owned(),
            Self::GoesOn(limits) if limits.idle_window.0.is_zero() => {
                "its box that is up goes on with the old image until its turn ends".to_owned()
            }
            Self::GoesOn(limits) => format!(
                "its box that is up goes on with the old image until it has been idle for {}, or until a turn ends {} after \
                 its start; the same command with --now ends it",
                text::duration(limits.idle_window.0),
                text::duration(limits.run.0)
            ),
            Self::NoHost => {
                "no host runs: its box goes on with the old image when the next host adopts it; repeat the \
                             command with --now then"
                    .to_owned()
            }
        };
        format!("\n{told}")
    }

    fn json(&self) -> Value {
        match self {
            Self::None => json!(Renewal::NoBox),
            Self::Ends(renewal) => json!(renewal),
            Self::GoesOn(_) | Self::NoHost => json!("goes_on"),
        }
    }
}

/// Finds the group's box that is up and, if `now` is set, lets the running host end it.
async fn box_of(
    here: &Here,
    install: &Install,
    store: &Store,
    group: &GroupName,
    now: bool,
) -> Result<LiveBox, CliError> {
    let runs = store.summary().await?.runs;
    let up = runs.iter().any(|(_, lane, _)| lane.split('/').next() == Some(group.as_str()));
    if !up {
        return Ok(LiveBox::None);
    }
    match (here.host_is_up().await, now) {
        (false, _) => Ok(LiveBox::NoHost),
        (true, false) => Ok(LiveBox::GoesOn(Box::new(install.group(group)?.limits))),
        (true, true) => Ok(LiveBox::Ends(renewed(here, group).await?)),
    }
}

/// Asks the running host to end the group's boxes.
async fn renewed(here: &Here, group: &GroupName) -> Result<Renewal, CliError> {
    const WITHIN: Duration = Duration::from_secs(15);
    let asked = async {
        let mut stream = BufReader::new(unix_socket::connect(&here.root.host_socket_dir(), SOCKET).await?);
        let mut order = serde_json::to_vec(&FromClient::Renew { group: group.clone() })?;
        order.push(b'\n');
        stream.write_all(&order).await?;
        let mut lines = stream.lines();
        while let Some(line) = lines.next_line().await? {
            // The client is in the chat of `main` and hears what is said there.
            if let Ok(ToClient::Renewed { renewal }) = serde_json::from_str(&line) {
                return Ok(Some(renewal));
            }
        }
        Ok::<_, std::io::Error>(None)
    };
    match tokio::time::timeout(WITHIN, asked).await {
        Ok(Ok(Some(renewal))) => Ok(renewal),
        _ => Err(CliError::Plain(format!(
            "the image is changed, but the host did not end the box of group {group}; repeat the command"
        ))),
    }
}

async fn list(here: &Here) -> Done {
    let install = here.install()?;
    let pins = here.store_to_read()?.pins().await?;
    let engine = daemon::engine(&install, &here.env)?;
    let (mut text, mut groups) = (String::new(), Vec::new());
    for group in install.group_names() {
        let wanted = install.group(&group).map(|g| g.image).unwrap_or_else(|_| "?".into());
        let pin = pins.iter().find(|(of, _)| *of == group).map(|(_, pin)| pin);
        let about = match pin {
            Some(pin) => engine.about_image(&pin.now.id).await.ok(),
            None => None,
        };
        text += &row(group.as_str(), &wanted, pin, about.as_ref());
        groups.push(json!({
            "group": group.as_str(),
            "named": wanted,
            "pinned": pin.map(|pin| named(&pin.now)),
            "since": pin.map(|pin| pin.at.rfc3339()),
            "there": pin.map(|_| about.is_some()),
            "mib": about.as_ref().map(|a| a.size >> 20),
            "created": about.as_ref().map(|a| &a.created),
            "before": pin.and_then(|pin| pin.before.as_ref()).map(named),
            "refused": pin.and_then(|pin| pin.refused.as_ref()).map(|r| json!({
                "name": r.name, "id": r.id, "why": r.why, "at": r.at.rfc3339(),
            })),
        }));
    }
    here.print(&json!(groups), text.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn row(group: &str, wanted: &str, pin: Option<&Pin>, about: Option<&ImageAbout>) -> String {
    let Some(pin) = pin else {
        return format!("{group:<16} {} (checked and pinned at its first run)\n", safe(wanted));
    };
    let there = match about {
        Some(about) => {
            format!("{} MiB, made {}", about.size >> 20, safe(about.created.get(..10).unwrap_or("?")))
        }
        None => format!("GONE from this machine; lazaret image set {group} NAME"),
    };
    let mut text = format!("{group:<16} {}, {there}\n", safe_line(&pin.now.shown()));
    if let Some(before) = &pin.before {
        text += &format!("{:<16} before: {}\n", "", safe_line(&before.shown()));
    }
    if let Some(refused) = &pin.refused {
        text += &format!("{:<16} not taken: {}: {}\n", "", safe_line(&refused.name), safe_line(&refused.why));
    }
    text
}

/// Returns the install, after a check that it has this group and that the group's file can be read.
fn known_group(here: &Here, group: &GroupName) -> Result<Install, CliError> {
    let install = here.install()?;
    if !install.group_names().contains(group) {
        let why = format!("there is no group {group}; `lazaret groups list` shows all groups");
        return Err(CliError::Plain(why));
    }
    install.group(group)?;
    Ok(install)
}

fn named(image: &Named) -> Value {
    json!({ "name": image.name, "id": image.id })
}

fn verdict_json(name: &str, about: &ImageAbout, verdict: &ImageCheck) -> Value {
    let findings = verdict.findings.iter();
    json!({
        "image": name,
        "id": about.facts.id,
        "architecture": about.facts.architecture,
        "mib": about.size >> 20,
        "usable": verdict.broken().is_none(),
        "findings": findings.map(|f| json!({
            "severity": f.severity.as_str(), "what": f.what, "told": f.told,
        })).collect::<Vec<_>>(),
        "offers": verdict.offers,
    })
}

fn verdict_text(name: &str, about: &ImageAbout, verdict: &ImageCheck) -> String {
    let system =
        verdict.offers.as_ref().and_then(|o| o.system.clone()).map(|s| format!(", {s}")).unwrap_or_default();
    let mut text = safe_line(&format!(
        "{name} ({}), {}/{}, {} MiB{system}",
        short(&about.facts.id),
        about.os,
        about.facts.architecture,
        about.size >> 20
    )) + "\n";
    for f in &verdict.findings {
        text += &format!("{:<7} {:<13} {}\n", f.severity.as_str(), f.what, safe_line(&f.told));
    }
    let loses = verdict.findings.iter().filter(|f| f.severity == Severity::Loses).count();
    text += &match (verdict.broken(), loses) {
        (Some(_), _) => "it cannot be used".to_owned(),
        (None, 0) => "it can be used".to_owned(),
        (None, n) => format!("it can be used, with {n} loss{}", if n == 1 { "" } else { "es" }),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::WallMs;

    #[test]
    fn a_row_says_what_serves_and_what_was_not_taken() {
        let pin = Pin {
            now: Named { name: "busybox".into(), id: "sha256:0123456789abcdef".into() },
            at: WallMs(0),
            before: None,
            passed_over: None,
            refused: Some(crate::domain::image::NotTaken {
                name: "evil\u{1b}[2J".into(),
                id: None,
                why: "no".into(),
                at: WallMs(0),
            }),
        };
        let row = row("family", "busybox", Some(&pin), None);
        assert!(row.contains("busybox (0123456789ab), GONE"), "{row}");
        assert!(row.contains(r"not taken: evil\u{1b}[2J: no"), "{row}");
    }
}
