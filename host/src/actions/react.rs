//! `react`: puts the agent's reaction at a message of the turn's chat. Every group may ask. A repeat after a crash sets
//! the same reaction again.

use ipc_schema::requests::React;
use serde_json::json;

use super::{Asker, Outcome};
use crate::channels::ReactError;
use crate::policy::authorize_request::Allowed;

pub(super) async fn perform(asker: &Asker<'_>, allowed: Allowed<React>) -> Outcome {
    let (ask, _) = allowed.into_parts();
    let store = &asker.services.store;
    let Some((channel, chat)) = asker.chat.clone() else {
        return Outcome::refused("chat.away", "the chat cannot be reached now; go on without it");
    };
    if !channel.reacts() {
        return Outcome::refused("react.unsupported", "this chat has no reactions; say it in words");
    }
    let (seq, message) = match store.reactable(asker.turn, chat.clone(), ask.message).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            let reason = match ask.message {
                Some(named) => format!("{named} is no message of this chat; name one that you were given"),
                None => "no message of a person woke this turn; name one with `message`".to_owned(),
            };
            return Outcome::refused("react.message", reason);
        }
        Err(e) => return Outcome::refused(e.code(), "the host's store failed; try it again later"),
    };
    // What the agent sets takes the place of the mark, so the end of the turn must not take it away.
    if let Err(e) = store.drop_mark(chat.clone(), message.clone()).await {
        return Outcome::refused(e.code(), "the host's store failed; try it again later");
    }
    failpoint!("run.react.before");
    let emoji = Some(ask.emoji.as_str()).filter(|emoji| !emoji.is_empty());
    match channel.react(&chat, &message, emoji).await {
        Ok(()) => Outcome::Done(json!({ "message": seq })),
        Err(e) => {
            let next = match &e {
                ReactError::Later { .. } => "try it again later, or go on without it",
                ReactError::Emoji(_) => "choose another one, or say it in words",
                ReactError::Message(_) => "go on without it",
            };
            Outcome::refused(e.code(), format!("{e}; {next}"))
        }
    }
}
