//! Handles requests of this run's agent. `actions` performs them; this file stores the verdict and writes it to the
//! box.

use ipc_schema::letters::Request;
use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::{LetterId, TurnId};
use tokio::time::Instant;

use super::Run;
use crate::actions::{self, Asker, Outcome};
use crate::store::OpenRequest;

impl Run {
    /// Writes verdicts that were decided outside this run: a person's answer, or the end of its question.
    pub(super) async fn tell_verdicts(&mut self) {
        match self.services.store.untold_verdicts(self.handle.run.clone(), self.services.clock.wall()).await {
            Ok(responses) => {
                for response in responses {
                    self.suspend_at_time(None);
                    self.put(&response.name, &response.bytes);
                }
            }
            Err(e) => return self.defer_feed(&e),
        }
        // An owner may have allowed the request that waits.
        if self.waits_for_person() {
            self.perform_open_requests().await;
        }
    }

    /// Performs a taken request and answers it. One transaction stores the verdict and its letter. If the host dies
    /// before that, the next host performs the request again.
    pub(super) async fn perform_and_answer(&mut self, turn: TurnId, id: LetterId, request: Request) {
        let kind = request.kind().to_owned();
        failpoint!("run.request.before");
        let asker = Asker {
            services: &self.services,
            run: &self.handle.run,
            group: &self.group,
            turn,
            id: &id,
            chat: self.channel(),
        };
        let outcome = actions::perform(&asker, request).await;
        let (verdict, file) = match outcome {
            Outcome::Done(result) => (Verdict::Ok { result }, None),
            Outcome::File(result, file) => (Verdict::Ok { result }, Some(file)),
            Outcome::Refused { code, reason } => (Verdict::Refused { code: code.to_owned(), reason }, None),
            Outcome::WaitsForPerson => {
                // The box waits for a while; then the turn is suspended.
                let wait = self.services.install.file.host.question_wait.0;
                self.suspend_at_time(Some(Instant::now() + wait));
                tracing::info!(run = %self.handle.run, %turn, "request {kind}: waits for a person");
                return;
            }
        };
        self.suspend_at_time(None);
        failpoint!("run.request.performed");
        tracing::info!(run = %self.handle.run, %turn, "request {kind}: {}", match &verdict {
            Verdict::Ok { .. } => "done",
            Verdict::Refused { code, .. } => code.as_str(),
        });
        let now = self.services.clock.wall();
        let (run, store) = (self.handle.run.clone(), &self.services.store);
        let stored = match file {
            None => store.verdict(run, turn, id, verdict, now).await,
            Some(file) => {
                let stored = store.send_file(run, turn, id, verdict, file, now).await;
                self.services.outbox_signal.notify();
                stored
            }
        };
        match stored {
            Ok(response) => self.put(&response.name, &response.bytes),
            Err(e) => {
                tracing::error!(run = %self.handle.run, code = e.code(), "a verdict waits, because it cannot be stored: {e}");
                self.deferred.verdicts = true;
            }
        }
        failpoint!("run.request.answered");
    }

    /// Performs requests that an earlier host left open.
    pub(super) async fn perform_open_requests(&mut self) {
        let open = match self.services.store.open_requests(self.handle.run.clone()).await {
            Ok(open) => open,
            Err(e) => {
                tracing::error!(run = %self.handle.run, code = e.code(), "open requests cannot be read: {e}");
                self.deferred.verdicts = true;
                return;
            }
        };
        for OpenRequest { turn, id, body } in open {
            match serde_json::from_str(&body) {
                Ok(request) => self.perform_and_answer(turn, id, request).await,
                Err(e) => tracing::error!(run = %self.handle.run, code = "store.row", "request {id}: {e}"),
            }
        }
    }
}
