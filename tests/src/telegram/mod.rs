//! A fake Telegram server with the parts of the Bot API that a bot needs: long polls, offsets, timeouts, sent messages,
//! files, and errors as the documentation has them (<https://core.telegram.org/bots/api>).
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
//! balanced HTML, known chats, only one poller. A violation fails the test in [`TelegramServer::finish`].

mod buttons;
mod edits;
mod files;
mod html;
mod manners;
mod pace;
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

pub use buttons::Button;
pub use files::{SentFile, read_form};
pub use manners::ShownDraft;
pub use people::{ASKS, Chat, Document, PLACEHOLDER, Person, Photo};
pub use trouble::Trouble;

pub const TOKEN: &str = "4242:journeys-canary-token";
pub const BOT_ID: i64 = 4242;
/// The bot's name in mentions.
pub const BOT_NAME: &str = "laz_bot";

/// The token of another bot, which [`TelegramServer::has_another_bot`] brings.
pub const OTHER_TOKEN: &str = "4343:journeys-other-token";
const OTHER_ID: i64 = 4343;

pub struct TelegramServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// `None` while Telegram is down.
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// The probability of each failure, from 0 to 1.
#[derive(Debug, Clone)]
pub struct Troubles {
    /// The message is sent, and the connection is cut before the bot gets the answer.
    pub lost: f64,
    /// Telegram answers 429 and asks the bot to wait a second.
    pub busy: f64,
    /// A 502 that is not an answer of the Bot API.
    pub down: f64,
    /// The random number generator, with the seed of the test.
    pub chance: fastrand::Rng,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    pub chat: i64,
    pub topic: Option<i64>,
    /// The text that people read, without markup.
    pub text: String,
    /// The text that the bot sent.
    pub raw: String,
    /// The attached file. Then `text` is the caption, followed by the file's name in brackets.
    pub file: Option<SentFile>,
    pub message_id: i64,
    /// The message that it quotes.
    pub quotes: Option<i64>,
    pub buttons: Vec<Button>,
    /// The number of edits.
    pub edits: u32,
    pub deleted: bool,
}

/// An error that answers the next call of a method.
#[derive(Debug, Clone)]
struct Refusal {
    method: &'static str,
    code: u16,
    description: String,
    retry_after: Option<u64>,
}

struct Shared {
    state: Mutex<State>,
    /// Changes with every event. Long polls and tests wait for it.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    updates: VecDeque<Value>,
    next_update: i64,
    next_message: i64,
    chats: HashMap<i64, Value>,
    /// The messages of people, by chat and id.
    written: HashSet<(i64, i64)>,
    files: HashMap<String, Vec<u8>>,
    /// Ids of the files that the bot has requested, in order.
    asked_for: Vec<String>,
    holds_files: bool,
    /// The number of files that the server gives although it holds files.
    files_given: usize,
    sent: Vec<SentMessage>,
    queries: Vec<buttons::Query>,
    next_query: u64,
    queries_are_old: bool,
    /// By chat, the number of messages that the test has read.
    heard: HashMap<(i64, Option<i64>), usize>,
    typing: HashMap<i64, usize>,
    refusals: Vec<Refusal>,
    planned: Vec<trouble::Planned>,
    watch: pace::Watch,
    /// The new ids of groups that became supergroups.
    moved: HashMap<i64, i64>,
    /// Rooms that the bot was removed from.
    kicked: HashSet<i64>,
    drafts: Vec<ShownDraft>,
    /// The bot's reactions by chat and message.
    reactions: HashMap<(i64, i64), Vec<String>>,
    /// Those that the administrators allow, if they limit them.
    reactions_allowed: Option<Vec<String>>,
    /// The commands that the bot listed, and how often.
    commands: Value,
    command_lists: u64,
    polls: u64,
    polling: u64,
    foreign_poller: bool,
    /// Whether the bot with the other token is here instead of the first one.
    other_bot: bool,
    token_refused: bool,
    /// The longest text that is taken, in UTF-16 units, if it is shorter than the documented one.
    longest_text: Option<usize>,
    /// The log of the crash tests, if one was set.
    log: Option<PlatformLog>,
    troubles: Option<Troubles>,
    violations: Vec<String>,
}

impl State {
    fn push_update(&mut self, kind: &str, body: Value) {
        self.next_update += 1;
        let update_id = 1000 + self.next_update;
        self.updates.push_back(json!({ "update_id": update_id, kind: body }));
    }

    /// The id and the token of the bot.
    fn bot(&self) -> (i64, &'static str) {
        if self.other_bot { (OTHER_ID, OTHER_TOKEN) } else { (BOT_ID, TOKEN) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Waits until `inspect` returns a value.
    async fn wait_for<T>(&self, mut inspect: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = inspect(&mut self.state()) {
                return found;
            }
            // The sender lives in `self`, so this cannot fail.
            let _ = changes.changed().await;
        }
    }

    fn push_update(&self, kind: &str, body: Value) {
        self.state().push_update(kind, body);
        self.changed();
    }
}

impl TelegramServer {
    /// Starts a server on a free port.
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

    /// Takes the server down: it refuses connections and breaks the open ones.
    pub async fn goes_away(&self) {
        if let Some(accepting) = self.accepting() {
            accepting.abort();
            // The task was aborted, so it returns an error.
            let _ = accepting.await;
        }
    }

    /// Lets the server listen again on the same port.
    pub async fn comes_back(&self) {
        let listener = match TcpListener::bind(self.address).await {
            Ok(listener) => listener,
            Err(e) => panic!("Telegram cannot come back: {e}"),
        };
        let accepting = tokio::spawn(server::accept(listener, Arc::clone(&self.shared)));
        *self.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepting);
    }

    /// Lets the next call of `method` whose text contains `words` meet this failure.
    pub fn plan(&self, method: &'static str, words: &str, trouble: Trouble) {
        let words = words.to_owned();
        self.shared.state().planned.push(trouble::Planned { method, words, trouble });
    }

    /// Waits until every planned failure and refusal has happened.
    pub async fn troubled(&self) {
        let met = |state: &mut State| (state.planned.is_empty() && state.refusals.is_empty()).then_some(());
        self.shared.wait_for(met).await;
    }

    /// Makes more calls than Telegram documents a violation: 3 in 3 seconds in a chat, 20 a minute in a room, 30 a
    /// second in all. The server measures the rate itself.
    pub fn holds_to_pace(&self) {
        self.shared.state().watch.holds_to_pace = true;
    }

    /// Removes the bot from a room, or lets it in again.
    pub fn kicks(&self, room: &Chat, out: bool) {
        let mut state = self.shared.state();
        if out {
            state.kicked.insert(room.id());
        } else {
            state.kicked.remove(&room.id());
        }
    }

    /// Returns the server's address, for `channels.telegram.base_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn person(&self, id: i64, name: &str) -> Person {
        Person::new(Arc::clone(&self.shared), id, name)
    }

    /// Adds a room with several people. Its id is negative, as in Telegram.
    pub fn room(&self, id: i64, title: &str) -> Chat {
        let about = json!({ "id": id, "type": "supergroup", "title": title });
        self.shared.state().chats.insert(id, about);
        Chat::new(Arc::clone(&self.shared), id, None)
    }

    /// Turns a group into a supergroup with another id. Sends to the old id fail and name the new one.
    pub fn becomes_supergroup(&self, group: &Chat, id: i64) -> Chat {
        let mut state = self.shared.state();
        state.moved.insert(group.id(), id);
        let mut about = state.chats.remove(&group.id()).unwrap_or_default();
        (about["id"], about["type"]) = (json!(id), json!("supergroup"));
        state.chats.insert(id, about);
        Chat::new(Arc::clone(&self.shared), id, None)
    }

    /// Sends the bot an update of any kind.
    pub fn update(&self, kind: &str, body: Value) {
        self.shared.push_update(kind, body);
    }

    /// Sends the bot several updates in one answer.
    pub fn updates(&self, updates: Vec<(&str, Value)>) {
        let mut state = self.shared.state();
        for (kind, body) in updates {
            state.push_update(kind, body);
        }
        drop(state);
        self.shared.changed();
    }

    /// Has a file that the bot may download by this id.
    pub fn has_file(&self, id: &str, bytes: &[u8]) {
        self.shared.state().files.insert(id.to_owned(), bytes.to_vec());
    }

    /// Answers the next call of `method` with this error.
    pub fn refuse_next(&self, method: &'static str, code: u16, description: &str, retry_after: Option<u64>) {
        let description = description.to_owned();
        self.shared.state().refusals.push(Refusal { method, code, description, retry_after });
    }

    /// Sets whether another program polls for this bot.
    pub fn another_poller(&self, polls: bool) {
        self.shared.state().foreign_poller = polls;
        self.shared.changed();
    }

    /// Lets only the bot with the token [`OTHER_TOKEN`] call. It numbers messages and updates from the beginning.
    pub fn has_another_bot(&self) {
        let mut state = self.shared.state();
        state.other_bot = true;
        (state.next_message, state.next_update) = (0, 0);
        state.updates.clear();
    }

    /// Refuses longer texts from now on, for a reason of its own: shorter ones are within the documented limit.
    pub fn takes_texts_up_to(&self, units: Option<usize>) {
        self.shared.state().longest_text = units;
    }

    /// Refuses the token from now on.
    pub fn refuse_token(&self) {
        self.shared.state().token_refused = true;
    }

    /// Logs every message that the bot acknowledged or sent.
    pub fn log_to(&self, log: PlatformLog) {
        self.shared.state().log = Some(log);
    }

    /// Lets sends fail at random from now on; `None` ends it.
    pub fn troubles(&self, troubles: Option<Troubles>) {
        self.shared.state().troubles = troubles;
    }

    /// Sets whether the server holds files: it then answers no request for a file, however long the bot waits.
    pub fn holds_files(&self, holds: bool) {
        self.shared.state().holds_files = holds;
        self.shared.changed();
    }

    /// Gives the next one of the held files.
    pub fn gives_one_file(&self) {
        self.shared.state().files_given += 1;
        self.shared.changed();
    }

    /// Returns the ids of the files that the bot has requested, in order.
    pub fn asked_for(&self) -> Vec<String> {
        self.shared.state().asked_for.clone()
    }

    /// Waits until the bot has requested this number of files.
    pub async fn comes_to_ask_for(&self, files: usize) {
        self.shared.wait_for(|state| (state.asked_for.len() >= files).then_some(())).await;
    }

    /// Returns all messages that the bot has sent.
    pub fn sent(&self) -> Vec<SentMessage> {
        self.shared.state().sent.clone()
    }

    /// Waits until the bot has answered a press. Returns its first answer, and whether that is an alert.
    pub async fn answered(&self, query: &str) -> (String, bool) {
        let answer = |state: &mut State| {
            state.queries.iter().find(|q| q.id == query).and_then(|q| q.answers.first().cloned())
        };
        self.shared.wait_for(answer).await
    }

    /// Refuses answers to presses from now on, because they come too late.
    pub fn queries_grow_old(&self) {
        self.shared.state().queries_are_old = true;
    }

    /// Waits until the only button of a message says this.
    pub async fn comes_to_offer(&self, message: &SentMessage, text: &str) {
        let only = |state: &mut State| {
            let found =
                state.sent.iter().find(|m| (m.chat, m.message_id) == (message.chat, message.message_id));
            found.and_then(|m| (m.buttons.len() == 1 && m.buttons[0].text == text).then_some(()))
        };
        self.shared.wait_for(only).await;
    }

    /// Returns the names of the commands that the bot has listed for people.
    pub fn commands(&self) -> Vec<String> {
        let commands = self.shared.state().commands.clone();
        let names = commands.as_array().into_iter().flatten().filter_map(|c| c["command"].as_str());
        names.map(str::to_owned).collect()
    }

    /// Returns how often the bot has polled.
    pub fn polls(&self) -> u64 {
        self.shared.state().polls
    }

    /// Waits until the bot has polled `count` times.
    pub async fn polled(&self, count: u64) {
        self.shared.wait_for(|state| (state.polls >= count).then_some(())).await;
    }

    /// Waits until the bot has acknowledged every update, by a poll with a higher offset.
    pub async fn acknowledged(&self) {
        self.shared.wait_for(|state| state.updates.is_empty().then_some(())).await;
    }

    /// Stops the server. Panics if the bot broke a rule of the Bot API.
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
