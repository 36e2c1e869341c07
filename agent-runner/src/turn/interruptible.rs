//! Working with an eye on the door: while something is under way, letters come in, and the host hears what it is.

use std::future::{Future, pending};
use std::time::Duration;

use ipc_schema::letters::from_agent::{Activity, Status};
use ipc_schema::letters::to_agent::{InterruptWhy, Verdict};
use ipc_schema::{LetterId, TurnId};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::error::Fatal;
use crate::mailbox::Mailbox;
use crate::mailbox::outbox::Mention;
use crate::model::Draft;

const STATUS_EVERY: Duration = Duration::from_secs(10);
const DRAFT_EVERY: Duration = Duration::from_secs(1);

/// What is under way.
#[derive(Debug, Clone, Copy)]
pub struct Doing<'a> {
    pub turn: TurnId,
    pub state: Activity,
    /// The tool in hand.
    pub tool: Option<&'a str>,
    /// One line for a person.
    pub detail: Option<&'a str>,
    /// The longest that it takes.
    pub limit: Duration,
    /// The answer that grows meanwhile.
    pub draft: Option<&'a Draft>,
    /// Whether `_close` ends it. A tool in hand is let finish.
    pub ends_on_close: bool,
}

/// How it came out.
#[derive(Debug)]
pub enum Attended<T> {
    /// It ended by itself.
    Done(T),
    /// The turn was interrupted; the work was dropped.
    Interrupted(InterruptWhy),
    /// The run is closed; the work was dropped.
    Closing,
}

/// Does `work`, which is dropped when the turn is interrupted.
///
/// # Errors
/// When letters cannot be read any more.
pub async fn attend<T>(
    mailbox: &mut Mailbox,
    doing: Doing<'_>,
    work: impl Future<Output = T>,
) -> Result<Attended<T>, Fatal> {
    watch(mailbox, doing, work, |_| None).await
}

/// Waits for the verdict on a request; with it comes the number of the letter that held it.
///
/// # Errors
/// When letters cannot be read any more.
pub async fn await_verdict(
    mailbox: &mut Mailbox,
    doing: Doing<'_>,
    request: &LetterId,
) -> Result<Attended<(u64, Verdict)>, Fatal> {
    watch(mailbox, doing, pending(), |mailbox| mailbox.take_verdict(request)).await
}

async fn watch<T>(
    mailbox: &mut Mailbox,
    doing: Doing<'_>,
    work: impl Future<Output = T>,
    mut look: impl FnMut(&mut Mailbox) -> Option<T>,
) -> Result<Attended<T>, Fatal> {
    let begun = Instant::now();
    // At once, not at the first tick: work that is done in no time is told of too.
    mailbox.outbox.mention(Some(doing.turn), Mention::Status(doing.status(begun)));
    let mut status = ticks(begun + STATUS_EVERY, STATUS_EVERY);
    let mut drafts = ticks(begun + DRAFT_EVERY, DRAFT_EVERY);
    let mut drafted = 0;
    tokio::pin!(work);
    loop {
        if let Some(found) = look(mailbox) {
            return Ok(Attended::Done(found));
        }
        if let Some(why) = mailbox.interrupted(doing.turn) {
            return Ok(Attended::Interrupted(why));
        }
        if doing.ends_on_close && mailbox.closing() {
            return Ok(Attended::Closing);
        }
        tokio::select! {
            // Letters first: an interrupt that lies there is not outrun by a tool that just ended.
            biased;
            received = mailbox.receive() => received?,
            done = &mut work => return Ok(Attended::Done(done)),
            _ = status.tick() => {
                mailbox.outbox.mention(Some(doing.turn), Mention::Status(doing.status(begun)));
            }
            _ = drafts.tick(), if doing.draft.is_some() => {
                if let Some(text) = doing.draft.and_then(|draft| draft.newer_than(drafted)) {
                    drafted = text.len();
                    mailbox.outbox.mention(Some(doing.turn), Mention::Draft(text));
                }
            }
        }
    }
}

fn ticks(from: Instant, every: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at(from, every);
    // After a pause of the whole box one tick is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Doing<'_> {
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
