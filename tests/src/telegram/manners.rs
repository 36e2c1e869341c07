//! Drafts, reactions and the list of commands, with the checks of the documentation
//! (<https://core.telegram.org/bots/api#sendmessagedraft>, <https://core.telegram.org/bots/api#setmessagereaction>).

use serde_json::{Value, json};

use super::server::{Answer, ok, read_text, refused};
use super::{Chat, Shared, TelegramServer};

/// The reactions that the tests use, of those that the documentation allows
/// (<https://core.telegram.org/bots/api#reactiontypeemoji>). A bot that sends another one breaks a rule.
const REACTIONS: [&str; 9] = ["👍", "👎", "❤", "🔥", "👀", "🎉", "🙏", "🤷", "👨\u{200d}💻"];

/// A draft that the bot has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownDraft {
    pub chat: i64,
    pub draft_id: i64,
    /// The text that people read.
    pub text: String,
    /// How many messages the bot had sent before.
    pub after: usize,
}

/// Answers `sendMessageDraft`: only in a direct chat, with a draft's id, and with a text as a message has it.
pub(super) fn show_draft(shared: &Shared, ask: &Value) -> Answer {
    let (chat, draft_id) = (ask["chat_id"].as_i64().unwrap_or(0), ask["draft_id"].as_i64().unwrap_or(0));
    let mut state = shared.state();
    if chat <= 0 {
        state.violations.push(format!("a draft in the room {chat}"));
        return refused(400, "Bad Request: TEXTDRAFT_PEER_INVALID", None);
    }
    if !state.chats.contains_key(&chat) {
        return refused(400, "Bad Request: chat not found", None);
    }
    if draft_id == 0 {
        state.violations.push("a draft without an id".into());
        return refused(400, "Bad Request: draft_id must be non-zero", None);
    }
    let text = match read_text(&mut state, ask) {
        Ok(text) => text,
        Err(what) => return refused(400, &what, None),
    };
    let after = state.sent.iter().filter(|m| m.chat == chat).count();
    state.drafts.push(ShownDraft { chat, draft_id, text, after });
    drop(state);
    shared.changed();
    ok(json!(true))
}

/// Answers `setMessageReaction`: at most one emoji of the list, at a message that exists.
pub(super) fn set_reaction(shared: &Shared, ask: &Value) -> Answer {
    let place = (ask["chat_id"].as_i64().unwrap_or(0), ask["message_id"].as_i64().unwrap_or(0));
    let mut state = shared.state();
    if state.kicked.contains(&place.0) {
        return refused(403, "Forbidden: bot was kicked from the supergroup chat", None);
    }
    let Some(list) = ask["reaction"].as_array().filter(|list| list.len() <= 1) else {
        state.violations.push(format!("a reaction that is no list of at most one: {}", ask["reaction"]));
        return refused(400, "Bad Request: REACTIONS_TOO_MANY", None);
    };
    let emoji = list.first().map(|one| one["emoji"].as_str().unwrap_or_default().to_owned());
    if let Some(emoji) = &emoji
        && (list[0]["type"] != "emoji" || !REACTIONS.contains(&emoji.as_str()))
    {
        state.violations.push(format!("the reaction {emoji:?}"));
        return refused(400, "Bad Request: REACTION_INVALID", None);
    }
    let sent = state.sent.iter().any(|m| (m.chat, m.message_id) == place && !m.deleted);
    if !sent && !state.written.contains(&place) {
        return refused(400, "Bad Request: message to react not found", None);
    }
    if emoji.as_ref().is_some_and(|e| state.reactions_allowed.as_ref().is_some_and(|list| !list.contains(e)))
    {
        return refused(400, "Bad Request: REACTION_INVALID", None);
    }
    let reactions = state.reactions.entry(place).or_default();
    reactions.push(emoji.unwrap_or_default());
    drop(state);
    shared.changed();
    ok(json!(true))
}

/// Answers `setMyCommands`.
pub(super) fn set_commands(shared: &Shared, ask: &Value) -> Answer {
    let mut state = shared.state();
    let list = ask["commands"].as_array().cloned().unwrap_or_default();
    let fits = |one: &Value| {
        let (command, what) =
            (one["command"].as_str().unwrap_or_default(), one["description"].as_str().unwrap_or_default());
        (1..=32).contains(&command.len())
            && command.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && (1..=256).contains(&what.chars().count())
    };
    if list.len() > 100 || !list.iter().all(fits) {
        state.violations.push(format!("a list of commands: {}", ask["commands"]));
        return refused(400, "Bad Request: BOT_COMMAND_INVALID", None);
    }
    state.commands = ask["commands"].clone();
    state.command_lists += 1;
    drop(state);
    shared.changed();
    ok(json!(true))
}

impl TelegramServer {
    /// Returns the drafts that the bot has shown in a chat.
    pub fn drafts(&self, chat: &Chat) -> Vec<ShownDraft> {
        self.shared.state().drafts.iter().filter(|draft| draft.chat == chat.id()).cloned().collect()
    }

    /// Waits until a chat has seen a draft that contains `words`.
    pub async fn comes_to_draft(&self, chat: &Chat, words: &str) -> ShownDraft {
        let here = |draft: &&ShownDraft| draft.chat == chat.id() && draft.text.contains(words);
        self.shared.wait_for(|state| state.drafts.iter().find(here).cloned()).await
    }

    /// Returns the bot's reactions at a message, in order; an empty text took the earlier one back.
    pub fn reactions(&self, chat: &Chat, message: i64) -> Vec<String> {
        self.shared.state().reactions.get(&(chat.id(), message)).cloned().unwrap_or_default()
    }

    /// Waits until the bot's reaction at a message is this one; `""` for none any more.
    pub async fn comes_to_react(&self, chat: &Chat, message: i64, emoji: &str) {
        let place = (chat.id(), message);
        let last = |state: &mut super::State| (state.reactions.get(&place)?.last()? == emoji).then_some(());
        self.shared.wait_for(last).await;
    }

    /// Allows only these reactions from now on, as the administrators of a chat may.
    pub fn allows_reactions(&self, list: &[&str]) {
        self.shared.state().reactions_allowed = Some(list.iter().map(|one| (*one).to_owned()).collect());
    }

    /// Loses the bot's list of commands.
    pub fn forgets_commands(&self) {
        self.shared.state().commands = Value::Null;
    }

    /// Returns how often the bot has set its list of commands.
    pub fn command_lists(&self) -> u64 {
        self.shared.state().command_lists
    }
}
