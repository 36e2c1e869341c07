//! Nothing lost, nothing said twice: a town of chats, a host that is killed again and again, and a checker.
//!
//! [`sweep`] meets every failpoint on its own; [`soak`] kills the host, the boxes and the engine at random under load;
//! [`panics`] makes the host's workers panic; [`invariants`] looks at what a crash would have left; [`measurements`]
//! answers the questions of an operator. Most end with the [`checker`], which knows nothing of how it was done: it
//! reads the [platform's log](log) and the final database, and says whether the promises were kept.

pub mod checker;
pub mod invariants;
pub mod log;
pub mod measurements;
pub mod panics;
pub mod scripted_agent;
mod simulation;
pub mod soak;
pub mod sweep;
mod terminal_clients;
mod token;

pub use checker::{Evidence, Facts, Verdict};
pub use log::PlatformLog;
pub use simulation::{Channel, Plan, Town};
pub use token::{Token, tokens};
