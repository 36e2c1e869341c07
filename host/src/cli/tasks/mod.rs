//! `lazaret tasks` shows when scheduled work fires.

mod preview;

use clap::{Args, Subcommand};

use super::{Done, Here};

/// Show when scheduled work fires.
#[derive(Debug, Args)]
pub struct Tasks {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show how a schedule is understood and when it fires. Needs no install and no running host.
    Preview(preview::Preview),
}

pub(super) fn run(here: &Here, tasks: &Tasks) -> Done {
    match &tasks.verb {
        Verb::Preview(preview) => preview::run(here, preview),
    }
}
