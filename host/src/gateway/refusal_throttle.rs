//! Limits what a box's refused requests cost the host. The gateway logs a few refusals per minute and counts the rest,
//! and answers the more slowly the more requests it refuses. Otherwise one connection writes megabytes of log in a
//! second and keeps a processor of the host busy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};

use super::RunSession;
use super::answer::Body;
use crate::policy::refusal_delay::{ANSWER, AnswerThrottle, REFUSAL};
use crate::telemetry::LogLimiter;

/// After this many refusals the gateway closes the connection. The delay belongs to the run, so a new connection waits
/// as long.
const PER_CONNECTION: u32 = 100;

/// The gateway reads this much of a refused body to find out whether the box still waits for the answer.
const READ_MAX_BYTES: usize = 64 * 1024;

pub(super) struct Refusal {
    pub code: &'static str,
    /// The log line: short, with the box's own words quoted.
    pub log: String,
    pub response: Response<Body>,
}

/// The refusals of one run.
#[derive(Default)]
pub(super) struct Refusals(Mutex<RefusalState>);

#[derive(Default)]
struct RefusalState {
    log: LogLimiter,
    answers: AnswerThrottle,
    /// Separate, so that connections which were opened in vain do not delay a later answer.
    connections: AnswerThrottle,
    counts: BTreeMap<&'static str, u64>,
}

/// Counts the refusals on one connection.
#[derive(Default)]
pub(super) struct ConnectionRefusals(AtomicU32);

impl ConnectionRefusals {
    /// Counts one refusal and returns whether to close the connection.
    fn count(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) + 1 >= PER_CONNECTION
    }
}

impl Refusals {
    fn with<T>(&self, change: impl FnOnce(&mut RefusalState) -> T) -> T {
        // A panic while the lock was held does no harm to counters.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&self, cost: Duration) -> Duration {
        self.with(|state| state.answers.spend(Instant::now(), cost))
    }
}

impl RunSession {
    /// Counts and logs a refusal, and returns its response after a delay. `body` is the unread part of the request.
    pub async fn refuse(
        &self,
        refusal: Refusal,
        connection: &ConnectionRefusals,
        body: Option<Incoming>,
    ) -> Response<Body> {
        let Refusal { code, log, mut response } = refusal;
        self.log_refusal(code, &log);
        if connection.count() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        tokio::select! {
            () = pause(self.refusals.wait(REFUSAL)) => {}
            // Nobody waits: other connections of the run may have its place.
            () = hung_up(body) => {}
        }
        response
    }

    /// The same for bytes that are no HTTP request. hyper has answered them already.
    pub async fn refuse_garbage(&self, why: &hyper::Error) {
        self.log_refusal("gateway.no_http", &why.to_string());
        pause(self.refusals.wait(REFUSAL)).await;
    }

    /// Waits before an answer that costs nearly nothing: endless requests for it must not cost the host a processor.
    pub async fn pace(&self) {
        pause(self.refusals.wait(ANSWER)).await;
    }

    /// Waits after a connection has ended, before its place is free: to accept one costs the host more than to answer.
    pub async fn pace_connections(&self) {
        let wait = self.refusals.with(|state| state.connections.spend(Instant::now(), ANSWER));
        pause(wait).await;
    }

    /// Counts a refusal, and logs it unless too many were logged lately.
    pub fn log_refusal(&self, code: &'static str, line: &str) {
        let unlogged = self.refusals.with(|state| {
            *state.counts.entry(code).or_default() += 1;
            state.log.turn(Instant::now())
        });
        let Some(unlogged) = unlogged else { return };
        let (run, group) = (&self.scope.run, &self.scope.group);
        tracing::warn!(%run, %group, code, "refused through the gateway: {line}");
        if unlogged > 0 {
            tracing::warn!(%run, %group, "{unlogged} refusals before this one were counted and not logged");
        }
        // A task of its own: the box may hang up meanwhile, and the counts would be lost.
        self.tasks.spawn(self.record_refusals());
    }

    /// At the end of the run: logs how many refusals were not logged, and records the last counts.
    pub async fn record_last_refusals(&self) {
        let unlogged = self.refusals.with(|state| state.log.rest());
        if unlogged > 0 {
            let (run, group) = (&self.scope.run, &self.scope.group);
            tracing::warn!(%run, %group, "{unlogged} more refusals through the gateway were counted and not logged");
        }
        self.record_refusals().await;
    }

    /// Writes the counts to the ledger. It happens with every logged line, so the store is limited as the log is.
    fn record_refusals(&self) -> impl Future<Output = ()> + Send + use<> {
        let counts = self.refusals.with(|state| std::mem::take(&mut state.counts));
        let ledger = Arc::clone(&self.scope.ledger);
        async move {
            for (code, count) in counts {
                ledger.refused(code, count).await;
            }
        }
    }
}

async fn pause(wait: Duration) {
    // The shortest sleep takes a millisecond.
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// Resolves when the box hangs up in the middle of a body. Without a body, hyper notices by itself. It reads no more of
/// the body than a box writes that hangs up at once.
async fn hung_up(body: Option<Incoming>) {
    let mut seen = 0;
    if let Some(mut body) = body {
        while seen < READ_MAX_BYTES {
            match body.frame().await {
                Some(Ok(frame)) => seen += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => return,
                None => break,
            }
        }
    }
    std::future::pending().await
}
