//! What the owner hears about a channel and about chats that ask to be admitted.

use super::choices::choices;
use super::{REASON, label, neutralize_prefix, one_line, sentence};
use crate::domain::outbound::Choices;

/// A channel does not read its messages. Its own chats cannot be told.
pub fn channel_trouble(channel: &str, why: &str, tries_again: bool) -> String {
    let then = if tries_again { "The host goes on trying; " } else { "" };
    format!(
        "The channel {channel} reads no messages: {} {then}`lazaret status` shows how it fares.",
        sentence(&one_line(why, REASON))
    )
}

/// What a channel that works tells its operators.
pub fn channel_note(note: &str) -> String {
    sentence(&one_line(note, REASON))
}

pub fn channel_again(channel: &str, account: &str) -> String {
    let account = if account.is_empty() { String::new() } else { format!(" as {account}") };
    format!("The channel {channel} reads messages again{account}.")
}

/// A chat that is not admitted has written. People there chose `title` and `sender`.
pub fn chat_asks(title: &str, sender: &str, chat: &str, code: &str) -> (String, Choices) {
    let shown = |name: &str| neutralize_prefix(&label(name));
    let told = format!(
        "A chat asks to be admitted: {} ({chat}), where {} wrote. Until then it gets no answer. \
         /admit {code} GROUP adds it to that group; without a name, it gets a group of its own.",
        shown(title),
        shown(sender)
    );
    let list = [("Admit", format!("/admit {code}")), ("Refuse", format!("/refuse {code}"))];
    let list = list.map(|(label, command)| (label.to_owned(), command));
    (told, choices(list, format!("Write /admit {code} or /refuse {code}.")))
}

/// The owner has refused a chat.
pub fn chat_refused(chat: &str, days: u64) -> String {
    format!(
        "{chat} is refused and gets no answer. Its message is deleted, and you are not asked about it again for {days} days."
    )
}

pub fn admitted(chat: &str, group: &str, answers: bool) -> String {
    let answers = if answers { " Its first message is answered now." } else { "" };
    format!("{chat} now belongs to group {group}.{answers}")
}

pub fn may_not_admit() -> String {
    "Only an owner can admit or refuse chats, in a chat of the group main.".to_owned()
}

pub fn nobody_asks(code: &str) -> String {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!(
        "No chat waits under the code {code}; it may be admitted already. Write /admit CODE, with the code of the notice."
    )
}

pub fn which_group(code: &str) -> String {
    format!(
        "Which group? Write /admit {code} GROUP, with a name of a-z, 0-9 and '-'. A new name makes a new group."
    )
}

pub fn not_admitted(why: &str) -> String {
    format!("The chat was not admitted: {}", sentence(&one_line(why, REASON)))
}
