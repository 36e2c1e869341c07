//! What `lazaret chat` and the host say to each other: one JSON object per line.

use serde::{Deserialize, Serialize};

use crate::domain::GroupName;

/// The socket's name in the host's own folder.
pub const SOCKET: &str = "host.sock";

/// From `lazaret chat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromClient {
    /// The first line of a client that talks to another group than `main`.
    Join { group: GroupName },
    /// The person wrote this. `id` is drawn by the client, so that a line sent twice is one message.
    Say { id: String, text: String },
    /// A part was shown.
    Shown { row: i64 },
}

/// To `lazaret chat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToClient {
    /// The client hears this group from here on; what came before was another's.
    Joined { group: GroupName },
    /// The line is stored.
    Accepted {
        /// The client's id of it.
        id: String,
        /// `m-12`; absent when it was not taken in (the host says why in a part of its own).
        message: Option<String>,
    },
    /// A part of a reply, or a notice.
    Part {
        /// Its row: a repeat has the same.
        row: i64,
        /// Whether the host itself speaks.
        notice: bool,
        /// `t-41`
        turn: Option<String>,
        /// The message it answers, where it answers one.
        answers: Option<String>,
        text: String,
    },
    /// What the agent does now.
    Doing { text: String },
    /// The reply so far.
    Draft { text: String },
    /// A turn is over.
    TurnOver {
        /// `t-41`
        turn: String,
        messages: Vec<String>,
        /// The folder of its letters, below the root.
        letters: Option<String>,
        /// How many parts it has.
        parts: u64,
    },
}
