//! The platform's log: the messages that the host acknowledged, and the texts that reached each chat. One line of JSON
//! each.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The log's name in a directory of evidence.
pub const FILE: &str = "platform.jsonl";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the log began.
    pub at: u64,
    /// The chat, as the host knows it: `telegram:5`, `terminal:local`, `whatsapp:491511234567`.
    pub chat: String,
    /// The platform's id of the message. On the terminal and on WhatsApp a repeat has the same id.
    pub id: String,
    pub text: String,
    #[serde(flatten)]
    pub what: What,
}

/// An event in the life of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A person wrote it.
    Said,
    /// The host acknowledged it: the platform will not hand it over again.
    Accepted,
    /// It reached the chat.
    Delivered {
        /// Whether it replaced an earlier text with the same id.
        edit: bool,
    },
}

/// The log of one platform. A clone writes to the same log.
#[derive(Debug, Clone)]
pub struct PlatformLog(Arc<Mutex<Inside>>);

#[derive(Debug)]
struct Inside {
    file: File,
    zero: Instant,
    lines: Vec<Line>,
}

impl PlatformLog {
    /// Creates an empty log in `dir`.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let file = File::create(dir.join(FILE))?;
        Ok(Self(Arc::new(Mutex::new(Inside { file, zero: Instant::now(), lines: Vec::new() }))))
    }

    pub fn said(&self, chat: &str, id: &str, text: &str) {
        self.add(chat, id, text, What::Said);
    }

    pub fn accepted(&self, chat: &str, id: &str, text: &str) {
        self.add(chat, id, text, What::Accepted);
    }

    pub fn delivered(&self, chat: &str, id: &str, text: &str, edit: bool) {
        self.add(chat, id, text, What::Delivered { edit });
    }

    /// Returns the lines from number `from` on.
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
pub fn read(dir: &Path) -> io::Result<Vec<Line>> {
    let text = std::fs::read_to_string(dir.join(FILE))?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::other)).collect()
}
