//! Answers on their way back to the box.

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

use super::attempt::{Broken, LiveStream};
use super::error::ApiError;
use super::exchange_log;
use super::usage::Meter;

/// A response's body: whole, or as it comes.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The box reads as fast as it likes: this many chunks wait for it before the provider is made to wait.
const FRAMES_AHEAD: usize = 16;

/// A JSON body.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    whole(status, "application/json", body)
}

/// Text for programs that show it to people.
pub(super) fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

/// Events that are all there.
pub(super) fn events(body: Bytes) -> Response<Body> {
    whole(StatusCode::OK, "text/event-stream; charset=utf-8", body)
}

/// An error, with the provider's `retry-after` if it had one.
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

/// The sending end of a streamed response. To drop it cuts the connection under the box: only [`Frames::finish`]
/// ends the response as a whole one, so that half an answer is never taken for one.
pub(super) struct Frames {
    frames: mpsc::Sender<Bytes>,
    finished: Arc<AtomicBool>,
    copy: BytesMut,
}

/// How a stream to the box ended.
pub(super) enum StreamEnd {
    /// As the wire defines its end.
    Whole,
    /// With an error, told as the stream's last event.
    Told(ApiError),
    /// By a cut, which the box sees as a cut.
    Cut(ApiError),
    /// The box stopped reading.
    HungUp,
}

impl Frames {
    /// A response, and the end that feeds it.
    pub fn open() -> (Self, Response<Body>) {
        let (frames, received) = mpsc::channel(FRAMES_AHEAD);
        let finished = Arc::new(AtomicBool::new(false));
        let body = StreamBody::new(stream::unfold(Some((received, Arc::clone(&finished))), next_frame));
        let response = with_type(StatusCode::OK, "text/event-stream; charset=utf-8", body.boxed_unsync());
        (Self { frames, finished, copy: BytesMut::new() }, response)
    }

    /// Passes a stream on until it ends or the box hangs up. To drop this future drops the provider's connection.
    pub async fn pump(&mut self, live: &mut LiveStream, meter: &mut Meter) -> StreamEnd {
        let frames = self.frames.clone();
        tokio::select! {
            biased;
            // Also while the provider is silent: a call that nobody waits for must not go on costing.
            () = frames.closed() => StreamEnd::HungUp,
            end = self.pass(live, meter) => end,
        }
    }

    async fn pass(&mut self, live: &mut LiveStream, meter: &mut Meter) -> StreamEnd {
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
                Err(Broken::Cut(error)) => return StreamEnd::Cut(error),
                Err(Broken::Told(error)) => {
                    let told = Bytes::from(error.event());
                    meter.stream(&told);
                    return if self.send(told).await { StreamEnd::Told(error) } else { StreamEnd::HungUp };
                }
            }
        }
        StreamEnd::Whole
    }

    async fn send(&mut self, bytes: Bytes) -> bool {
        // One byte beyond the record's limit lets the record say that it was cut.
        let room = (exchange_log::FILE_MAX_BYTES + 1).saturating_sub(self.copy.len());
        self.copy.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.frames.send(bytes).await.is_ok()
    }

    /// Ends the response as a whole one; returns a copy of what was sent.
    pub fn finish(self) -> Bytes {
        self.finished.store(true, Ordering::Release);
        self.copy.freeze()
    }

    /// Cuts the response; returns a copy of what was sent, with the reason.
    pub fn cut(mut self, why: &str) -> Bytes {
        self.copy.extend_from_slice(format!("\n: cut here: {why}\n").as_bytes());
        self.copy.freeze()
    }
}

type Received = (mpsc::Receiver<Bytes>, Arc<AtomicBool>);

/// The next frame, or the end: a clean one when the sender said so, an error otherwise.
async fn next_frame(state: Option<Received>) -> Option<(io::Result<Frame<Bytes>>, Option<Received>)> {
    let (mut received, finished) = state?;
    match received.recv().await {
        Some(bytes) => Some((Ok(Frame::data(bytes)), Some((received, finished)))),
        None if finished.load(Ordering::Acquire) => None,
        None => {
            // hyper drops what it has not flushed when a body fails, and flushes when a body makes it wait. Without
            // this wait a runner could lose even the head of the answer, and take a cut for a host that is away.
            tokio::task::yield_now().await;
            Some((Err(io::Error::other("the model's answer was cut")), None))
        }
    }
}
