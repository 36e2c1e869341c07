//! Decides what a provider's refusal means. Pure: `attempt` and the readers of streams call it.
//!
//! Providers agree on no code for it. So this one classifier reads everything that a body says: `code`, `type`,
//! `status`, `param`, messages, lists of them, the words of a provider behind a proxy, and bodies that are no JSON.
//! `refusal_tests.rs` is the table of real refusals.

use std::time::Duration;

use ipc_schema::refusal::quote;
use serde_json::Value;

use super::error::{ApiError, Field, Lack, Reason, kind_of, status_of};

/// The most characters of a body that the classifier reads. Some bodies quote the whole request.
const WORDS_MAX_CHARS: usize = 4_000;

/// A limit of output tokens below this, and below an eighth of the context, leaves no room for an answer: then the
/// conversation is what is too long.
const ROOM_MIN: i64 = 1_024;

/// A refusal, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    /// The provider's words, or the beginning of a body that has none.
    pub said: String,
    /// How long the provider asks to wait, in a header or in the body.
    pub retry_after: Option<Duration>,
    /// The model's context window, if a refusal for length states it.
    pub window: Option<u32>,
    /// The HTTP status; of an error in a stream, the status that its code or type stands for.
    status: u16,
}

/// Reads the body of an error response.
pub fn classify(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Refusal {
    match serde_json::from_slice::<Value>(without_mark(body)) {
        Ok(value) => of_value(status, retry_after, &value),
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let words: String = text.chars().take(WORDS_MAX_CHARS).collect::<String>().to_lowercase();
            let said = quote(&text, 200);
            Refusal::new(status, &words, said, retry_after)
        }
    }
}

/// Reads an event of a stream, or a body with status 200. `None` if it is no error.
pub fn in_answer(body: &[u8]) -> Option<Refusal> {
    let value: Value = serde_json::from_slice(without_mark(body)).ok()?;
    let error = match &value {
        Value::Array(list) => list.iter().find(|value| is_error(value))?,
        value => Some(value).filter(|value| is_error(value))?,
    };
    Some(of_value(status_within(error), None, error))
}

impl Refusal {
    fn new(status: u16, words: &str, said: String, retry_after: Option<Duration>) -> Self {
        let reason = reason(status, words, retry_after.is_some());
        let window = (reason == Reason::Overflow).then(|| stated_window(words)).flatten();
        Self { reason, said, retry_after, window, status }
    }

    /// The error in the shape of the Messages wire. Its status says whether the call is repeated, its type what the
    /// runner does and tells.
    pub fn error(&self, message: impl Into<String>) -> ApiError {
        let (status, kind) = match self.reason {
            Reason::Overflow => (413, "request_too_large"),
            Reason::Credit => (402, "billing_error"),
            Reason::Key => (401, "authentication_error"),
            Reason::Permission => (403, "permission_error"),
            Reason::ModelUnknown => (404, "not_found_error"),
            Reason::RateLimit => (429, "rate_limit_error"),
            Reason::Overloaded => (529, "overloaded_error"),
            Reason::Filtered => (400, "content_filter_error"),
            Reason::MaxTokens(_)
            | Reason::AnswerRoom(_)
            | Reason::FieldUnknown(_)
            | Reason::Lacks(_)
            | Reason::ForeignThought
            | Reason::Malformed => (400, "invalid_request_error"),
            Reason::NoAnswer => (502, "no_answer_error"),
            Reason::Other => (self.status, kind_of(self.status)),
        };
        let error = ApiError::of_status(status, message);
        ApiError { kind, retry_after: self.retry_after, reason: self.reason, window: self.window, ..error }
    }
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn of_value(status: u16, asked: Option<Duration>, value: &Value) -> Refusal {
    let mut words = String::new();
    collect_words(value, &mut words);
    let words = words.to_lowercase();
    let retry_after = asked.or_else(|| retry_delay(&words));
    let said = message(value).unwrap_or_else(|| quote(&value.to_string(), 200));
    Refusal::new(status, &words, said, retry_after)
}

fn is_error(value: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let Some(fields) = value.as_object() else { return false };
    let has = |name: &str| fields.get(name).is_some_and(|value| !empty(value));
    let is = |name: &str| fields.get(name).is_some_and(|value| value == "error");
    has("error")
        || !has("choices")
            && (is("object")
                || is("type")
                || (has("message") || has("detail")) && (has("code") || has("status")))
}

/// The status that an error within an answer stands for. An error without one may pass, so it counts as a server's.
fn status_within(value: &Value) -> u16 {
    let error = Some(&value["error"]).filter(|error| error.is_object()).unwrap_or(value);
    let told = ["code", "status", "status_code"].into_iter().find_map(|name| {
        let status = &error[name];
        status.as_u64().or_else(|| status.as_str()?.parse().ok()).filter(|status| (400..600).contains(status))
    });
    match told {
        Some(status) => u16::try_from(status).unwrap_or(502),
        None => error["type"].as_str().map_or(502, |kind| match status_of(kind) {
            500 => 502,
            status => status,
        }),
    }
}

/// The message of an error's body. Servers put it at one of these keys, at any depth.
fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Array(list) => {
            let all: Vec<_> = list.iter().filter_map(message).collect();
            Some(all.join("; ")).filter(|all| !all.is_empty())
        }
        Value::Object(fields) => {
            let own = ["error", "message", "detail", "msg", "errors", "error_description"]
                .into_iter()
                .find_map(|name| message(fields.get(name)?));
            // A proxy says "Provider returned error" and quotes the provider.
            let quoted = fields.get("metadata").and_then(|proxy| proxy["raw"].as_str());
            match (own, quoted) {
                (Some(own), Some(quoted)) => {
                    let inner = serde_json::from_str(quoted).ok().filter(Value::is_object);
                    let inner = inner.and_then(|inner| message(&inner));
                    Some(format!("{own}: {}", inner.as_deref().unwrap_or(quoted)))
                }
                (own, quoted) => own.or(quoted.map(ToOwned::to_owned)),
            }
        }
        _ => None,
    }
}

/// All texts and codes of a body, one a line. It leaves out what quotes the request.
fn collect_words(value: &Value, words: &mut String) {
    if words.len() > WORDS_MAX_CHARS {
        return;
    }
    match value {
        Value::String(text) => {
            words.extend(text.chars().take(WORDS_MAX_CHARS));
            words.push('\n');
        }
        Value::Number(number) => {
            words.push_str(&number.to_string());
            words.push('\n');
        }
        Value::Array(list) => list.iter().for_each(|value| collect_words(value, words)),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "input" | "ctx" | "user_id" | "request_id" | "id"))
            .for_each(|(_, value)| collect_words(value, words)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Google's `RetryInfo`: `"retryDelay": "34s"`.
fn retry_delay(words: &str) -> Option<Duration> {
    let mut lines = words.lines();
    lines.find(|line| line.contains("google.rpc.retryinfo"))?;
    let seconds: f64 = words.lines().find_map(|line| line.strip_suffix('s')?.parse().ok())?;
    Duration::try_from_secs_f64(seconds).ok()
}

const KEY: [&str; 7] = [
    "invalid_api_key",
    "authentication_error",
    "api key not valid",
    "api_key_invalid",
    "incorrect api key",
    "invalid api key",
    "unregistered callers",
];

const CREDIT: [&str; 16] = [
    "credit balance",
    "insufficient_quota",
    "insufficient balance",
    "insufficient credit",
    "exceeded_current_quota",
    "billing_error",
    "billing_hard_limit",
    "billing_not_active",
    "billing details",
    "more credits",
    "credit limit",
    "any credits",
    "usage limits",
    "usage limit reached",
    "余额不足",
    "payment required",
];

const FILTERED: [&str; 14] = [
    "content_filter",
    "content management policy",
    "content_policy",
    "responsibleaipolicyviolation",
    "invalid_prompt",
    "moderation_blocked",
    "violating our usage policy",
    "content exists risk",
    "data_inspection_failed",
    "inappropriate content",
    "considered high risk",
    "safety system",
    "requires moderation",
    "input was flagged",
];

/// A model that sees no pictures, or a picture that the provider cannot use. The box asks again without pictures.
const PICTURE: [&str; 8] = [
    "image input",
    "image_url",
    "process image",
    "image exceeds",
    "image dimensions",
    "support image",
    "not a multimodal",
    "pdf",
];

/// Words that call a field of the request unknown.
const FIELD: [&str; 11] = [
    "unsupported parameter",
    "unsupported_parameter",
    "unrecognized",
    "unknown parameter",
    "unknown_parameter",
    "unknown field",
    "unknown name",
    "extra inputs are not permitted",
    "extra_forbidden",
    "is not supported with",
    "is unsupported",
];

/// Fields that providers put into their own answers.
const OF_ANSWERS: [&str; 4] = ["reasoning_content", "reasoning_details", "extra_content", "'reasoning'"];

/// Words that do so only beside the name of a field that may be left out.
const OPTION: [&str; 5] = ["not supported", "not support", "not allowed", "not permitted", "can only be"];

const OVERFLOW: [&str; 31] = [
    "context_length_exceeded",
    "exceed_context_size",
    "context length",
    "context window",
    "context_window",
    "context limit",
    "context size",
    "context_length",
    "context the overflows",
    "maximum context",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "input too long",
    "input length",
    "inputs tokens",
    "`inputs` tokens",
    "input token count",
    "too many input tokens",
    "too many tokens: ",
    "model token limit",
    "token limit",
    "tokens to keep from the initial prompt",
    "maximum number of tokens allowed",
    "reduce the length",
    "reduce your prompt",
    "request_too_large",
    "string_above_max_length",
    "token length too long",
    "exceeds the maximum length",
    "maximum input length",
];

const MODEL: [&str; 17] = [
    "model_not_found",
    "not_found_error",
    "model not exist",
    "model not found",
    "no such model",
    "not a valid model",
    "invalid model",
    "invalid_model",
    "model_decommissioned",
    "model_not_available",
    "unable to access model",
    "deploymentnotfound",
    "model identifier is invalid",
    "no endpoints found",
    "not found the model",
    "try pulling it first",
    "unknown model",
];

const RATE: [&str; 8] = [
    "rate_limit",
    "rate limit",
    "ratelimit",
    "too many requests",
    "throttling",
    "resource_exhausted",
    "tokens per min",
    "please wait before trying again",
];

const OVERLOADED: [&str; 4] = ["overloaded", "capacity exceeded", "at capacity", "loading model"];

/// Decides. The order matters: the words of a more special refusal contain those of a more general one.
fn reason(status: u16, words: &str, told_to_wait: bool) -> Reason {
    let says = |table: &[&str]| table.iter().any(|phrase| words.contains(phrase));
    // Google says "exceeded your current quota … billing details" of a limit that passes in seconds, too.
    let passes = words.contains("resource_exhausted") && (told_to_wait || words.contains("retry in"));
    if says(&KEY) {
        return Reason::Key;
    }
    if status == 402 || says(&CREDIT) && !passes {
        return Reason::Credit;
    }
    if status == 401 {
        return Reason::Key;
    }
    if says(&FILTERED) {
        return Reason::Filtered;
    }
    if says(&PICTURE) && !matches!(status, 403 | 413 | 429 | 529) {
        return Reason::Malformed;
    }
    if let Some(lack) = lack(words).filter(|_| matches!(status, 400 | 422)) {
        return Reason::Lacks(lack);
    }
    if let Some(field) = unknown_field(words).filter(|_| !matches!(status, 404 | 429 | 500..)) {
        return Reason::FieldUnknown(field);
    }
    // A request that is larger than the limit per minute never passes: shortening it helps, and waiting does not.
    if words.contains("request too large for") {
        return Reason::Overflow;
    }
    if status == 429 || says(&RATE) {
        return if says(&OVERLOADED) { Reason::Overloaded } else { Reason::RateLimit };
    }
    if let Some(reason) = max_tokens(words) {
        return reason;
    }
    if status == 413 || says(&OVERFLOW) {
        return Reason::Overflow;
    }
    if says(&MODEL) || says(&["model"]) && says(&["does not exist", "is not found", "not found, try"]) {
        return Reason::ModelUnknown;
    }
    match status {
        529 => Reason::Overloaded,
        _ if says(&OVERLOADED) => Reason::Overloaded,
        403 => Reason::Permission,
        404 => Reason::ModelUnknown,
        400 | 422 if words.contains("thinking") && words.contains("block") => Reason::ForeignThought,
        400 | 422 => Reason::Malformed,
        _ => Reason::Other,
    }
}

/// What the conversation lacks.
fn lack(words: &str) -> Option<Lack> {
    let says = |phrase: &str| words.contains(phrase);
    let unknown = FIELD.iter().any(|phrase| says(phrase));
    if (says("reasoning_content") && !unknown) || (says("thinking") && says("passed back")) {
        return Some(Lack::Thoughts);
    }
    if says("thought_signature") && !unknown {
        return Some(Lack::Signature);
    }
    says("after role 'tool'").then_some(Lack::AnswerAfterTool)
}

/// Which field is unknown, if one is. "'max_tokens' is not supported with this model. Use 'max_completion_tokens'
/// instead": the first one counts.
fn unknown_field(words: &str) -> Option<Field> {
    const FIELDS: [(&str, Field); 5] = [
        ("stream_options", Field::StreamOptions),
        ("include_usage", Field::StreamOptions),
        ("stream options", Field::StreamOptions),
        ("max_tokens", Field::MaxTokens),
        ("max_completion_tokens", Field::MaxCompletionTokens),
    ];
    let says = |table: &[&str]| table.iter().any(|phrase| words.contains(phrase));
    let found = FIELDS.iter().filter_map(|(name, field)| Some((words.find(name)?, *field)));
    match found.min_by_key(|(at, _)| *at).map(|(_, field)| field) {
        Some(Field::StreamOptions) if says(&FIELD) || says(&OPTION) => Some(Field::StreamOptions),
        Some(field) => says(&FIELD).then_some(field),
        None if says(&OF_ANSWERS) => says(&FIELD).then_some(Field::OfAnswers),
        None => says(&FIELD).then_some(Field::Other),
    }
}

/// Whether the limit of the answer is what is too large. The same words often stand in a refusal of the conversation,
/// so the numbers decide: what the context leaves beside the input.
fn max_tokens(words: &str) -> Option<Reason> {
    const LIMIT: [&str; 10] = [
        "max_tokens",
        "max_completion_tokens",
        "max_new_tokens",
        "max_output_tokens",
        "maxoutputtokens",
        "completion tokens",
        "output tokens",
        "maximum tokens you requested",
        "in the completion",
        "in the output",
    ];
    if !LIMIT.iter().any(|phrase| words.contains(phrase)) {
        return None;
    }
    let context =
        after(words, &["context length is", "context window is", "context length of", "must be <="]);
    let input = before(
        words,
        &["in the messages", "of text input", "input tokens", "in the prompt", "`inputs` tokens"],
    );
    let (context, input) = match after(words, &["context limit:"]) {
        Some(input) => (after(words, &[" > "]), Some(input)),
        None => (context, input),
    };
    if let (Some(context), Some(input)) = (context, input) {
        let room = context - input;
        let enough = room >= ROOM_MIN.min(context / 8).max(1);
        return Some(if enough { Reason::AnswerRoom(u32::try_from(room).ok()) } else { Reason::Overflow });
    }
    let below = before(words, &["(exclusive)"]).or_else(|| after(words, &["lower than", "less than"]));
    let most = below
        .map(|most| most - 1)
        .or_else(|| after(words, &["at most", "less than or equal to", "[1,", " > "]));
    let told = most.filter(|most| *most > 0).and_then(|most| u32::try_from(most).ok());
    let large =
        ["too large", "too high", "too big", "exceed", "greater than", "invalid max", "less than", "must be"];
    let refused = told.is_some() || large.iter().any(|phrase| words.contains(phrase));
    let code = words.contains("context_length_exceeded");
    (refused && !(code && told.is_none())).then_some(Reason::MaxTokens(told))
}

/// A context window smaller than this is another number, such as a count of messages.
const WINDOW_LEAST: i64 = 512;

/// The context window that a refusal for length states.
fn stated_window(words: &str) -> Option<u32> {
    // The limit of a minute is no window, but a larger request never passes it either.
    let stated = after(words, &["context limit:"]).and_then(|_| after(words, &[" > "]));
    let stated = stated
        .or_else(|| {
            after(
                words,
                &[
                    "context length is",
                    "context window is",
                    "context length of",
                    "context size (",
                    "context window of",
                    "tokens allowed (",
                    "(tpm): limit",
                    "tokens > ",
                    "must be <=",
                    "token limit:",
                    "input length should be [1,",
                ],
            )
        })
        .or_else(|| before(words, &["maximum context length"]));
    stated.filter(|window| *window >= WINDOW_LEAST).and_then(|window| u32::try_from(window).ok())
}

/// The number after the first of these phrases.
fn after(words: &str, phrases: &[&str]) -> Option<i64> {
    phrases.iter().find_map(|phrase| {
        let (_, rest) = words.split_once(phrase)?;
        let start = rest.find(|c: char| c.is_ascii_digit()).filter(|start| *start <= 12)?;
        let digits = rest.get(start..)?;
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

/// The number right before one of these phrases.
fn before(words: &str, phrases: &[&str]) -> Option<i64> {
    phrases.iter().find_map(|phrase| {
        let (rest, _) = words.rsplit_once(phrase)?;
        let rest = rest.trim_end_matches([' ', '`', '(']);
        let others = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        rest.get(others.len()..)?.parse().ok()
    })
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
