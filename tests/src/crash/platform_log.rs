//! The platform's log: which messages it handed over for good, and which texts reached which chat. One JSON line each.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The log's name in a directory of evidence.
pub const FILE: &str = "platform.jsonl";

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the log began.
    pub at: u64,
    /// The chat, as the host knows it: `telegram:5`, `terminal:local`.
    pub chat: String,
    /// The platform's id of the message. On the terminal a repeat has the same id.
    pub id: String,
    /// The text, as people read it.
    pub text: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A person said it.
    Said,
    /// The host took it over: the platform will not hand it over again.
    Accepted,
    /// It reached the chat.
    Delivered {
        /// Over an earlier text of the same id.
        edit: bool,
    },
}

/// The log of one platform. A clone writes into the same.
#[derive(Debug, Clone)]
pub struct PlatformLog(Arc<Mutex<Inside>>);

#[derive(Debug)]
struct Inside {
    file: File,
    zero: Instant,
    lines: Vec<Line>,
}

impl PlatformLog {
    /// An empty log in `dir`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let file = File::create(dir.join(FILE))?;
        Ok(Self(Arc::new(Mutex::new(Inside { file, zero: Instant::now(), lines: Vec::new() }))))
    }

    /// A person said this.
    pub fn said(&self, chat: &str, id: &str, text: &str) {
        self.add(chat, id, text, What::Said);
    }

    /// The host took this over.
    pub fn accepted(&self, chat: &str, id: &str, text: &str) {
        self.add(chat, id, text, What::Accepted);
    }

    /// This reached the chat.
    pub fn delivered(&self, chat: &str, id: &str, text: &str, edit: bool) {
        self.add(chat, id, text, What::Delivered { edit });
    }

    /// Lines from number `from` on.
    pub fn since(&self, from: usize) -> Vec<Line> {
        self.inside().lines.get(from..).unwrap_or_default().to_vec()
    }

    fn add(&self, chat: &str, id: &str, text: &str, what: What) {
        let mut inside = self.inside();
        let at = u64::try_from(inside.zero.elapsed().as_millis()).unwrap_or(u64::MAX);
        let line = Line { at, chat: chat.to_owned(), id: id.to_owned(), text: text.to_owned(), what };
        let mut json = serde_json::to_vec(&line).unwrap_or_default();
        json.push(b'\n');
        if let Err(e) = inside.file.write_all(&json) {
            panic!("the platform's log cannot be written: {e}");
        }
        inside.lines.push(line);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a log.
///
/// # Errors
/// When it is none.
pub fn read(dir: &Path) -> io::Result<Vec<Line>> {
    let text = std::fs::read_to_string(dir.join(FILE))?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::other)).collect()
}
