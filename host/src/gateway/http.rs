//! The routes that a box may use: `POST /v1/messages` and `GET /healthz`. All else is refused, with the reason.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use ipc_schema::refusal::quote;
use tokio::sync::oneshot;

use super::answer::{self, Body};
use super::call::Call;
use super::error::ApiError;
use super::{Run, anthropic};

/// The greatest request body.
pub(super) const BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// How much of a refused body is read and dropped, so that its writer gets to the answer instead of a reset.
const DRAIN_MAX_BYTES: usize = 4 * BODY_MAX_BYTES;

/// What a box is told when it wants a network through the gateway.
const EGRESS_OFF: &str = "egress is off for this group: this version of Lazaret opens no way out of a box\n";

/// Answers one request of a box.
pub(super) async fn answer(run: &Arc<Run>, request: Request<Incoming>) -> Response<Body> {
    // A proxy is asked by CONNECT, or by a target in absolute form (RFC 9112, 3.2.2).
    if request.method() == Method::CONNECT || request.uri().scheme().is_some() {
        tracing::info!(run = %run.scope.run, group = %run.scope.group,
            target = %quote(&request.uri().to_string(), 200), "egress refused: it is off");
        return answer::text(StatusCode::FORBIDDEN, EGRESS_OFF);
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => answer::json(StatusCode::OK, Bytes::from_static(br#"{"ok":true}"#)),
        (&Method::POST, "/v1/messages") => messages(run, request).await,
        (method, path) => answer::error(&ApiError::of_status(
            404,
            format!(
                "the gateway has no {method} {}; it serves POST /v1/messages and GET /healthz",
                quote(path, 80)
            ),
        )),
    }
}

/// One model call. It runs as a task of its own: when the runner hangs up this future is dropped, and the call
/// must still stop the provider, book its usage and close its record.
async fn messages(run: &Arc<Run>, request: Request<Incoming>) -> Response<Body> {
    // Before the body is read, so that the bodies in memory are bounded with the calls.
    let Ok(permit) = Arc::clone(&run.calls).acquire_owned().await else { return ended() };
    if let Err(error) = run.may_call() {
        tracing::warn!(run = %run.scope.run, group = %run.scope.group, code = "gateway.calls", "{}", error.message);
        return answer::error(&error);
    }
    let version = anthropic::version(request.headers().get("anthropic-version"));
    let body = match read_body(request.into_body()).await {
        Ok(body) => body,
        Err(error) => return answer::error(&error),
    };
    let (reply, replied) = oneshot::channel();
    let call = Call::new(Arc::clone(run), body, version, permit);
    run.tasks.spawn(call.run(reply));
    replied.await.unwrap_or_else(|_| ended())
}

fn ended() -> Response<Body> {
    answer::error(&ApiError::of_status(503, "the run is ending"))
}

async fn read_body(mut body: Incoming) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::of_status(413, format!("the request exceeds {} MiB", BODY_MAX_BYTES / 1024 / 1024));
    if body.size_hint().lower() > BODY_MAX_BYTES as u64 {
        drain(body).await;
        return Err(too_large());
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::invalid(format!("the request's body was cut: {error}")))?;
        read.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        if read.len() > BODY_MAX_BYTES {
            drain(body).await;
            return Err(too_large());
        }
    }
    Ok(read.freeze())
}

async fn drain(mut body: Incoming) {
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > DRAIN_MAX_BYTES {
            return;
        }
    }
}
