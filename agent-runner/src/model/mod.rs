//! The model behind the gateway, as a trait: [`Gateway`] in a box, a script in tests. [`crate::turn`] calls it.

mod error_codes;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod gateway_client;
pub mod request;
mod stream;
mod thought_tags;

use std::cell::RefCell;
use std::rc::Rc;

use ipc_schema::letters::from_agent::ErrorDetail;

pub use gateway_client::Gateway;

use crate::transcript::Assistant;

/// One complete answer, as the transcript stores it.
pub type Answer = Assistant;

pub trait Model {
    /// Makes one call. `body` is a request of the Anthropic Messages API (`POST /v1/messages`, streaming); text is
    /// pushed to `draft` as it comes. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`CallError`], which says what may be tried again.
    async fn call(&self, body: String, draft: &Draft) -> Result<Answer, CallError>;

    /// Waits until the host can be reached again. Cancel safe.
    async fn wait_until_reachable(&self);
}

/// The text of an answer so far. The call writes it and the status loop reads it.
#[derive(Debug, Clone, Default)]
pub struct Draft(Rc<RefCell<String>>);

impl Draft {
    pub fn push(&self, text: &str) {
        self.0.borrow_mut().push_str(text);
    }

    /// The words so far, if they are longer than `seen` bytes.
    pub fn newer_than(&self, seen: usize) -> Option<String> {
        let text = self.0.borrow();
        Some(thought_tags::words_so_far(&text)).filter(|words| words.len() > seen).map(str::to_owned)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing answered on the socket. The host is restarting, so the call is repeated.
    #[error("no answer from the gateway: {reason}")]
    HostAway { reason: String },
    /// The answer stopped before its end, so the call is repeated.
    #[error("{reason}")]
    Cut { reason: String },
    /// The provider or the gateway refused the call. A repeat would fail too.
    #[error("{0}")]
    Failed(Failure),
}

/// A refusal by the provider or the gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", trouble.code, trouble.reason)]
pub struct Failure {
    /// Code and reason, as `turn_done` carries them.
    pub trouble: ErrorDetail,
    /// Whether compaction may help.
    pub too_long: bool,
    /// The context window, if the refusal states it.
    pub window: Option<u32>,
}
