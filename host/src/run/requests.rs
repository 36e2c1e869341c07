//! Performing what an agent may ask for, and answering it.

use ipc_schema::letters::Request;
use ipc_schema::letters::request::{AskPerson, UpdatePersonality};
use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::{LetterId, TurnId};
use serde_json::json;
use tokio::time::Instant;

use super::Run;
use super::files::Enclosed;
use crate::config::personality::{self, ChangeError};
use crate::domain::Authority;
use crate::domain::outbound::{Saying, Voice};
use crate::policy::authorize::{Action, Allowed, authorize};
use crate::store::{NewQuestion, OpenRequest};
use crate::text;

impl Run {
    /// Authorizes and performs one request. What it may do follows from the lane that this box was made for.
    ///
    /// `None` when the verdict comes later: it is a person's. A file goes out with its verdict.
    async fn perform(
        &mut self,
        turn: TurnId,
        id: &LetterId,
        request: Request,
    ) -> Option<(Verdict, Option<Enclosed>)> {
        let verdict = match authorize(&Authority::of(&self.lane.group), request) {
            Ok(Action::UpdatePersonality(allowed)) => self.update_personality(allowed).await,
            Ok(Action::AskPerson(allowed)) => self.ask_person(turn, id, allowed).await?,
            Ok(Action::SendFile(allowed)) => match self.send_file(turn, id, allowed).await {
                Ok((verdict, file)) => return Some((verdict, Some(file))),
                Err(verdict) => verdict,
            },
            Err(refusal) => Verdict::Refused { code: refusal.code.to_string(), reason: refusal.reason },
        };
        Some((verdict, None))
    }

    /// Asks in the chat of the turn. The box waits for a while; then the turn is suspended.
    async fn ask_person(
        &mut self,
        turn: TurnId,
        id: &LetterId,
        allowed: Allowed<AskPerson>,
    ) -> Option<Verdict> {
        let (ask, _) = allowed.into_parts();
        let Some((channel, chat)) = self.channel() else {
            let reason = "nobody can be asked here now; go on without the answer".to_owned();
            return Some(Verdict::Refused { code: "chat.away".to_owned(), reason });
        };
        let (key, in_chat) = (id.to_string(), chat.clone());
        let (question, choices) = (ask.question.clone(), ask.choices.clone());
        let say = move |code: &str| {
            let parts = channel.split(&text::question(&question, &choices, code));
            Some(Saying { chat: in_chat, voice: Voice::Reply, key, parts, answers: None })
        };
        let host = &self.services.install.file.host;
        let now = self.services.clock.wall();
        let expires = now.plus(host.question_expiry.0);
        let new = NewQuestion { turn, request: id.clone(), chat, ask, expires, now };
        if let Err(e) = self.services.store.ask(new, say).await {
            tracing::error!(run = %self.run, code = e.code(), "a question was not asked: {e}");
            let reason = "the host could not store the question; ask again later".to_owned();
            return Some(Verdict::Refused { code: e.code().to_owned(), reason });
        }
        self.suspend_at_time(Some(Instant::now() + host.question_wait.0));
        self.services.bell.ring();
        None
    }

    /// Writes verdicts that came from elsewhere: a person's answer, or its end.
    pub(super) async fn tell_verdicts(&mut self) {
        match self.services.store.untold_verdicts(self.run.clone(), self.services.clock.wall()).await {
            Ok(responses) => {
                for response in responses {
                    self.suspend_at_time(None);
                    self.put(&response.name, &response.bytes);
                }
            }
            Err(e) => tracing::error!(run = %self.run, code = e.code(), "verdicts cannot be told: {e}"),
        }
    }

    async fn update_personality(&self, allowed: Allowed<UpdatePersonality>) -> Verdict {
        let (change, group) = allowed.into_parts();
        let path = self.services.install.root.personality(&group);
        match personality::replace(&path, &change.text, change.base_sha256.as_deref()) {
            Ok(sha256) => {
                let now = self.services.clock.wall();
                let detail = format!("{group}: {sha256}");
                if let Err(e) =
                    self.services.store.audit(now, format!("agent:{group}"), "personality", detail).await
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
        let Some((verdict, file)) = self.perform(turn, &id, request).await else {
            tracing::info!(run = %self.run, %turn, "request {kind}: waits for a person");
            return;
        };
        failpoint!("run.request.performed");
        tracing::info!(run = %self.run, %turn, "request {kind}: {}", match &verdict {
            Verdict::Ok { .. } => "done",
            Verdict::Refused { code, .. } => code.as_str(),
        });
        let now = self.services.clock.wall();
        let (run, store) = (self.run.clone(), &self.services.store);
        let stored = match file {
            None => store.verdict(run, turn, id, verdict, now).await,
            Some(file) => {
                let stored = store.send_file(run, turn, id, verdict, file, now).await;
                self.services.bell.ring();
                stored
            }
        };
        match stored {
            Ok(response) => self.put(&response.name, &response.bytes),
            Err(e) => {
                tracing::error!(run = %self.run, code = e.code(), "a verdict waits, because it cannot be stored: {e}");
                self.deferred.verdicts = true;
            }
        }
        failpoint!("run.request.answered");
    }

    /// Requests over which an earlier host died.
    pub(super) async fn perform_open_requests(&mut self) {
        let open = match self.services.store.open_requests(self.run.clone()).await {
            Ok(open) => open,
            Err(e) => {
                tracing::error!(run = %self.run, code = e.code(), "open requests cannot be read: {e}");
                self.deferred.verdicts = true;
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
