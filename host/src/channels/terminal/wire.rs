//! The protocol between `lazaret chat` and the host: one JSON object per line.

use serde::{Deserialize, Serialize};

use crate::dispatch::Renewal;
use crate::domain::GroupName;

/// The socket's file name in the host's own folder.
pub const SOCKET: &str = "host.sock";

/// A line from `lazaret chat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromClient {
    /// The first line of a client that talks to another group than `main`.
    Join { group: GroupName },
    /// The person wrote this. The client draws `id`, so that a line sent twice is one message.
    Say { id: String, text: String },
    /// The client showed a part.
    Shown { row: i64 },
    /// End the boxes of this group: an idle one now, a working one after its turn.
    Renew { group: GroupName },
    /// `lazaret groups admit` has admitted a chat to this group.
    Admitted { group: GroupName },
    /// `lazaret tasks` has changed a task, or lets one fire now.
    TasksChanged,
}

/// A line to `lazaret chat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToClient {
    /// From here on the client receives this group's lines. Earlier lines belonged to another group.
    Joined { group: GroupName },
    /// The host stored the line.
    Accepted {
        /// The id that the client drew for the line.
        id: String,
        /// The message's id, such as `m-12`. It is absent if the host refused the message; a notice then says why.
        message: Option<String>,
    },
    /// A part of a reply, or a notice.
    Part {
        /// The part's row in the outbox. A repeated part has the same row.
        row: i64,
        /// Whether the host itself speaks.
        notice: bool,
        /// The turn's id, such as `t-41`.
        turn: Option<String>,
        /// The message that the part answers, where it answers one.
        answers: Option<String>,
        text: String,
    },
    /// A description of what the agent does now.
    Doing { text: String },
    /// The reply so far.
    Draft { text: String },
    /// The host ends the boxes of the group.
    Renewed { renewal: Renewal },
    /// A turn is over.
    TurnOver {
        /// The turn's id, such as `t-41`.
        turn: String,
        messages: Vec<String>,
        /// The folder of the turn's letters, below the root.
        letters: Option<String>,
        /// The number of parts of the turn.
        parts: u64,
    },
}
