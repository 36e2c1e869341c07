//! A box that an earlier host left: this host's wall around it first, then what it wrote meanwhile, and only then a
//! look at the box itself.

use std::sync::Arc;

use ipc_schema::letters::to_agent::InterruptWhy;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::end::LAST_PASSES;
use super::gateway_session::Gate;
use super::launch::Never;
use super::{Owed, READY_WITHIN, Run, SILENCE};
use crate::dispatch::{Event, Found, RunNo};
use crate::domain::group::Group;
use crate::domain::{Ending, Lane};
use crate::mailbox::{Archive, RunBox};
use crate::policy::log_limiter::LogLimiter;
use crate::policy::sandbox_plan;
use crate::policy::turn_quota::Tally;
use crate::sandbox::BoxState;
use crate::services::Services;
use crate::store::{Patience, RunRow};

/// A run of an earlier host, with this host's wall and gateway around its box.
pub struct Adopted {
    row: RunRow,
    group: Group,
    wall: RunBox,
    gate: Gate,
    /// Whether it was told to close.
    closes: bool,
    outdated: bool,
}

impl Adopted {
    /// Stands at the run's wall: both directories are opened again, every letter that the agent has not acknowledged
    /// is a file, and the socket is bound anew. The engine is not needed for any of it.
    ///
    /// # Errors
    /// When the run cannot go on: its directories are gone, or were never made.
    pub async fn stand(services: &Services, row: RunRow) -> Result<Self, Never> {
        let (lane, run) = (&row.lane, &row.run);
        // Its file may have been broken since; the box goes on, and the next run says which line.
        let group = services
            .install
            .group(&lane.group)
            .unwrap_or_else(|_| services.install.default_group(lane.group.clone()));
        let known = services
            .store
            .group(&lane.group, services.clock.wall())
            .await
            .map_err(|e| Never::new(e.code(), e))?;
        let root = &services.install.root;
        let archive =
            Archive::open(&root.letters(&lane.group, run)).map_err(|e| Never::new("letters.dir", e))?;
        let mut wall = services
            .mailbox
            .reopen(
                &root.run_ipc(&lane.group, run),
                run.clone(),
                known.uid,
                row.taken,
                group.limits.letters(),
                archive,
            )
            .map_err(|e| Never::new(e.code(), e))?;
        for letter in services.store.unacknowledged(run.clone()).await.map_err(|e| Never::new(e.code(), e))? {
            failpoint!("run.adopt.letter");
            wall.write(&letter.name, &letter.bytes).map_err(|e| Never::new("ipc.write", e))?;
        }
        let gate = Gate::open(services, lane, run, &group, &wall)?;
        failpoint!("run.adopt.socket");
        gate.open_turn.send_replace(row.turn.as_ref().map(|(turn, _)| *turn));
        let outdated = row.session != known.session_of(lane);
        let closes = wall.closes();
        Ok(Self { row, group, wall, gate, closes, outdated })
    }

    /// Its lane.
    pub fn lane(&self) -> &Lane {
        &self.row.lane
    }

    /// Whether a person has stopped its turn, and the box has not said yet that it did.
    pub fn is_stopping(&self) -> bool {
        self.row.interrupted == Some(InterruptWhy::Stop)
    }

    /// Whether a new session was begun that its box knows nothing of.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Where the run stands, for dispatch.
    pub fn found(&self) -> Found {
        match () {
            () if self.closes => Found::Closing,
            () if !self.row.ready => Found::Starting,
            () if self.row.turn.is_some() => Found::Working,
            () => Found::Listening,
        }
    }

    pub(super) fn into_run(self, services: &Arc<Services>, no: RunNo, events: UnboundedSender<Event>) -> Run {
        let Self { row, group, wall, gate, closes: close_asked, .. } = self;
        // Silence starts anew: the box may have waited for its model as long as the host was away.
        let deadline = match (row.ready, &row.turn) {
            (false, _) => Some(Instant::now() + READY_WITHIN),
            (true, Some(_)) if !close_asked => Some(Instant::now() + SILENCE),
            (true, _) => None,
        };
        let last_chat = row.turn.as_ref().map(|(_, chat)| chat.clone());
        let reads = row.turn.as_ref().map(|(turn, _)| *turn);
        Run {
            services: Arc::clone(services),
            no,
            // An engine finds a box by its name too: the host may have died before it noted the id.
            container: row.container.unwrap_or_else(|| sandbox_plan::box_name(&row.run)),
            run: row.run,
            lane: row.lane,
            group,
            wall,
            events,
            turn: row.turn,
            gate,
            ready: row.ready,
            deadline,
            interrupted: row.interrupted,
            close_asked,
            killed: None,
            die_at: None,
            failed: None,
            suspend_at: None,
            fetching: None,
            patience: Patience::Whole,
            reads,
            fed: 0,
            owed: Owed::default(),
            tally: Tally::default(),
            telling: LogLimiter::default(),
            last_chat,
            reclaim: None,
            before: Vec::new(),
        }
    }
}

impl Run {
    /// Catches up with what happened while no host was there.
    pub(super) async fn catch_up(&mut self) {
        tracing::info!(run = %self.run, lane = %self.lane, "a box of an earlier host is adopted");
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
                    tracing::warn!(run = %self.run, code = e.code(), "a frozen box was not thawed: {e}");
                }
            }
            // The earlier host died between making a box and its `ready`: nothing that the turn should pay for.
            Ok(BoxState::Created | BoxState::Absent) if !self.ready => self.killed = Some(Ending::Killed),
            Ok(_) => {}
            // Waiting for its exit waits for the engine too.
            Err(e) => {
                tracing::warn!(run = %self.run, code = e.code(), "the box cannot be looked at yet: {e}")
            }
        }
    }
}
