//! `lazaret tasks preview` shows how a schedule is understood and when it fires.

use std::iter::successors;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::super::{CliError, Done, Here};
use crate::clock::Clock;
use crate::config::zone_data;
use crate::domain::{WallMs, Zone};
use crate::host_files;
use crate::schedule::{self, Schedule};

#[derive(Debug, Args)]
pub(super) struct Preview {
    /// The schedule: `30 7 * * 1-5`, `daily 07:30`, `every 30 minutes`, `tomorrow 9:00`.
    #[arg(required = true)]
    schedule: Vec<String>,
    /// The time zone, such as Europe/Berlin. The default is the install's, or this machine's if there is no install.
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Show the fires after this local time, such as 2026-03-06T00:00. The default is now.
    #[arg(long, value_name = "LOCAL-TIME")]
    from: Option<String>,
    /// How many fires to show.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
}

pub(super) fn run(here: &Here, preview: &Preview) -> Done {
    let zone = match &preview.tz {
        Some(name) => zone_data::named(name)?,
        None => default_zone(here)?,
    };
    let from = match &preview.from {
        Some(text) => schedule::local_time(text, &zone)?,
        None => Clock::new().wall(),
    };
    let schedule = schedule::parse(&preview.schedule.join(" "), &zone, from)?;
    let fires: Vec<WallMs> = fires(&schedule, &zone, from).take(preview.count.into()).collect();
    let json: Vec<String> = fires.iter().map(|fire| fire.local(&zone)).collect();
    let mut text = format!("understood: {}", schedule.describe(&zone));
    for fire in fires {
        let local = fire.timestamp().to_zoned(zone.0.clone());
        text += &format!("\n  {}", local.strftime("%a %-d %b %Y %H:%M:%S %:z"));
    }
    here.print(&json!(json), text);
    Ok(ExitCode::SUCCESS)
}

fn fires(schedule: &Schedule, zone: &Zone, from: WallMs) -> impl Iterator<Item = WallMs> {
    successors(schedule.next(zone, from), move |fire| schedule.next(zone, *fire))
}

/// The zone of an install's tasks, or this machine's zone if no host was set up here.
fn default_zone(here: &Here) -> Result<Zone, CliError> {
    let install = here.install()?;
    let is_set = install.shown().iter().any(|shown| shown.name == "zone" && shown.source != "default");
    if is_set || host_files::there(&here.root.database()) {
        return Ok(install.file.zone);
    }
    Ok(zone_data::system().unwrap_or(install.file.zone))
}
