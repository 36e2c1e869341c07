//! One model call: from the box's request, over attempts and answer, to the record of its usage.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use ipc_schema::TurnId;
use ipc_schema::refusal::quote;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::RunSession;
use super::answer::{self, Body, StreamEnd, StreamedResponse};
use super::body_budget::RequestBody;
use super::exchange_log::{Exchange, Recorded, RequestRecord};
use crate::domain::group_settings::ModelChoice;
use crate::model::anthropic::Thoughts;
use crate::model::attempt::{self, AnswerStart, CallOptions, Content, LiveStream};
use crate::model::retry_policy::{self, RetryDecision};
use crate::model::{ApiError, Dialect, ModelRequest, Provider, Reason, Remote, TokenMeter};
use crate::model::{anthropic, demo_model, lower, price, write_events};
use crate::random;
use crate::store::Usage;

/// The status of a call that nobody waits for, as nginx has it.
const HUNG_UP: u16 = 499;

/// The status of an answer that was cut after its first byte.
const CUT: u16 = 502;

/// How often one call is written differently because of what the provider refused in it.
const ADAPTATIONS_MAX: u32 = 8;

pub(super) struct Call {
    run: Arc<RunSession>,
    /// The length of the request's body.
    characters: usize,
    version: Option<HeaderValue>,
    turn: Option<TurnId>,
    started: Instant,
    _permit: OwnedSemaphorePermit,
}

/// What the call has used so far. It outlives the attempts, which are dropped when the box hangs up.
struct Progress {
    /// The model that the usage is recorded for.
    model: String,
    /// Whether a provider holds the request and has not said that it failed.
    sent: bool,
    meter: TokenMeter,
    estimated: bool,
}

struct CheckedRequest {
    stream: bool,
    max_tokens: u32,
    /// For the exchange log.
    recorded: RequestRecord,
}

/// How the part of a call before its answer ended.
enum Opening {
    Answer(AnswerStart),
    Failed(ApiError),
    HungUp,
}

impl Call {
    pub fn new(
        run: Arc<RunSession>,
        characters: usize,
        version: Option<HeaderValue>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let turn = *run.scope.open_turn.borrow();
        Self { run, characters, version, turn, started: Instant::now(), _permit: permit }
    }

    /// Checks the request, makes the attempts, passes the answer on, and records exchange and usage.
    pub async fn run(self, body: RequestBody, reply: oneshot::Sender<Response<Body>>) {
        let settings = &self.run.gateway.settings;
        let model = &self.run.scope.model.model;
        let CheckedRequest { stream, max_tokens, recorded } = match self.check(&body, model).await {
            Ok(checked) => checked,
            Err(error) => {
                self.run.log_refusal("gateway.request", &quote(&error.message, 200));
                let _ = reply.send(answer::error(&error));
                return;
            }
        };
        let options = CallOptions {
            model: model.clone(),
            stream,
            version: self.version.clone(),
            max_tokens,
            characters: self.characters,
            silence: settings.silence,
            thinking: true,
            dialect: Dialect::default(),
        };
        let mut progress =
            Progress { model: model.clone(), sent: false, meter: TokenMeter::default(), estimated: false };
        let exchange = self.run.recorder.request(recorded);
        let status = self.answer(body, options, &mut progress, reply, exchange).await;
        self.record_usage(progress, status).await;
    }

    async fn check(&self, body: &RequestBody, model: &str) -> Result<CheckedRequest, ApiError> {
        let (gateway, model) = (Arc::clone(&self.run.gateway), model.to_owned());
        let recorder = Arc::clone(&self.run.recorder);
        let check = move |body: &Bytes| {
            let request = ModelRequest::parse(body)?;
            let max_tokens = request.max_tokens.min(gateway.settings.max_tokens);
            let written = anthropic::body(&request, &model, max_tokens, Thoughts::All)?;
            let recorded = recorder.record_of(&gateway.redactor.whole(Bytes::from(written)));
            Ok(CheckedRequest { stream: request.stream, max_tokens, recorded })
        };
        self.run.gateway.bodies.run_job(body, check).await
    }

    /// Gets an answer and passes it on. Returns the status for the ledger.
    async fn answer(
        &self,
        body: RequestBody,
        options: CallOptions,
        progress: &mut Progress,
        mut reply: oneshot::Sender<Response<Body>>,
        exchange: Exchange,
    ) -> u16 {
        let streamed = options.stream;
        match self.open(body, options, progress, &mut reply).await {
            Opening::HungUp => HUNG_UP,
            Opening::Failed(error) => {
                tracing::info!(run = %self.run.scope.run, why = %error.for_log(), "the model call failed");
                let _ = reply.send(answer::error(&error));
                exchange.response(Recorded::Json, error.body()).await;
                error.status
            }
            Opening::Answer(AnswerStart { content: Content::Whole(message, estimated), request_id }) => {
                progress.meter.whole(&message);
                progress.estimated = estimated;
                let (response, kind, copy) = whole(message, streamed);
                let _ = reply.send(with_id(response, request_id));
                exchange.response(kind, copy).await;
                200
            }
            Opening::Answer(AnswerStart { content: Content::Stream(mut live), request_id }) => {
                let (streamed, response) = StreamedResponse::open();
                let _ = reply.send(with_id(response, request_id));
                let (status, copy) = self.forward(streamed, &mut live, &mut progress.meter).await;
                progress.estimated = live.estimated();
                let (answered, skipped) = live.beside();
                progress.meter.at_least(answered);
                if skipped > 0 {
                    tracing::warn!(run = %self.run.scope.run, skipped, "elements of the model's stream could not be read");
                }
                exchange.response(Recorded::Stream, copy).await;
                status
            }
        }
    }

    /// The part of a call before the first byte of an answer. One deadline holds for all attempts together.
    async fn open(
        &self,
        body: RequestBody,
        options: CallOptions,
        progress: &mut Progress,
        reply: &mut oneshot::Sender<Response<Body>>,
    ) -> Opening {
        let limit = self.run.gateway.settings.call_time;
        tokio::select! {
            biased;
            () = reply.closed() => Opening::HungUp,
            () = self.run.scope.cancel.cancelled() => Opening::HungUp,
            begun = tokio::time::timeout_at(self.started + limit, self.ask_model(body, options, progress)) => match begun {
                Ok(Ok(begun)) => Opening::Answer(begun),
                Ok(Err(error)) => Opening::Failed(error),
                Err(_) => Opening::Failed(ApiError::of_status(504, format!(
                    "no answer within {} s, the longest that a model call may take", limit.as_secs()))),
            },
        }
    }

    /// Asks the group's model until it answers, refuses, or has failed for too long. The request, and the room that it
    /// takes, are free when this ends.
    async fn ask_model(
        &self,
        body: RequestBody,
        mut options: CallOptions,
        progress: &mut Progress,
    ) -> Result<AnswerStart, ApiError> {
        let (scope, bodies) = (&self.run.scope, &self.run.gateway.bodies);
        let remote = match self.run.gateway.providers.get(&scope.model.provider) {
            Some(Provider::Remote(remote)) => remote,
            Some(Provider::Demo) => {
                // Recorded as the scripted model, at no cost, whatever model the group has.
                price::DEMO_MODEL.clone_into(&mut progress.model);
                let answer = |body: &Bytes| Ok(demo_model::answer(&ModelRequest::parse(body)?, body.len()));
                return bodies.run_job(&body, answer).await.map(AnswerStart::scripted);
            }
            None => return Err(unknown_provider(&scope.model)),
        };
        let write = async |options: &CallOptions| {
            let (remote, options) = (Arc::clone(remote), options.clone());
            bodies.run_job(&body, move |body| attempt::body(&remote, &options, body)).await
        };
        let started = Instant::now();
        let (mut attempt, mut adaptations) = (1, 0);
        let known = remote.dialects.of(&options.model);
        options.dialect = known;
        let mut written = write(&options).await?;
        loop {
            let error = match ask_once(remote, &options, written.clone(), progress).await {
                Ok(begun) => {
                    // A call that learnt nothing may have begun before another one learnt something.
                    if options.dialect != known {
                        remote.dialects.remember(&options.model, options.dialect);
                    }
                    return Ok(begun);
                }
                Err(error) => error,
            };
            if adaptations < ADAPTATIONS_MAX && adapt(&mut options, error.reason) {
                tracing::info!(run = %scope.run, why = %error.for_log(), "the model call is written differently");
                adaptations += 1;
                written = write(&options).await?;
                continue;
            }
            let limits = &self.run.gateway.settings.retry;
            let elapsed = started.elapsed();
            match retry_policy::after(
                limits,
                attempt,
                error.status,
                error.retry_after,
                elapsed,
                random::fraction(),
            ) {
                RetryDecision::GiveUp => return Err(after_attempts(error, attempt, elapsed.as_secs())),
                RetryDecision::Retry { wait } => {
                    tracing::info!(run = %scope.run, attempt, status = error.status, wait_ms = wait.as_millis(),
                        why = %error.for_log(), "the model call is repeated");
                    tokio::time::sleep(wait).await;
                }
            }
            attempt += 1;
        }
    }

    /// Passes a stream on until it ends, the box hangs up, the run ends or time is up.
    async fn forward(
        &self,
        mut streamed: StreamedResponse,
        live: &mut LiveStream,
        meter: &mut TokenMeter,
    ) -> (u16, Bytes) {
        let limit = self.run.gateway.settings.call_time;
        let end = tokio::select! {
            biased;
            () = self.run.scope.cancel.cancelled() => StreamEnd::HungUp,
            end = tokio::time::timeout_at(self.started + limit, streamed.forward(live, meter)) => end.unwrap_or_else(|_| {
                StreamEnd::Cut(ApiError::of_status(504, format!("the answer took longer than {} s", limit.as_secs())))
            }),
        };
        match end {
            StreamEnd::Whole => {
                let copy = streamed.finish();
                live.drain().await;
                (200, copy)
            }
            StreamEnd::Error(error) => (error.status, streamed.finish()),
            StreamEnd::HungUp => (HUNG_UP, streamed.cut("the run hung up or ended")),
            StreamEnd::Cut(error) => {
                tracing::warn!(run = %self.run.scope.run, why = %error.for_log(), "a model's answer was cut");
                (CUT, streamed.cut(&error.message))
            }
        }
    }

    async fn record_usage(&self, progress: Progress, status: u16) {
        failpoint!("gateway.book.before");
        let (tokens, incomplete) = progress.meter.total(progress.sent.then_some(self.characters));
        let scope = &self.run.scope;
        let usage = Usage {
            run: scope.run.clone(),
            group: scope.group.clone(),
            turn: self.turn,
            provider: scope.model.provider.clone(),
            cost_micros: price::cost(&progress.model, &tokens),
            model: progress.model,
            input: tokens.input,
            output: tokens.output,
            cache_read: tokens.cache_read,
            cache_write: tokens.cache_write,
            estimated: incomplete || progress.estimated,
            status,
            took: self.started.elapsed(),
            zone: scope.zone.clone(),
        };
        tracing::info!(run = %usage.run, group = %usage.group, turn = usage.turn.map(tracing::field::display), provider = %usage.provider,
            model = %usage.model, status, input = usage.input, output = usage.output, took_ms = usage.took.as_millis(), "model call");
        scope.ledger.usage(usage).await;
    }
}

/// Makes one attempt, and notes whether the provider holds a request that it may charge for.
async fn ask_once(
    remote: &Remote,
    options: &CallOptions,
    body: Bytes,
    progress: &mut Progress,
) -> Result<AnswerStart, ApiError> {
    failpoint!("gateway.upstream.before", |e| ApiError::of_status(503, e.to_string()));
    progress.sent = true;
    let asked = attempt::ask(remote, options, body).await;
    failpoint!("gateway.upstream.after");
    // A provider that fell silent may still work on the request and charge for it; one that reported an error does not.
    progress.sent = asked.as_ref().err().is_none_or(|error| error.status == 504);
    asked
}

/// Changes how the request is written, so that what the provider refused is not in it. `false` if nothing can be
/// changed. The conversation itself stays whole: only the runner shortens it, with a summary and an archive.
fn adapt(options: &mut CallOptions, refused: Reason) -> bool {
    match refused {
        // Both belong to this conversation alone, so nothing is learnt.
        Reason::AnswerRoom(most) => {
            lower(options.limit(), most).map(|lower| options.max_tokens = lower).is_some()
        }
        Reason::ForeignThought => std::mem::replace(&mut options.thinking, false),
        refused => {
            let learnt = options.dialect.learn(refused, options.limit());
            learnt.map(|learnt| options.dialect = learnt).is_some()
        }
    }
}

fn after_attempts(mut error: ApiError, attempts: u32, seconds: u64) -> ApiError {
    if attempts > 1 {
        error.message = format!("{} (asked {attempts} times in {seconds} s)", error.message);
    }
    error
}

fn unknown_provider(choice: &ModelChoice) -> ApiError {
    ApiError::of_status(
        404,
        format!(
            "the group's model is `{}` of the provider `{}`, and lazaret.toml has no provider of that name",
            choice.model, choice.provider
        ),
    )
}

/// Returns a message in the form that the box asked for, and the same bytes for the record.
fn whole(message: Bytes, streamed: bool) -> (Response<Body>, Recorded, Bytes) {
    let parsed = if streamed { serde_json::from_slice(&message).ok() } else { None };
    match parsed {
        Some(parsed) => {
            let events = Bytes::from(write_events::of_message(&parsed));
            (answer::events(events.clone()), Recorded::Stream, events)
        }
        None => (answer::json(hyper::StatusCode::OK, message.clone()), Recorded::Json, message),
    }
}

fn with_id(mut response: Response<Body>, id: Option<HeaderValue>) -> Response<Body> {
    if let Some(id) = id {
        response.headers_mut().insert(HeaderName::from_static("request-id"), id);
    }
    response
}
