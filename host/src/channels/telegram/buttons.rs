//! Buttons below messages (<https://core.telegram.org/bots/api#inlinekeyboardbutton>), and answers to presses on them.

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::api::{self, ApiError};
use super::{Telegram, address};
use crate::domain::ChatId;
use crate::domain::message::{Press, PressAnswer};
use crate::domain::outbound::{Choices, Part};

/// Short labels stand side by side: at most so many, of at most so many characters.
const SIDE_BY_SIDE: usize = 3;
const SHORT: usize = 14;
/// The most characters of an answer to a press.
const ANSWER: usize = 200;

/// The buttons of a part.
pub(super) fn keyboard(part: &Part, choices: &Choices) -> Value {
    let button = |(number, label): (usize, &str)| json!({ "text": label, "callback_data": part.token(number).to_string() });
    let labels = choices.list.iter().map(|choice| choice.label.as_str());
    let buttons: Vec<Value> = labels.clone().enumerate().map(button).collect();
    let short = labels.clone().all(|label| label.chars().count() <= SHORT) && buttons.len() <= SIDE_BY_SIDE;
    let rows = if short { vec![buttons] } else { buttons.into_iter().map(|button| vec![button]).collect() };
    json!({ "inline_keyboard": rows })
}

/// Whether Telegram refused a message for its buttons.
pub(super) fn refuses_buttons(error: &ApiError) -> bool {
    let ApiError::Refused { code: 400, what, .. } = error else { return false };
    let what = what.to_ascii_lowercase();
    ["button_", "keyboard", "reply_markup"].iter().any(|words| what.contains(words))
}

impl Telegram {
    /// Ends the wait that Telegram shows on the button, and puts a decision in the place of the buttons. That button
    /// carries what the pressed one did, so another press is told the decision.
    pub(super) async fn answer_query(&self, chat: &ChatId, press: &Press, answer: &PressAnswer) {
        let (told, alert) = match answer {
            PressAnswer::Decided { told, .. } => (told, false),
            PressAnswer::Refused(why) => (why, true),
        };
        let told: String = told.chars().take(ANSWER).collect();
        let ask = json!({ "callback_query_id": press.id, "text": told, "show_alert": alert });
        if let Err(e) = self.api.call::<bool>("answerCallbackQuery", &ask, api::QUICK).await {
            tracing::debug!(%chat, "a press was not answered: {e}");
        }
        let message = press.message.as_ref().and_then(|id| id.parse::<i64>().ok());
        let (PressAnswer::Decided { outcome, .. }, Some(message)) = (answer, message) else { return };
        let button = json!({ "text": outcome, "callback_data": press.token });
        let ask = json!({
            "chat_id": address(chat)["chat_id"],
            "message_id": message,
            "reply_markup": { "inline_keyboard": [[button]] },
        });
        if let Err(e) = self.api.call::<IgnoredAny>("editMessageReplyMarkup", &ask, api::QUICK).await {
            tracing::debug!(%chat, "the buttons stay as they were: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outbound::Choice;

    fn rows(labels: &[&str]) -> Vec<usize> {
        let choice = |label: &&str| Choice { label: (*label).to_owned(), command: "/help".into() };
        let choices =
            Choices { list: labels.iter().map(choice).collect(), in_words: String::new(), for_owners: false };
        let mut part = Part::for_tests("telegram:5", 1);
        part.idempotency_key = "f".repeat(32);
        let keyboard = keyboard(&part, &choices);
        let rows = keyboard["inline_keyboard"].as_array().unwrap();
        let buttons = rows.iter().flat_map(|row| row.as_array().unwrap());
        for button in buttons {
            assert!(button["callback_data"].as_str().unwrap().len() <= 64, "{button}");
        }
        rows.iter().map(|row| row.as_array().unwrap().len()).collect()
    }

    #[test]
    fn short_labels_stand_side_by_side_and_long_ones_below_each_other() {
        assert_eq!(rows(&["Admit", "Refuse"]), [2]);
        assert_eq!(rows(&["1. whole", "2. skimmed", "3. oat", "4. none"]), [1, 1, 1, 1]);
        assert_eq!(rows(&["1. the one with the blue lid", "2. none"]), [1, 1]);
    }

    #[test]
    fn a_message_that_is_refused_for_its_buttons_is_told_from_others() {
        let refused = |what: &str| {
            refuses_buttons(&ApiError::Refused { code: 400, what: what.into(), retry_after: None })
        };
        assert!(refused("Bad Request: BUTTON_DATA_INVALID"));
        assert!(refused("Bad Request: can't parse inline keyboard button: Text buttons are unallowed"));
        assert!(!refused(
            "Bad Request: message is not modified: specified new message content and reply markup are exactly the same"
        ));
        assert!(!refused("Bad Request: chat not found"));
    }
}
