//! Runs a piece of work while letters arrive: it drops the work on an interrupt or `_close`, and writes status and
//! draft letters meanwhile. [`crate::turn`] runs model calls and tools with it.

use std::future::{Future, pending};
use std::time::Duration;

use ipc_schema::letters::from_agent::{Activity, Status};
use ipc_schema::letters::to_agent::{InterruptWhy, Verdict};
use ipc_schema::{LetterId, TurnId};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::fatal::Fatal;
use crate::mailbox::Mailbox;
use crate::mailbox::outbox::Transient;
use crate::model::Draft;

const STATUS_EVERY: Duration = Duration::from_secs(10);
const DRAFT_EVERY: Duration = Duration::from_secs(1);

/// What status letters say about the work, and when it must be dropped.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    pub turn: TurnId,
    pub state: Activity,
    pub tool: Option<&'a str>,
    pub detail: Option<&'a str>,
    /// The time limit of the work: the deadline in status letters counts down from it.
    pub limit: Duration,
    /// The text to publish in draft letters.
    pub draft: Option<&'a Draft>,
    /// Whether `_close` drops the work. A running tool may finish.
    pub ends_on_close: bool,
}

#[derive(Debug)]
pub enum Watched<T> {
    Done(T),
    /// The turn was interrupted and the work dropped.
    Interrupted(InterruptWhy),
    /// The run closes and the work was dropped.
    Closing,
}

/// Runs `work` until it ends, or drops it.
///
/// # Errors
/// When letters cannot be read any more.
pub async fn run_interruptible<T>(
    mailbox: &mut Mailbox,
    info: Work<'_>,
    work: impl Future<Output = T>,
) -> Result<Watched<T>, Fatal> {
    run_watched(mailbox, info, work, |_| None).await
}

/// Waits for the verdict on a request. Returns it with its letter's number.
///
/// # Errors
/// When letters cannot be read any more.
pub async fn await_verdict(
    mailbox: &mut Mailbox,
    info: Work<'_>,
    request: &LetterId,
) -> Result<Watched<(u64, Verdict)>, Fatal> {
    run_watched(mailbox, info, pending(), |mailbox| mailbox.take_verdict(request)).await
}

async fn run_watched<T>(
    mailbox: &mut Mailbox,
    info: Work<'_>,
    work: impl Future<Output = T>,
    mut look: impl FnMut(&mut Mailbox) -> Option<T>,
) -> Result<Watched<T>, Fatal> {
    let begun = Instant::now();
    // At once and not at the first tick: very short work is reported too.
    mailbox.outbox.write_transient(Some(info.turn), Transient::Status(info.status(begun)));
    let mut status = ticks(begun + STATUS_EVERY, STATUS_EVERY);
    let mut drafts = ticks(begun + DRAFT_EVERY, DRAFT_EVERY);
    let mut drafted = 0;
    tokio::pin!(work);
    loop {
        if let Some(found) = look(mailbox) {
            return Ok(Watched::Done(found));
        }
        if let Some(why) = mailbox.interrupted(info.turn) {
            return Ok(Watched::Interrupted(why));
        }
        if info.ends_on_close && mailbox.closing() {
            return Ok(Watched::Closing);
        }
        tokio::select! {
            // Letters first: a tool that just ended must not win against an interrupt that is already there.
            biased;
            received = mailbox.receive() => received?,
            done = &mut work => return Ok(Watched::Done(done)),
            _ = status.tick() => {
                mailbox.outbox.write_transient(Some(info.turn), Transient::Status(info.status(begun)));
            }
            _ = drafts.tick(), if info.draft.is_some() => {
                if let Some(text) = info.draft.and_then(|draft| draft.newer_than(drafted)) {
                    drafted = text.len();
                    mailbox.outbox.write_transient(Some(info.turn), Transient::Draft(text));
                }
            }
        }
    }
}

fn ticks(from: Instant, every: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at(from, every);
    // After a pause of the whole container one tick is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Work<'_> {
    fn status(&self, begun: Instant) -> Status {
        let left = self.limit.saturating_sub(begun.elapsed());
        Status {
            state: self.state,
            tool: self.tool.map(str::to_owned),
            detail: self.detail.filter(|detail| !detail.is_empty()).map(str::to_owned),
            deadline_s: Some(u32::try_from(left.as_secs()).unwrap_or(u32::MAX)),
        }
    }
}
