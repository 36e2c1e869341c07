//! How requests to a model are written beyond its wire. It begins with the settings. The provider says by a refusal
//! what it wants; the host writes the request again, and remembers it for the model as long as it runs.
//!
//! A transcript may lack such a thing for ever: another model made the answers, or an older version of Lazaret dropped
//! it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::error::{Field, Lack, Reason};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dialect {
    /// The limit of an answer is called `max_completion_tokens`.
    pub max_completion_tokens: bool,
    /// The counts of a stream are asked for.
    pub stream_options: bool,
    /// The most tokens that the model writes in one answer, if it refused more.
    pub max_tokens: Option<u32>,
    /// DeepSeek, Kimi: every answer has its thoughts, over the Messages wire without a signature too.
    pub thoughts: bool,
    /// Gemini: the first call of every answer has a signature.
    pub signature: bool,
    /// Mistral: an answer stands between a tool's result and the user.
    pub answer_after_tool: bool,
    /// The provider refuses the fields of its own answers in a request.
    pub plain_answers: bool,
}

impl Dialect {
    /// The dialect with what this refusal of an answer of at most `asked` tokens teaches. `None` if it teaches nothing.
    pub fn learn(self, refused: Reason, asked: u32) -> Option<Self> {
        let mut learnt = self;
        match refused {
            Reason::MaxTokens(most) => learnt.max_tokens = Some(lower(asked, most)?),
            Reason::FieldUnknown(Field::StreamOptions) => learnt.stream_options = false,
            Reason::FieldUnknown(Field::MaxTokens) => learnt.max_completion_tokens = true,
            Reason::FieldUnknown(Field::MaxCompletionTokens) => learnt.max_completion_tokens = false,
            Reason::FieldUnknown(Field::OfAnswers) => learnt.plain_answers = true,
            Reason::Lacks(Lack::Thoughts) => learnt.thoughts = true,
            Reason::Lacks(Lack::Signature) => learnt.signature = true,
            Reason::Lacks(Lack::AnswerAfterTool) => learnt.answer_after_tool = true,
            _ => {}
        }
        Some(learnt).filter(|learnt| *learnt != self)
    }
}

/// A limit below the one that was refused: `most`, or half if the provider told none that is lower.
pub fn lower(asked: u32, most: Option<u32>) -> Option<u32> {
    Some(most.filter(|most| *most < asked).unwrap_or(asked / 2)).filter(|lower| *lower > 0)
}

/// The dialects of a provider's models.
#[derive(Debug)]
pub struct Dialects {
    /// What the settings say. It holds for every model that has taught nothing.
    first: Dialect,
    learnt: Mutex<HashMap<String, Dialect>>,
}

impl Dialects {
    pub fn new(first: Dialect) -> Self {
        Self { first, learnt: Mutex::default() }
    }

    pub fn of(&self, model: &str) -> Dialect {
        let learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        learnt.get(model).copied().unwrap_or(self.first)
    }

    /// Called when a request in a dialect that this call has learnt was answered.
    pub fn remember(&self, model: &str, dialect: Dialect) {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner).insert(model.to_owned(), dialect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_teaches_one_thing_once() {
        let first = Dialect { max_completion_tokens: true, stream_options: true, ..Dialect::default() };
        for (refused, learnt) in [
            (Reason::MaxTokens(Some(4096)), Dialect { max_tokens: Some(4096), ..first }),
            (Reason::FieldUnknown(Field::StreamOptions), Dialect { stream_options: false, ..first }),
            (
                Reason::FieldUnknown(Field::MaxCompletionTokens),
                Dialect { max_completion_tokens: false, ..first },
            ),
            (Reason::FieldUnknown(Field::OfAnswers), Dialect { plain_answers: true, ..first }),
            (Reason::Lacks(Lack::Thoughts), Dialect { thoughts: true, ..first }),
            (Reason::Lacks(Lack::Signature), Dialect { signature: true, ..first }),
            (Reason::Lacks(Lack::AnswerAfterTool), Dialect { answer_after_tool: true, ..first }),
        ] {
            assert_eq!(first.learn(refused, 8192), Some(learnt), "{refused:?}");
            assert!(matches!(refused, Reason::MaxTokens(_)) || learnt.learn(refused, 8192).is_none());
        }
        for nothing in
            [Reason::FieldUnknown(Field::MaxTokens), Reason::FieldUnknown(Field::Other), Reason::Credit]
        {
            assert_eq!(first.learn(nothing, 8192), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_limit_is_lowered_until_nothing_is_left_of_it() {
        assert_eq!(
            (lower(8192, Some(4096)), lower(8192, None), lower(8192, Some(9000))),
            (Some(4096), Some(4096), Some(4096))
        );
        assert_eq!((lower(1, None), lower(100, Some(0))), (None, None));
    }

    #[test]
    fn a_dialect_belongs_to_one_model_and_begins_with_the_settings() {
        let first = Dialect { stream_options: true, ..Dialect::default() };
        let dialects = Dialects::new(first);
        let learnt = Dialect { thoughts: true, ..first };
        dialects.remember("a", learnt);
        assert_eq!((dialects.of("a"), dialects.of("b")), (learnt, first));
    }
}
