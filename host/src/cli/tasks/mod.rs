//! `lazaret tasks` shows scheduled tasks, makes and changes them, and shows when a schedule fires.

mod manage;
mod preview;

use clap::{Args, Subcommand};

use super::{Done, Here};
use crate::domain::task::TaskState;

/// List, make, change and run scheduled tasks, and see when a schedule fires.
#[derive(Debug, Args)]
pub struct Tasks {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the tasks with their next fire.
    List(manage::List),
    /// Show everything about a task.
    Show(manage::Named),
    /// Make a task, or with --remind a reminder.
    Add(manage::Add),
    /// Change a task. What is not named stays.
    Edit(manage::Edit),
    /// Stop a task from firing.
    Pause(manage::Named),
    /// Let a paused task fire again, from its next time on.
    Resume(manage::Named),
    /// End a task for good. Its history stays.
    Cancel(manage::Named),
    /// Fire a task now, beside its schedule.
    Run(manage::Named),
    /// Show what became of a task's fires, the newest first.
    History(manage::History),
    /// Show how a schedule is understood and when it fires. Needs no install and no running host.
    Preview(preview::Preview),
}

pub(super) async fn run(here: &Here, tasks: Tasks) -> Done {
    match tasks.verb {
        Verb::List(list) => manage::list(here, list).await,
        Verb::Show(named) => manage::show(here, named).await,
        Verb::Add(add) => manage::add(here, add).await,
        Verb::Edit(edit) => manage::edit(here, edit).await,
        Verb::Pause(named) => manage::set_state(here, named, TaskState::Paused).await,
        Verb::Resume(named) => manage::set_state(here, named, TaskState::Active).await,
        Verb::Cancel(named) => manage::set_state(here, named, TaskState::Cancelled).await,
        Verb::Run(named) => manage::run_now(here, named).await,
        Verb::History(history) => manage::history(here, history).await,
        Verb::Preview(preview) => preview::run(here, &preview),
    }
}
