//! One attempt at one provider: from the request to the beginning of an answer.
//!
//! Up to there nothing has been passed to the box, so a failure here can be repeated or handed to another model.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_ENCODING, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use ipc_schema::refusal::quote;
use serde::Deserialize;

use super::body_limits::{Asked, Bodies};
use super::error::ApiError;
use super::openai_stream::Translator;
use super::provider::{ProviderKind, Remote, reason};
use super::redact::Redactor;
use super::request::ModelRequest;
use super::{anthropic, openai, retry_policy};

/// The greatest answer that is not streamed: forty times what the longest answers of models are. It is read into a tree
/// where the box wants it as a stream, or the wire is another, which may take a hundred times its bytes.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The most that is read of an error's body.
const ERROR_MAX_BYTES: usize = 64 * 1024;

/// How long a provider may take to close a stream after its last event.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// One call as every attempt at it sees it.
pub(super) struct Question {
    /// What the box asked; it has been checked.
    pub asked: Asked,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// The wire's version, if the box named one.
    pub version: Option<HeaderValue>,
    /// The most `max_tokens`.
    pub max_tokens: u32,
    /// The request's length, for estimates.
    pub characters: usize,
    /// The longest silence within a streamed answer.
    pub silence: Duration,
    /// Whether thoughts in the transcript are sent ([`anthropic::body`]).
    pub thinking: bool,
}

/// An answer has begun.
pub(super) struct Begun {
    /// What it is.
    pub content: Content,
    /// The provider's id of it, for its support.
    pub request_id: Option<HeaderValue>,
}

impl Begun {
    /// The tour's answer, whose counts are estimates.
    pub fn of_tour(message: Bytes) -> Self {
        Self { content: Content::Whole(message, true), request_id: None }
    }
}

/// The two forms of an answer.
pub(super) enum Content {
    /// A whole message in the Messages wire, and whether its counts are estimates.
    Whole(Bytes, bool),
    /// A stream.
    Stream(Box<LiveStream>),
}

/// Why an answer that had begun did not end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection was cut or fell silent.
    Cut(ApiError),
    /// The provider told an error, or something that is not the wire.
    Told(ApiError),
}

/// The request as this provider takes it. Written once for all attempts.
pub(super) async fn body(
    bodies: &Bodies,
    remote: &Remote,
    question: &Question,
    model: &str,
) -> Result<Bytes, ApiError> {
    let (settings, model) = (remote.settings.clone(), model.to_owned());
    let (max_tokens, thinking) = (question.max_tokens, question.thinking);
    let write = move |body: &Bytes| {
        let request = ModelRequest::again(body)?;
        let written = match settings.kind {
            ProviderKind::OpenAi => openai::body(&request, &settings, &model, max_tokens)?,
            ProviderKind::Anthropic | ProviderKind::Tour => {
                anthropic::body(&request, &model, max_tokens, thinking)?
            }
        };
        Ok(Bytes::from(written))
    };
    bodies.work(&question.asked, write).await
}

/// Asks once.
pub(super) async fn ask(
    remote: &Remote,
    question: &Question,
    model: &str,
    body: Bytes,
) -> Result<Begun, ApiError> {
    let silence = question.stream.then_some(question.silence);
    let sending = remote.request(question.version.as_ref(), body).send();
    let response = within(silence, sending).await.map_err(|trouble| trouble.told(remote))?;
    if !response.status().is_success() {
        return Err(refusal(remote, model, response).await);
    }
    check_encoding(remote, response.headers())?;
    let request_id = request_id(&remote.redactor, response.headers());
    let mut source = Source { response, redactor: remote.redactor.clone(), silence, label: remote.label() };
    let content = if question.stream {
        begin_stream(remote, question, model, source).await?
    } else {
        let body = source.rest(BytesMut::new()).await?;
        whole(remote, question, model, &body)?
    };
    Ok(Begun { content, request_id })
}

/// Waits for the first event. A server that ignores `stream` shows by its first byte that it sends a whole message.
async fn begin_stream(
    remote: &Remote,
    question: &Question,
    model: &str,
    mut source: Source,
) -> Result<Content, ApiError> {
    let mut wire = match remote.settings.kind {
        ProviderKind::OpenAi => Wire::OpenAi(Box::new(Translator::new(model, question.characters))),
        ProviderKind::Anthropic | ProviderKind::Tour => Wire::Anthropic(anthropic::PassThrough::default()),
    };
    let mut seen = BytesMut::new();
    let about = |mut error: ApiError| {
        error.message = format!("{}: {}", remote.label(), error.message);
        error
    };
    while let Some(chunk) = source.chunk().await? {
        let fresh = seen.is_empty();
        seen.extend_from_slice(&chunk);
        if fresh && chunk.trim_ascii_start().first() == Some(&b'{') {
            let body = source.rest(seen).await?;
            return whole(remote, question, model, &body);
        }
        let ready = wire.feed(chunk).map_err(about)?;
        if !ready.is_empty() {
            return Ok(Content::Stream(Box::new(LiveStream { source, wire, ready, ended: false })));
        }
    }
    let ready = wire.finish().map_err(about)?;
    if ready.is_empty() {
        return Err(garbage(remote, &seen));
    }
    Ok(Content::Stream(Box::new(LiveStream { source, wire, ready, ended: true })))
}

/// A whole answer in the Messages wire.
fn whole(remote: &Remote, question: &Question, model: &str, body: &Bytes) -> Result<Content, ApiError> {
    match remote.settings.kind {
        ProviderKind::OpenAi => {
            let (message, estimated) =
                openai::message(body, model, question.characters).map_err(|_| garbage(remote, body))?;
            Ok(Content::Whole(Bytes::from(message.to_string()), estimated))
        }
        ProviderKind::Anthropic | ProviderKind::Tour => {
            let is_message = serde_json::from_slice::<Shape>(body).is_ok_and(|shape| shape.kind == "message");
            if is_message { Ok(Content::Whole(body.clone(), false)) } else { Err(garbage(remote, body)) }
        }
    }
}

#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "type")]
    kind: String,
}

/// A 200 with something that is no answer counts as a broken server between: it may pass (F11).
fn garbage(remote: &Remote, seen: &[u8]) -> ApiError {
    let start = String::from_utf8_lossy(&seen[..seen.len().min(400)]);
    ApiError::of_status(
        502,
        format!(
            "{} answered 200 with something that is no model's answer; it begins with {}; check base_url and the \
             provider's kind",
            remote.label(),
            quote(&start, 120)
        ),
    )
}

fn check_encoding(remote: &Remote, headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(ApiError::of_status(
            502,
            format!("{} compressed its answer although it was asked not to", remote.label()),
        )),
        _ => Ok(()),
    }
}

fn request_id(redactor: &Redactor, headers: &HeaderMap) -> Option<HeaderValue> {
    let told = headers.get("request-id").or_else(|| headers.get("x-request-id"))?;
    HeaderValue::from_str(&redactor.text(told.to_str().ok()?)).ok()
}

/// What an error status means, in words for the owner.
async fn refusal(remote: &Remote, model: &str, response: reqwest::Response) -> ApiError {
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let retry_after = retry_policy::parse_retry_after(header(RETRY_AFTER), header(DATE));
    if matches!(status, 300..=399) {
        // Another address is not followed, since the key would go there; and asking again would not help.
        let why =
            format!("{} redirects ({status}), and no redirect is followed; correct base_url", remote.label());
        return ApiError::of_status(404, why);
    }
    let told = remote.redactor.text(&error_text(response).await);
    let label = remote.label();
    let mut error = match status {
        401 => remote.key_refused(status),
        403 => ApiError::of_status(
            status,
            format!(
                "{label} does not permit this to the key of {} ({status}): {told}",
                remote.settings.key_env
            ),
        ),
        404 => ApiError::of_status(
            status,
            format!("{label} has no model `{model}` or no such path (404): {told}"),
        ),
        _ => ApiError::of_status(status, format!("{label} answered {status}: {told}")),
    };
    error.retry_after = retry_after;
    error
}

/// Errors as providers tell them: Anthropic and OpenAI, and those that are compatible with neither.
#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorBody {
    Nested { error: ErrorText },
    Flat { message: String },
    Detail { detail: String },
    Text { error: String },
}

#[derive(Deserialize)]
struct ErrorText {
    message: String,
}

async fn error_text(mut response: reqwest::Response) -> String {
    let mut body = BytesMut::new();
    while body.len() < ERROR_MAX_BYTES {
        match tokio::time::timeout(Duration::from_secs(10), response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            _ => break,
        }
    }
    error_words(&body)
}

/// What an error's body says: the provider's sentence, or the beginning of what is none.
pub(super) fn error_words(body: &[u8]) -> String {
    match serde_json::from_slice(body) {
        Ok(ErrorBody::Nested { error: ErrorText { message } } | ErrorBody::Flat { message }) => message,
        Ok(ErrorBody::Detail { detail: text } | ErrorBody::Text { error: text }) => text,
        Err(_) => quote(&String::from_utf8_lossy(body), 200),
    }
}

/// Which wire a stream speaks.
enum Wire {
    Anthropic(anthropic::PassThrough),
    OpenAi(Box<Translator>),
}

impl Wire {
    fn feed(&mut self, chunk: Bytes) -> Result<Bytes, ApiError> {
        match self {
            Self::Anthropic(pass) => pass.feed(chunk),
            Self::OpenAi(translator) => translator.feed(&chunk),
        }
    }

    fn finish(&mut self) -> Result<Bytes, ApiError> {
        match self {
            Self::Anthropic(_) => Ok(Bytes::new()),
            Self::OpenAi(translator) => translator.finish(),
        }
    }
}

/// A stream that has begun.
pub(super) struct LiveStream {
    source: Source,
    wire: Wire,
    ready: Bytes,
    ended: bool,
}

impl LiveStream {
    /// The next bytes in the Messages wire; `None` when the provider has closed the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if !self.ready.is_empty() {
                return Ok(Some(std::mem::take(&mut self.ready)));
            }
            if self.ended {
                return Ok(None);
            }
            self.ready = match self.source.chunk().await {
                Ok(Some(chunk)) => self.wire.feed(chunk).map_err(Broken::Told)?,
                Ok(None) => {
                    self.ended = true;
                    self.wire.finish().map_err(Broken::Told)?
                }
                // A server that has said why it stopped and then hangs, or closes without manners, was done.
                Err(cut) => match self.wire.finish() {
                    Ok(end) if !end.is_empty() => {
                        self.ended = true;
                        end
                    }
                    _ => return Err(Broken::Cut(cut)),
                },
            };
        }
    }

    /// Reads what may come after the end of the answer, for a moment: a connection whose answer was read to the
    /// end is used for the next call.
    pub async fn drain(&mut self) {
        let rest = async { while let (false, Ok(Some(_))) = (self.ended, self.source.chunk().await) {} };
        let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
    }

    /// Whether the counts in the stream are estimates.
    pub fn estimated(&self) -> bool {
        matches!(&self.wire, Wire::OpenAi(translator) if translator.estimated())
    }
}

/// The body of a provider's answer, searched for the key.
struct Source {
    response: reqwest::Response,
    redactor: Redactor,
    silence: Option<Duration>,
    label: String,
}

impl Source {
    async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let read = within(self.silence, self.response.chunk()).await;
            let clean = match read.map_err(|trouble| trouble.cut(&self.label))? {
                Some(chunk) => self.redactor.feed(chunk),
                None => {
                    let held = self.redactor.finish();
                    return Ok(Some(held).filter(|held| !held.is_empty()));
                }
            };
            if !clean.is_empty() {
                return Ok(Some(clean));
            }
        }
    }

    async fn rest(&mut self, mut body: BytesMut) -> Result<Bytes, ApiError> {
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_MAX_BYTES {
                return Err(ApiError::of_status(502, format!("{} answered with too much", self.label)));
            }
        }
        Ok(body.freeze())
    }
}

/// Why nothing (more) came.
enum Trouble {
    Silence(Duration),
    Failed(reqwest::Error),
}

impl Trouble {
    fn told(self, remote: &Remote) -> ApiError {
        match self {
            Self::Silence(silence) => silent(&remote.label(), silence),
            Self::Failed(error) => {
                let why = remote.redactor.text(&reason(&error));
                ApiError::unreachable(format!("{} cannot be reached: {why}", remote.label()))
            }
        }
    }

    fn cut(self, label: &str) -> ApiError {
        match self {
            Self::Silence(silence) => silent(label, silence),
            Self::Failed(error) => {
                ApiError::unreachable(format!("{label} cut its answer: {}", reason(&error)))
            }
        }
    }
}

fn silent(label: &str, silence: Duration) -> ApiError {
    ApiError::of_status(504, format!("{label} said nothing for {} s", silence.as_secs()))
}

async fn within<T>(
    silence: Option<Duration>,
    future: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, Trouble> {
    match silence {
        None => future.await.map_err(Trouble::Failed),
        Some(silence) => match tokio::time::timeout(silence, future).await {
            Ok(result) => result.map_err(Trouble::Failed),
            Err(_) => Err(Trouble::Silence(silence)),
        },
    }
}
