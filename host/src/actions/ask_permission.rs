//! Asks owners for permissions: `ask_permission` for a tool inside the box, and before a request that the group's rules
//! let through only with a permission. The answer comes later.

use ipc_schema::letters::to_agent::ToolVerdict;
use ipc_schema::requests::{AskPermission, AskPerson, RequestArgs};

use super::{Asker, Outcome, ask_person};
use crate::domain::GroupName;
use crate::domain::outbound::OutgoingText;
use crate::domain::permission::AskedPermission;
use crate::policy::authorize_request::{Allowed, Approval};
use crate::store::{Granting, NewQuestion, StoreError};
use crate::text;

/// The runner asks about a tool inside the box.
pub(super) async fn perform(asker: &Asker<'_>, allowed: Allowed<AskPermission>) -> Outcome {
    let (ask, _) = allowed.into_parts();
    question(asker, ask, false).await
}

/// Lets a request go on once an owner has allowed it.
pub(super) async fn before<R: RequestArgs>(
    asker: &Asker<'_>,
    approval: Approval<R>,
) -> Result<Allowed<R>, Outcome> {
    match granting(asker, approval.group(), R::KIND).await {
        Ok(Granting::Granted) => Ok(approval.granted()),
        Ok(Granting::Waits) => Err(Outcome::WaitsForPerson),
        Ok(Granting::NotAsked) => {
            asker.may_say().await?;
            let arguments = serde_json::to_string(approval.request()).unwrap_or_default();
            Err(question(asker, AskPermission::of_arguments(R::KIND, &arguments), true).await)
        }
        Err(e) => Err(Outcome::refused(e.code(), "the host's store failed; try it again later")),
    }
}

async fn granting(asker: &Asker<'_>, group: &GroupName, kind: &'static str) -> Result<Granting, StoreError> {
    asker.services.store.granting(group.clone(), kind, asker.turn, asker.id.clone()).await
}

async fn question(asker: &Asker<'_>, ask: AskPermission, of_request: bool) -> Outcome {
    let services = asker.services;
    let Some((_, chat)) = asker.chat.clone() else {
        let why = ToolVerdict::Ask.refusal(&ask.tool).unwrap_or_default();
        return Outcome::refused("chat.away", why);
    };
    let (in_chat, key, persona) = (chat.clone(), asker.id.to_string(), asker.group.persona.clone());
    let shown = ask.clone();
    let to_say = move |code: &str| {
        let (card, choices) = text::permission(&shown, &persona, code);
        let notice = OutgoingText::notice(&in_chat, &key, card);
        Some(OutgoingText { choices: Some(choices), ..notice })
    };
    let now = services.clock.wall();
    let expires = now.plus(services.install.file.host.question_expiry.0);
    let question = format!("{}: {}", ask.tool, ask.detail);
    let permission = Some(AskedPermission { tool: ask.tool, commands: ask.commands, of_request });
    let ask = AskPerson { question, choices: Vec::new() };
    let (turn, request) = (asker.turn, asker.id.clone());
    let new = NewQuestion { turn, request, chat, ask, permission, expires, now };
    ask_person::put(asker, new, to_say).await
}
