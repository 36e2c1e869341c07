//! The boundary between the trusted host and the box.
//!
//! Everything that crosses it is a *letter*: one JSON file, written under a dot-name and renamed into place. This crate
//! holds what both sides must agree on, and nothing else: the letters ([`letters`]), how their ids are derived
//! ([`ids`]), where the files lie ([`directory_layout`]), how one is written ([`letter_writer`]), what of a text both
//! sides read ([`text_sanitize`]), how the host reads a file that a hostile box may have made ([`untrusted_fs`]), and
//! how a model's streamed answer is parsed ([`server_sent_events`]). It knows no async runtime and reads no clock.
//!
//! `README.md` beside this crate is the protocol in prose; `schemas/` and `golden/` are its machine-readable
//! halves, both generated from these types and held to them by `tests/`.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make and read files as they like"))]

pub mod directory_layout;
pub mod envelope;
pub mod ids;
pub mod image_inventory;
pub mod letter_writer;
pub mod letters;
pub mod probe_report;
pub mod refusal;
pub mod requests;
pub mod server_sent_events;
pub mod sha256;
pub mod text_sanitize;
pub mod untrusted_fs;

pub use envelope::{FromAgentLetter, Letter, ToAgentLetter};
pub use ids::{GroupName, LetterId, MessageSeq, RunId, TurnId};
pub use refusal::{Refusal, RefusalCode};
pub use sha256::sha256_hex;

/// The protocol's major version: the `v` of every envelope. A letter of another major version is refused.
pub const VERSION: u32 = 1;

/// The minor version this build speaks. The runner states its own in `ready`; there is
/// one so far; a host that has more will write nothing newer than the smaller of the two.
pub const MINOR: u32 = 0;

/// The greatest size of one letter in bytes, envelope included. Larger things go by reference to a file in
/// `/inbox` or `/workspace`.
pub const LETTER_MAX_BYTES: u64 = 256 * 1024;
