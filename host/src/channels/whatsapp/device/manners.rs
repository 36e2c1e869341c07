//! What people see beside messages: that the agent writes, reactions, and read marks.

use std::sync::Arc;

use ipc_schema::text_sanitize::clean;
use whatsapp_rust::Client;
use whatsapp_rust::types::message::MessageInfo;

use super::outbound::Sender;
use super::people::{self, MessageId};
use crate::channels::{ReactError, SendError};
use crate::domain::ChatId;

/// The longest emoji have ten characters: families and flags.
const EMOJI_CHARS: usize = 10;

/// Shows that the agent writes. Phones stop to show it by themselves, or with the message.
pub(super) async fn typing(client: &Client, chat: &ChatId) {
    let Some(to) = people::jid_of(chat) else { return };
    if let Err(e) = client.chatstate().send_composing(&to).await {
        tracing::debug!(%chat, "typing was not shown: {e}");
    }
}

/// Tells WhatsApp that nobody sits at this device. Otherwise the account's phone would get no notifications. The
/// library announces the opposite with each login.
pub(super) async fn stay_in_background(client: &Client) {
    if let Err(e) = client.presence().set_unavailable().await {
        tracing::debug!("WhatsApp was not told that this device is in the background: {e}");
    }
}

/// Tells people that their messages were read. It may fail: nobody waits for it.
pub(super) async fn mark_read(client: &Client, messages: &[Arc<MessageInfo>]) {
    // WhatsApp takes read marks by chat, and in rooms by author.
    let together = |a: &Arc<MessageInfo>, b: &Arc<MessageInfo>| {
        a.source.chat == b.source.chat && a.source.sender == b.source.sender
    };
    for messages in messages.chunk_by(together) {
        let source = &messages[0].source;
        let author = source.is_group.then_some(&source.sender);
        let ids: Vec<&str> = messages.iter().map(|info| info.id.as_str()).collect();
        if let Err(e) = client.mark_as_read(&source.chat, author, &ids).await {
            tracing::debug!("messages were not marked as read: {e}");
        }
    }
}

/// Puts a reaction in the place of the account's earlier one; `None` takes it back.
pub(super) async fn react(
    sender: Sender<'_>,
    chat: &ChatId,
    message: &str,
    emoji: Option<&str>,
) -> Result<(), ReactError> {
    if let Some(emoji) = emoji.filter(|emoji| !is_emoji(emoji)) {
        return Err(ReactError::Emoji(format!(
            "WhatsApp takes one emoji as a reaction, and {emoji:?} is none"
        )));
    }
    let message: MessageId = message.parse().map_err(ReactError::Message)?;
    sender.react(chat, &message, emoji.unwrap_or_default()).await.map_err(|e| match e {
        SendError::NotArrived { why, after } => ReactError::Later { why, after },
        SendError::Cut { why } => ReactError::Later { why, after: None },
        other => ReactError::Message(other.to_string()),
    })
}

/// Whether a text can be one emoji. The server cannot look into a reaction, and phones show any text there.
fn is_emoji(text: &str) -> bool {
    let plain = |c: char| c.is_alphabetic() || c.is_whitespace();
    text.chars().count() <= EMOJI_CHARS && !text.is_ascii() && !text.contains(plain) && clean(text) == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaction_is_an_emoji_and_no_word() {
        for emoji in ["👍", "❤\u{fe0f}", "1\u{fe0f}\u{20e3}", "👨\u{200d}👩\u{200d}👧\u{200d}👦"]
        {
            assert!(is_emoji(emoji), "{emoji}");
        }
        for word in ["", "ok", ":)", "ja", "да", "👍 ok", "👍👍👍👍👍👍👍👍👍👍👍", "\u{202e}", "+1"]
        {
            assert!(!is_emoji(word), "{word:?}");
        }
    }
}
