//! What the gateway refuses a run: told to the operator a few times a minute, counted for the rest, and answered the
//! more slowly the more of it is asked. Otherwise one connection of a box writes megabytes of log in a second, and
//! keeps a processor of the host busy with saying no.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};

use super::Run;
use super::answer::Body;
use crate::policy::answer_throttle::{ANSWER, AnswerThrottle, REFUSAL};
use crate::policy::log_limiter::LogLimiter;

/// A connection that was refused so often is closed. Who asks on opens another, and waits there as long: the wait
/// belongs to the run, not to the connection.
const PER_CONNECTION: u32 = 100;

/// How much is read of a refused body to find out whether someone waits for the answer.
const LOOK_MAX_BYTES: usize = 64 * 1024;

/// Something that a box asked for and does not get.
pub(super) struct Refusal {
    /// For counters and logs.
    pub code: &'static str,
    /// What it was, for the operator: short, and quoted where the words are the box's.
    pub told: String,
    /// What the box is told.
    pub response: Response<Body>,
}

/// The refusals of one run.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    telling: LogLimiter,
    patience: AnswerThrottle,
    /// Of its own: connections that were opened in vain do not make a later answer wait.
    connections: AnswerThrottle,
    counts: BTreeMap<&'static str, u64>,
}

/// How often one connection was refused.
#[derive(Default)]
pub(super) struct Refused(AtomicU32);

impl Refused {
    /// Counts one more; whether the connection has had enough.
    fn once_more(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) + 1 >= PER_CONNECTION
    }
}

impl Refusals {
    fn with<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        // Counters: a panic while the lock was held cannot leave them in a state that does harm.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&self, cost: Duration) -> Duration {
        self.with(|kept| kept.patience.spend(Instant::now(), cost))
    }
}

impl Run {
    /// Counts a refusal, tells it if it may be told, and hands out its answer when the box has waited for it. `body` is
    /// what was not read of the request.
    pub async fn refuse(
        &self,
        refusal: Refusal,
        connection: &Refused,
        body: Option<Incoming>,
    ) -> Response<Body> {
        let Refusal { code, told, mut response } = refusal;
        self.tell(code, &told);
        if connection.once_more() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        tokio::select! {
            () = pause(self.refusals.wait(REFUSAL)) => {}
            // Nobody waits: the connection must not keep others of the run waiting for its place.
            () = gone(body) => {}
        }
        response
    }

    /// The same for what was no request, and was answered before anyone here saw it.
    pub async fn refuse_garbage(&self, why: &hyper::Error) {
        self.tell("gateway.no_http", &why.to_string());
        pause(self.refusals.wait(REFUSAL)).await;
    }

    /// Waits before an answer that costs nearly nothing, so that there is no end of patience with these either.
    pub async fn pace(&self) {
        pause(self.refusals.wait(ANSWER)).await;
    }

    /// Waits when a connection has ended and before its place is free: to open one costs the host more than to answer.
    pub async fn pace_connections(&self) {
        let wait = self.refusals.with(|kept| kept.connections.spend(Instant::now(), ANSWER));
        pause(wait).await;
    }

    /// Counts a refusal, and tells it if it may be told.
    pub fn tell(&self, code: &'static str, told: &str) {
        let untold = self.refusals.with(|kept| {
            *kept.counts.entry(code).or_default() += 1;
            kept.telling.turn(Instant::now())
        });
        let Some(untold) = untold else { return };
        let (run, group) = (&self.scope.run, &self.scope.group);
        tracing::warn!(%run, %group, code, "refused through the gateway: {told}");
        if untold > 0 {
            tracing::warn!(%run, %group, "{untold} refusals before this one were counted and not told");
        }
        // A task of its own: whoever is refused may hang up meanwhile, and the counts would go with it.
        self.tasks.spawn(self.book_refusals());
    }

    /// Tells, when the run ends, how much was not told, and books the last counts.
    pub async fn settle_refusals(&self) {
        let untold = self.refusals.with(|kept| kept.telling.rest());
        if untold > 0 {
            let (run, group) = (&self.scope.run, &self.scope.group);
            tracing::warn!(%run, %group, "{untold} more refusals through the gateway were counted and not told");
        }
        self.book_refusals().await;
    }

    /// Hands the counts to the ledger: with every line that is told, so that they cost the store as little as the log.
    fn book_refusals(&self) -> impl Future<Output = ()> + Send + use<> {
        let counts = self.refusals.with(|kept| std::mem::take(&mut kept.counts));
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

/// Resolves when the box has hung up in the middle of a body. Without one, hyper sees it by itself. It looks at no more
/// of the body than a box has written that hangs up at once.
async fn gone(body: Option<Incoming>) {
    let mut seen = 0;
    if let Some(mut body) = body {
        while seen < LOOK_MAX_BYTES {
            match body.frame().await {
                Some(Ok(frame)) => seen += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => return,
                None => break,
            }
        }
    }
    std::future::pending().await
}
