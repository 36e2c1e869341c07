//! A model server that answers from a test's script.
//!
//! [`ModelServer`] listens on 127.0.0.1 and speaks both wires of model providers from one script: Anthropic Messages
//! at `/v1/messages`, OpenAI chat completions at `/v1/chat/completions`. A script reads like a conversation:
//!
//! ```no_run
//! # async fn story() {
//! use journeys::model::ModelServer;
//! use serde_json::json;
//!
//! let model = ModelServer::start().await;
//! model.on("weather").runs("run_command", json!({ "command": "cat sky" })).says("It rains.");
//! // … a group asks about the weather …
//! model.finish();
//! # }
//! ```
//!
//! # The place of a request
//! The server counts nothing globally, so parallel groups do not disturb each other. It places a request by the
//! request's own transcript. The *anchor* is the last entry of the user in which a rule's text occurs; the step is the
//! number of the model's entries after the anchor. If several rules match in one entry, the rule whose text occurs
//! *last* counts, because the message that woke the agent comes after the context messages. A follow-up that matches no
//! rule keeps the current rule; one that matches starts its own rule. A repeated request, by a retry or by the next run
//! after a crash, has the same place and gets the same answer with new tool ids.
//!
//! Faults (`http`, `cut_after`, `garbage`) leave no entry in a transcript, so the server counts them: each comes before
//! the answer that follows it in the script, and is served once per transcript. The system prompt is not part of the
//! transcript here, because it contains the time and so changes between two attempts.
//!
//! # The checks
//! The server checks every request, whatever the script, against the rules of the API ([`check`]) and for the key. It
//! collects violations, which fail the test in [`ModelServer::finish`] or when the server is dropped.

mod check;
mod conversation;
mod gate;
pub mod media;
mod odd;
mod render;
mod script;
mod server;
pub mod strict;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use conversation::{Conversation, Entry as TalkEntry, Role};
pub use gate::Gate;
pub use script::{BadScript, Rule};

use check::Sent;
use script::Script;

/// The key that every request must carry: as `x-api-key`, or as a bearer token.
pub const KEY: &str = "sk-journeys-canary-7f3a9c51";

pub struct ModelServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone)]
pub struct Recorded {
    pub path: String,
    /// Its headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

/// The state that connections share with the test.
struct Shared {
    state: Mutex<State>,
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    script: Script,
    requests: Vec<Recorded>,
    violations: Vec<String>,
    sent: Sent,
    /// The number of faults served, per rule and transcript.
    faults: HashMap<(usize, u64), usize>,
    allowed: Allowed,
    last_id: u64,
    /// Answers the turns for which the script has no rule; see [`ModelServer::answer_with`].
    agent: Option<ScriptedAgent>,
    odd: Option<odd::Odd>,
    /// Chunks and pauses of the agent's answers.
    drips_all: Option<(usize, std::time::Duration)>,
    /// Words of conversations that the server refuses.
    refused: Vec<String>,
    counter: Option<TokenCounter>,
    max_window_share: f64,
}

/// A function from a conversation to the model's next step. It depends on the conversation alone, so a repeated request
/// gets the same answer.
pub type ScriptedAgent = Arc<dyn Fn(&Conversation) -> Does + Send + Sync>;

/// Counts the tokens of a request, and says how many the model reads.
type TokenCounter = (fn(&Value) -> u64, u64);

/// One answer of a [`ScriptedAgent`].
#[derive(Debug, Clone, PartialEq)]
pub enum Does {
    /// The model says this and ends its turn.
    Says(String),
    /// The model calls a tool.
    Runs(&'static str, Value),
    /// The model thinks, then does this.
    Thinks(String, Box<Does>),
}

/// The violations that a test has allowed.
#[derive(Default, Clone, Copy)]
struct Allowed {
    unscripted: bool,
    unstreamed: bool,
    keyless: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has already failed; its other requests continue.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelServer {
    /// Starts a server on a free port.
    pub async fn start() -> Self {
        let listener = match TcpListener::bind("127.0.0.1:0").await {
            Ok(listener) => listener,
            Err(error) => panic!("the scripted model cannot listen on 127.0.0.1: {error}"),
        };
        let address = match listener.local_addr() {
            Ok(address) => address,
            Err(error) => panic!("the scripted model has no address: {error}"),
        };
        let shared = Arc::new(Shared { state: Mutex::default(), count: watch::channel(0).0 });
        let accepting = tokio::spawn(server::accept(listener, Arc::clone(&shared)));
        Self { shared, address, accepting }
    }

    /// Returns the base URL for a provider of Anthropic's kind.
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the base URL for a provider of OpenAI's kind.
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Adds a rule for turns whose text contains `text`. An empty text matches every turn without another rule. The
    /// host escapes text for the agent's model (`&`, `<`, `>`), so choose words without these characters.
    pub fn on(&self, text: &str) -> Rule {
        script::add(&self.shared, script::When::Text(text.to_owned()))
    }

    /// Adds a rule for requests whose system prompt contains `text`, such as a summary's. It has precedence over all
    /// other rules.
    pub fn on_system(&self, text: &str) -> Rule {
        script::add(&self.shared, script::When::System(text.to_owned()))
    }

    /// Adds the rules of a script in JSON: `[{"on": "weather", "steps": [{"says": "It rains."}]}]`.
    pub fn load(&self, json: &str) -> Result<(), BadScript> {
        script::load(&self.shared, json)
    }

    /// Allows turns without a rule. They are answered "I have nothing scripted for: …".
    pub fn allow_unscripted(&self) {
        self.shared.state().allowed.unscripted = true;
    }

    /// Allows requests without `stream`.
    pub fn allow_unstreamed(&self) {
        self.shared.state().allowed.unstreamed = true;
    }

    /// Allows requests without the key.
    pub fn allow_keyless(&self) {
        self.shared.state().allowed.keyless = true;
    }

    /// Sends the answers of [`ModelServer::answer_with`] in chunks, with pauses.
    pub fn drips_all(&self, chunks: usize, pause: std::time::Duration) {
        self.shared.state().drips_all = Some((chunks, pause));
    }

    /// Lets `agent` answer the turns without a rule. From then on the server checks requests and does not keep them,
    /// because a long test makes many.
    pub fn answer_with(&self, agent: impl Fn(&Conversation) -> Does + Send + Sync + 'static) {
        self.shared.state().agent = Some(Arc::new(agent));
    }

    /// Counts tokens with `counter` from now on, and refuses a request that has more than `window`.
    pub fn counts_tokens(&self, counter: fn(&Value) -> u64, window: u64) {
        self.shared.state().counter = Some((counter, window));
    }

    /// Returns the size of the largest request so far, as a part of the window of [`ModelServer::counts_tokens`].
    pub fn max_window_share(&self) -> f64 {
        self.shared.state().max_window_share
    }

    /// Returns how many requests have come in.
    pub fn requests_so_far(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Answers this share of the calls oddly: with a refusal, a cut, or elements that some servers send.
    pub fn answer_oddly(&self, share: f64, seed: u64) {
        self.shared.state().odd = Some(odd::Odd::new(share, seed));
    }

    /// Refuses as invalid, from now on, every conversation that contains `words`.
    pub fn refuses(&self, words: &str) {
        self.shared.state().refused.push(words.to_owned());
    }

    /// Returns how many answers were odd.
    pub fn odd_answers(&self) -> u64 {
        self.shared.state().odd.as_ref().map_or(0, |odd| odd.played)
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().requests.clone()
    }

    /// Waits until `count` requests have come in.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut seen = self.shared.count.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = seen.wait_for(|seen| *seen >= count).await;
    }

    /// Returns the text of the last entry in which people wrote, from the last request.
    pub fn last_request_text(&self) -> String {
        self.last_conversation().map(|conversation| conversation.last_text()).unwrap_or_default()
    }

    /// Returns all results of tools in the last request's transcript, in order.
    pub fn tool_results(&self) -> Vec<String> {
        self.last_conversation().map(|conversation| conversation.results()).unwrap_or_default()
    }

    /// Returns the violations so far. They no longer fail the test.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().violations)
    }

    /// Stops the server. Panics if any request broke a rule.
    pub fn finish(self) {
        drop(self);
    }

    fn last_conversation(&self) -> Option<conversation::Conversation> {
        let state = self.shared.state();
        let last = state.requests.last()?;
        Some(conversation::Conversation::read(conversation::Wire::of_path(&last.path)?, &last.body))
    }
}

impl Drop for ModelServer {
    /// Violations also fail a test that does not call `finish`.
    fn drop(&mut self) {
        self.accepting.abort();
        let violations = self.take_violations();
        if !violations.is_empty() && !std::thread::panicking() {
            panic!("requests to the model broke rules:\n- {}", violations.join("\n- "));
        }
    }
}
