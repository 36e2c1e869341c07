//! What the owner hears about a channel and about chats that ask to be admitted.

use super::{REASON, label, neutralize_prefix, one_line, sentence};

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

/// A chat that is not admitted has written. People there chose `title` and `sender`.
pub fn chat_asks(title: &str, sender: &str, chat: &str, code: &str) -> String {
    let shown = |name: &str| neutralize_prefix(&label(name));
    format!(
        "A chat asks to be admitted: {} ({chat}), where {} wrote. /admit {code} gives it a group of its own, \
         /admit {code} GROUP adds it to that group. Until then it gets no answer.",
        shown(title),
        shown(sender)
    )
}

pub fn admitted(chat: &str, group: &str, answers: bool) -> String {
    let answers = if answers { " Its first message is answered now." } else { "" };
    format!("{chat} now belongs to group {group}.{answers}")
}

pub fn may_not_admit() -> String {
    "Only an owner can admit chats, in a chat of the group main.".to_owned()
}

pub fn nobody_asks(code: &str) -> String {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("No chat waits under the code {code}. Write /admit CODE, with the code of the notice.")
}

pub fn which_group(code: &str) -> String {
    format!(
        "Which group? Write /admit {code} GROUP, with a name of a-z, 0-9 and '-'. A new name makes a new group."
    )
}

pub fn not_admitted(why: &str) -> String {
    format!("The chat was not admitted: {}", sentence(&one_line(why, REASON)))
}
