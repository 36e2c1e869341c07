//! The routes that a box may use: `POST /v1/messages` and `GET /healthz`. All else is refused, with the reason.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use ipc_schema::refusal::quote;
use tokio::sync::oneshot;

use super::answer::{self, Body};
use super::body_limits::Unread;
use super::call::Call;
use super::error::ApiError;
use super::throttle::{Refusal, Refused};
use super::{Run, anthropic};

/// What a box is told when it wants a network through the gateway.
const EGRESS_OFF: &str = "egress is off for this group: this version of Lazaret opens no way out of a box\n";

/// Answers one request of a box.
pub(super) async fn answer(
    run: &Arc<Run>,
    connection: &Refused,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut body = Some(body);
    match route(run, &head, &mut body).await {
        Ok(response) => response,
        Err(refusal) => run.refuse(*refusal, connection, body).await,
    }
}

/// Takes the body if it reads it.
async fn route(
    run: &Arc<Run>,
    head: &Parts,
    body: &mut Option<Incoming>,
) -> Result<Response<Body>, Box<Refusal>> {
    // A proxy is asked by CONNECT, or by a target in absolute form (RFC 9112, 3.2.2).
    if head.method == Method::CONNECT || head.uri.scheme().is_some() {
        let told = format!("egress to {}: it is off", quote(&head.uri.to_string(), 200));
        let response = answer::text(StatusCode::FORBIDDEN, EGRESS_OFF);
        return Err(Box::new(Refusal { code: "gateway.egress_off", told, response }));
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

/// One model call. It runs as a task of its own: when the runner hangs up this future is dropped, and the call
/// must still stop the provider, book its usage and close its record.
async fn messages(
    run: &Arc<Run>,
    head: &Parts,
    body: &mut Option<Incoming>,
) -> Result<Response<Body>, Box<Refusal>> {
    // Before the body is read, so that the bodies in memory are bounded with the calls.
    let Ok(permit) = Arc::clone(&run.calls).acquire_owned().await else { return Ok(ended()) };
    run.may_call().map_err(|error| refused("gateway.calls", &error))?;
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

/// What is told to the operator is what is told to the box: it holds few of the box's words, and those quoted.
fn refused(code: &'static str, error: &ApiError) -> Box<Refusal> {
    Box::new(Refusal { code, told: error.message.clone(), response: answer::error(error) })
}

fn ended() -> Response<Body> {
    answer::error(&ApiError::of_status(503, "the run is ending"))
}
