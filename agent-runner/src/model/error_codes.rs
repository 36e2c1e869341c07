//! Maps errors of the Anthropic Messages API to the error codes of `turn_done`. [`super::gateway_client`] calls it.

use ipc_schema::letters::from_agent::ErrorDetail;
use serde::Deserialize;

use super::{CallError, Failure};

#[derive(Deserialize)]
struct Whole {
    error: Inner,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    window: Option<u32>,
}

/// An answer with an error status. It is final, because the gateway has made its retries already.
pub fn of_status(status: u16, body: &str) -> CallError {
    match serde_json::from_str::<Whole>(body) {
        Ok(Whole { error }) => CallError::Failed(failure(status, error)),
        Err(_) => {
            let start: String = body.chars().take(200).collect();
            let message = format!("the gateway answered {status}: {start}");
            CallError::Failed(failure(status, Inner { kind: String::new(), message, window: None }))
        }
    }
}

/// An `error` event within a stream. A temporary error becomes [`CallError::Cut`], which this runner repeats: the
/// gateway cannot repeat a call whose answer has begun.
pub fn in_stream(error: &str) -> CallError {
    let Ok(inner) = serde_json::from_str::<Inner>(error) else {
        return CallError::Cut { reason: "the answer broke off with an error without a name".into() };
    };
    let Inner { kind, message, .. } = &inner;
    match kind.as_str() {
        "overloaded_error" | "api_error" | "rate_limit_error" | "timeout_error" | "unreachable_error"
        | "no_answer_error" | "" => {
            CallError::Cut { reason: format!("the answer broke off: {kind}: {message}") }
        }
        _ => CallError::Failed(failure(200, inner)),
    }
}

fn failure(status: u16, Inner { kind, message, window }: Inner) -> Failure {
    let code = code(status, &kind);
    // The gateway knows every provider's words for it, so only the type counts here.
    let too_long = code == "model.too_large";
    Failure {
        trouble: ErrorDetail { code: code.to_owned(), reason: message },
        too_long,
        window: window.filter(|_| too_long),
    }
}

/// The error's type decides; without one, the status does ("Errors" in Anthropic's API reference; `unreachable_error`,
/// `no_answer_error` and `content_filter_error` are the gateway's own).
fn code(status: u16, kind: &str) -> &'static str {
    match (kind, status) {
        ("authentication_error", _) | ("", 401) => "model.auth",
        ("permission_error", _) | ("", 403) => "model.permission",
        ("not_found_error", _) | ("", 404) => "model.not_found",
        ("rate_limit_error", _) | ("", 429) => "model.rate_limited",
        ("overloaded_error", _) | ("", 529) => "model.overloaded",
        ("request_too_large", _) | ("", 413) => "model.too_large",
        ("billing_error", _) | ("", 402) => "model.budget",
        ("invalid_request_error", _) | ("", 400) => "model.invalid_request",
        ("content_filter_error", _) => "model.filtered",
        ("no_answer_error", _) => "model.no_answer",
        ("unreachable_error" | "timeout_error", _) | ("api_error" | "", 502..=504) => "model.unreachable",
        _ => "model.error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: u16, body: &str) -> Failure {
        match of_status(status, body) {
            CallError::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_refusal_has_its_code() {
        for (status, kind, code) in [
            (401, "authentication_error", "model.auth"),
            (402, "billing_error", "model.budget"),
            (403, "permission_error", "model.permission"),
            (404, "not_found_error", "model.not_found"),
            (413, "request_too_large", "model.too_large"),
            (429, "rate_limit_error", "model.rate_limited"),
            (500, "api_error", "model.error"),
            (502, "api_error", "model.unreachable"),
            (502, "unreachable_error", "model.unreachable"),
            (504, "timeout_error", "model.unreachable"),
            (529, "overloaded_error", "model.overloaded"),
            (400, "invalid_request_error", "model.invalid_request"),
            (400, "content_filter_error", "model.filtered"),
            (502, "no_answer_error", "model.no_answer"),
            (418, "teapot_error", "model.error"),
        ] {
            let body = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"why"}}}}"#);
            let failure = failed(status, &body);
            assert_eq!((failure.trouble.code.as_str(), failure.trouble.reason.as_str()), (code, "why"));
        }
    }

    #[test]
    fn an_error_page_is_quoted_and_its_status_counts() {
        let failure = failed(503, "<html>down</html>");
        assert_eq!(failure.trouble.code, "model.unreachable");
        assert!(failure.trouble.reason.contains("503") && failure.trouble.reason.contains("down"));
    }

    #[test]
    fn only_length_is_a_reason_to_shorten() {
        let body = |kind: &str| format!(r#"{{"error":{{"type":"{kind}","message":"prompt is too long"}}}}"#);
        assert!(failed(413, &body("request_too_large")).too_long);
        assert!(failed(413, "{}").too_long);
        let told = r#"{"error":{"type":"request_too_large","message":"too long","window":8192}}"#;
        assert_eq!(failed(413, told).window, Some(8_192));
        assert!(!failed(400, &body("invalid_request_error")).too_long, "the words decide nothing");
    }
}
