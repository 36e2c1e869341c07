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
//! # Where a request stands
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
//! # What is checked
//! The server checks every request, whatever the script, against the rules of the API ([`check`]) and for the key. It
//! collects violations, which fail the test in [`ModelServer::finish`] or when the server is dropped.

mod check;
mod conversation;
mod gate;
mod render;
mod script;
mod server;
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

/// A scripted model behind HTTP.
pub struct ModelServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its path.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Value,
}

/// What connections share with the test.
struct Shared {
    state: Mutex<State>,
    /// The number of requests so far.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    script: Script,
    requests: Vec<Recorded>,
    violations: Vec<String>,
    sent: Sent,
    /// Faults served, per rule and transcript.
    faults: HashMap<(usize, u64), usize>,
    allowed: Allowed,
    last_id: u64,
    /// Answers what the script is silent about; see [`ModelServer::answer_with`].
    agent: Option<ScriptedAgent>,
}

/// What a model of one agent does next: a function of the conversation alone, so that a request that is sent again gets
/// the same answer.
pub type ScriptedAgent = Arc<dyn Fn(&Conversation) -> Does + Send + Sync>;

/// One answer of such a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Does {
    /// It says this and ends its turn.
    Says(String),
    /// It calls a tool.
    Runs(&'static str, Value),
}

/// What a test has declared to be no violation.
#[derive(Default, Clone, Copy)]
struct Allowed {
    unscripted: bool,
    unstreamed: bool,
    keyless: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has failed already; its other requests go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelServer {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// When no port can be had.
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

    /// The base URL for a provider of Anthropic's kind.
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL for a provider of OpenAI's kind.
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// A rule for turns whose text contains `text`. An empty text stands in for every turn without a rule. In front
    /// of the agent's model text is escaped (`&`, `<`, `>`): choose words without them.
    pub fn on(&self, text: &str) -> Rule {
        script::add(&self.shared, script::When::Text(text.to_owned()))
    }

    /// A rule for requests whose system prompt contains `text`, such as a summary's. It goes before all others.
    pub fn on_system(&self, text: &str) -> Rule {
        script::add(&self.shared, script::When::System(text.to_owned()))
    }

    /// Adds the rules of a script in JSON: `[{"on": "weather", "steps": [{"says": "It rains."}]}]`.
    ///
    /// # Errors
    /// When the text is not such a script.
    pub fn load(&self, json: &str) -> Result<(), BadScript> {
        script::load(&self.shared, json)
    }

    /// Turns without a rule are answered "I have nothing scripted for: …", and that is no violation.
    pub fn allow_unscripted(&self) {
        self.shared.state().allowed.unscripted = true;
    }

    /// Requests without `stream` are no violation.
    pub fn allow_unstreamed(&self) {
        self.shared.state().allowed.unstreamed = true;
    }

    /// Requests without the key are no violation.
    pub fn allow_keyless(&self) {
        self.shared.state().allowed.keyless = true;
    }

    /// Turns that the script is silent about are answered by `agent`. From then on requests are checked and not kept:
    /// a long run makes many.
    pub fn answer_with(&self, agent: impl Fn(&Conversation) -> Does + Send + Sync + 'static) {
        self.shared.state().agent = Some(Arc::new(agent));
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().requests.clone()
    }

    /// Waits until `count` requests have come in.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut seen = self.shared.count.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = seen.wait_for(|seen| *seen >= count).await;
    }

    /// What people wrote in the last entry of the user of the last request.
    pub fn last_request_text(&self) -> String {
        self.last_conversation().map(|conversation| conversation.last_text()).unwrap_or_default()
    }

    /// What tools said, in order, in all of the last request's transcript.
    pub fn tool_results(&self) -> Vec<String> {
        self.last_conversation().map(|conversation| conversation.results()).unwrap_or_default()
    }

    /// The violations so far, which then no longer fail the test.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().violations)
    }

    /// Ends the test's business with the model.
    ///
    /// # Panics
    /// When any request broke a rule.
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
    /// Violations fail the test even where `finish` was forgotten.
    fn drop(&mut self) {
        self.accepting.abort();
        let violations = self.take_violations();
        if !violations.is_empty() && !std::thread::panicking() {
            panic!("the model was asked against the rules:\n- {}", violations.join("\n- "));
        }
    }
}
