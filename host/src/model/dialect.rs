//! What a provider wants in the conversations that it is sent, beyond its wire. It says so by a refusal; the host
//! writes the request again, and remembers it for the model as long as it runs.
//!
//! A transcript may lack such a thing for ever: another model made the answers, or an older version of Lazaret dropped
//! it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::error::ApiError;

/// All of them false is the wire as it is described.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dialect {
    /// DeepSeek, Kimi: every answer has `reasoning_content`.
    pub reasoning: bool,
    /// Gemini: the first call of every answer has a signature.
    pub signature: bool,
    /// Mistral: an answer stands between a tool's result and the user.
    pub answer_after_tool: bool,
    /// DeepSeek over the Messages wire: thoughts come back without a signature too.
    pub unsigned_thoughts: bool,
}

impl Dialect {
    /// The dialect with what this refusal asks for. The wires have no codes for it, so only the message tells.
    pub fn learn(self, refusal: &ApiError) -> Self {
        if !matches!(refusal.status, 400 | 422) {
            return self;
        }
        let says = |words: &str| refusal.message.contains(words);
        Self {
            reasoning: self.reasoning || says("reasoning_content"),
            signature: self.signature || says("thought_signature"),
            answer_after_tool: self.answer_after_tool || says("after role 'tool'"),
            unsigned_thoughts: self.unsigned_thoughts || (says("thinking") && says("passed back")),
        }
    }
}

/// The dialects of a provider's models.
#[derive(Debug, Default)]
pub struct Dialects(Mutex<HashMap<String, Dialect>>);

impl Dialects {
    pub fn of(&self, model: &str) -> Dialect {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(model).copied().unwrap_or_default()
    }

    /// Called when a request in this dialect was answered.
    pub fn remember(&self, model: &str, dialect: Dialect) {
        if dialect != self.of(model) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(model.to_owned(), dialect);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_tell_what_a_provider_wants() {
        let plain = Dialect::default();
        let learnt = |message: &str| plain.learn(&ApiError::of_status(400, message));
        assert_eq!(
            learnt("The `reasoning_content` in the thinking mode must be passed back to the API."),
            Dialect { reasoning: true, unsigned_thoughts: true, ..plain }
        );
        assert_eq!(
            learnt("Function call is missing a thought_signature in functionCall parts."),
            Dialect { signature: true, ..plain }
        );
        assert_eq!(
            learnt("Unexpected role 'user' after role 'tool'"),
            Dialect { answer_after_tool: true, ..plain }
        );
        assert_eq!(learnt("tools.0.name: bad"), plain);
        assert_eq!(plain.learn(&ApiError::of_status(500, "reasoning_content")), plain);
    }

    #[test]
    fn a_dialect_belongs_to_one_model() {
        let dialects = Dialects::default();
        let learnt = Dialect { reasoning: true, ..Dialect::default() };
        dialects.remember("a", learnt);
        assert_eq!((dialects.of("a"), dialects.of("b")), (learnt, Dialect::default()));
    }
}
