//! The crash tests: simulated chats, a host that is killed again and again, and a checker.
//!
//! [`sweep`] hits each failpoint on its own. [`soak`] kills the host, boxes and the engine at random under load.
//! [`panics`] makes the host's workers panic.
//! [`invariants`] checks copies of the database that a crash could have left. [`measurements`] times restarts and
//! starts. Most end with the [`checker`], which reads only the [platform's log](log) and the final database.

pub mod checker;
pub mod invariants;
pub mod model_answers;
pub mod panics;
pub mod platform_log;
pub mod restarts;
mod simulated_chats;
pub mod soak;
pub mod sweep;
mod terminal_clients;
mod token;

pub use checker::{Evidence, Facts, Verdict};
pub use platform_log::PlatformLog;
pub use simulated_chats::{Channel, Plan, Simulation};
pub use token::{Token, tokens};
