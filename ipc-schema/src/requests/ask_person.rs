//! `ask_person`: an agent asks the people of the turn's chat and waits for the answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RequestArgs, grouped};
use crate::{Refusal, RefusalCode};

/// Asks the people of the turn's chat and waits for an answer, for a day by default. Answered with [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskPerson {
    /// The question, Markdown.
    #[schemars(description = format!(
        "The question, Markdown, at most {} characters.", grouped(Self::QUESTION_MAX_CHARS)
    ))]
    pub question: String,
    /// Answers to choose from; none for a free answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(description = format!(
        "Answers to choose from, at most {}, each at most {} characters; none for a free answer.",
        Self::CHOICES_MAX, Self::CHOICE_MAX_CHARS
    ))]
    pub choices: Vec<String>,
}

impl AskPerson {
    /// The longest question, in characters.
    pub const QUESTION_MAX_CHARS: usize = 4_000;
    /// The most choices of a question: a person answers each by one digit.
    pub const CHOICES_MAX: usize = 9;
    /// The longest choice, in characters.
    pub const CHOICE_MAX_CHARS: usize = 200;
}

impl RequestArgs for AskPerson {
    const KIND: &'static str = "ask_person";

    fn check(&self) -> Result<(), Refusal> {
        let too_big = |why: String| Err(Refusal::new(RefusalCode::TooBig, why));
        if self.question.chars().count() > Self::QUESTION_MAX_CHARS || self.choices.len() > Self::CHOICES_MAX
        {
            return too_big(format!(
                "a question has at most {} characters and {} choices; ask shorter",
                grouped(Self::QUESTION_MAX_CHARS),
                Self::CHOICES_MAX
            ));
        }
        if self.choices.iter().any(|choice| choice.chars().count() > Self::CHOICE_MAX_CHARS) {
            return too_big(format!(
                "a choice has at most {} characters; explain it in the question",
                Self::CHOICE_MAX_CHARS
            ));
        }
        if self.choices.iter().chain([&self.question]).any(|text| text.trim().is_empty()) {
            let why = "the question, or one of its choices, is empty";
            return Err(Refusal::new(RefusalCode::Forbidden, why));
        }
        Ok(())
    }
}

/// What became of a question: the `result` of its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum Answer {
    /// Somebody answered.
    Answered {
        /// The words.
        text: String,
        /// `telegram:12345`
        from: String,
        /// The name shown in the chat.
        name: String,
    },
    /// Somebody wrote something else instead. A late answer comes as a message of its own.
    Pending,
    /// Nobody answered in time.
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_choices_have_limits() {
        let refused = |question: usize, choices: &[usize]| {
            let choices = choices.iter().map(|chars| "é".repeat(*chars)).collect();
            AskPerson { question: "é".repeat(question), choices }.check().map_err(|e| e.code)
        };
        assert_eq!(refused(AskPerson::QUESTION_MAX_CHARS, &[AskPerson::CHOICE_MAX_CHARS; 9]), Ok(()));
        assert_eq!(refused(AskPerson::QUESTION_MAX_CHARS + 1, &[]), Err(RefusalCode::TooBig));
        assert_eq!(refused(1, &[1; AskPerson::CHOICES_MAX + 1]), Err(RefusalCode::TooBig));
        assert_eq!(refused(1, &[AskPerson::CHOICE_MAX_CHARS + 1]), Err(RefusalCode::TooBig));
        assert_eq!(refused(1, &[1, 0]), Err(RefusalCode::Forbidden));
        assert_eq!(refused(0, &[]), Err(RefusalCode::Forbidden));
    }
}
