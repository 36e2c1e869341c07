//! Writes the notices about parts that were not delivered, and decides who gets them: each one once. `store` calls it
//! in the transaction that gives a part up or holds it.

use std::time::Duration;

use crate::domain::outbound::{OutgoingText, Part};
use crate::domain::{ChatId, MessageSeq, WallMs};
use crate::text;

/// What a person orders for a held part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldCommand {
    /// Send it again, because it did not arrive.
    Resend,
    /// Leave it, because it arrived or is not worth it.
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    Failed,
    Expired,
}

impl GivenUp {
    /// The value in the database.
    pub fn state(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// The reason for a part that became too old.
pub fn too_old(lifetime: Duration) -> String {
    format!("older than {}", text::duration(lifetime))
}

/// Asks whether a part has arrived. If it is sent again and cut off again, the host asks again.
pub fn ask_about(part: &Part, attempt: u32, code: &str) -> OutgoingText {
    let word = format!("held:{}:{attempt}", part.id);
    let (told, choices) = text::held(&part.shown(), code);
    OutgoingText { choices: Some(choices), ..OutgoingText::notice(&part.chat, &word, told) }
}

/// Answers `/resend CODE` or `/drop CODE`. `found` says whether a held part has the code.
pub fn answer(
    (order, chat): (MessageSeq, &ChatId),
    command: HeldCommand,
    code: &str,
    found: bool,
) -> (OutgoingText, String) {
    let told = match (found, command) {
        (false, _) => text::nothing_held(code),
        (true, HeldCommand::Resend) => text::resending(code),
        (true, HeldCommand::Drop) => text::dropped(code),
    };
    let notice = OutgoingText::notice(chat, &format!("held:{order}"), told.clone());
    (OutgoingText { answers: Some(order), ..notice }, told)
}

/// Tells a chat that a reply was given up, once per turn.
pub fn given_up(part: &Part, end: GivenUp, why: &str, whole: bool, doubtful: bool) -> OutgoingText {
    let too_old = end == GivenUp::Expired;
    let told = text::undelivered(&text::Undelivered { whole, too_old, doubtful, why });
    let word = match part.turn {
        Some(_) => "undelivered".to_owned(),
        None => format!("undelivered:{}", part.key),
    };
    OutgoingText::notice(&part.chat, &word, told)
}

/// Tells an owner's chat that another one cannot be reached.
pub fn unreachable(owner: &ChatId, title: &str, chat: &ChatId, why: &str, since: WallMs) -> OutgoingText {
    let told = text::unreachable(title, chat.as_str(), why);
    OutgoingText::notice(owner, &format!("unreachable:{chat}:{}", since.0), told)
}
