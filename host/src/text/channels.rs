//! What the owner hears about a channel and about chats that ask to be admitted.

use super::{REASON, one_line, sentence};

/// A channel does not read its messages. Its own chats cannot be told.
pub fn channel_trouble(channel: &str, why: &str) -> String {
    format!(
        "The channel {channel} reads no messages: {} The host goes on trying; `lazaret status` shows how it fares.",
        sentence(&one_line(why, REASON))
    )
}

pub fn channel_again(channel: &str, account: &str) -> String {
    let account = if account.is_empty() { String::new() } else { format!(" as {account}") };
    format!("The channel {channel} reads messages again{account}.")
}
