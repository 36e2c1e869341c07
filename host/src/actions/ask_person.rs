//! `ask_person`: asks in the chat of the turn. Every group may ask. The answer is a person's, and comes later.

use ipc_schema::requests::AskPerson;
use ipc_schema::{Refusal, RefusalCode};

use super::{Asker, Outcome};
use crate::domain::outbound::{OutgoingText, Voice};
use crate::policy::authorize_request::Allowed;
use crate::store::{NewQuestion, TURN_OVER};
use crate::text;

/// Whether an earlier host has asked. If the store fails, [`perform`] fails too.
pub(super) async fn is_asked(asker: &Asker<'_>) -> bool {
    asker.services.store.is_asked(asker.turn, asker.id.clone()).await.unwrap_or(false)
}

pub(super) async fn perform(asker: &Asker<'_>, allowed: Allowed<AskPerson>) -> Outcome {
    let (ask, _) = allowed.into_parts();
    let services = asker.services;
    let Some((channel, chat)) = asker.chat.clone() else {
        return Outcome::refused("chat.away", "nobody can be asked here now; go on without the answer");
    };
    let (key, in_chat) = (asker.id.to_string(), chat.clone());
    let (question, answers) = (ask.question.clone(), ask.choices.clone());
    let to_say = move |code: &str| {
        let (card, choices) = text::question(&question, &answers, code);
        let parts = channel.split(&card);
        Some(OutgoingText { chat: in_chat, voice: Voice::Reply, key, parts, answers: None, choices })
    };
    let now = services.clock.wall();
    let expires = now.plus(services.install.file.host.question_expiry.0);
    let (turn, request) = (asker.turn, asker.id.clone());
    let new = NewQuestion { turn, request, chat, ask, permission: None, expires, now };
    put(asker, new, to_say).await
}

/// Asks in the chat, unless the turn has ended meanwhile.
pub(super) async fn put<F>(asker: &Asker<'_>, new: NewQuestion, to_say: F) -> Outcome
where
    F: FnOnce(&str) -> Option<OutgoingText> + Send + 'static,
{
    match asker.services.store.ask(new, to_say).await {
        Ok(true) => asker.services.outbox_signal.notify(),
        Ok(false) => return Refusal::new(RefusalCode::Stale, TURN_OVER).into(),
        Err(e) => {
            tracing::error!(run = %asker.run, code = e.code(), "a question was not asked: {e}");
            return Outcome::refused(e.code(), "the host could not store the question; ask again later");
        }
    }
    Outcome::WaitsForPerson
}
