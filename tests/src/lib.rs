//! The fixtures of the journeys: a real host with real directories and a real SQLite file, the real runner in real
//! containers (or in the engine stand-in's namespaces), and servers that stand in for the platforms and providers.

#![allow(missing_docs, reason = "many fixtures are clear by their names")]

pub mod bench;
pub mod crash;
pub mod database_crash_copies;
pub mod engine;
pub mod hostile;
pub mod longtalk;
pub mod model;
pub mod qr;
pub mod recording_proxy;
pub mod seat;
pub mod settings;
pub mod telegram;
pub mod terminal;
pub mod transcription;
pub mod world;
