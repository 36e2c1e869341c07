//! Bounds the memory and processor time that the bodies of model calls take, for all runs together.
//!
//! A body can be large, and it can arrive slowly. The bounds, and why they hold:
//!
//! - **Room.** Bodies that are not small share [`ROOM_BYTES`]. A call reserves room for its whole body before the host
//!   reads the first byte; until there is room, the bytes stay in the box. The call waits and does not fail. If calls
//!   reserved room as bytes arrive, many incomplete bodies could hold all of it and none could finish.
//! - **A run's share.** A run may hold room for one body, a quarter of all room at most. So three boxes that hold their
//!   share leave one to the others. More of them can make large bodies wait, but not for ever: room is given in the
//!   order of the requests, a body has [`super::GatewaySettings::body_time`] to arrive, and its answer the call's time
//!   to begin.
//! - **Small bodies never wait.** Nearly every call of a runner is smaller than [`SMALL_BYTES`]. The calls per run
//!   ([`super::CALLS_PER_RUN`]) and the number of live boxes bound these.
//! - **Two copies at most.** During the attempts the host holds the body, and the body as written for the provider. It
//!   releases both, and the room, when the answer begins: a long answer holds no room.
//! - **Work.** Parsing or writing a body takes up to a second of a processor, and up to three times its bytes
//!   meanwhile. Threads for blocking work do it, for [`AT_WORK`] bodies at a time: the runtime's workers, which serve
//!   all other runs and the channels, never wait for it. A job cannot be stopped, so it keeps the room of its body when
//!   the box hangs up: a box that calls again waits for its own earlier job.
//!
//! Together: twice the room and [`AT_WORK`] times three bodies of [`BODY_MAX_BYTES`], 448 MiB, whatever the boxes do,
//! and 6 MiB per live box for small bodies and records. `model::ModelRequest` bounds what a byte costs when it is
//! parsed.
//!
//! Rejected: to refuse when there is no room, because the runner would tell people that the model failed; and to keep
//! bodies in files, because disk is slower and scarcer than memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::host_files;
use crate::model::ApiError;

/// The greatest request body.
pub(super) const BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// All bodies that are not small take at most this together.
const ROOM_BYTES: usize = 4 * BODY_MAX_BYTES;

/// A body of this size needs no room.
pub(super) const SMALL_BYTES: usize = 1024 * 1024;

/// A body up to this size is parsed on the runtime's worker: it takes a few tenths of a millisecond at most.
const QUICK_BYTES: usize = 32 * 1024;

/// The number of bodies that are parsed or written at the same time.
const AT_WORK: usize = 2;

/// The host reads and drops this much of a refused body, so that its writer receives the answer and not a reset.
const DRAIN_MAX_BYTES: usize = 4 * BODY_MAX_BYTES;

/// The bodies of all runs.
pub(super) struct Bodies {
    room: Arc<Semaphore>,
    work: Arc<Semaphore>,
}

/// One run's share of the room: one body.
pub(super) struct RunShare(Arc<Semaphore>);

impl Default for RunShare {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// The body of a request. Its room is free when its last clone is dropped.
#[derive(Clone)]
pub(super) struct RequestBody {
    bytes: Bytes,
    _room: Option<Arc<Room>>,
}

/// Why a body was not read.
pub(super) enum Unread {
    Refused(ApiError),
    /// The box has hung up or the run ends: nobody waits for the answer.
    Cut(ApiError),
}

/// Dropping it gives the room back.
struct Room {
    _of_all: OwnedSemaphorePermit,
    _of_the_run: OwnedSemaphorePermit,
}

impl RequestBody {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Bodies {
    pub fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM_BYTES)), work: Arc::new(Semaphore::new(AT_WORK)) }
    }

    /// Unreserved room, in bytes.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.room.available_permits()
    }

    /// Waits for room, then reads a body within `time`.
    pub async fn read(
        &self,
        mut body: Incoming,
        share: &RunShare,
        time: Duration,
    ) -> Result<RequestBody, Unread> {
        let length = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if length.is_some_and(|length| length > BODY_MAX_BYTES) {
            return Err(Unread::Refused(too_large(body, time).await));
        }
        // A body of unknown length may have any.
        let most = length.unwrap_or(BODY_MAX_BYTES);
        let room = if most > SMALL_BYTES {
            Some(Arc::new(self.room(most, share).await.map_err(Unread::Cut)?))
        } else {
            None
        };
        // The capacity costs address space only; a buffer that grows would take twice the memory.
        let mut read = BytesMut::with_capacity(most);
        let all = async {
            while let Some(frame) = body.frame().await {
                let cut = |error| ApiError::invalid(format!("the request's body was cut: {error}"));
                let frame = frame.map_err(cut)?;
                let data = frame.data_ref().map_or(&[][..], |data| data);
                if read.len() + data.len() > most {
                    return Ok(false);
                }
                read.extend_from_slice(data);
            }
            Ok(true)
        };
        match tokio::time::timeout(time, all).await {
            Ok(Ok(true)) => Ok(RequestBody { bytes: read.freeze(), _room: room }),
            Ok(Ok(false)) => {
                drop((read, room));
                Err(Unread::Refused(too_large(body, time).await))
            }
            Ok(Err(error)) => Err(Unread::Cut(error)),
            Err(_) => {
                let why = format!("the request's body did not arrive within {} s", time.as_secs_f32());
                Err(Unread::Refused(ApiError::of_status(408, why)))
            }
        }
    }

    /// Takes the run's share first: a call that waits for it holds no room of the others.
    async fn room(&self, bytes: usize, share: &RunShare) -> Result<Room, ApiError> {
        let closed = |_| ApiError::of_status(503, "the run is ending");
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let of_the_run = Arc::clone(&share.0).acquire_owned().await.map_err(closed)?;
        let of_all = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(closed)?;
        Ok(Room { _of_all: of_all, _of_the_run: of_the_run })
    }

    /// Runs a job over a body, on a thread for blocking work unless it is quick.
    pub async fn run_job<T: Send + 'static>(
        &self,
        body: &RequestBody,
        job: impl FnOnce(&Bytes) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if body.len() <= QUICK_BYTES {
            return job(&body.bytes);
        }
        let failed = |why: String| ApiError::of_status(500, format!("the request was not read: {why}"));
        let permit = Arc::clone(&self.work).acquire_owned().await.map_err(|e| failed(e.to_string()))?;
        let body = body.clone();
        host_files::blocking(move || {
            let done = job(&body.bytes);
            drop((body, permit));
            done
        })
        .await
    }
}

async fn too_large(body: Incoming, time: Duration) -> ApiError {
    // The answer is the same whether or not all of it arrives.
    let _ = tokio::time::timeout(time, drain(body)).await;
    ApiError::of_status(413, format!("the request exceeds {} MiB", BODY_MAX_BYTES / 1024 / 1024))
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
