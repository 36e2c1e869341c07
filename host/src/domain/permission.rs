//! Permissions that agents need where a group's rules say `ask`.

use serde::{Deserialize, Serialize};

/// What a question asks an owner to allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedPermission {
    pub tool: String,
    /// See [`AskPermission::commands`](ipc_schema::requests::AskPermission::commands).
    pub commands: Vec<String>,
    /// Whether the host performs the request with which the agent asked, once it is allowed. If not, the answer is the
    /// verdict, and the box acts.
    pub of_request: bool,
}
