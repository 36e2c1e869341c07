//! The bodies of model calls: how much of the host's memory and of its processors they may have, all runs together.
//!
//! A body is hostile twice: it is large, and it may come slowly. The bounds, and why they hold:
//!
//! - **Room.** The bodies that are not small share [`ROOM_BYTES`]. Room is taken for the whole body before its first
//!   byte is read; until there is room the bytes stay in the box, where the socket's buffer ends and the box's own
//!   memory begins. The call waits and does not fail. Taken as the bytes arrive, room could be held by many bodies of
//!   which none comes to its end; taken at once, every body that has room can be read to its end.
//! - **A run's share.** One body with room per run, which is a quarter of all room at most. So one box, or three, that
//!   hold their share leave a share to the others. More of them together can make large bodies wait, but not for ever:
//!   room is given in the order in which it was asked for, a body has [`super::GatewaySettings::body_time`] to arrive,
//!   and its answer the call's time to begin.
//! - **Small bodies wait for nobody.** Up to [`SMALL_BYTES`], as nearly every call of a runner is, a body is bounded by
//!   the calls of its run ([`super::CALLS_PER_RUN`]) and the number of live boxes.
//! - **Held once more at most.** While a call is tried the host holds its body, and the same as it is written for the
//!   provider. Both go, and the room with them, when the answer begins: a long answer holds no room.
//! - **Work.** Parsing and writing a body takes up to a second of a processor and up to three times its bytes for that
//!   time. It is done on threads for blocking work, for [`AT_WORK`] bodies at a time: the workers of the runtime, which
//!   serve all other runs and the channels, never wait for it. A job cannot be stopped, so it keeps the room of its
//!   body when the box hangs up: who hangs up and calls again waits for its own earlier job.
//!
//! Together: twice the room and [`AT_WORK`] times three bodies of [`BODY_MAX_BYTES`], 448 MiB, whatever the boxes do,
//! and 6 MiB per live box for small bodies and records. What a byte may cost when it is parsed is bounded in
//! [`super::request`].
//!
//! Not taken: to refuse when there is no room, for a runner would tell people that the model failed; and to keep
//! bodies in files, for the disk is the slower and the scarcer place.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// The greatest request body.
pub(super) const BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// What all bodies that are not small may take together.
const ROOM_BYTES: usize = 4 * BODY_MAX_BYTES;

/// A body of this size needs no room.
pub(super) const SMALL_BYTES: usize = 1024 * 1024;

/// A body of this size is parsed where it is: that takes a few tenths of a millisecond at most.
const QUICK_BYTES: usize = 32 * 1024;

/// Bodies that are parsed or written at the same time.
const AT_WORK: usize = 2;

/// How much of a refused body is read and dropped, so that its writer gets to the answer instead of a reset.
const DRAIN_MAX_BYTES: usize = 4 * BODY_MAX_BYTES;

/// The bodies of all runs.
pub(super) struct Bodies {
    room: Arc<Semaphore>,
    work: Arc<Semaphore>,
}

/// One run's share of the room: one body.
pub(super) struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// A body that was read. Its room is free when its last clone is gone.
#[derive(Clone)]
pub(super) struct Asked {
    bytes: Bytes,
    _room: Option<Arc<Room>>,
}

/// Why a body was not read.
pub(super) enum Unread {
    /// It is refused.
    Refused(ApiError),
    /// The box has hung up, or the run ends: nobody waits for the answer.
    Cut(ApiError),
}

/// Given back when it is dropped.
struct Room {
    _of_all: OwnedSemaphorePermit,
    _of_the_run: OwnedSemaphorePermit,
}

impl Asked {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Bodies {
    /// With all room free.
    pub fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM_BYTES)), work: Arc::new(Semaphore::new(AT_WORK)) }
    }

    /// The room that nobody holds, in bytes.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.room.available_permits()
    }

    /// Waits for room, then reads a body within `time`.
    pub async fn read(&self, mut body: Incoming, share: &Share, time: Duration) -> Result<Asked, Unread> {
        let told = body.size_hint().exact().map(|told| usize::try_from(told).unwrap_or(usize::MAX));
        if told.is_some_and(|told| told > BODY_MAX_BYTES) {
            return Err(Unread::Refused(too_large(body, time).await));
        }
        // A body that does not tell its length may be of any.
        let most = told.unwrap_or(BODY_MAX_BYTES);
        let room = if most > SMALL_BYTES {
            Some(Arc::new(self.room(most, share).await.map_err(Unread::Cut)?))
        } else {
            None
        };
        // The capacity costs address space only, and a buffer that grew would take the double.
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
            Ok(Ok(true)) => Ok(Asked { bytes: read.freeze(), _room: room }),
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

    /// The run's share first: what waits for it holds nothing of the others'.
    async fn room(&self, bytes: usize, share: &Share) -> Result<Room, ApiError> {
        let closed = |_| ApiError::of_status(503, "the run is ending");
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let of_the_run = Arc::clone(&share.0).acquire_owned().await.map_err(closed)?;
        let of_all = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(closed)?;
        Ok(Room { _of_all: of_all, _of_the_run: of_the_run })
    }

    /// Does a piece of work over a body, off the runtime's workers unless it is quick.
    pub async fn work<T: Send + 'static>(
        &self,
        asked: &Asked,
        job: impl FnOnce(&Bytes) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if asked.len() <= QUICK_BYTES {
            return job(&asked.bytes);
        }
        let failed = |why: String| ApiError::of_status(500, format!("the request was not read: {why}"));
        let turn = Arc::clone(&self.work).acquire_owned().await.map_err(|e| failed(e.to_string()))?;
        let asked = asked.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = job(&asked.bytes);
            drop((asked, turn));
            done
        });
        done.await.unwrap_or_else(|e| Err(failed(e.to_string())))
    }
}

async fn too_large(body: Incoming, time: Duration) -> ApiError {
    // Whatever comes of it: the answer is the same.
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
