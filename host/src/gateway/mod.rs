//! The gateway: the host's end of a box's only socket.
//!
//! A box has no network and no key. Its runner asks for the model over one unix socket per run, in the Anthropic
//! Messages wire. `run` opens the socket and calls [`Gateway::serve`]. The socket tells who calls, so the wire carries
//! no token.
//!
//! This module decides who may call and how often, bounds the memory and processor time of requests, and records
//! exchanges and usage. `model` speaks to the providers. The gateway forwards nothing of a box's request but the
//! conversation: URL, headers, key and model are the host's.
//!
//! | file | what |
//! |---|---|
//! | `routes` | the routes that exist |
//! | `refusal_throttle` | counts, logs and delays refusals |
//! | `body_budget` | the memory and processor time of request bodies |
//! | `call` | one model call, from the request to the row of its usage |
//! | `answer` | responses to the box, streamed ones included |
//! | `exchange_log` | files with the exchanges, for people |
//! | `usage_recorder`, `settings` | what the gateway needs from the store and from the settings |

mod answer;
mod body_budget;
mod call;
mod exchange_log;
mod refusal_throttle;
mod routes;
mod settings;
mod usage_recorder;
#[cfg(test)]
mod wire_tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipc_schema::{GroupName, RunId, TurnId};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use exchange_log::{response, whole_request};
pub use settings::{GatewaySettings, settings_of};
pub use usage_recorder::Ledger;

use crate::domain::Zone;
use crate::domain::group_settings::ModelChoice;
use crate::model::{self, ApiError, Provider, ProviderError, Redactor};
use crate::workers::Workers;
use body_budget::{Bodies, RunShare};
use exchange_log::Recorder;
use refusal_throttle::{ConnectionRefusals, Refusals};

/// Connections that one box may hold open. A runner needs one or two; more connections wait.
const CONNECTIONS_PER_RUN: usize = 8;

/// How long a connection may wait for the head of a request, and the head take to arrive. An answer takes as long as it
/// takes.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Model calls of one run at the same time; a runner makes one.
const CALLS_PER_RUN: usize = 2;

/// A runner keeps to its limit of model calls per turn. It may need some more, to repeat a call after a cut and to
/// shorten its transcript. A box that makes this many times its limit is no runner: the gateway refuses the rest of the
/// turn.
const CALLS_FACTOR: u32 = 2;

/// Header bytes and header lines of one request from a box.
const HEADER_MAX_BYTES: usize = 64 * 1024;
const HEADER_MAX_LINES: usize = 64;

/// One run, as the host describes it to the gateway. Nothing here comes from the box.
pub struct RunScope {
    pub run: RunId,
    pub group: GroupName,
    /// The model that answers, whatever model a request names.
    pub model: ModelChoice,
    /// The turn that is open in the run, if any: a call counts for the turn in which it began.
    pub open_turn: watch::Receiver<Option<TurnId>>,
    /// The group's time zone.
    pub zone: Zone,
    /// The most model calls that a runner makes in one turn.
    pub model_calls: u32,
    /// Where exchanges are recorded: `state/letters/<group>/<run>/model`. Created with the first call.
    pub exchanges_dir: PathBuf,
    pub ledger: Arc<dyn Ledger>,
    /// Ends [`Gateway::serve`], and every call in it.
    pub cancel: CancellationToken,
    /// Counts the panics of its connections and calls.
    pub workers: Workers,
}

/// The gateway of all runs: the providers with their keys, and the HTTP clients.
pub struct Gateway {
    settings: GatewaySettings,
    providers: HashMap<String, Provider>,
    /// Hides every provider's key in recorded exchanges.
    redactor: Redactor,
    bodies: Bodies,
}

/// One run while its socket is served: what its connections and calls share.
struct RunSession {
    gateway: Arc<Gateway>,
    scope: Arc<RunScope>,
    recorder: Arc<Recorder>,
    calls: Arc<Semaphore>,
    share: RunShare,
    refusals: Refusals,
    /// The latest turn, and the number of its calls.
    turn_calls: Mutex<(Option<TurnId>, u32)>,
    tasks: TaskTracker,
}

impl RunSession {
    /// Counts a call, or refuses it when its turn has used up its calls. A call between two turns counts for the
    /// earlier one.
    fn count_call(&self) -> Result<(), ApiError> {
        // A panic while the lock was held cannot leave the two half-changed.
        let mut turn_calls = self.turn_calls.lock().unwrap_or_else(PoisonError::into_inner);
        let open = *self.scope.open_turn.borrow();
        if open.is_some() && open != turn_calls.0 {
            *turn_calls = (open, 0);
        }
        let most = self.scope.model_calls.saturating_mul(CALLS_FACTOR);
        if turn_calls.1 >= most {
            let why = format!("this turn has made {most} model calls, and gets no more of them");
            return Err(ApiError::of_status(403, why));
        }
        turn_calls.1 += 1;
        Ok(())
    }
}

impl Gateway {
    /// Checks the providers and builds the HTTP clients.
    ///
    /// # Errors
    /// As [`model::build`].
    pub fn new(settings: GatewaySettings) -> Result<Self, ProviderError> {
        let providers = model::build(&settings.providers)?;
        let redactor = Redactor::new(settings.providers.iter().filter_map(|p| p.key.as_ref()));
        Ok(Self { settings, providers, redactor, bodies: Bodies::new() })
    }

    /// Serves one run's socket until `scope.cancel` fires. Returns when the last call has recorded its usage.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, scope: Arc<RunScope>) {
        let recorder = Arc::new(Recorder::new(scope.exchanges_dir.clone()));
        let run = Arc::new(RunSession {
            gateway: self,
            scope: Arc::clone(&scope),
            recorder,
            calls: Arc::new(Semaphore::new(CALLS_PER_RUN)),
            share: RunShare::default(),
            refusals: Refusals::default(),
            turn_calls: Mutex::default(),
            tasks: TaskTracker::new(),
        });
        let connections = Arc::new(Semaphore::new(CONNECTIONS_PER_RUN));
        // The permit comes before the accept: connections beyond the limit wait in the kernel's backlog.
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
                    // Most likely no descriptor is free. The listener stays readable, so without a pause this would
                    // spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        run.tasks.close();
        run.tasks.wait().await;
        run.record_last_refusals().await;
    }
}

/// Serves one connection, request after request, until the box is silent for too long: [`HEAD_TIME`] before and within
/// a head, [`GatewaySettings::body_time`] within a body. A box that does not read its answers stalls itself.
async fn serve_connection(run: Arc<RunSession>, stream: UnixStream) {
    let refused = ConnectionRefusals::default();
    let service = service_fn(|request| {
        let (run, refused) = (&run, &refused);
        async move { Ok::<_, std::convert::Infallible>(routes::answer(run, refused, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
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
