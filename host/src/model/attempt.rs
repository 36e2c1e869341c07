//! One attempt at one provider: from the request to the beginning of an answer, and then the rest of the answer.
//!
//! Before the answer begins the box has received nothing, so the caller may repeat the attempt.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_ENCODING, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use ipc_schema::refusal::quote;
use serde::Deserialize;

use super::anthropic::Thoughts;
use super::configured_providers::{Remote, Words};
use super::dialect::Dialect;
use super::error::{ApiError, Reason};
use super::openai_stream::Translator;
use super::redact::Redactor;
use super::redact_events::EventRedactor;
use super::request::ModelRequest;
use super::{anthropic, openai, openai_answer, refusal, retry_policy};
use crate::domain::ProviderKind;
use crate::http::causes;

/// The greatest answer that is not streamed: forty times the longest answers of models. Where the box wants a stream,
/// or the provider speaks another wire, the host parses it into a tree, which may take a hundred times its bytes.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The host reads no more of an error's body.
const ERROR_MAX_BYTES: usize = 64 * 1024;

/// How long a provider may take to close a stream after its last event.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What all attempts at one call share.
#[derive(Clone)]
pub struct CallOptions {
    /// The model, by the provider's name for it.
    pub model: String,
    pub stream: bool,
    /// The version of the wire, if the box named one.
    pub version: Option<HeaderValue>,
    /// The greatest `max_tokens` that is forwarded in this call ([`CallOptions::limit`]).
    pub max_tokens: u32,
    /// The length of the box's request, from which tokens are estimated.
    pub characters: usize,
    /// The longest silence before and within a streamed answer.
    pub silence: Duration,
    /// Whether to send the thoughts in the transcript ([`Thoughts::None`]).
    pub thinking: bool,
    pub dialect: Dialect,
}

impl CallOptions {
    /// The greatest `max_tokens` that is forwarded, with what the model has refused.
    pub fn limit(&self) -> u32 {
        self.dialect.max_tokens.map_or(self.max_tokens, |most| most.min(self.max_tokens))
    }
}

/// The beginning of an answer.
pub struct AnswerStart {
    pub content: Content,
    /// The provider's id of the answer, for its support.
    pub request_id: Option<HeaderValue>,
}

impl AnswerStart {
    /// An answer of the scripted model. Its counts are estimates.
    pub fn scripted(message: Bytes) -> Self {
        Self { content: Content::Whole(message, true), request_id: None }
    }
}

pub enum Content {
    /// A message in the Messages wire, and whether its counts are estimates.
    Whole(Bytes, bool),
    Stream(Box<LiveStream>),
}

/// Why an answer stopped before its end.
#[derive(Debug)]
pub enum StreamError {
    /// The connection was cut or fell silent.
    Cut(ApiError),
    /// The provider reported an error, or sent something that is not its wire.
    Reported(ApiError),
}

/// Writes the request of a box as this provider takes it. The caller does it once for all attempts, on a thread that
/// may block: a large request takes up to a second.
///
/// # Errors
/// When the request cannot be written in the provider's wire.
pub fn body(remote: &Remote, options: &CallOptions, request: &[u8]) -> Result<Bytes, ApiError> {
    let request = ModelRequest::parse(request)?;
    let CallOptions { model, thinking, dialect, .. } = options;
    let written = match remote.settings.kind {
        ProviderKind::Openai => openai::body(&request, &remote.settings, model, options.limit(), *dialect)?,
        ProviderKind::Anthropic | ProviderKind::Demo => {
            let thoughts = match (thinking, dialect.thoughts) {
                (false, _) => Thoughts::None,
                (true, false) => Thoughts::Signed,
                (true, true) => Thoughts::All,
            };
            anthropic::body(&request, model, options.limit(), thoughts)?
        }
    };
    Ok(Bytes::from(written))
}

/// Sends the request once and waits for the beginning of the answer.
///
/// # Errors
/// What the provider answered instead, or why nothing came.
pub async fn ask(remote: &Remote, options: &CallOptions, body: Bytes) -> Result<AnswerStart, ApiError> {
    let silence = options.stream.then_some(options.silence);
    let sending = remote.request(options.version.as_ref(), body).send();
    let response = within(silence, sending).await.map_err(|error| error.before_answer(remote))?;
    if !response.status().is_success() {
        return Err(refusal(remote, &options.model, response).await);
    }
    check_encoding(remote, response.headers())?;
    let request_id = request_id(&remote.words.redactor, response.headers());
    let mut source = RedactedBody { response, words: remote.words.clone(), silence, label: remote.label() };
    let content = if options.stream {
        begin_stream(remote, options, source).await?
    } else {
        let body = source.rest(BytesMut::new()).await?;
        whole(remote, options, &body)?
    };
    Ok(AnswerStart { content, request_id })
}

/// Waits for the first part of the answer. A server that ignores `stream` shows by its first byte that it sends a whole
/// message.
async fn begin_stream(
    remote: &Remote,
    options: &CallOptions,
    mut source: RedactedBody,
) -> Result<Content, ApiError> {
    let mut reader = match remote.settings.kind {
        ProviderKind::Openai => StreamReader::Openai(Box::new(Translator::new(
            &remote.settings.name,
            &options.model,
            options.characters,
        ))),
        ProviderKind::Anthropic | ProviderKind::Demo => {
            StreamReader::Anthropic(anthropic::PassThrough::default())
        }
    };
    let about = |mut error: ApiError| {
        error.message = format!("{}: {}", remote.label(), remote.words.told(&error.message));
        error
    };
    let mut seen = BytesMut::new();
    let mut is_whole = None;
    while let Some(chunk) = source.chunk().await? {
        if seen.len() < ANSWER_MAX_BYTES {
            seen.extend_from_slice(&chunk);
        }
        is_whole = is_whole.or_else(|| begins_like_json(&seen));
        if is_whole == Some(true) {
            let body = source.rest(seen).await?;
            return whole(remote, options, &body);
        }
        let ready = reader.feed(chunk).map_err(about)?;
        if !ready.is_empty() {
            return Ok(Content::Stream(Box::new(LiveStream::new(source, reader, ready))));
        }
    }
    let ready = reader.finish().map_err(about)?;
    if ready.is_empty() {
        return Err(no_answer(remote, &seen));
    }
    let mut live = LiveStream::new(source, reader, ready);
    live.end();
    Ok(Content::Stream(Box::new(live)))
}

/// Whether a body is JSON and no stream of events; `None` while only blanks have come.
fn begins_like_json(seen: &[u8]) -> Option<bool> {
    let text = seen.strip_prefix(b"\xef\xbb\xbf").unwrap_or(seen).trim_ascii_start();
    text.first().map(|byte| matches!(byte, b'{' | b'['))
}

/// Reads an answer that was not streamed.
fn whole(remote: &Remote, options: &CallOptions, body: &Bytes) -> Result<Content, ApiError> {
    match remote.settings.kind {
        ProviderKind::Openai => {
            let text = String::from_utf8_lossy(body);
            let answer =
                openai_answer::message(&text, &remote.settings.name, &options.model, options.characters)
                    .ok_or_else(|| no_answer(remote, body))?;
            log_skipped(remote, answer.skipped);
            Ok(Content::Whole(Bytes::from(answer.message.to_string()), answer.estimated))
        }
        ProviderKind::Anthropic | ProviderKind::Demo => {
            let is_message = serde_json::from_slice::<Shape>(body).is_ok_and(|shape| shape.kind == "message");
            if is_message { Ok(Content::Whole(body.clone(), false)) } else { Err(no_answer(remote, body)) }
        }
    }
}

#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "type")]
    kind: String,
}

fn log_skipped(remote: &Remote, skipped: u64) {
    if skipped > 0 {
        tracing::warn!(provider = %remote.settings.name, skipped, "elements of the answer could not be read");
    }
}

/// The body of a 200 is a provider's error, or no answer.
fn no_answer(remote: &Remote, seen: &[u8]) -> ApiError {
    let label = remote.label();
    if let Some(refusal) = refusal::in_answer(seen) {
        return refusal
            .error(format!("{label} answered 200 with an error: {}", remote.words.told(&refusal.said)));
    }
    let start = quote(&remote.words.told(&String::from_utf8_lossy(&seen[..seen.len().min(400)])), 120);
    let message = format!(
        "{label} answered 200 with something that is no model's answer; it begins with {start}; check base_url and the \
         provider's kind",
    );
    ApiError::no_answer(message)
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

/// Says what an error status means, in words for the owner.
async fn refusal(remote: &Remote, model: &str, response: reqwest::Response) -> ApiError {
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let retry_after = retry_policy::parse_retry_after(header(RETRY_AFTER), header(DATE));
    if matches!(status, 300..=399) {
        // The host follows no redirect, because the key would go to the new address. 404 is not retried.
        let why =
            format!("{} redirects ({status}), and no redirect is followed; correct base_url", remote.label());
        return ApiError { detail: Some(remote.url.to_string()), ..ApiError::of_status(404, why) };
    }
    let refusal = refusal::classify(status, retry_after, &error_body(response).await);
    let said = remote.words.told(&refusal.said);
    let label = remote.label();
    let error = refusal.error(match refusal.reason {
        Reason::Key => remote.key_refused(status),
        Reason::Permission => {
            format!(
                "{label} does not permit this to the key of {} ({status}): {said}",
                remote.settings.key_env
            )
        }
        Reason::ModelUnknown => format!("{label} has no model `{model}` or no such path ({status}): {said}"),
        _ => format!("{label} answered {status}: {said}"),
    });
    ApiError { detail: Some(remote.url.to_string()), ..error }
}

async fn error_body(mut response: reqwest::Response) -> BytesMut {
    let mut body = BytesMut::new();
    while body.len() < ERROR_MAX_BYTES {
        match tokio::time::timeout(Duration::from_secs(10), response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            _ => break,
        }
    }
    body
}

/// Reads a stream in the provider's wire and writes it in the Messages wire.
enum StreamReader {
    Anthropic(anthropic::PassThrough),
    Openai(Box<Translator>),
}

impl StreamReader {
    fn feed(&mut self, chunk: Bytes) -> Result<Bytes, ApiError> {
        match self {
            Self::Anthropic(pass) => pass.feed(chunk),
            Self::Openai(translator) => translator.feed(&chunk),
        }
    }

    fn finish(&mut self) -> Result<Bytes, ApiError> {
        match self {
            Self::Anthropic(_) => Ok(Bytes::new()),
            Self::Openai(translator) => translator.finish(),
        }
    }
}

/// A streamed answer whose beginning has arrived.
pub struct LiveStream {
    source: RedactedBody,
    reader: StreamReader,
    redactor: EventRedactor,
    ready: BytesMut,
    ended: bool,
    /// Why the stream stopped, until what came before has passed.
    failed: Option<StreamError>,
}

impl LiveStream {
    fn new(source: RedactedBody, reader: StreamReader, ready: Bytes) -> Self {
        let redactor = EventRedactor::new(source.words.redactor.clone());
        let ready_now = BytesMut::new();
        let mut live = Self { source, reader, redactor, ready: ready_now, ended: false, failed: None };
        live.take(ready);
        live
    }

    fn take(&mut self, bytes: Bytes) {
        self.ready.extend_from_slice(&self.redactor.feed(bytes));
    }

    fn end(&mut self) {
        self.ended = true;
        self.ready.extend_from_slice(&self.redactor.finish());
    }

    /// Returns the next bytes in the Messages wire; `None` when the provider has closed the stream.
    ///
    /// # Errors
    /// Why the stream stopped before its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        loop {
            if !self.ready.is_empty() {
                return Ok(Some(self.ready.split().freeze()));
            }
            if let Some(why) = self.failed.take() {
                return Err(why);
            }
            if self.ended {
                return Ok(None);
            }
            let (read, ends) = match self.source.chunk().await {
                Ok(Some(chunk)) => (self.reader.feed(chunk).map_err(StreamError::Reported), false),
                Ok(None) => (self.reader.finish().map_err(StreamError::Reported), true),
                // A server that has sent its reason to stop, and then hangs or cuts the connection, was done.
                Err(cut) => match self.reader.finish() {
                    Ok(end) if !end.is_empty() => (Ok(end), true),
                    _ => (Err(StreamError::Cut(cut)), true),
                },
            };
            match read {
                Ok(bytes) => self.take(bytes),
                Err(StreamError::Reported(mut error)) => {
                    error.message = self.source.words.told(&error.message);
                    self.failed = Some(StreamError::Reported(error));
                }
                Err(cut) => self.failed = Some(cut),
            }
            if ends || self.failed.is_some() {
                self.end();
            }
        }
    }

    /// Reads on for a moment after the end of the answer: the client uses a connection again only when its response was
    /// read to the end.
    pub async fn drain(&mut self) {
        let rest = async { while let (false, Ok(Some(_))) = (self.ended, self.source.chunk().await) {} };
        let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
    }

    /// Whether the counts in the stream are estimates.
    pub fn estimated(&self) -> bool {
        matches!(&self.reader, StreamReader::Openai(translator) if translator.estimated())
    }

    /// The characters of the answer that the provider sent and the box may not have received, and how many elements
    /// could not be read.
    pub fn beside(&self) -> (usize, u64) {
        match &self.reader {
            StreamReader::Openai(translator) => (translator.answered(), translator.skipped()),
            StreamReader::Anthropic(_) => (0, 0),
        }
    }
}

/// The body of a provider's answer, with the provider's key hidden.
struct RedactedBody {
    response: reqwest::Response,
    words: Words,
    silence: Option<Duration>,
    label: String,
}

impl RedactedBody {
    async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let read = within(self.silence, self.response.chunk()).await;
            let clean = match read.map_err(|error| error.within_answer(&self.label, &self.words.redactor))? {
                Some(chunk) => self.words.redactor.feed(chunk),
                None => {
                    let held = self.words.redactor.finish();
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

/// Why no more bytes came.
enum ReadError {
    Silence(Duration),
    Failed(reqwest::Error),
}

impl ReadError {
    fn before_answer(self, remote: &Remote) -> ApiError {
        match self {
            Self::Silence(silence) => silent(&remote.label(), silence),
            Self::Failed(error) => {
                let message = format!("{} cannot be reached: {}", remote.label(), reason(&error));
                unreachable(message, &remote.words.redactor, format!("{}: {}", remote.url, causes(&error)))
            }
        }
    }

    fn within_answer(self, label: &str, redactor: &Redactor) -> ApiError {
        match self {
            Self::Silence(silence) => silent(label, silence),
            Self::Failed(error) => {
                let message = format!("{label} cut its answer: {}", reason(&error));
                unreachable(message, redactor, causes(&error))
            }
        }
    }
}

fn unreachable(message: String, redactor: &Redactor, detail: String) -> ApiError {
    ApiError { detail: Some(redactor.text(&detail)), ..ApiError::unreachable(message) }
}

/// Why no connection held, without an address: the causes of an error may name some.
fn reason(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let mut kinds =
        causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.next().map_or_else(|| "no connection".to_owned(), |kind| kind.to_string())
}

fn silent(label: &str, silence: Duration) -> ApiError {
    ApiError::of_status(504, format!("{label} said nothing for {} s", silence.as_secs()))
}

async fn within<T>(
    silence: Option<Duration>,
    future: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, ReadError> {
    match silence {
        None => future.await.map_err(ReadError::Failed),
        Some(silence) => match tokio::time::timeout(silence, future).await {
            Ok(result) => result.map_err(ReadError::Failed),
            Err(_) => Err(ReadError::Silence(silence)),
        },
    }
}
