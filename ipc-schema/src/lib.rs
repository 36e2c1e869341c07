//! The protocol between the trusted host and the box.
//!
//! A *letter* is one JSON file, written under a dot-name and renamed into place. This crate holds what host and runner
//! must agree on, and nothing else: the letters ([`letters`], [`envelope`]), their ids ([`ids`]), file names and paths
//! ([`names_and_paths`]), how a letter is written ([`letter_writer`]), the files of the two helper programs
//! ([`probe_report`], [`image_inventory`]), the room that a text takes in a letter ([`escaped`]), the files of the
//! memory ([`memory_files`], [`memory_dir`]), the cleaning of text that people wrote ([`text_sanitize`]), how the host
//! reads a file that a hostile box may have made ([`untrusted_fs`]), how a model's streamed answer is parsed
//! ([`server_sent_events`], [`lenient_json`]), and under which terms a text is found ([`search_terms`]). It uses no
//! async runtime and reads no clock.
//!
//! `README.md` beside this crate describes the protocol in prose. `schemas/` and `golden/` describe it for machines;
//! they are generated from these types, and `tests/` keeps them equal.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make and read files as they like"))]

pub mod envelope;
pub mod escaped;
pub mod ids;
pub mod image_inventory;
pub mod lenient_json;
pub mod letter_writer;
pub mod letters;
pub mod memory_dir;
pub mod memory_files;
pub mod memory_search;
pub mod names_and_paths;
pub mod probe_report;
pub mod refusal;
pub mod requests;
pub mod search_terms;
pub mod server_sent_events;
pub mod sha256;
pub mod text_sanitize;
pub mod untrusted_fs;

pub use envelope::{FromAgentLetter, Letter, ToAgentLetter};
pub use ids::{GroupName, LetterId, MessageSeq, RunId, TurnId};
pub use refusal::{Refusal, RefusalCode};
pub use sha256::sha256_hex;

/// The protocol's major version: the `v` of every envelope. Each side refuses a letter of another major version.
pub const VERSION: u32 = 1;

/// The minor version of this build. The runner states its own in `ready`, and the host writes nothing newer than the
/// smaller of the two.
pub const MINOR: u32 = 2;

/// The largest letter in bytes, envelope included. Larger content goes by reference to a file in `/inbox` or
/// `/workspace`.
pub const LETTER_MAX_BYTES: u64 = 256 * 1024;
