//! Performing what an agent may ask for, and answering it.

use ipc_schema::letters::Request;
use ipc_schema::letters::ToAgent;
use ipc_schema::letters::request::UpdatePersonality;
use ipc_schema::letters::to_agent::{Response, Verdict};
use ipc_schema::{LetterId, TurnId};
use serde_json::json;

use super::Run;
use crate::config::personality::{self, ChangeError};
use crate::domain::Authority;
use crate::policy::authorize::{Action, Allowed, authorize};

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

    /// Writes the `response` of a request.
    pub(super) async fn answer(&mut self, turn: TurnId, request: LetterId, verdict: Verdict) {
        self.write(Some(turn), ToAgent::Response(Response { request, verdict })).await;
    }
}
