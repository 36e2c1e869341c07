//! The model behind the gateway.

mod error_codes;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod gateway_client;
pub mod request;
mod stream;

use std::cell::RefCell;
use std::rc::Rc;

use ipc_schema::letters::from_agent::Trouble;

pub use gateway_client::Gateway;

use crate::transcript::Assistant;

/// One whole answer, as the transcript keeps it.
pub type Answer = Assistant;

/// Something that answers a conversation: the gateway, or a script in tests.
pub trait Model {
    /// Makes one call. `body` is a request of the Anthropic Messages API (`POST /v1/messages`, streaming); text is
    /// pushed to `draft` as it comes. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`CallError`], which says what may be tried again.
    async fn call(&self, body: String, draft: &Draft) -> Result<Answer, CallError>;

    /// Waits until the host can be reached again. Cancel safe.
    async fn back(&self);
}

/// The text of an answer as far as it has come. Shared between the call and who watches it.
#[derive(Debug, Clone, Default)]
pub struct Draft(Rc<RefCell<String>>);

impl Draft {
    pub fn push(&self, text: &str) {
        self.0.borrow_mut().push_str(text);
    }

    /// The text so far, where it is longer than `seen` bytes.
    pub fn newer_than(&self, seen: usize) -> Option<String> {
        let text = self.0.borrow();
        (text.len() > seen).then(|| text.clone())
    }
}

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answered on the socket: the host is away, and comes back.
    #[error("no answer from the gateway: {reason}")]
    HostAway {
        /// What the connection said.
        reason: String,
    },
    /// An answer began and did not end.
    #[error("{reason}")]
    Cut {
        /// What was seen of it.
        reason: String,
    },
    /// The model's side refused.
    #[error("{0}")]
    Failed(Failure),
}

/// A refusal of the model's side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", trouble.code, trouble.reason)]
pub struct Failure {
    /// Code and reason, as `turn_done` says them.
    pub trouble: Trouble,
    /// Whether a shorter conversation would help.
    pub too_long: bool,
}
