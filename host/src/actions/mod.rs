//! Performs what agents ask of the host: one file per request. `run` calls [`perform`] for every request that it took
//! from a letter, stores the answer and writes it to the box.
//!
//! A host that dies before the answer is stored performs the request again, so every action may run twice. An action
//! acts for the group that the letter's directory belongs to, and never for a group that a letter names.

mod ask_permission;
mod ask_person;
mod react;
mod search_history;
mod send_file;
mod tasks;
mod update_personality;

use std::sync::Arc;

use ipc_schema::letters::Request;
use ipc_schema::requests::RequestArgs;
use ipc_schema::{LetterId, Refusal, RefusalCode, RunId, TurnId};
use serde_json::Value;

use crate::channels::Channel;
use crate::domain::group_settings::Group;
use crate::domain::outbound::OutgoingText;
use crate::domain::task::TaskState;
use crate::domain::{Authority, ChatId};
use crate::policy::authorize_request::{Allowed, Authorization, authorize};
use crate::services::Services;
use crate::store::TURN_OVER;
use crate::tasks::NewTask;

/// Who asks, and from where.
pub struct Asker<'a> {
    pub services: &'a Services,
    pub run: &'a RunId,
    pub group: &'a Group,
    pub turn: TurnId,
    pub id: &'a LetterId,
    /// The chat of the turn, and its channel. `None` while the channel is off.
    pub chat: Option<(Arc<dyn Channel>, ChatId)>,
}

/// What an action came to.
#[derive(Debug)]
pub enum Outcome {
    Done(Value),
    /// A file, which is queued in the transaction that stores the answer.
    File(Value, OutgoingText),
    /// A person's answer becomes the verdict later.
    WaitsForPerson,
    Refused {
        code: &'static str,
        reason: String,
    },
}

impl Outcome {
    fn refused(code: &'static str, reason: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.into() }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { code: refusal.code.as_str(), reason: refusal.reason }
    }
}

impl Asker<'_> {
    /// The request, if the group may make it, and if an owner has allowed it where the rules demand that.
    async fn allowed<R: RequestArgs>(&self, request: R) -> Result<Allowed<R>, Outcome> {
        match authorize(&Authority::of(&self.group.name), &self.group.tools, request) {
            Authorization::Allow(allowed) => Ok(allowed),
            Authorization::Ask(approval) => ask_permission::before(self, approval).await,
            Authorization::Refuse(refusal) => Err(refusal.into()),
        }
    }

    /// The same for a request that people see in the chat.
    async fn allowed_in_chat<R: RequestArgs>(&self, request: R) -> Result<Allowed<R>, Outcome> {
        let allowed = self.allowed(request).await?;
        self.may_say().await?;
        Ok(allowed)
    }

    /// Whether the turn may still send something to its chat. All ways to the chat have one limit, so that none is a
    /// way around it. A turn that has ended sends nothing more.
    async fn may_say(&self) -> Result<(), Outcome> {
        let most = self.group.limits.messages;
        match self.services.store.said_in_turn(self.turn).await {
            Ok(Some(said)) if said < most => Ok(()),
            Ok(Some(said)) => {
                let why = format!(
                    "this turn has sent {said} parts, files, questions, reactions and reminders, and may send {most}; \
                     put the rest into the last reply"
                );
                Err(Refusal::new(RefusalCode::Rate, why).into())
            }
            Ok(None) => Err(Refusal::new(RefusalCode::Stale, TURN_OVER).into()),
            Err(e) => Err(Outcome::refused(e.code(), "the host's store failed; try it again later")),
        }
    }
}

/// Authorizes and performs one request.
pub async fn perform(asker: &Asker<'_>, request: Request) -> Outcome {
    perform_allowed(asker, request).await.unwrap_or_else(|instead| instead)
}

async fn perform_allowed(asker: &Asker<'_>, request: Request) -> Result<Outcome, Outcome> {
    Ok(match request {
        Request::UpdatePersonality(args) => {
            update_personality::perform(asker, asker.allowed(args).await?).await
        }
        // A question that was asked waits for its answer, also if its chat or a rule has changed since.
        Request::AskPerson(_) | Request::AskPermission(_) if ask_person::is_asked(asker).await => {
            Outcome::WaitsForPerson
        }
        Request::AskPermission(args) => {
            ask_permission::perform(asker, asker.allowed_in_chat(args).await?).await
        }
        Request::AskPerson(args) => ask_person::perform(asker, asker.allowed_in_chat(args).await?).await,
        Request::SendFile(args) => send_file::perform(asker, asker.allowed_in_chat(args).await?).await,
        Request::ScheduleTask(args) => tasks::add(asker, asker.allowed(args).await?, NewTask::Work).await,
        Request::Remind(args) => {
            tasks::add(asker, asker.allowed_in_chat(args).await?, NewTask::Reminder).await
        }
        Request::ListTasks(args) => tasks::list(asker, asker.allowed(args).await?).await,
        Request::TaskHistory(args) => tasks::history(asker, asker.allowed(args).await?).await,
        Request::UpdateTask(args) => tasks::update(asker, asker.allowed(args).await?).await,
        Request::PauseTask(args) => {
            tasks::set_state(asker, asker.allowed(args).await?, |ask| ask.task, TaskState::Paused).await
        }
        Request::ResumeTask(args) => {
            tasks::set_state(asker, asker.allowed(args).await?, |ask| ask.task, TaskState::Active).await
        }
        Request::CancelTask(args) => {
            tasks::set_state(asker, asker.allowed(args).await?, |ask| ask.task, TaskState::Cancelled).await
        }
        Request::SearchHistory(args) => search_history::perform(asker, asker.allowed(args).await?).await,
        Request::React(args) => react::perform(asker, asker.allowed_in_chat(args).await?).await,
        Request::Unsupported { kind } => {
            let why = format!("this host has no request {kind:?}; go on without it");
            return Err(Refusal::new(RefusalCode::Unsupported, why).into());
        }
    })
}
