//! What can go wrong: with the gateway itself ([`GatewayError`]), and with one call ([`ApiError`]).

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Two providers of the settings share a name.
    #[error("two providers are named `{0}`; give each its own name in lazaret.toml")]
    ProviderTwice(String),
    /// A provider's base URL cannot be used.
    #[error("provider `{provider}`: base_url {url:?} {why}")]
    BaseUrl {
        /// The provider's name.
        provider: String,
        /// The URL as it was set, without what stands between `//` and `@`.
        url: String,
        /// What is wrong with it, and what is expected.
        why: &'static str,
    },
    /// A provider's key cannot stand in an HTTP header. The key itself is not shown.
    #[error("provider `{provider}`: the key holds characters that no HTTP header may carry; copy it again")]
    Key {
        /// The provider's name.
        provider: String,
    },
    /// TLS cannot be set up.
    #[error(
        "no TLS for provider `{provider}`: {why}; if this machine has no CA certificates: apt-get install ca-certificates"
    )]
    Tls {
        /// The first provider that needs TLS.
        provider: String,
        /// The TLS library's reason.
        why: String,
    },
    /// The HTTP client cannot be built.
    #[error("the HTTP client for plain http:// providers cannot be built: {0}")]
    Client(#[source] reqwest::Error),
}

impl GatewayError {
    /// The code, stable for logs and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ProviderTwice(_) => "gateway.provider_twice",
            Self::BaseUrl { .. } => "gateway.base_url",
            Self::Key { .. } => "gateway.key",
            Self::Tls { .. } => "gateway.tls",
            Self::Client(_) => "gateway.client",
        }
    }
}

/// The longest message of an error, in characters. What a box or a provider sent is quoted in some, and every one may
/// reach the log.
const MESSAGE_MAX_CHARS: usize = 4_000;

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX_CHARS) {
        message.truncate(end);
        message.push('…');
        message.shrink_to_fit();
    }
    message
}

/// Why a call got no answer, in the shape that the Anthropic wire gives to errors
/// (<https://docs.anthropic.com/en/api/errors>). `unreachable_error` is our own addition: no provider answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    /// The HTTP status for the runner.
    pub status: u16,
    /// The error's `type`.
    pub kind: &'static str,
    /// For the runner, and through it for people.
    pub message: String,
    /// The provider's wish, if it had one.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error whose type is the usual one of its status.
    pub fn of_status(status: u16, message: impl Into<String>) -> Self {
        Self { status, kind: kind_of(status), message: shortened(message.into()), retry_after: None }
    }

    /// The box's request cannot be forwarded.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::of_status(400, message)
    }

    /// No byte of an answer came.
    pub fn unreachable(message: impl Into<String>) -> Self {
        let message = shortened(message.into());
        Self { status: 502, kind: "unreachable_error", message, retry_after: None }
    }

    /// The error as the body of an answer.
    pub fn body(&self) -> Bytes {
        Bytes::from(self.json().to_string())
    }

    /// The error as the last event of a stream that has begun.
    pub fn event(&self) -> Vec<u8> {
        super::sse::event("error", &self.json())
    }

    fn json(&self) -> serde_json::Value {
        json!({ "type": "error", "error": { "type": self.kind, "message": self.message } })
    }
}

/// The error type that belongs to a status.
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

/// The status that belongs to the error type of an event within a stream.
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
    fn every_gateway_error_has_a_code_of_its_own() {
        let errors = [
            GatewayError::ProviderTwice("a".into()),
            GatewayError::BaseUrl { provider: "a".into(), url: "x".into(), why: "y" },
            GatewayError::Key { provider: "a".into() },
            GatewayError::Tls { provider: "a".into(), why: "x".into() },
        ];
        let codes: std::collections::HashSet<_> = errors.iter().map(GatewayError::code).collect();
        assert_eq!(codes.len(), errors.len());
        assert!(errors[3].to_string().contains("apt-get install ca-certificates"));
    }
}
