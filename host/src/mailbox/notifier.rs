//! Tells a run when to list its directory: when the kernel reports a change, but not more often than its share of CPU
//! time allows.
//!
//! The watcher empties its event queue before it accepts a new directory. A box that causes events faster than the
//! host reads them prevents that. So nobody waits for the watcher. A separate thread adds and removes directories.
//! While the watcher does not watch a run's directory yet, the run polls it. If a box goes on flooding the queue, the
//! host ends the box, because nothing else stops it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::lock;

/// More events than this in a second are a flood. It is four times what a thousand letters cause, and the store cannot
/// take a thousand letters in a second.
const FLOOD_EVENTS: u32 = 20_000;
/// This many seconds of flood in a row are no accident.
const FLOOD_SECONDS: u32 = 3;
/// After a pass without a letter the run pauses for this many times the pass's duration. So a box costs at most a
/// fifth of one thread.
const PAUSE_FACTOR: u32 = 4;
/// The longest pause, because a pause delays the next letter.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How often a run lists a directory that is not watched. All runs may be in this state.
const POLL: Duration = Duration::from_millis(250);

/// Notifies one run of letters.
#[derive(Debug)]
pub(super) struct LetterNotifier {
    notify: Notify,
    watched: AtomicBool,
    flood: Mutex<FloodMeter>,
}

impl LetterNotifier {
    pub(super) fn new() -> Self {
        Self {
            notify: Notify::new(),
            watched: AtomicBool::new(false),
            flood: Mutex::new(FloodMeter::default()),
        }
    }

    pub(super) fn notify(&self) {
        self.notify.notify_one();
    }

    /// Waits for a notification, at most `period`.
    pub(super) async fn notified(&self, period: Duration) {
        let period = if self.watched.load(Ordering::Relaxed) { period } else { period.min(POLL) };
        let _ = tokio::time::timeout(period, self.notify.notified()).await;
    }

    /// Whether the box has flooded the watcher for longer than an accident would.
    pub(super) fn is_flooded(&self) -> bool {
        lock(&self.flood).lasts(Instant::now())
    }
}

/// Counts the events of one directory.
#[derive(Debug, Default)]
struct FloodMeter {
    since: Option<Instant>,
    events: u32,
    /// Seconds of flood in a row.
    seconds: u32,
}

impl FloodMeter {
    fn count(&mut self, now: Instant) {
        self.end_second(now);
        self.events = self.events.saturating_add(1);
    }

    fn lasts(&mut self, now: Instant) -> bool {
        self.end_second(now);
        self.seconds >= FLOOD_SECONDS
    }

    /// Judges the second that is over. A second without a flood ends the series.
    fn end_second(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let over = now.saturating_duration_since(since).as_secs();
        if over == 0 {
            return;
        }
        let flood = self.events > FLOOD_EVENTS;
        self.seconds = if flood && over == 1 { self.seconds + 1 } else { 0 };
        (self.since, self.events) = (Some(now), 0);
    }
}

type Notifiers = Arc<Mutex<HashMap<PathBuf, Arc<LetterNotifier>>>>;

/// One watcher for all runs, because a user may have few inotify instances (128 by default).
#[derive(Debug)]
pub(super) struct Watcher {
    notifiers: Notifiers,
    changes: mpsc::Sender<WatchChange>,
}

#[derive(Debug)]
enum WatchChange {
    Add(PathBuf, Arc<LetterNotifier>),
    Remove(PathBuf),
}

impl Watcher {
    pub(super) fn new() -> notify::Result<Self> {
        let notifiers: Notifiers = Arc::default();
        let shared = Arc::clone(&notifiers);
        let watcher = notify::recommended_watcher(move |event| on_event(&shared, event))?;
        let (changes, received) = mpsc::channel();
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || apply_changes(watcher, &received))
            .map_err(notify::Error::io)?;
        Ok(Self { notifiers, changes })
    }

    /// Notifies `notifier` of new files in `dir`, as soon as the thread has added the watch.
    pub(super) fn watch(&self, dir: PathBuf, notifier: &Arc<LetterNotifier>) {
        notifier.watched.store(false, Ordering::Relaxed);
        lock(&self.notifiers).insert(dir.clone(), Arc::clone(notifier));
        // The send cannot fail: the thread receives until this sender is dropped.
        let _ = self.changes.send(WatchChange::Add(dir, Arc::clone(notifier)));
    }

    pub(super) fn unwatch(&self, dir: PathBuf) {
        lock(&self.notifiers).remove(&dir);
        let _ = self.changes.send(WatchChange::Remove(dir));
    }
}

fn apply_changes(mut watcher: RecommendedWatcher, changes: &mpsc::Receiver<WatchChange>) {
    while let Ok(change) = changes.recv() {
        match change {
            WatchChange::Add(dir, notifier) => match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    notifier.watched.store(true, Ordering::Relaxed);
                    // The kernel does not report files that came before the watch.
                    notifier.notify();
                }
                Err(e) => tracing::warn!(
                    code = "mailbox.watch",
                    "letters are polled, because {} cannot be watched: {e}",
                    dir.display()
                ),
            },
            // It fails for a directory that is gone, which is not watched any more.
            WatchChange::Remove(dir) => drop(watcher.unwatch(&dir)),
        }
    }
}

/// The watcher calls it on its own thread.
fn on_event(notifiers: &Notifiers, event: notify::Result<notify::Event>) {
    let notifiers = lock(notifiers);
    match event {
        // The queue overflowed (inotify(7), IN_Q_OVERFLOW): any directory may hold an unreported letter.
        Ok(event) if event.need_rescan() => notifiers.values().for_each(|notifier| notifier.notify()),
        Ok(event) => {
            for path in &event.paths {
                let inside = path.parent().and_then(|dir| notifiers.get(dir));
                let Some(notifier) = inside.or_else(|| notifiers.get(path)) else { continue };
                lock(&notifier.flood).count(Instant::now());
                if inside.is_some() && may_bring_a_letter(event.kind) {
                    notifier.notify();
                }
            }
        }
        Err(e) => {
            tracing::warn!(code = "mailbox.watch", "the watcher reports: {e}");
            notifiers.values().for_each(|notifier| notifier.notify());
        }
    }
}

/// Whether a letter can come with this event. An open is excluded: the host opens a directory that a box made among
/// its letters in order to list it, so each listing would cause the next one.
fn may_bring_a_letter(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_)) => true,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) | EventKind::Modify(_) | EventKind::Remove(_) => false,
        EventKind::Any | EventKind::Other => true,
    }
}

/// How long a run waits after a pass.
#[derive(Debug)]
pub(super) struct Pause {
    until: Instant,
}

impl Pause {
    pub(super) fn none() -> Self {
        Self { until: Instant::now() }
    }

    /// After a pass without a letter that began at `began`.
    pub(super) fn after(began: Instant) -> Self {
        let now = Instant::now();
        Self { until: now + ((now - began) * PAUSE_FACTOR).min(PAUSE_MAX) }
    }

    pub(super) async fn over(&self) {
        tokio::time::sleep_until(self.until.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: &[u32]) -> bool {
        let (mut flood, began) = (FloodMeter::default(), Instant::now());
        for (second, events) in (0..).zip(seconds) {
            (0..*events).for_each(|_| flood.count(began + Duration::from_millis(second * 1_000)));
        }
        flood.lasts(began + Duration::from_millis(1_000 * seconds.len() as u64))
    }

    #[test]
    fn a_burst_is_an_accident_and_a_lasting_flood_is_none() {
        assert!(!after(&[60_000]));
        assert!(!after(&[60_000, 10, 60_000, 60_000]), "a pause");
        assert!(after(&[10, 21_000, 21_000, 21_000]));
        assert!(!after(&[6_000; 20]), "letters as fast as they are taken");
        assert!(!after(&[60_000, 60_000, 0, 60_000, 60_000]), "a second without an event is a pause, too");
    }
}
