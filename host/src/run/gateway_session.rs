//! The run's end of the gateway: its socket, and the turn that its calls are counted for.

use std::sync::Arc;

use ipc_schema::TurnId;
use ipc_schema::directory_layout::GATEWAY_SOCKET;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::launch::Never;
use crate::domain::group::Group;
use crate::domain::{Lane, RunId};
use crate::gateway::RunScope;
use crate::mailbox::{MODEL, RunBox};
use crate::services::Services;

/// An open gateway of one run.
pub(super) struct Gate {
    /// The turn that calls are counted for.
    pub(super) open_turn: watch::Sender<Option<TurnId>>,
    cancel: CancellationToken,
}

impl Gate {
    /// Binds the run's socket and serves it. One that an earlier host bound is replaced: the box has the folder.
    pub(super) fn open(
        services: &Services,
        lane: &Lane,
        run: &RunId,
        group: &Group,
        wall: &RunBox,
    ) -> Result<Self, Never> {
        let dir = wall.socket_dir();
        let listener =
            crate::unix_socket::bind(&dir, GATEWAY_SOCKET, 0o660, Some(services.gid)).map_err(|e| {
                Never::new("gateway.socket", format!("the gateway's socket in {}: {e}", dir.display()))
            })?;
        let (open_turn, seen) = watch::channel(None);
        let cancel = CancellationToken::new();
        let scope = RunScope {
            run: run.clone(),
            group: lane.group.clone(),
            model: group.model.clone(),
            open_turn: seen,
            model_calls: group.limits.model_calls,
            exchanges_dir: wall.archive().dir().join(MODEL),
            ledger: Arc::new(services.store.clone()),
            cancel: cancel.clone(),
        };
        tokio::spawn(Arc::clone(&services.gateway).serve(listener, Arc::new(scope)));
        Ok(Self { open_turn, cancel })
    }

    /// Ends every call of the run.
    pub(super) fn close(&self) {
        self.cancel.cancel();
    }
}
