//! A fake Telegram server with everything that a bot can see: long polls, offsets, timeouts, sent messages, files, and
//! errors as the Bot API documents them (<https://core.telegram.org/bots/api>).
//!
//! A test reads as a conversation:
//!
//! ```no_run
//! # async fn story() {
//! use journeys::telegram::TelegramServer;
//!
//! let telegram = TelegramServer::start().await;
//! let family = telegram.room(-100_123, "Family");
//! let ann = telegram.person(5, "Ann");
//! ann.says(&family, "@laz_bot hello");
//! assert_eq!(family.hears().await, "Hello, Ann.");
//! # }
//! ```
//!
//! The server checks that the bot obeys the rules: the token, the length of a message after its markup is parsed,
//! balanced HTML, known chats, one poller. A violation fails the test in [`TelegramServer::finish`].

mod edits;
mod files;
mod html;
mod people;
mod server;
mod trouble;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::crash::PlatformLog;

pub use files::SentFile;
pub use people::{Chat, Document, PLACEHOLDER, Person, Photo};
pub use trouble::Trouble;

/// The bot's token.
pub const TOKEN: &str = "4242:journeys-canary-token";
/// The bot's user id.
pub const BOT_ID: i64 = 4242;
/// The bot's name, as people mention it.
pub const BOT_NAME: &str = "laz_bot";

/// A Bot API server.
pub struct TelegramServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Absent while Telegram is away.
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// How often Telegram is in trouble, as parts of one.
#[derive(Debug, Clone)]
pub struct Troubles {
    /// A message is sent, and the connection is cut before the bot learns of it.
    pub lost: f64,
    /// 429, and a second's patience.
    pub busy: f64,
    /// A 502 that is no answer of the Bot API.
    pub down: f64,
    /// Chance, from a seed.
    pub chance: fastrand::Rng,
}

/// A message that the bot sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    /// Where.
    pub chat: i64,
    /// In which topic.
    pub topic: Option<i64>,
    /// As people read it: markup removed.
    pub text: String,
    /// As it was sent.
    pub raw: String,
    /// The file that came with it; then the text is its caption, and its name in brackets.
    pub file: Option<SentFile>,
    /// Its id.
    pub message_id: i64,
    /// How often its text was changed.
    pub edits: u32,
    /// Whether somebody has deleted it.
    pub deleted: bool,
}

/// An error that the next call of a method is answered with.
#[derive(Debug, Clone)]
struct Refusal {
    method: &'static str,
    code: u16,
    description: String,
    retry_after: Option<u64>,
}

struct Shared {
    state: Mutex<State>,
    /// Grows with every change; long polls and tests wait for it.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    updates: VecDeque<Value>,
    next_update: i64,
    next_message: i64,
    chats: HashMap<i64, Value>,
    files: HashMap<String, Vec<u8>>,
    /// Files that the bot has asked for, in order.
    asked_for: Vec<String>,
    holds_files: bool,
    /// Files that are given all the same.
    files_given: usize,
    sent: Vec<SentMessage>,
    /// How far each chat's listener has heard.
    heard: HashMap<(i64, Option<i64>), usize>,
    typing: HashMap<i64, usize>,
    refusals: Vec<Refusal>,
    planned: Vec<trouble::Planned>,
    watch: trouble::Watch,
    /// Rooms that the bot was removed from.
    kicked: HashSet<i64>,
    polls: u64,
    polling: u64,
    foreign_poller: bool,
    token_refused: bool,
    /// What the platform keeps of it all, where somebody wants to know.
    log: Option<PlatformLog>,
    troubles: Option<Troubles>,
    violations: Vec<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Waits until `look` finds something.
    async fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = look(&mut self.state()) {
                return found;
            }
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    fn push_update(&self, kind: &str, body: Value) {
        let mut state = self.state();
        state.next_update += 1;
        let update_id = 1000 + state.next_update;
        state.updates.push_back(json!({ "update_id": update_id, kind: body }));
        drop(state);
        self.changed();
    }
}

impl TelegramServer {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> Self {
        let listener = match TcpListener::bind("127.0.0.1:0").await {
            Ok(listener) => listener,
            Err(e) => panic!("no port for Telegram: {e}"),
        };
        let address = match listener.local_addr() {
            Ok(address) => address,
            Err(e) => panic!("no address for Telegram: {e}"),
        };
        let shared = Arc::new(Shared { state: Mutex::default(), changes: watch::Sender::new(0) });
        let accepting = Mutex::new(Some(tokio::spawn(server::accept(listener, Arc::clone(&shared)))));
        Self { shared, address, accepting }
    }

    fn accepting(&self) -> Option<JoinHandle<()>> {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// From now on nobody listens at its address: connections are refused, those that are open break.
    pub async fn goes_away(&self) {
        if let Some(accepting) = self.accepting() {
            accepting.abort();
            // It ends by being aborted.
            let _ = accepting.await;
        }
    }

    /// It listens again.
    ///
    /// # Panics
    /// When its port is taken.
    pub async fn comes_back(&self) {
        let listener = match TcpListener::bind(self.address).await {
            Ok(listener) => listener,
            Err(e) => panic!("Telegram cannot come back: {e}"),
        };
        let accepting = tokio::spawn(server::accept(listener, Arc::clone(&self.shared)));
        *self.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepting);
    }

    /// The next call of `method` whose text holds `words` meets this trouble.
    pub fn plan(&self, method: &'static str, words: &str, trouble: Trouble) {
        let words = words.to_owned();
        self.shared.state().planned.push(trouble::Planned { method, words, trouble });
    }

    /// Waits until every planned trouble and refusal has been met.
    pub async fn troubled(&self) {
        let met = |state: &mut State| (state.planned.is_empty() && state.refusals.is_empty()).then_some(());
        self.shared.wait_for(met).await;
    }

    /// From now on more calls than Telegram documents are a broken rule: 3 in 3 seconds in a chat, 20 a minute in a
    /// room, 30 a second in all, by its own watch.
    pub fn holds_to_pace(&self) {
        self.shared.state().watch.holds_to_pace = true;
    }

    /// The bot is removed from a room, or let in again.
    pub fn kicks(&self, room: &Chat, out: bool) {
        let mut state = self.shared.state();
        if out {
            state.kicked.insert(room.id());
        } else {
            state.kicked.remove(&room.id());
        }
    }

    /// Its address, for `channels.telegram.base_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A person.
    pub fn person(&self, id: i64, name: &str) -> Person {
        Person::new(Arc::clone(&self.shared), id, name)
    }

    /// A room with several people. Its id is negative, as Telegram's are.
    pub fn room(&self, id: i64, title: &str) -> Chat {
        let about = json!({ "id": id, "type": "supergroup", "title": title });
        self.shared.state().chats.insert(id, about);
        Chat::new(Arc::clone(&self.shared), id, None)
    }

    /// Hands the bot an update of any kind.
    pub fn update(&self, kind: &str, body: Value) {
        self.shared.push_update(kind, body);
    }

    /// The next call of `method` is answered with this error.
    pub fn refuse_next(&self, method: &'static str, code: u16, description: &str, retry_after: Option<u64>) {
        let description = description.to_owned();
        self.shared.state().refusals.push(Refusal { method, code, description, retry_after });
    }

    /// From now on another program polls for this bot, or stops to.
    pub fn another_poller(&self, polls: bool) {
        self.shared.state().foreign_poller = polls;
        self.shared.changed();
    }

    /// From now on the token is refused.
    pub fn refuse_token(&self) {
        self.shared.state().token_refused = true;
    }

    /// Everything that is handed over and delivered goes into this log.
    pub fn log_to(&self, log: PlatformLog) {
        self.shared.state().log = Some(log);
    }

    /// From now on sends meet trouble; `None` ends it.
    pub fn troubles(&self, troubles: Option<Troubles>) {
        self.shared.state().troubles = troubles;
    }

    /// From now on no file is given, however long the bot waits; or they are given again.
    pub fn holds_files(&self, holds: bool) {
        self.shared.state().holds_files = holds;
        self.shared.changed();
    }

    /// Of the files that are held, the next one is given.
    pub fn gives_one_file(&self) {
        self.shared.state().files_given += 1;
        self.shared.changed();
    }

    /// Files that the bot has asked for, in order.
    pub fn asked_for(&self) -> Vec<String> {
        self.shared.state().asked_for.clone()
    }

    /// Waits until the bot has asked for so many files.
    pub async fn comes_to_ask_for(&self, files: usize) {
        self.shared.wait_for(|state| (state.asked_for.len() >= files).then_some(())).await;
    }

    /// Everything the bot has sent.
    pub fn sent(&self) -> Vec<SentMessage> {
        self.shared.state().sent.clone()
    }

    /// How often the bot has polled.
    pub fn polls(&self) -> u64 {
        self.shared.state().polls
    }

    /// Waits until the bot has polled `count` times.
    pub async fn polled(&self, count: u64) {
        self.shared.wait_for(|state| (state.polls >= count).then_some(())).await;
    }

    /// Waits until every update was acknowledged: asked for with a higher offset.
    pub async fn acknowledged(&self) {
        self.shared.wait_for(|state| state.updates.is_empty().then_some(())).await;
    }

    /// Ends the server and fails the test for everything the bot did that it must not.
    ///
    /// # Panics
    /// When a rule of the Bot API was broken.
    pub fn finish(self) {
        self.accepting().iter().for_each(JoinHandle::abort);
        let violations = std::mem::take(&mut self.shared.state().violations);
        assert!(violations.is_empty(), "the bot broke rules of the Bot API:\n{}", violations.join("\n"));
    }
}

impl Drop for TelegramServer {
    fn drop(&mut self) {
        self.accepting().iter().for_each(JoinHandle::abort);
    }
}
