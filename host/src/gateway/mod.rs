//! The gateway: the host's end of a box's only socket.
//!
//! A box has no network and no key. What its runner may have from the world, a model, it asks for over one unix
//! socket per run, in the Anthropic Messages wire. Who asks is known from the socket it came in on, so the wire
//! carries no token. The gateway builds every request to a provider anew: fixed URL, fixed headers, the host's
//! key, the group's model. Of what the box sent only the conversation itself goes on.
//!
//! | file | what |
//! |---|---|
//! | [`house`] | its settings out of the install's, its ledger in the store |
//! | [`http`] | the routes that exist, and the refusals |
//! | [`refusals`] | what the refusals cost, and how much of them is told |
//! | [`bodies`] | the memory and the processors that requests may have |
//! | [`request`] | reading the box's request: hostile bytes |
//! | [`call`] | one model call from request to usage row: attempts, fail-over, hang-up |
//! | [`upstream`] | one attempt at one provider |
//! | [`answer`] | an answer under way back to the box |
//! | [`provider`], [`anthropic`], [`openai`], [`openai_stream`], [`tour`] | the kinds of provider |
//! | [`retry`], [`price`], [`usage`], [`redact`], [`sse`] | pure rules |
//! | [`record`] | the exchanges kept for people to read |
//! | [`error`] | what can go wrong, in the wire's words |

mod adapters;
mod answer;
mod anthropic;
mod attempt;
mod body_limits;
mod call;
mod demo_model;
mod error;
mod exchange_log;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod openai;
mod openai_stream;
pub mod price;
mod provider;
mod redact;
mod request;
mod retry_policy;
mod routes;
mod sse;
mod throttle;
mod usage;
#[cfg(test)]
mod wire_tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ipc_schema::{GroupName, RunId, TurnId};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use adapters::settings_of;
pub use error::GatewayError;
pub use provider::{ProviderKind, ProviderSettings};
pub use retry_policy::RetryLimits;
pub use usage::Usage;

use body_limits::{Bodies, Share};
use error::ApiError;
use exchange_log::Recorder;
use provider::Provider;
use redact::Redactor;
use throttle::{Refusals, Refused};

use crate::workers::Workers;

/// Connections that one box may hold open. Its runner needs one or two; a box that opens more waits.
const CONNECTIONS_PER_RUN: usize = 16;

/// Model calls of one run at the same time; a runner makes one.
const CALLS_PER_RUN: usize = 2;

/// A runner keeps to its limit of model calls per turn, and may need some more for what it repeats after a cut and for
/// shortening its transcript. A box that makes so many times its limit is no runner, and gets no more of its turn.
const CALLS_BEYOND: u32 = 2;

/// Header bytes and header lines of one request from a box.
const HEADER_MAX_BYTES: usize = 64 * 1024;
const HEADER_MAX_LINES: usize = 64;

/// What holds for all runs.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// The providers, by distinct names.
    pub providers: Vec<ProviderSettings>,
    /// The most `max_tokens` that a request may carry; a greater one is lowered.
    pub max_tokens: u32,
    /// How long and how fast failed attempts are repeated, per model.
    pub retry: RetryLimits,
    /// One call's life, from the box's request to the last byte: attempts, fail-over and answer together.
    pub call_time: Duration,
    /// The longest silence of a provider, before and within a streamed answer. An answer that is not streamed is
    /// silent until it is whole, so only `call_time` limits it.
    pub silence: Duration,
    /// How long a request's body may take to arrive, once there is room for it. A box is on the same machine: 30
    /// seconds are a thousand times what the greatest body takes.
    pub body_time: Duration,
}

impl Default for GatewaySettings {
    /// No provider; 8,192 tokens, 2 minutes of attempts, 10 minutes per call, 120 seconds of silence, 30 for a body.
    fn default() -> Self {
        Self {
            providers: Vec::new(),
            max_tokens: 8192,
            retry: RetryLimits::default(),
            call_time: Duration::from_secs(600),
            silence: Duration::from_secs(120),
            body_time: Duration::from_secs(30),
        }
    }
}

/// A provider by its name in the settings, and one of its models by the provider's name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelChoice {
    /// The provider's name in the settings.
    pub provider: String,
    /// The model's name as the provider spells it.
    pub model: String,
}

/// One run as the gateway sees it. Everything here comes from the host, nothing from the box.
pub struct RunScope {
    /// The run whose socket this is.
    pub run: RunId,
    /// The run's group.
    pub group: GroupName,
    /// The model that answers, whatever model a request names.
    pub model: ModelChoice,
    /// Tried in order when the one before is exhausted: rate-limited, failing or out of reach, but not when it
    /// refused the key or the request.
    pub fail_over: Vec<ModelChoice>,
    /// The turn that is open in the run, if any: a call counts for the turn in which it began.
    pub open_turn: watch::Receiver<Option<TurnId>>,
    /// Model calls that a runner makes in one turn.
    pub model_calls: u32,
    /// Where exchanges are recorded: `state/letters/<group>/<run>/model`. Created with the first call.
    pub exchanges_dir: PathBuf,
    /// Where usage goes.
    pub ledger: Arc<dyn Ledger>,
    /// Ends [`Gateway::serve`], and every call in it.
    pub cancel: CancellationToken,
    /// Counts the panics of its connections and calls.
    pub workers: Workers,
}

/// Where the usage of model calls is booked.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Books one model call. Called exactly once per call that reached the point of being tried, failed and
    /// cancelled ones included, after the last byte of its answer.
    async fn usage(&self, usage: Usage);

    /// Counts requests that were refused, by the refusal's code. Called a few times a minute, however many there are.
    async fn refused(&self, code: &'static str, count: u64);
}

/// The model path of all runs: the providers with their keys, and the HTTP clients.
pub struct Gateway {
    settings: GatewaySettings,
    providers: HashMap<String, Provider>,
    /// Hides every provider's key in what is recorded.
    redactor: Redactor,
    bodies: Bodies,
}

/// What the connections and calls of one run share.
struct Run {
    gateway: Arc<Gateway>,
    scope: Arc<RunScope>,
    recorder: Arc<Recorder>,
    calls: Arc<Semaphore>,
    share: Share,
    refusals: Refusals,
    /// The newest turn that was seen, and its calls.
    spent: Mutex<(Option<TurnId>, u32)>,
    tasks: TaskTracker,
}

impl Run {
    /// Counts a call, unless its turn has had enough. Between two turns the earlier one's count goes on.
    fn may_call(&self) -> Result<(), ApiError> {
        // A panic while the lock was held cannot leave the two half-changed.
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let open = *self.scope.open_turn.borrow();
        if open.is_some() && open != spent.0 {
            *spent = (open, 0);
        }
        let most = self.scope.model_calls.saturating_mul(CALLS_BEYOND);
        if spent.1 >= most {
            let why = format!("this turn has made {most} model calls, and gets no more of them");
            return Err(ApiError::of_status(403, why));
        }
        spent.1 += 1;
        Ok(())
    }
}

impl Gateway {
    /// Checks the providers and builds the HTTP clients.
    ///
    /// # Errors
    /// When two providers have one name, a base URL or key cannot be used, or TLS cannot be set up (no CA
    /// certificates) while a provider needs it. With `http://` providers only, no certificate is looked for.
    pub fn new(settings: GatewaySettings) -> Result<Self, GatewayError> {
        let providers = provider::build(&settings.providers)?;
        let redactor = Redactor::new(settings.providers.iter().filter_map(|p| p.key.as_ref()));
        Ok(Self { settings, providers, redactor, bodies: Bodies::new() })
    }

    /// Serves one run's socket until `scope.cancel` fires; returns when the last call has booked its usage.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, scope: Arc<RunScope>) {
        let recorder = Arc::new(Recorder::new(scope.exchanges_dir.clone()));
        let run = Arc::new(Run {
            gateway: self,
            scope: Arc::clone(&scope),
            recorder,
            calls: Arc::new(Semaphore::new(CALLS_PER_RUN)),
            share: Share::default(),
            refusals: Refusals::default(),
            spent: Mutex::default(),
            tasks: TaskTracker::new(),
        });
        let connections = Arc::new(Semaphore::new(CONNECTIONS_PER_RUN));
        // The permit is taken before the accept: the connections beyond the limit wait in the kernel's backlog.
        while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = scope.cancel.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    failpoint!("gateway.accept.after");
                    let run = Arc::clone(&run);
                    run.tasks.clone().spawn(async move {
                        let workers = run.scope.workers.clone();
                        // A panic closes the connection, and the box asks again.
                        let _ = workers.caught("a gateway connection", serve_connection(run, stream)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(run = %scope.run, %error, "the run's socket did not accept; trying again");
                    // Out of descriptors, most likely. The listener stays readable, so without a pause this
                    // would spin until one is free.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        run.tasks.close();
        run.tasks.wait().await;
        run.settle_refusals().await;
    }
}

/// One connection, request after request. It may be idle as long as it likes: a box that stalls its own connections
/// stalls itself. Only a body has a time limit, because it holds room that all share.
async fn serve_connection(run: Arc<Run>, stream: UnixStream) {
    let refused = Refused::default();
    let service = service_fn(|request| {
        let (run, refused) = (&run, &refused);
        async move { Ok::<_, std::convert::Infallible>(routes::answer(run, refused, request).await) }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEADER_MAX_BYTES)
        .max_headers(HEADER_MAX_LINES)
        .serve_connection(TokioIo::new(stream), service);
    let served = async {
        match connection.await {
            Err(error) if error.is_parse() => run.refuse_garbage(&error).await,
            Err(error) => {
                tracing::debug!(run = %run.scope.run, %error, "a connection of the box ended early")
            }
            Ok(()) => {}
        }
        run.pace_connections().await;
    };
    tokio::select! {
        () = served => {}
        () = run.scope.cancel.cancelled() => {}
    }
}
