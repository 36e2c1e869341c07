//! Notices about delivery: replies that were not delivered, parts that may have arrived, and chats that cannot be
//! reached.

use super::choices::choices;
use super::impersonation::neutralize_prefix;
use super::{label, one_line, sentence};
use crate::domain::outbound::Choices;

/// Characters of an error that comes from a platform.
const PLATFORM: usize = 200;

/// Stands in the chat until the text replaces it.
pub fn placeholder() -> String {
    "…".to_owned()
}

/// What the notice about an undelivered reply must say.
#[derive(Debug, Clone, Copy)]
pub struct Undelivered<'a> {
    /// Nothing of it was delivered; otherwise an earlier part was.
    pub whole: bool,
    /// It exceeded its lifetime; otherwise the platform refused it.
    pub too_old: bool,
    /// It may have arrived all the same.
    pub doubtful: bool,
    /// The error of the platform.
    pub why: &'a str,
}

pub fn undelivered(u: &Undelivered<'_>) -> String {
    let what = if u.whole { "A reply" } else { "The rest of a reply" };
    let may = if u.doubtful { "may not have been delivered" } else { "could not be delivered" };
    if u.too_old {
        return format!("{what} {may} in time, and is too old now. Ask again if you still need it.");
    }
    format!("{what} {may}: {} Ask again if you still need it.", sentence(&one_line(u.why, PLATFORM)))
}

/// Asks the chat about a part of unknown outcome. `code` names it in `/resend` and `/drop`.
pub fn held(text: &str, code: &str) -> (String, Choices) {
    let begins = one_line(text, 60);
    let told = format!(
        "A part may or may not have arrived; it begins \"{begins}\". /resend {code} sends it again, /drop {code} leaves it."
    );
    let list = [("Send it again", format!("/resend {code}")), ("Leave it", format!("/drop {code}"))];
    let list = list.map(|(label, command)| (label.to_owned(), command));
    (told, choices(list, String::new()))
}

pub fn resending(code: &str) -> String {
    format!("{code} is sent again.")
}

pub fn dropped(code: &str) -> String {
    format!("{code} is not sent again.")
}

/// `/resend` or `/drop` without a code that waits here.
pub fn nothing_held(code: &str) -> String {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    if code.is_empty() {
        return "Which one? Write /resend CODE or /drop CODE, with the code of the question.".to_owned();
    }
    format!("Nothing is held here under {code}; it may have been answered already.")
}

/// A chat takes no messages any more. People there chose `title`; `why` is the error of the platform.
pub fn unreachable(title: &str, chat: &str, why: &str) -> String {
    let title = neutralize_prefix(&label(title));
    let name = if title.trim().is_empty() { chat.to_owned() } else { format!("{title} ({chat})") };
    format!(
        "Replies to {name} cannot be delivered: {} What waited for it is given up. As soon as a message comes from there, replies go there again.",
        sentence(&one_line(why, PLATFORM))
    )
}
