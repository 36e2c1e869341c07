//! A person at a terminal, in the chat of the group `main`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::crash::PlatformLog;
use crate::crash::platform_log::What;
use crate::terminal::TerminalClient;

pub const ADDRESS: &str = "terminal:local";

pub struct AtTerminal {
    socket: PathBuf,
    log: PlatformLog,
    /// `None` while the person is away.
    client: Mutex<Option<TerminalClient>>,
    said: AtomicU64,
    heard: Mutex<Heard>,
}

/// How far the person has read the log. A part that came again has the same id.
#[derive(Default)]
struct Heard {
    lines: usize,
    ids: HashSet<String>,
}

impl AtTerminal {
    pub fn join(root: &Path) -> Self {
        let log = match PlatformLog::create(root) {
            Ok(log) => log,
            Err(e) => panic!("no place for the terminal's log: {e}"),
        };
        let socket = root.join("state/host/host.sock");
        let seat =
            Self { socket, log, client: Mutex::default(), said: AtomicU64::new(0), heard: Mutex::default() };
        seat.returns();
        seat
    }

    fn client(&self) -> MutexGuard<'_, Option<TerminalClient>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn leaves(&self) {
        *self.client() = None;
    }

    pub fn returns(&self) {
        let client = TerminalClient::join(self.socket.clone(), "main", ADDRESS, self.log.clone(), 0.0, 0);
        *self.client() = Some(client);
    }

    pub fn says(&self, text: &str) -> String {
        let id = format!("line-{}", self.said.fetch_add(1, Ordering::Relaxed));
        match &*self.client() {
            Some(client) => client.says(&id, text),
            None => panic!("nobody is at the terminal"),
        }
        id
    }

    pub async fn hears(&self) -> String {
        loop {
            if let Some(text) = self.take(1).pop() {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn unheard(&self) -> Vec<String> {
        let (lines, ids) = {
            let heard = self.heard();
            (heard.lines, heard.ids.clone())
        };
        let texts = self.take(usize::MAX);
        *self.heard() = Heard { lines, ids };
        texts
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on in the log until there are `most` new texts.
    fn take(&self, most: usize) -> Vec<String> {
        let (mut heard, mut texts) = (self.heard(), Vec::new());
        for line in self.log.since(heard.lines) {
            if texts.len() == most {
                break;
            }
            heard.lines += 1;
            if matches!(line.what, What::Delivered { .. }) && heard.ids.insert(line.id) {
                texts.push(line.text);
            }
        }
        texts
    }
}
