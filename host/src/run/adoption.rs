//! Adopts a box that an earlier host left. This host first opens the box's mailbox and gateway, then takes what the box
//! wrote meanwhile, and only then asks the engine about the box. `supervisor` calls it when the host starts.

use std::sync::Arc;

use ipc_schema::letters::to_agent::InterruptWhy;
use tokio::time::Instant;

use super::RunHandle;
use super::end::{KILL_AGAIN, LAST_PASSES};
use super::gateway_session::GatewaySession;
use super::launch_error::LaunchError;
use super::states::{Life, Turn};
use super::{Parts, READY_WITHIN, Run, SILENCE};
use crate::dispatch::AdoptedState;
use crate::domain::group_settings::Group;
use crate::domain::{Ending, Lane, RunId};
use crate::mailbox::{Archive, RunMailbox};
use crate::policy::sandbox_plan;
use crate::sandbox::BoxState;
use crate::services::Services;
use crate::store::RunRow;

/// A run of an earlier host, with its mailbox and gateway open in this one.
pub struct Adopted {
    row: RunRow,
    group: Group,
    mailbox: RunMailbox,
    gateway: GatewaySession,
    /// Whether the earlier host told the box to close.
    closes: bool,
    outdated: bool,
}

impl Adopted {
    /// Opens both letter directories again, writes every letter that the agent has not acknowledged, and binds the
    /// socket again. None of this needs the engine.
    ///
    /// # Errors
    /// The run cannot go on: its directories are gone or were never made.
    pub async fn attach(services: &Services, row: RunRow) -> Result<Self, LaunchError> {
        let (lane, run) = (&row.lane, &row.run);
        // The group's file may have become invalid since. The box runs on, and the next run reports the line.
        let mut group = services
            .install
            .group(&lane.group)
            .unwrap_or_else(|_| services.install.default_group(lane.group.clone()));
        let state = services.store.begin_state(lane.clone()).await?;
        let began_with = row.began_with.as_ref().filter(|_| row.model_chosen);
        match (state.model, began_with) {
            (Some(model), _) => group.model.model = model,
            // The box goes on with the model that it began with, as its transcript says.
            (None, Some((provider, model))) => {
                if let Some(known) = services.install.chosen(&group, (provider, model)) {
                    group.model = known;
                }
            }
            (None, None) => services.choose_model(&mut group).await,
        }
        let known = services.store.group(&lane.group, services.clock.wall()).await?;
        let root = &services.install.root;
        let archive =
            Archive::open(&root.letters(&lane.group, run)).map_err(|e| LaunchError::new("letters.dir", e))?;
        let mut mailbox = services.mailbox.reopen(
            &root.run_ipc(&lane.group, run),
            run.clone(),
            known.uid,
            row.taken,
            group.limits.letters(),
            archive,
        )?;
        for letter in services.store.unacknowledged(run.clone()).await? {
            failpoint!("run.adopt.letter");
            mailbox.write(&letter.name, &letter.bytes).map_err(|e| LaunchError::new("ipc.write", e))?;
        }
        let gateway = GatewaySession::open(services, lane, run, &group, &mailbox)?;
        failpoint!("run.adopt.socket");
        gateway.open_turn.send_replace(row.turn.as_ref().map(|(turn, _)| *turn));
        // An older runner may not know all that this host writes, so the box gets no further turn.
        let outdated = row.runner != services.runner.digest
            || row.model_chosen
            || (lane.task_id().is_none() && row.session != state.session.name);
        let closes = mailbox.closes();
        Ok(Self { row, group, mailbox, gateway, closes, outdated })
    }

    pub fn run(&self) -> &RunId {
        &self.row.run
    }

    pub fn lane(&self) -> &Lane {
        &self.row.lane
    }

    /// Returns whether a person stopped the box's turn and the box has not confirmed it yet.
    pub fn is_stopping(&self) -> bool {
        self.row.interrupted == Some(InterruptWhy::Stop)
    }

    /// Returns whether the box gets no further turn: a person began a new session or chose a model that it does not
    /// know, or its runner is of another release.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Returns the run's state for dispatch.
    pub fn found(&self) -> AdoptedState {
        match () {
            () if self.closes => AdoptedState::Closing,
            () if !self.row.ready => AdoptedState::Starting,
            () if self.row.given => AdoptedState::Working,
            () => AdoptedState::Listening,
        }
    }

    pub(super) fn into_run(self, services: &Arc<Services>, handle: &RunHandle) -> Run {
        let Self { row, group, mailbox, gateway, closes, .. } = self;
        // The silence timer starts again: the box may have waited for its model as long as the host was away.
        let now = Instant::now();
        let life = match (closes, row.ready) {
            (true, ready) => Life::Closing { ready },
            (false, true) => Life::Ready,
            (false, false) => Life::Starting { ready_by: now + READY_WITHIN },
        };
        let turn = row.turn.map(|(id, chat)| Turn {
            interrupted: row.interrupted,
            ..Turn::open(id, chat, row.given, now + SILENCE)
        });
        // The engine also finds a box by its name. The host may have died before it stored the id.
        let container = row.container.unwrap_or_else(|| sandbox_plan::box_name(&row.run));
        let session = row.session;
        Run::new(services, handle, Parts { group, session, container, mailbox, gateway, life, turn })
    }
}

impl Run {
    /// Does what no host did while the box ran alone.
    pub(super) async fn catch_up(&mut self) {
        tracing::info!(run = %self.handle.run, lane = %self.handle.lane, "a box of an earlier host is adopted");
        self.stage("adopted");
        self.tell_verdicts().await;
        self.perform_open_requests().await;
        for _ in 0..LAST_PASSES {
            if !self.take_letters().await {
                break;
            }
        }
        failpoint!("run.adopt.caught_up");
        match self.services.engine.state(&self.container).await {
            Ok(BoxState::Paused) => {
                if let Err(e) = self.services.engine.unpause(&self.container).await {
                    tracing::warn!(run = %self.handle.run, code = e.code(), "a paused box was not resumed: {e}");
                }
            }
            // The earlier host died between making the box and its `ready`. That does not count as a failed attempt of
            // the turn.
            Ok(BoxState::Created | BoxState::Absent) if !self.life.is_ready() => {
                self.life.end(Ending::Killed, Instant::now() + KILL_AGAIN);
            }
            Ok(_) => {}
            // The run waits for the box's exit, and this wait also waits for the engine.
            Err(e) => {
                tracing::warn!(run = %self.handle.run, code = e.code(), "the box cannot be looked at yet: {e}")
            }
        }
    }
}
