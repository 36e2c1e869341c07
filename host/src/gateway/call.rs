//! One model call, from the box's request to its row in the ledger.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use ipc_schema::TurnId;
use ipc_schema::refusal::quote;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::{self, Body, Frames, StreamEnd};
use super::attempt::{self, Begun, Content, Question};
use super::body_limits::Asked;
use super::error::ApiError;
use super::exchange_log::{self, Exchange, Recorded};
use super::price::TOUR_MODEL;
use super::provider::{Provider, Remote};
use super::request::ModelRequest;
use super::retry_policy::{self, Verdict};
use super::usage::{Meter, Usage};
use super::{ModelChoice, Run, anthropic, demo_model, sse};

/// The status of a call that nobody waits for any more (as nginx has it).
const HUNG_UP: u16 = 499;

/// The status of an answer that was cut after its first byte.
const CUT: u16 = 502;

/// One call that is about to be made.
pub(super) struct Call {
    run: Arc<Run>,
    /// The length of its body.
    characters: usize,
    version: Option<HeaderValue>,
    turn: Option<TurnId>,
    started: Instant,
    _permit: OwnedSemaphorePermit,
}

/// What has happened so far; it outlives the attempts, which are dropped when the box hangs up.
struct Tally {
    choice: ModelChoice,
    /// Whether a provider holds the request and has not said that it failed.
    sent: bool,
    meter: Meter,
    estimated: bool,
}

/// What the first reading of a request gives.
struct Opened {
    /// Whether the answer is to be streamed.
    stream: bool,
    /// What is recorded of it.
    shown: Vec<u8>,
}

/// How the part of a call before its answer ended.
enum Opening {
    Begun(Begun),
    Failed(ApiError),
    HungUp,
}

impl Call {
    /// A call with a body of so many bytes.
    pub fn new(
        run: Arc<Run>,
        characters: usize,
        version: Option<HeaderValue>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let turn = *run.scope.open_turn.borrow();
        Self { run, characters, version, turn, started: Instant::now(), _permit: permit }
    }

    /// Makes the call: checks, attempts, answer, record, usage.
    pub async fn run(self, asked: Asked, reply: oneshot::Sender<Response<Body>>) {
        let settings = &self.run.gateway.settings;
        let choice = &self.run.scope.model;
        let Opened { stream, shown } = match self.read(&asked, choice).await {
            Ok(opened) => opened,
            Err(error) => {
                self.run.tell("gateway.request", &quote(&error.message, 200));
                let _ = reply.send(answer::error(&error));
                return;
            }
        };
        let question = Question {
            asked,
            stream,
            version: self.version.clone(),
            max_tokens: settings.max_tokens,
            characters: self.characters,
            silence: settings.silence,
            thinking: true,
        };
        let mut tally =
            Tally { choice: choice.clone(), sent: false, meter: Meter::default(), estimated: false };
        let exchange = self.run.recorder.request(shown);
        let status = self.answer(question, &mut tally, reply, exchange).await;
        self.book(&tally, status).await;
    }

    /// Reads the request for the first time: checks it, and writes down what the record shows.
    async fn read(&self, asked: &Asked, choice: &ModelChoice) -> Result<Opened, ApiError> {
        let (gateway, model) = (Arc::clone(&self.run.gateway), choice.model.clone());
        let read = move |body: &Bytes| {
            let request = ModelRequest::parse(body)?;
            let shown = anthropic::body(&request, &model, gateway.settings.max_tokens, true);
            let shown = shown.map_or_else(|_| body.clone(), Bytes::from);
            let shown = exchange_log::beginning(&gateway.redactor.whole(shown));
            Ok(Opened { stream: request.stream, shown })
        };
        self.run.gateway.bodies.work(asked, read).await
    }

    /// Gets an answer and passes it on; returns the status for the ledger.
    async fn answer(
        &self,
        question: Question,
        tally: &mut Tally,
        mut reply: oneshot::Sender<Response<Body>>,
        exchange: Exchange,
    ) -> u16 {
        let streamed = question.stream;
        match self.open(question, tally, &mut reply).await {
            Opening::HungUp => HUNG_UP,
            Opening::Failed(error) => {
                let _ = reply.send(answer::error(&error));
                exchange.response(Recorded::Json, error.body()).await;
                error.status
            }
            Opening::Begun(Begun { content: Content::Whole(message, estimated), request_id }) => {
                tally.meter.whole(&message);
                tally.estimated = estimated;
                let (response, kind, copy) = whole(message, streamed);
                let _ = reply.send(with_id(response, request_id));
                exchange.response(kind, copy).await;
                200
            }
            Opening::Begun(Begun { content: Content::Stream(mut live), request_id }) => {
                let (frames, response) = Frames::open();
                let _ = reply.send(with_id(response, request_id));
                let (status, copy) = self.pump(frames, &mut live, &mut tally.meter).await;
                tally.estimated = live.estimated();
                exchange.response(Recorded::Stream, copy).await;
                status
            }
        }
    }

    /// Everything before the first byte of an answer. The one deadline holds for all attempts together.
    async fn open(
        &self,
        question: Question,
        tally: &mut Tally,
        reply: &mut oneshot::Sender<Response<Body>>,
    ) -> Opening {
        let limit = self.run.gateway.settings.call_time;
        tokio::select! {
            biased;
            () = reply.closed() => Opening::HungUp,
            () = self.run.scope.cancel.cancelled() => Opening::HungUp,
            begun = tokio::time::timeout_at(self.started + limit, self.begin(question, tally)) => match begun {
                Ok(Ok(begun)) => Opening::Begun(begun),
                Ok(Err(error)) => Opening::Failed(error),
                Err(_) => Opening::Failed(ApiError::of_status(504, format!(
                    "no answer within {} s, the longest that a model call may take", limit.as_secs()))),
            },
        }
    }

    /// The group's model, then those that stand in for it. The request goes when this ends, and the room that it took.
    async fn begin(&self, mut question: Question, tally: &mut Tally) -> Result<Begun, ApiError> {
        let scope = &self.run.scope;
        let mut earlier = String::new();
        for (at, choice) in std::iter::once(&scope.model).chain(&scope.fail_over).enumerate() {
            tally.choice.clone_from(choice);
            let mut error = match self.exhaust(choice, &mut question, tally).await {
                Ok(begun) => return Ok(begun),
                Err(error) => error,
            };
            error.message = format!("{earlier}{}", error.message);
            if at == scope.fail_over.len() || !retry_policy::is_transient(error.status) {
                return Err(error);
            }
            tracing::warn!(run = %scope.run, group = %scope.group, why = %error.message, "failing over");
            earlier = format!("{}; then ", error.message);
        }
        Err(ApiError::of_status(500, "no model to ask"))
    }

    /// Asks one model until it answers, refuses, or has failed for too long.
    async fn exhaust(
        &self,
        choice: &ModelChoice,
        question: &mut Question,
        tally: &mut Tally,
    ) -> Result<Begun, ApiError> {
        let bodies = &self.run.gateway.bodies;
        let remote = match self.run.gateway.providers.get(&choice.provider) {
            Some(Provider::Remote(remote)) => remote,
            Some(Provider::Tour) => {
                // Booked as what it is, at no cost, whatever model the group has.
                TOUR_MODEL.clone_into(&mut tally.choice.model);
                let told = |body: &Bytes| demo_model::answer(&ModelRequest::again(body)?, body.len());
                return bodies.work(&question.asked, told).await.map(Begun::of_tour);
            }
            None => return Err(unknown_provider(choice)),
        };
        let started = Instant::now();
        let mut attempt = 1;
        let mut body = attempt::body(bodies, remote, question, &choice.model).await?;
        loop {
            let error = match ask(remote, question, choice, body.clone(), tally).await {
                Ok(begun) => return Ok(begun),
                Err(error) => error,
            };
            if question.thinking && anthropic::refuses_thinking(&error) {
                question.thinking = false;
                body = attempt::body(bodies, remote, question, &choice.model).await?;
                continue;
            }
            let limits = &self.run.gateway.settings.retry;
            let elapsed = started.elapsed();
            match retry_policy::after(limits, attempt, error.status, error.retry_after, elapsed, random()) {
                Verdict::GiveUp => return Err(after_attempts(error, attempt, elapsed.as_secs())),
                Verdict::Retry { wait } => {
                    tracing::info!(run = %self.run.scope.run, attempt, status = error.status, ?wait,
                        why = %error.message, "the model call is repeated");
                    tokio::time::sleep(wait).await;
                }
            }
            attempt += 1;
        }
    }

    /// Passes a stream on until it ends, the box hangs up, the run ends or time is up.
    async fn pump(
        &self,
        mut frames: Frames,
        live: &mut attempt::LiveStream,
        meter: &mut Meter,
    ) -> (u16, Bytes) {
        let limit = self.run.gateway.settings.call_time;
        let end = tokio::select! {
            biased;
            () = self.run.scope.cancel.cancelled() => StreamEnd::HungUp,
            end = tokio::time::timeout_at(self.started + limit, frames.pump(live, meter)) => end.unwrap_or_else(|_| {
                StreamEnd::Cut(ApiError::of_status(504, format!("the answer took longer than {} s", limit.as_secs())))
            }),
        };
        match end {
            StreamEnd::Whole => {
                let copy = frames.finish();
                live.drain().await;
                (200, copy)
            }
            StreamEnd::Told(error) => (error.status, frames.finish()),
            StreamEnd::HungUp => (HUNG_UP, frames.cut("the run hung up or ended")),
            StreamEnd::Cut(error) => {
                tracing::warn!(run = %self.run.scope.run, why = %error.message, "a model's answer was cut");
                (CUT, frames.cut(&error.message))
            }
        }
    }

    async fn book(&self, tally: &Tally, status: u16) {
        failpoint!("gateway.book.before");
        let (tokens, incomplete) = tally.meter.settle(tally.sent.then_some(self.characters));
        let scope = &self.run.scope;
        let usage = Usage {
            run: scope.run.clone(),
            group: scope.group.clone(),
            turn: self.turn,
            provider: tally.choice.provider.clone(),
            model: tally.choice.model.clone(),
            input: tokens.input,
            output: tokens.output,
            cache_read: tokens.cache_read,
            cache_write: tokens.cache_write,
            cost_micros: tokens.cost(&tally.choice.model),
            estimated: incomplete || tally.estimated,
            status,
            took: self.started.elapsed(),
        };
        tracing::info!(run = %usage.run, group = %usage.group, turn = ?usage.turn, provider = %usage.provider,
            model = %usage.model, status, input = usage.input, output = usage.output, took = ?usage.took, "model call");
        scope.ledger.usage(usage).await;
    }
}

/// One attempt, with the tally of whether the provider holds a request that it may charge for.
async fn ask(
    remote: &Remote,
    question: &Question,
    choice: &ModelChoice,
    body: Bytes,
    tally: &mut Tally,
) -> Result<Begun, ApiError> {
    failpoint!("gateway.upstream.before", |e| ApiError::of_status(503, e.to_string()));
    tally.sent = true;
    let asked = attempt::ask(remote, question, &choice.model, body).await;
    failpoint!("gateway.upstream.after");
    // A provider that fell silent may still be working on it, at our cost; one that told an error is not.
    tally.sent = asked.as_ref().err().is_none_or(|error| error.status == 504);
    asked
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

/// A whole message in the form that the box asked for, and the same for the record.
fn whole(message: Bytes, streamed: bool) -> (Response<Body>, Recorded, Bytes) {
    let parsed = if streamed { serde_json::from_slice(&message).ok() } else { None };
    match parsed {
        Some(parsed) => {
            let events = Bytes::from(sse::of_message(&parsed));
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

/// A number in `0.0..1.0` from the random bits of a new UUID: jitter needs no better.
fn random() -> f64 {
    let low = u32::try_from(Uuid::now_v7().as_u128() & u128::from(u32::MAX)).unwrap_or_default();
    f64::from(low) / (f64::from(u32::MAX) + 1.0)
}
