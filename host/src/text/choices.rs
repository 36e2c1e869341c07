//! Buttons below texts, and what a person who presses one is told.

use super::{label, neutralize_prefix};
use crate::domain::outbound::{Choice, Choices};

/// `(label, command)` for each choice. A label can hold anybody's words.
pub(super) fn choices(list: impl IntoIterator<Item = (String, String)>, in_words: String) -> Choices {
    let choice =
        |(text, command): (String, String)| Choice { label: neutralize_prefix(&label(&text)), command };
    Choices { list: list.into_iter().map(choice).collect(), in_words, for_owners: false }
}

/// Takes the place of the buttons after a press.
pub fn outcome(chosen: &str, by: &str) -> String {
    format!("✓ {chosen} ({})", neutralize_prefix(&label(by)))
}

pub fn already_decided(outcome: &str) -> String {
    format!("Already decided: {outcome}")
}

/// The button is another program's, or its text is not known any more.
pub fn unknown_button() -> String {
    "This button is not in use any more. Write what you want instead.".to_owned()
}

/// The choice is the owners', whoever else the chat admits.
pub fn owners_decide() -> String {
    "Only an owner can decide this.".to_owned()
}

/// The group's settings say who may give orders.
pub fn may_not_press() -> String {
    "You may not decide this here.".to_owned()
}
