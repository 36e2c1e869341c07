//! Builds responses to the box: whole ones, errors, and streams that are passed on as they arrive.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use super::exchange_log;
use crate::model::attempt::{LiveStream, StreamError};
use crate::model::{ApiError, TokenMeter};

/// The body of a response: whole or streamed.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A slow box delays its provider: so many chunks wait for the box before the host reads no more.
const FRAMES_AHEAD: usize = 16;

pub(super) fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    whole(status, "application/json", body)
}

pub(super) fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

pub(super) fn events(body: Bytes) -> Response<Body> {
    whole(StatusCode::OK, "text/event-stream; charset=utf-8", body)
}

/// An error, with the provider's `retry-after` if it sent one.
pub(super) fn error(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = json(status, error.body());
    if let Some(wait) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    with_type(status, kind, body)
}

fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The sending end of a streamed response. Dropping it cuts the box's connection: only [`StreamedResponse::finish`]
/// ends the response properly, so that the runner never takes half an answer for a whole one.
pub(super) struct StreamedResponse {
    frames: mpsc::Sender<Bytes>,
    finished: Arc<AtomicBool>,
    copy: BytesMut,
}

/// How a stream to the box ended.
pub(super) enum StreamEnd {
    /// The wire's own end.
    Whole,
    /// An error, sent as the last event.
    Error(ApiError),
    /// The box sees its connection cut.
    Cut(ApiError),
    /// The box stopped reading.
    HungUp,
}

impl StreamedResponse {
    /// Returns the response and its sending end.
    pub fn open() -> (Self, Response<Body>) {
        let (frames, received) = mpsc::channel(FRAMES_AHEAD);
        let finished = Arc::new(AtomicBool::new(false));
        let body = StreamBody::new(stream::unfold(Some((received, Arc::clone(&finished))), next_frame));
        let response = with_type(StatusCode::OK, "text/event-stream; charset=utf-8", body.boxed_unsync());
        (Self { frames, finished, copy: BytesMut::new() }, response)
    }

    /// Passes a stream on until it ends or the box hangs up. Dropping this future drops the provider's connection.
    pub async fn forward(&mut self, live: &mut LiveStream, meter: &mut TokenMeter) -> StreamEnd {
        let frames = self.frames.clone();
        tokio::select! {
            biased;
            // Also while the provider is silent: a call that nobody waits for must stop costing money.
            () = frames.closed() => StreamEnd::HungUp,
            end = self.forward_all(live, meter) => end,
        }
    }

    async fn forward_all(&mut self, live: &mut LiveStream, meter: &mut TokenMeter) -> StreamEnd {
        while !meter.ended() {
            match live.next().await {
                Ok(Some(bytes)) => {
                    meter.stream(&bytes);
                    failpoint!("gateway.stream.chunk");
                    if !self.send(bytes).await {
                        return StreamEnd::HungUp;
                    }
                }
                Ok(None) => {
                    let error = ApiError::unreachable("the provider closed the stream before its end");
                    return StreamEnd::Cut(error);
                }
                Err(StreamError::Cut(error)) => return StreamEnd::Cut(error),
                Err(StreamError::Reported(error)) => {
                    let event = Bytes::from(error.event());
                    meter.stream(&event);
                    return if self.send(event).await { StreamEnd::Error(error) } else { StreamEnd::HungUp };
                }
            }
        }
        StreamEnd::Whole
    }

    async fn send(&mut self, bytes: Bytes) -> bool {
        // One byte more than the record holds lets the record say that it is incomplete.
        let room = (exchange_log::FILE_MAX_BYTES + 1).saturating_sub(self.copy.len());
        self.copy.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.frames.send(bytes).await.is_ok()
    }

    /// Ends the response properly. Returns a copy of the sent bytes.
    pub fn finish(self) -> Bytes {
        self.finished.store(true, Ordering::Release);
        self.copy.freeze()
    }

    /// Cuts the response. Returns a copy of the sent bytes, with the reason.
    pub fn cut(mut self, why: &str) -> Bytes {
        self.copy.extend_from_slice(format!("\n: cut here: {why}\n").as_bytes());
        self.copy.freeze()
    }
}

type Received = (mpsc::Receiver<Bytes>, Arc<AtomicBool>);

/// Returns the next frame; at the end, nothing if the sender has finished and an error otherwise.
async fn next_frame(state: Option<Received>) -> Option<(io::Result<Frame<Bytes>>, Option<Received>)> {
    let (mut received, finished) = state?;
    match received.recv().await {
        Some(bytes) => Some((Ok(Frame::data(bytes)), Some((received, finished)))),
        None if finished.load(Ordering::Acquire) => None,
        None => {
            // hyper drops unflushed bytes when a body fails, and flushes when a body makes it wait. Without this wait a
            // runner could lose even the head of the answer, and take a cut for a host that is away.
            tokio::task::yield_now().await;
            Some((Err(io::Error::other("the model's answer was cut")), None))
        }
    }
}
