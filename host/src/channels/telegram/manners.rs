//! Drafts of replies (<https://core.telegram.org/bots/api#sendmessagedraft>), reactions
//! (<https://core.telegram.org/bots/api#setmessagereaction>), and the list of commands that Telegram shows
//! (<https://core.telegram.org/bots/api#setmycommands>).

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::api::{self, ApiError};
use super::rendered_part::RenderedPart;
use super::send::{About, is_about};
use super::split::{TEXT_UNITS, parts};
use super::{Telegram, address};
use crate::channels::{NotShown, ReactError};
use crate::domain::message::Command;
use crate::domain::outbound::Voice;
use crate::domain::{ChatId, TurnId};
use crate::text;

/// Of a longer draft only the end is rendered.
const DRAFT_BYTES: usize = 32 << 10;
/// After a 429 a chat gets no draft for at least this time.
const BUSY: Duration = Duration::from_secs(30);
/// A chat, or a server, that has refused drafts is asked again after this time.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Every reaction of the documentation (<https://core.telegram.org/bots/api#reactiontypeemoji>).
const REACTIONS: [&str; 73] = [
    "👍",
    "👎",
    "❤",
    "🔥",
    "🥰",
    "👏",
    "😁",
    "🤔",
    "🤯",
    "😱",
    "🤬",
    "😢",
    "🎉",
    "🤩",
    "🤮",
    "💩",
    "🙏",
    "👌",
    "🕊",
    "🤡",
    "🥱",
    "🥴",
    "😍",
    "🐳",
    "❤\u{200d}🔥",
    "🌚",
    "🌭",
    "💯",
    "🤣",
    "⚡",
    "🍌",
    "🏆",
    "💔",
    "🤨",
    "😐",
    "🍓",
    "🍾",
    "💋",
    "🖕",
    "😈",
    "😴",
    "😭",
    "🤓",
    "👻",
    "👨\u{200d}💻",
    "👀",
    "🎃",
    "🙈",
    "😇",
    "😨",
    "🤝",
    "✍",
    "🤗",
    "🫡",
    "🎅",
    "🎄",
    "☃",
    "💅",
    "🤪",
    "🗿",
    "🆒",
    "💘",
    "🙉",
    "🦄",
    "😘",
    "💊",
    "🙊",
    "😎",
    "👾",
    "🤷\u{200d}♂",
    "🤷",
    "🤷\u{200d}♀",
    "😡",
];
/// A refusal names so many of them.
const NAMED: usize = 20;

#[derive(PartialEq, Deserialize)]
struct Listed {
    command: String,
    description: String,
}

impl Telegram {
    /// Shows the end of the reply so far: what fits into one message, rendered as the reply will be. The turn's id
    /// names the draft, so that Telegram replaces the earlier one.
    pub(super) async fn show_draft(&self, chat: &ChatId, turn: TurnId, text: &str) -> Result<(), NotShown> {
        // Telegram takes no draft of which nothing is seen.
        let Some(part) = parts(end_of(text)).pop() else { return Ok(()) };
        let RenderedPart { html, .. } =
            RenderedPart::of(Voice::Reply, &part.text, part.markup.as_deref(), TEXT_UNITS);
        let mut ask = address(chat);
        ask["draft_id"] = json!(turn.0);
        ask["text"] = json!(html);
        ask["parse_mode"] = json!("HTML");
        let Err(e) = self.api.call::<bool>("sendMessageDraft", &ask, api::QUICK).await else { return Ok(()) };
        let again = match &e {
            ApiError::Refused { code: 429, retry_after, .. } => retry_after.unwrap_or(BUSY).max(BUSY),
            // The next draft has another text.
            e if is_about(e, About::Text) => Duration::ZERO,
            ApiError::Refused { code: 400 | 403 | 404, .. } | ApiError::Moved { .. } => NEVER,
            _ => BUSY,
        };
        Err(NotShown { why: e.to_string(), again })
    }

    pub(super) async fn set_reaction(
        &self,
        chat: &ChatId,
        message: &str,
        emoji: Option<&str>,
    ) -> Result<(), ReactError> {
        let reaction = match emoji {
            Some(emoji) => json!([{ "type": "emoji", "emoji": known(emoji)? }]),
            None => json!([]),
        };
        // A message from before the chat's move to a supergroup, or of another bot's account, has no such id.
        let message: i64 = message
            .parse()
            .map_err(|_| ReactError::Message("Telegram knows this message no more".to_owned()))?;
        let ask = json!({ "chat_id": address(chat)["chat_id"], "message_id": message, "reaction": reaction });
        let set = self.api.call::<bool>("setMessageReaction", &ask, api::QUICK).await;
        set.map(drop).map_err(not_set)
    }

    /// Gives Telegram the commands that it shows people while they type, if it has others. The bot works without the
    /// list.
    pub(super) async fn list_commands(&self) {
        let listed = |(command, what): &(Command, &str)| Listed {
            command: command.word().to_owned(),
            description: (*what).to_owned(),
        };
        let ours: Vec<Listed> = text::COMMAND_LIST.iter().map(listed).collect();
        let theirs = self.api.call::<Vec<Listed>>("getMyCommands", &json!({}), api::QUICK).await;
        if theirs.is_ok_and(|theirs| theirs == ours) {
            return;
        }
        let describe = |one: &Listed| json!({ "command": one.command, "description": one.description });
        let ask = json!({ "commands": ours.iter().map(describe).collect::<Vec<_>>() });
        if let Err(e) = self.api.call::<bool>("setMyCommands", &ask, api::QUICK).await {
            tracing::warn!(code = "telegram.commands", "Telegram did not take the list of commands: {e}");
        }
    }
}

fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(DRAFT_BYTES);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[from..]
}

/// The reaction as Telegram writes it. Models often write the variation selector, which Telegram does not.
fn known(emoji: &str) -> Result<&'static str, ReactError> {
    let bare = emoji.replace('\u{fe0f}', "");
    REACTIONS.into_iter().find(|known| *known == bare).ok_or_else(|| {
        let some = REACTIONS[..NAMED].join(" ");
        ReactError::Emoji(format!("Telegram has no such reaction; it has {some} and some more"))
    })
}

fn not_set(error: ApiError) -> ReactError {
    let what = error.to_string();
    match error {
        ApiError::Refused { code: 400, .. } if what.to_ascii_uppercase().contains("REACTION") => {
            let why = "the administrators of this chat allow only some reactions, and this one not";
            ReactError::Emoji(format!("{why} ({what})"))
        }
        ApiError::Refused { code: 400 | 403, .. } | ApiError::Moved { .. } => ReactError::Message(what),
        ApiError::Refused { retry_after, .. } => ReactError::Later { why: what, after: retry_after },
        ApiError::Unreachable { .. } | ApiError::Unreadable { .. } | ApiError::Garbage { .. } => {
            ReactError::Later { why: what, after: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::TakenReaction;

    #[test]
    fn the_variation_selector_makes_no_other_reaction() {
        assert_eq!(known("❤\u{fe0f}"), Ok("❤"));
        assert_eq!(known("❤\u{fe0f}\u{200d}🔥"), Ok("❤\u{200d}🔥"));
        let taken = TakenReaction::All.mark(true).unwrap();
        assert_eq!(known(taken), Ok(taken));
        for emoji in ["🥑", "", "ok", "👍👍"] {
            let Err(ReactError::Emoji(why)) = known(emoji) else { panic!("{emoji}") };
            assert!(why.contains("👍 👎 ❤"), "{why}");
        }
    }

    #[test]
    fn a_refused_reaction_says_what_it_is_about() {
        let refused = |code, what: &str| {
            not_set(ApiError::Refused { code, what: what.into(), retry_after: None }).code()
        };
        assert_eq!(refused(400, "Bad Request: REACTION_INVALID"), "react.emoji");
        assert_eq!(refused(400, "Bad Request: message to react not found"), "react.message");
        assert_eq!(refused(400, "Bad Request: MESSAGE_ID_INVALID"), "react.message");
        assert_eq!(refused(403, "Forbidden: bot was kicked from the group chat"), "react.message");
        assert_eq!(refused(429, "Too Many Requests"), "react.later");
        assert_eq!(refused(502, "Bad Gateway"), "react.later");
    }

    #[test]
    fn a_long_draft_shows_its_end() {
        let text = format!("{}the end", "ä".repeat(DRAFT_BYTES));
        let end = end_of(&text);
        assert!(end.len() <= DRAFT_BYTES && end.ends_with("the end"));
        assert_eq!(end_of("short"), "short");
    }
}
