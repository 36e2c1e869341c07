//! Errors: a provider of the settings that cannot be used ([`ProviderError`]), and a call that failed ([`ApiError`]).

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::http::HttpError;

/// The settings name a provider that cannot be used. The host does not start.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("two providers are named `{0}`; give each its own name in lazaret.toml")]
    ProviderTwice(String),
    #[error("provider `{provider}`: base_url {url:?} {why}")]
    BaseUrl {
        provider: String,
        /// The URL of the settings, without the text between `//` and `@`.
        url: String,
        why: &'static str,
    },
    /// The message does not show the key itself.
    #[error("provider `{provider}`: the key holds characters that no HTTP header may carry; copy it again")]
    Key { provider: String },
    #[error("provider `{provider}`: {source}")]
    Client {
        /// The first provider that needs this client.
        provider: String,
        source: HttpError,
    },
}

impl ProviderError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::ProviderTwice(_) => "gateway.provider_twice",
            Self::BaseUrl { .. } => "gateway.base_url",
            Self::Key { .. } => "gateway.key",
            Self::Client { source: HttpError::Tls(_), .. } => "gateway.tls",
            Self::Client { source: HttpError::Proxy { .. }, .. } => "gateway.proxy",
        }
    }
}

/// The longest message of an error, in characters. Some quote what a box or a provider sent, and every one may reach
/// the log.
const MESSAGE_MAX_CHARS: usize = 4_000;

/// The most characters of a message that one line of the log repeats.
const LINE_MAX_CHARS: usize = 400;

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX_CHARS) {
        message.truncate(end);
        message.push('…');
        message.shrink_to_fit();
    }
    message
}

/// What a provider's refusal means. `refusal` decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The conversation is longer than the model reads.
    Overflow,
    /// `max_tokens` is more than the model writes in one answer; the most that it writes, if the provider told it.
    MaxTokens(Option<u32>),
    /// `max_tokens` is more than this conversation leaves of the context; what it leaves.
    AnswerRoom(Option<u32>),
    Credit,
    Key,
    /// The key is right and may not do this.
    Permission,
    ModelUnknown,
    RateLimit,
    Overloaded,
    /// The provider's filter refuses what was written.
    Filtered,
    FieldUnknown(Field),
    /// The conversation lacks something that this provider wants in it.
    Lacks(Lack),
    /// The conversation holds a thought that another model had.
    ForeignThought,
    /// The request is invalid for another reason.
    Malformed,
    /// An answer that is no answer of a model.
    NoAnswer,
    /// The status alone says what it is.
    Other,
}

/// A field of a request that some providers refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    /// A field that the provider itself puts into its answers.
    OfAnswers,
    Other,
}

/// What a provider misses in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// The thoughts of an answer.
    Thoughts,
    /// The signature of a call.
    Signature,
    /// An answer between a tool's result and the user's message.
    AnswerAfterTool,
}

/// Why a call got no answer, in the shape that the Messages wire gives to errors
/// (<https://docs.anthropic.com/en/api/errors>). Three types are Lazaret's own: `unreachable_error` (no provider
/// answered), `no_answer_error` (what came is no answer of a model) and `content_filter_error` (the provider's filter
/// refused).
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The HTTP status for the runner.
    pub status: u16,
    /// The wire's `type`.
    pub kind: &'static str,
    /// The runner shows it to people. It names no address of a provider: the box has no use for it, and it may be one
    /// of a private network.
    pub message: String,
    /// What only the operator's log says.
    pub detail: Option<String>,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// What a provider's refusal means. The gateway decides by it whether another request may pass.
    pub reason: Reason,
    /// The model's context window, if a refusal for length states it.
    pub window: Option<u32>,
}

impl ApiError {
    /// An error with the usual type of its status.
    pub fn of_status(status: u16, message: impl Into<String>) -> Self {
        let message = shortened(message.into());
        Self {
            status,
            kind: kind_of(status),
            message,
            detail: None,
            retry_after: None,
            reason: Reason::Other,
            window: None,
        }
    }

    /// A request of a box that cannot be forwarded.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::of_status(400, message)
    }

    /// The provider sent no byte of an answer.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { kind: "unreachable_error", ..Self::of_status(502, message) }
    }

    /// What came is no answer of a model. It may come from a server between the host and the provider and may pass, so
    /// its status is one that is retried.
    pub fn no_answer(message: impl Into<String>) -> Self {
        Self { kind: "no_answer_error", reason: Reason::NoAnswer, ..Self::of_status(502, message) }
    }

    /// For the operator's log: the beginning of the message, with the detail.
    pub fn for_log(&self) -> String {
        let mut line: String = self.message.chars().take(LINE_MAX_CHARS).collect();
        line.extend(self.detail.iter().flat_map(|detail| [" (", detail, ")"]));
        line
    }

    /// The body of an error response.
    pub fn body(&self) -> Bytes {
        Bytes::from(self.json().to_string())
    }

    /// The last event of a stream that fails after it began.
    pub fn event(&self) -> Vec<u8> {
        super::write_events::event("error", &self.json())
    }

    fn json(&self) -> serde_json::Value {
        let mut body = json!({ "type": "error", "error": { "type": self.kind, "message": self.message } });
        if let (Some(window), Some(error)) =
            (self.window, body.get_mut("error").and_then(|e| e.as_object_mut()))
        {
            error.insert("window".to_owned(), window.into());
        }
        body
    }
}

/// The usual error type of a status.
pub(super) fn kind_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// The usual status of an error type, which is all that an error event in a stream has.
pub(super) fn status_of(kind: &str) -> u16 {
    match kind {
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        "invalid_request_error" => 400,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_and_its_type_lead_to_each_other() {
        for status in [400, 401, 402, 403, 404, 413, 429, 500, 504, 529] {
            assert_eq!(status_of(kind_of(status)), status);
        }
        assert_eq!(kind_of(418), "invalid_request_error");
        assert_eq!(kind_of(503), "api_error");
    }

    #[test]
    fn an_error_has_the_shape_of_the_wire() {
        let body = ApiError::of_status(529, "busy").body();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value, json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}));
    }

    #[test]
    fn an_error_gives_nobody_room_to_write() {
        for error in [ApiError::of_status(502, "ä".repeat(10_000)), ApiError::unreachable("ä".repeat(10_000))]
        {
            assert_eq!(error.message.chars().count(), MESSAGE_MAX_CHARS + 1);
            assert!(error.message.ends_with("ä…"));
        }
    }

    #[test]
    fn every_provider_error_has_a_code_of_its_own() {
        let errors = [
            ProviderError::ProviderTwice("a".into()),
            ProviderError::BaseUrl { provider: "a".into(), url: "x".into(), why: "y" },
            ProviderError::Key { provider: "a".into() },
            ProviderError::Client { provider: "a".into(), source: HttpError::Tls("x".into()) },
            ProviderError::Client {
                provider: "a".into(),
                source: HttpError::Proxy { variable: "ALL_PROXY", address: "x".into() },
            },
        ];
        let codes: std::collections::HashSet<_> = errors.iter().map(ProviderError::code).collect();
        assert_eq!(codes.len(), errors.len());
        assert!(errors[3].to_string().contains("apt-get install ca-certificates"));
    }
}
