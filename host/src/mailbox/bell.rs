//! When to look: what the kernel says of a directory, no oftener than a run may have the host look.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use tokio::sync::Notify;

use super::lock;

/// Notices about one directory in a second, of any kind. A letter makes five; a runner that streams its status makes a
/// hundred a second.
const LOUD: u32 = 5_000;
/// A pass that took nothing is followed by so many times its own length of rest: a box can have a fifth of one thread.
const REST: u32 = 4;
/// A rest is never longer: it delays the next letter.
const REST_MAX: Duration = Duration::from_millis(250);

/// One run's bell.
#[derive(Debug)]
pub(super) struct Bell {
    notice: Notify,
    second: Mutex<(Instant, u32)>,
    loud: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self { notice: Notify::new(), second: Mutex::new((Instant::now(), 0)), loud: AtomicBool::new(false) }
    }

    pub(super) fn ring(&self) {
        self.notice.notify_one();
    }

    pub(super) async fn rung(&self) {
        self.notice.notified().await;
    }

    /// Whether the box made more noise than anybody needs. Reading its notices costs the thread that every run's
    /// notices come by, so it is not listened to any longer.
    pub(super) fn is_loud(&self) -> bool {
        self.loud.load(Ordering::Relaxed)
    }

    fn count(&self) {
        let mut second = lock(&self.second);
        if second.0.elapsed() >= Duration::from_secs(1) {
            *second = (Instant::now(), 0);
        }
        second.1 += 1;
        if second.1 > LOUD {
            self.loud.store(true, Ordering::Relaxed);
        }
    }
}

pub(super) type Bells = Arc<Mutex<HashMap<PathBuf, Arc<Bell>>>>;

/// What the watcher calls on its own thread.
pub(super) fn on_event(bells: &Bells, event: notify::Result<notify::Event>) {
    let bells = lock(bells);
    match event {
        // The queue overflowed (inotify(7), IN_Q_OVERFLOW): any directory may hold something unseen.
        Ok(event) if event.need_rescan() => bells.values().for_each(|bell| bell.ring()),
        Ok(event) => {
            for path in &event.paths {
                let inside = path.parent().and_then(|dir| bells.get(dir));
                let Some(bell) = inside.or_else(|| bells.get(path)) else { continue };
                bell.count();
                if inside.is_some() && brings(event.kind) {
                    bell.ring();
                }
            }
        }
        Err(e) => {
            tracing::warn!(code = "mailbox.watch", "the watcher reports: {e}");
            bells.values().for_each(|bell| bell.ring());
        }
    }
}

/// Whether a letter can have come by it. Opening is none of these: the host's own look into a directory that a box has
/// made beside its letters is an opening, and would be the reason for the next look, without end.
fn brings(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_)) => true,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) | EventKind::Modify(_) | EventKind::Remove(_) => false,
        EventKind::Any | EventKind::Other => true,
    }
}

/// How long a run waits after a pass.
#[derive(Debug)]
pub(super) struct Rest {
    until: Instant,
}

impl Rest {
    pub(super) fn none() -> Self {
        Self { until: Instant::now() }
    }

    /// After a pass that took nothing and began at `began`.
    pub(super) fn after(began: Instant) -> Self {
        let now = Instant::now();
        Self { until: now + ((now - began) * REST).min(REST_MAX) }
    }

    pub(super) async fn over(&self) {
        tokio::time::sleep_until(self.until.into()).await;
    }
}
