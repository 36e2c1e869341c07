//! Answers of the API. Refusals have the engine's own wording, because the host distinguishes them by their text.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// A call that the engine refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    status: u16,
    message: String,
}

impl Refused {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn no_container(name: &str) -> Self {
        Self::new(404, format!("No such container: {name}"))
    }

    pub(super) fn answer(&self) -> Answer {
        json(self.status, &json!({ "message": self.message }))
    }
}

pub(super) fn empty(status: u16) -> Answer {
    bytes(status, "text/plain", Vec::new())
}

pub(super) fn json(status: u16, body: &Value) -> Answer {
    bytes(status, "application/json", format!("{body}\n").into_bytes())
}

pub(super) fn bytes(status: u16, kind: &'static str, body: Vec<u8>) -> Answer {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    with_body(status, kind, body.boxed_unsync())
}

/// Returns an answer whose head is sent at once and whose body is sent later. The engine answers `wait` in this way; a
/// client's timeout covers only the head.
pub(super) fn later(body: impl Future<Output = Value> + Send + 'static) -> Answer {
    let whole =
        futures_util::stream::once(async move { Ok(Frame::data(Bytes::from(format!("{}\n", body.await)))) });
    with_body(200, "application/json", BodyExt::boxed_unsync(StreamBody::new(whole)))
}

fn with_body(status: u16, kind: &'static str, body: UnsyncBoxBody<Bytes, io::Error>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
