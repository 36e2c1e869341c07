//! Reads the host's letters, strictly in number order. [`super::Mailbox`] calls it.
//!
//! The directory watch only says *when* to list the directory; the listing says what is there. So a lost or late
//! event costs time, never a letter. The directory is listed each second, and each 50 ms once a letter arrived that
//! the watch did not announce (gVisor, network filesystems).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::Begin;
use ipc_schema::names_and_paths::{self, FileName};
use ipc_schema::{LETTER_MAX_BYTES, Refusal, RefusalCode, RunId, ToAgentLetter};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::fatal::Fatal;

const RESCAN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, PartialEq)]
pub enum Arrival {
    /// The next letter. `_close` is one too; its number is the highest that the host wrote.
    Letter(Box<ToAgentLetter>),
    /// A letter of a type that only a newer host knows. The caller acknowledges it.
    PassedOver { n: u64 },
}

#[derive(Debug)]
pub struct Inbox {
    dir: PathBuf,
    run: Option<RunId>,
    next: u64,
    /// Letters that a listing found and that were not read yet, by number.
    seen: BTreeMap<u64, String>,
    close: Sentinel,
    watch: Watch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sentinel {
    Absent,
    Seen,
    Delivered,
}

impl Inbox {
    /// Watches `dir`, which the host creates before it starts the box.
    pub fn open(dir: PathBuf) -> Self {
        let watch = Watch::on(&dir);
        Self { dir, run: None, next: 1, seen: BTreeMap::new(), close: Sentinel::Absent, watch }
    }

    /// Waits for the next letter. Letters that are there come before `_close`, which does not wait for a missing
    /// number. Cancel safe: nothing is taken before it is returned.
    ///
    /// # Errors
    /// [`Fatal::Inbox`] when the directory cannot be read, [`Fatal::Letter`] for a letter that cannot be taken.
    pub async fn next(&mut self) -> Result<Arrival, Fatal> {
        loop {
            if let Some(arrival) = self.take()? {
                return Ok(arrival);
            }
            let events = self.watch.events();
            let found = self.scan()?;
            self.watch.scanned(found, events);
            if let Some(arrival) = self.take()? {
                return Ok(arrival);
            }
            self.watch.wait().await;
        }
    }

    /// The first letter: `begin` and its run, or `None` when the host closes the run before.
    ///
    /// # Errors
    /// As [`Inbox::next`]; also for a first letter of a type that only a newer runner knows.
    pub async fn first(&mut self) -> Result<Option<(RunId, Begin)>, Fatal> {
        let letter = match self.next().await? {
            Arrival::Letter(letter) => *letter,
            Arrival::PassedOver { n } => {
                let refusal = Refusal::new(RefusalCode::Envelope, "`begin` must be letter 1");
                return Err(Fatal::Letter { name: format!("{n:010}-…"), refusal });
            }
        };
        match letter.body {
            ToAgent::Begin(begin) => Ok(Some((letter.run, *begin))),
            _ => Ok(None),
        }
    }

    /// The run id in letter 1, even if the rest of it is invalid: without it the runner could not write a `failed`
    /// letter.
    pub fn run_named_by_first(&self) -> Option<RunId> {
        #[derive(Deserialize)]
        struct Who {
            run: RunId,
        }
        let bytes = std::fs::read(self.dir.join(names_and_paths::letter_name(1, "begin"))).ok()?;
        serde_json::from_slice::<Who>(&bytes).ok().map(|who| who.run)
    }

    /// Takes the next letter from the last listing.
    fn take(&mut self) -> Result<Option<Arrival>, Fatal> {
        if let Some(name) = self.seen.get(&self.next) {
            let arrival = self.read(&name.clone())?;
            self.seen.remove(&self.next);
            self.next += 1;
            return Ok(Some(arrival));
        }
        if self.close == Sentinel::Seen {
            let arrival = self.read(names_and_paths::CLOSE)?;
            self.close = Sentinel::Delivered;
            return Ok(Some(arrival));
        }
        Ok(None)
    }

    /// Lists the directory; true when it holds something new.
    fn scan(&mut self) -> Result<bool, Fatal> {
        let sentinel = self.close;
        let mut found = self.list()?;
        if sentinel == Sentinel::Absent && self.close == Sentinel::Seen {
            // A listing is no snapshot: it may hold `_close` and miss a letter that was renamed earlier. A listing
            // that begins after `_close` was seen holds all letters.
            found |= self.list()?;
        }
        Ok(found)
    }

    fn list(&mut self) -> Result<bool, Fatal> {
        let failed = |source| Fatal::Inbox { path: self.dir.clone(), source };
        let mut found = false;
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            match names_and_paths::parse_name(name.as_encoded_bytes()) {
                Ok(FileName::Letter { n, .. }) if n >= self.next && !self.seen.contains_key(&n) => {
                    self.seen.insert(n, name.to_string_lossy().into_owned());
                    found = true;
                }
                Ok(FileName::Close) if self.close == Sentinel::Absent => {
                    self.close = Sentinel::Seen;
                    found = true;
                }
                Ok(_) => {}
                Err(refusal) => {
                    tracing::warn!(%refusal, "ignoring an unexpected file among the host's letters")
                }
            }
        }
        Ok(found)
    }

    fn read(&mut self, name: &str) -> Result<Arrival, Fatal> {
        let path = self.dir.join(name);
        let bytes = std::fs::read(&path).map_err(|source| Fatal::Inbox { path, source })?;
        match ToAgentLetter::parse(&bytes) {
            Ok(letter) => {
                self.check(name, &letter, bytes.len() as u64)
                    .map_err(|refusal| Fatal::Letter { name: name.to_owned(), refusal })?;
                self.run.get_or_insert_with(|| letter.run.clone());
                Ok(Arrival::Letter(Box::new(letter)))
            }
            Err(refusal) if refusal.code == RefusalCode::Unsupported && name != names_and_paths::CLOSE => {
                tracing::warn!(name, %refusal, "ignoring a letter of an unknown type");
                Ok(Arrival::PassedOver { n: self.next })
            }
            Err(refusal) => Err(Fatal::Letter { name: name.to_owned(), refusal }),
        }
    }

    /// Checks a letter against its file name and the run. A mismatch is a fault of the host, and going on with
    /// another run's letters would be worse than stopping.
    fn check(&self, name: &str, letter: &ToAgentLetter, bytes: u64) -> Result<(), Refusal> {
        if bytes > LETTER_MAX_BYTES {
            return Err(Refusal::new(
                RefusalCode::TooBig,
                format!("{bytes} bytes, at most {LETTER_MAX_BYTES}"),
            ));
        }
        if letter.file_name() != name {
            let reason = format!("it is letter {} and lies under this name", letter.file_name());
            return Err(Refusal::new(RefusalCode::Envelope, reason));
        }
        if self.run.as_ref().is_some_and(|run| *run != letter.run) {
            return Err(Refusal::new(RefusalCode::Envelope, format!("it is of run {}", letter.run)));
        }
        let begins = matches!(letter.body, ToAgent::Begin(_));
        let closes = matches!(letter.body, ToAgent::Close(_));
        if !closes && begins != (letter.n == 1) {
            return Err(Refusal::new(RefusalCode::Envelope, "`begin` is letter 1 and no other"));
        }
        Ok(())
    }
}

/// Decides when to list the directory again.
#[derive(Debug)]
struct Watch {
    wakeup: Arc<Wakeup>,
    health: WatchHealth,
    next_scan: Instant,
    /// Kept because dropping it ends the watch.
    _watcher: Option<RecommendedWatcher>,
}

#[derive(Debug, Default)]
struct Wakeup {
    events: AtomicU64,
    notify: Notify,
}

impl Wakeup {
    fn wake(&self) {
        self.events.fetch_add(1, Ordering::Release);
        // Keeps one permit: an event between a listing and the wait ends the wait at once.
        self.notify.notify_one();
    }
}

impl Watch {
    fn on(dir: &Path) -> Self {
        let wakeup = Arc::new(Wakeup::default());
        let waker = Arc::clone(&wakeup);
        let watcher = notify::recommended_watcher(move |event| {
            if is_news(&event) {
                waker.wake();
            }
        })
        .and_then(|mut watcher| watcher.watch(dir, RecursiveMode::NonRecursive).map(|()| watcher));
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "cannot watch the directory of letters; polling it"))
            .ok();
        let health = WatchHealth { polling: watcher.is_none(), ..WatchHealth::default() };
        Self { wakeup, health, next_scan: Instant::now() + RESCAN, _watcher: watcher }
    }

    fn events(&self) -> u64 {
        self.wakeup.events.load(Ordering::Acquire)
    }

    fn scanned(&mut self, found: bool, events: u64) {
        self.health.scanned(found, events);
        self.next_scan = Instant::now() + if self.health.polling { POLL } else { RESCAN };
    }

    /// The deadline is a field and not a local: other events cancel this wait all the time, and a timeout that starts
    /// anew each time would never fire.
    async fn wait(&mut self) {
        let on_time = tokio::time::timeout_at(self.next_scan, self.wakeup.notify.notified()).await.is_ok();
        if !on_time && self.health.expired(self.events()) {
            tracing::info!("the directory watch reports nothing; polling from now on");
        }
    }
}

/// This process's own reads cause events too. Only events that may mean a new name count.
fn is_news(event: &notify::Result<notify::Event>) -> bool {
    match event {
        Ok(event) => {
            event.need_rescan()
                || matches!(
                    event.kind,
                    EventKind::Create(_)
                        | EventKind::Modify(_)
                        | EventKind::Access(AccessKind::Close(AccessMode::Write))
                )
        }
        Err(_) => true,
    }
}

/// Detects a watch that does not report events. An event may come a moment after the listing that found its letter,
/// so one unannounced letter is only a suspicion. It is confirmed when a whole second passes without any event.
#[derive(Debug, Default)]
struct WatchHealth {
    last: Option<u64>,
    suspected_at: Option<u64>,
    polling: bool,
}

impl WatchHealth {
    fn scanned(&mut self, found: bool, events: u64) {
        if found && self.last == Some(events) {
            self.suspected_at = Some(events);
        }
        self.last = Some(events);
    }

    /// Called when a wait timed out; true when this confirms that the watch does not work.
    fn expired(&mut self, events: u64) -> bool {
        let found_blind = !self.polling && self.suspected_at.take() == Some(events);
        self.polling |= found_blind;
        found_blind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::host::{Host, close, interrupt};
    use ipc_schema::TurnId;

    fn kinds(arrival: &Arrival) -> (&'static str, u64) {
        match arrival {
            Arrival::Letter(letter) => (letter.body.kind(), letter.n),
            Arrival::PassedOver { n } => ("passed over", *n),
        }
    }

    #[tokio::test]
    async fn letters_come_in_number_order_and_a_gap_waits() {
        let host = Host::new();
        host.begin();
        host.put(3, Some(TurnId(1)), interrupt());
        let mut inbox = Inbox::open(host.paths().ipc_to_agent());
        assert_eq!(kinds(&inbox.next().await.unwrap()), ("begin", 1));
        let gap = tokio::time::timeout(Duration::from_millis(100), inbox.next()).await;
        assert!(gap.is_err(), "letter 3 must wait for letter 2");
        host.put(2, Some(TurnId(1)), interrupt());
        assert_eq!(kinds(&inbox.next().await.unwrap()), ("interrupt", 2));
        assert_eq!(kinds(&inbox.next().await.unwrap()), ("interrupt", 3));
    }

    #[tokio::test]
    async fn close_comes_after_what_lies_there_and_only_once() {
        let host = Host::new();
        host.begin();
        host.put(2, Some(TurnId(1)), interrupt());
        host.put(2, None, close());
        let mut inbox = Inbox::open(host.paths().ipc_to_agent());
        assert_eq!(kinds(&inbox.next().await.unwrap()), ("begin", 1));
        assert_eq!(kinds(&inbox.next().await.unwrap()), ("interrupt", 2));
        assert_eq!(kinds(&inbox.next().await.unwrap()), ("close", 2));
        assert!(tokio::time::timeout(Duration::from_millis(50), inbox.next()).await.is_err());
    }

    #[tokio::test]
    async fn a_letter_of_a_newer_host_is_passed_over() {
        let host = Host::new();
        host.begin();
        host.raw(
            "0000000002-fanfare.json",
            &host.letter_text(2, None, interrupt()).replace("interrupt", "fanfare"),
        );
        let mut inbox = Inbox::open(host.paths().ipc_to_agent());
        inbox.next().await.unwrap();
        assert_eq!(inbox.next().await.unwrap(), Arrival::PassedOver { n: 2 });
    }

    #[tokio::test]
    async fn a_letter_that_is_none_ends_the_run_with_its_code() {
        for (name, text, code) in [
            ("0000000001-begin.json", "{", RefusalCode::Json),
            ("0000000001-begin.json", "{\"v\":1}", RefusalCode::Schema),
        ] {
            let host = Host::new();
            host.raw(name, text);
            let fatal = Inbox::open(host.paths().ipc_to_agent()).next().await.unwrap_err();
            assert_eq!(fatal.code(), code.as_str());
        }
        let host = Host::new();
        host.begin();
        host.raw("0000000002-interrupt.json", &host.letter_text(5, Some(TurnId(1)), interrupt()));
        let mut inbox = Inbox::open(host.paths().ipc_to_agent());
        inbox.next().await.unwrap();
        assert_eq!(inbox.next().await.unwrap_err().code(), "ipc.envelope");
    }

    #[tokio::test]
    async fn the_run_is_known_even_when_begin_is_not() {
        let host = Host::new();
        host.raw("0000000001-begin.json", &format!("{{\"run\":\"{}\"}}", host.run));
        let inbox = Inbox::open(host.paths().ipc_to_agent());
        assert_eq!(inbox.run_named_by_first().as_ref(), Some(&host.run));
    }

    #[tokio::test]
    async fn a_first_letter_that_is_not_begin_ends_the_run() {
        let host = Host::new();
        let text = host.letter_text(1, Some(TurnId(1)), interrupt());
        host.raw("0000000001-interrupt.json", &text);
        assert_eq!(
            Inbox::open(host.paths().ipc_to_agent()).first().await.unwrap_err().code(),
            "ipc.envelope"
        );
        let host = Host::new();
        host.raw("0000000001-fanfare.json", &text.replace("interrupt", "fanfare"));
        assert_eq!(
            Inbox::open(host.paths().ipc_to_agent()).first().await.unwrap_err().code(),
            "ipc.envelope"
        );
    }

    #[test]
    fn one_silent_find_is_a_doubt_and_a_silent_second_settles_it() {
        let mut health = WatchHealth::default();
        health.scanned(true, 0);
        assert!(!health.expired(0), "what lay there before the watch proves nothing");
        health.scanned(true, 0);
        assert!(!health.expired(1), "the event was merely late");
        health.scanned(true, 1);
        assert!(!health.expired(1), "announced: a ping lies between the listings");
        health.scanned(true, 1);
        assert!(health.expired(1) && health.polling);
        assert!(!health.expired(1), "said once");
    }

    #[tokio::test]
    async fn without_a_watch_letters_still_come() {
        let host = Host::new();
        host.begin();
        let mut inbox = Inbox::open(host.paths().ipc_to_agent());
        inbox.watch._watcher = None;
        inbox.next().await.unwrap();
        let (arrival, ()) = tokio::join!(inbox.next(), async {
            tokio::task::yield_now().await;
            host.put(2, Some(TurnId(1)), interrupt());
        });
        assert_eq!(kinds(&arrival.unwrap()), ("interrupt", 2));
        host.put(3, Some(TurnId(1)), interrupt());
        assert_eq!(kinds(&inbox.next().await.unwrap()), ("interrupt", 3));
    }
}
