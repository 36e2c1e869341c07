//! The routes that a box may use: `POST /v1/messages` and `GET /healthz`. The gateway refuses all others with the
//! reason.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use ipc_schema::refusal::quote;
use tokio::sync::oneshot;

use super::RunSession;
use super::answer::{self, Body};
use super::body_budget::Unread;
use super::call::Call;
use super::refusal_throttle::{ConnectionRefusals, Refusal};
use crate::model::{ApiError, anthropic};

const EGRESS_OFF: &str = "egress is off for this group: this version of Lazaret opens no way out of a box\n";

/// Answers one request of a box.
pub(super) async fn answer(
    run: &Arc<RunSession>,
    connection: &ConnectionRefusals,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut body = Some(body);
    match route(run, &head, &mut body).await {
        Ok(response) => response,
        Err(refusal) => run.refuse(*refusal, connection, body).await,
    }
}

/// Leaves the body where it is when it refuses without reading it.
async fn route(
    run: &Arc<RunSession>,
    head: &Parts,
    body: &mut Option<Incoming>,
) -> Result<Response<Body>, Box<Refusal>> {
    // A client asks a proxy by CONNECT, or by a target in absolute form (RFC 9112, 3.2.2).
    if head.method == Method::CONNECT || head.uri.scheme().is_some() {
        let log = format!("egress to {}: it is off", quote(&head.uri.to_string(), 200));
        let response = answer::text(StatusCode::FORBIDDEN, EGRESS_OFF);
        return Err(Box::new(Refusal { code: "gateway.egress_off", log, response }));
    }
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/healthz") => {
            run.pace().await;
            Ok(answer::json(StatusCode::OK, Bytes::from_static(br#"{"ok":true}"#)))
        }
        (&Method::POST, "/v1/messages") => messages(run, head, body).await,
        (method, path) => {
            let asked = format!("{} {}", quote(method.as_str(), 20), quote(path, 80));
            let why = format!("the gateway has no {asked}; it serves POST /v1/messages and GET /healthz");
            Err(refused("gateway.no_route", &ApiError::of_status(404, why)))
        }
    }
}

/// Makes one model call, as a task of its own: when the runner hangs up, hyper drops this future, and the call must
/// still stop the provider, record its usage and close its files.
async fn messages(
    run: &Arc<RunSession>,
    head: &Parts,
    body: &mut Option<Incoming>,
) -> Result<Response<Body>, Box<Refusal>> {
    // Before the host reads the body: the limit of calls then also bounds the bodies in memory.
    let Ok(permit) = Arc::clone(&run.calls).acquire_owned().await else { return Ok(ended()) };
    run.count_call().map_err(|error| refused("gateway.calls", &error))?;
    let version = anthropic::version(head.headers.get("anthropic-version"));
    let time = run.gateway.settings.body_time;
    let Some(body) = body.take() else { return Ok(ended()) };
    let asked = match run.gateway.bodies.read(body, &run.share, time).await {
        Ok(asked) => asked,
        Err(Unread::Refused(error)) => return Err(refused("gateway.body", &error)),
        Err(Unread::Cut(error)) => return Ok(answer::error(&error)),
    };
    let (reply, replied) = oneshot::channel();
    let call = Call::new(Arc::clone(run), asked.len(), version, permit);
    let workers = run.scope.workers.clone();
    run.tasks.spawn(async move { workers.caught("a model call", call.run(asked, reply)).await });
    Ok(replied.await.unwrap_or_else(|_| ended()))
}

/// The log line says what the box is told: it holds few of the box's words, and those quoted.
fn refused(code: &'static str, error: &ApiError) -> Box<Refusal> {
    Box::new(Refusal { code, log: error.message.clone(), response: answer::error(error) })
}

fn ended() -> Response<Body> {
    answer::error(&ApiError::of_status(503, "the run is ending"))
}
