//! Performing what an agent may ask for, and answering it.

use ipc_schema::letters::Request;
use ipc_schema::letters::request::UpdatePersonality;
use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::{LetterId, TurnId};
use serde_json::json;

use super::Run;
use crate::config::personality::{self, ChangeError};
use crate::domain::Authority;
use crate::policy::authorize::{Action, Allowed, authorize};
use crate::store::OpenRequest;

impl Run {
    /// Authorizes and performs one request. What it may do follows from the lane that this box was made for.
    pub(super) async fn perform(&self, request: Request) -> Verdict {
        match authorize(&Authority::of(&self.lane.group), request) {
            Ok(Action::UpdatePersonality(allowed)) => self.update_personality(allowed).await,
            Err(refusal) => Verdict::Refused { code: refusal.code.to_string(), reason: refusal.reason },
        }
    }

    async fn update_personality(&self, allowed: Allowed<UpdatePersonality>) -> Verdict {
        let (change, group) = allowed.into_parts();
        let path = self.parts.install.root.personality(&group);
        match personality::replace(&path, &change.text, change.base_sha256.as_deref()) {
            Ok(sha256) => {
                let now = self.parts.clock.wall();
                let detail = format!("{group}: {sha256}");
                if let Err(e) =
                    self.parts.store.audit(now, format!("agent:{group}"), "personality", detail).await
                {
                    tracing::error!(run = %self.run, code = e.code(), "the change was not audited: {e}");
                }
                Verdict::Ok { result: json!({ "sha256": sha256 }) }
            }
            Err(e) => {
                let code = match e {
                    ChangeError::Conflict => "personality.conflict",
                    ChangeError::NothingToUndo | ChangeError::Io { .. } => "personality.io",
                };
                Verdict::Refused { code: code.to_owned(), reason: e.to_string() }
            }
        }
    }

    /// Performs a request that was taken, and answers it. The verdict and its letter are one transaction; a host that
    /// dies before it performs the request again.
    pub(super) async fn perform_and_answer(&mut self, turn: TurnId, id: LetterId, request: Request) {
        let kind = request.kind().to_owned();
        failpoint!("run.request.before");
        let verdict = self.perform(request).await;
        failpoint!("run.request.performed");
        tracing::info!(run = %self.run, %turn, "request {kind}: {}", match &verdict {
            Verdict::Ok { .. } => "done",
            Verdict::Refused { code, .. } => code.as_str(),
        });
        let now = self.parts.clock.wall();
        match self.parts.store.verdict(self.run.clone(), turn, id, verdict, now).await {
            Ok(response) => self.put(&response.name, &response.bytes),
            Err(e) => tracing::error!(run = %self.run, code = e.code(), "a verdict was not stored: {e}"),
        }
        failpoint!("run.request.answered");
    }

    /// Requests over which an earlier host died.
    pub(super) async fn perform_open_requests(&mut self) {
        let open = match self.parts.store.open_requests(self.run.clone()).await {
            Ok(open) => open,
            Err(e) => {
                tracing::error!(run = %self.run, code = e.code(), "open requests cannot be read: {e}");
                return;
            }
        };
        for OpenRequest { turn, id, body } in open {
            match serde_json::from_str(&body) {
                Ok(request) => self.perform_and_answer(turn, id, request).await,
                Err(e) => tracing::error!(run = %self.run, code = "store.row", "request {id}: {e}"),
            }
        }
    }
}
