//! The gateway of one run: its socket, and the turn to which the gateway counts calls. `launch` and `adoption` open it;
//! the run closes it before it stores its end.

use std::sync::Arc;

use ipc_schema::TurnId;
use ipc_schema::names_and_paths::GATEWAY_SOCKET;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::launch_error::LaunchError;
use crate::domain::group_settings::Group;
use crate::domain::{Lane, RunId};
use crate::gateway::RunScope;
use crate::mailbox::{MODEL, RunMailbox};
use crate::services::Services;
use crate::workers::Panicked;

/// The open gateway of one run. Dropping it ends every call of the run.
pub(super) struct GatewaySession {
    /// The turn to which the gateway counts calls.
    pub(super) open_turn: watch::Sender<Option<TurnId>>,
    calls: Option<DropGuard>,
    serving: Option<JoinHandle<Result<(), Panicked>>>,
}

impl GatewaySession {
    /// Binds the run's socket and serves it. It replaces a socket that an earlier host bound, because the box mounts
    /// the folder and not the socket.
    pub(super) fn open(
        services: &Services,
        lane: &Lane,
        run: &RunId,
        group: &Group,
        mailbox: &RunMailbox,
    ) -> Result<Self, LaunchError> {
        let dir = mailbox.socket_dir();
        let listener =
            crate::unix_socket::bind(&dir, GATEWAY_SOCKET, 0o660, Some(services.gid)).map_err(|e| {
                LaunchError::new("gateway.socket", format!("the gateway's socket in {}: {e}", dir.display()))
            })?;
        let (open_turn, seen) = watch::channel(None);
        let cancel = CancellationToken::new();
        let scope = RunScope {
            run: run.clone(),
            group: lane.group.clone(),
            model: group.model.clone(),
            open_turn: seen,
            zone: group.zone.clone(),
            model_calls: group.limits.model_calls,
            exchanges_dir: mailbox.archive().dir().join(MODEL),
            ledger: Arc::new(services.store.clone()),
            cancel: cancel.clone(),
            workers: services.workers.clone(),
        };
        let serve = Arc::clone(&services.gateway).serve(listener, Arc::new(scope));
        let serving = services.workers.once(format!("the gateway of run {run}"), serve);
        Ok(Self { open_turn, calls: Some(cancel.drop_guard()), serving: Some(serving) })
    }

    /// Returns when the gateway has failed, so that the box cannot reach a model.
    pub(super) async fn failed(&mut self) {
        if let Some(serving) = &mut self.serving {
            let ended = serving.await;
            self.serving = None;
            if !matches!(ended, Ok(Ok(()))) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Ends every call of the run.
    pub(super) fn close(&mut self) {
        self.calls = None;
    }

    /// Lets the calls of the run continue until this host ends, because the next host adopts the box.
    pub(super) fn leave(&mut self) {
        if let Some(calls) = self.calls.take() {
            drop(calls.disarm());
        }
    }
}
