//! When to look: what the kernel says of a directory, no oftener than a run may have the host look.
//!
//! The watcher reads its queue to the end before it hears anything else, and a box that makes noise faster than it is
//! read keeps it from the end. So nobody waits for the watcher: a thread tells it where to listen, a run that is not
//! listened to yet is polled, and a box whose noise lasts is ended, which is the only thing that stops it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::lock;

/// Notices about one directory in a second, of any kind, that are noise: four times what a thousand letters make, which
/// are more than a store takes.
const LOUD: u32 = 20_000;
/// So many seconds of noise in a row are no accident any more.
const LASTING: u32 = 3;
/// A pass that took nothing is followed by so many times its own length of rest: a box can have a fifth of one thread.
const REST: u32 = 4;
/// A rest is never longer: it delays the next letter.
const REST_MAX: Duration = Duration::from_millis(250);
/// How often a directory is looked at that nobody listens to; every run may be one of these.
pub(super) const UNHEARD: Duration = Duration::from_millis(250);

/// One run's bell.
#[derive(Debug)]
pub(super) struct Bell {
    notice: Notify,
    heard: AtomicBool,
    noise: Mutex<Noise>,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self { notice: Notify::new(), heard: AtomicBool::new(false), noise: Mutex::new(Noise::default()) }
    }

    pub(super) fn ring(&self) {
        self.notice.notify_one();
    }

    /// Waits for the kernel's notice, or `period` at the latest.
    pub(super) async fn rung(&self, period: Duration) {
        let period = if self.heard.load(Ordering::Relaxed) { period } else { period.min(UNHEARD) };
        let _ = tokio::time::timeout(period, self.notice.notified()).await;
    }

    /// Whether the box has made more noise than anybody needs, for longer than by accident.
    pub(super) fn is_noise(&self) -> bool {
        lock(&self.noise).lasts(Instant::now())
    }
}

/// How many notices a directory makes.
#[derive(Debug, Default)]
struct Noise {
    since: Option<Instant>,
    notices: u32,
    loud: u32,
}

impl Noise {
    fn count(&mut self, now: Instant) {
        self.pass(now);
        self.notices = self.notices.saturating_add(1);
    }

    fn lasts(&mut self, now: Instant) -> bool {
        self.pass(now);
        self.loud >= LASTING
    }

    /// Closes the second that is over. One without a notice after it is a pause.
    fn pass(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let over = now.saturating_duration_since(since).as_secs();
        if over == 0 {
            return;
        }
        let loud = self.notices > LOUD;
        self.loud = if loud && over == 1 { self.loud + 1 } else { 0 };
        (self.since, self.notices) = (Some(now), 0);
    }
}

type Bells = Arc<Mutex<HashMap<PathBuf, Arc<Bell>>>>;

/// One watcher for all runs: a user has few instances of inotify (128 by default).
#[derive(Debug)]
pub(super) struct Watch {
    bells: Bells,
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Listen(PathBuf, Arc<Bell>),
    Leave(PathBuf),
}

impl Watch {
    pub(super) fn new() -> notify::Result<Self> {
        let bells: Bells = Arc::default();
        let ring = Arc::clone(&bells);
        let watcher = notify::recommended_watcher(move |event| on_event(&ring, event))?;
        let (orders, taken) = mpsc::channel();
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || obey(watcher, &taken))
            .map_err(notify::Error::io)?;
        Ok(Self { bells, orders })
    }

    /// Rings `bell` for what comes into `dir`, once the watcher has heard of it.
    pub(super) fn listen(&self, dir: PathBuf, bell: &Arc<Bell>) {
        bell.heard.store(false, Ordering::Relaxed);
        lock(&self.bells).insert(dir.clone(), Arc::clone(bell));
        // The thread lives as long as its orders can come.
        let _ = self.orders.send(Order::Listen(dir, Arc::clone(bell)));
    }

    pub(super) fn leave(&self, dir: PathBuf) {
        lock(&self.bells).remove(&dir);
        let _ = self.orders.send(Order::Leave(dir));
    }
}

fn obey(mut watcher: RecommendedWatcher, orders: &mpsc::Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Listen(dir, bell) => match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    bell.heard.store(true, Ordering::Relaxed);
                    // What came before it was heard is not said again.
                    bell.ring();
                }
                Err(e) => tracing::warn!(
                    code = "mailbox.watch",
                    "letters are polled, because {} cannot be watched: {e}",
                    dir.display()
                ),
            },
            // A directory that is gone already is not watched any more either.
            Order::Leave(dir) => drop(watcher.unwatch(&dir)),
        }
    }
}

/// What the watcher calls on its own thread.
fn on_event(bells: &Bells, event: notify::Result<notify::Event>) {
    let bells = lock(bells);
    match event {
        // The queue overflowed (inotify(7), IN_Q_OVERFLOW): any directory may hold something unseen.
        Ok(event) if event.need_rescan() => bells.values().for_each(|bell| bell.ring()),
        Ok(event) => {
            for path in &event.paths {
                let inside = path.parent().and_then(|dir| bells.get(dir));
                let Some(bell) = inside.or_else(|| bells.get(path)) else { continue };
                lock(&bell.noise).count(Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: &[u32]) -> bool {
        let (mut noise, began) = (Noise::default(), Instant::now());
        for (second, notices) in (0..).zip(seconds) {
            (0..*notices).for_each(|_| noise.count(began + Duration::from_millis(second * 1_000)));
        }
        noise.lasts(began + Duration::from_millis(1_000 * seconds.len() as u64))
    }

    #[test]
    fn a_burst_is_an_accident_and_noise_that_lasts_is_none() {
        assert!(!after(&[60_000]));
        assert!(!after(&[60_000, 10, 60_000, 60_000]), "a pause");
        assert!(after(&[10, 21_000, 21_000, 21_000]));
        assert!(!after(&[6_000; 20]), "letters as fast as they are taken");
        assert!(!after(&[60_000, 60_000, 0, 60_000, 60_000]), "a second without a word is a pause, too");
    }
}
