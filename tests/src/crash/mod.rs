//! The crash tests: simulated chats, a host that is killed again and again, and a checker.
//!
//! [`sweep`] hits each failpoint on its own. [`soak`] kills the host, boxes and the engine at random under load.
//! [`tasks`] does the same to tasks that fire each minute on a driven clock.
//! [`worker_panics`] makes the host's workers panic. [`database_invariants`] checks copies of the database that a crash
//! could have left. [`restart_and_start_measurements`] times restarts and starts. Most end with the [`checker`], which
//! reads only the [platform's log](platform_log) and the final database.

pub mod checker;
pub mod database_invariants;
pub mod model_answers;
pub mod platform_log;
pub mod restart_and_start_measurements;
mod simulation;
pub mod soak;
pub mod sweep;
pub mod tasks;
mod token;
pub mod two_hosts_at_once;
pub mod worker_panics;

pub use checker::{Evidence, Facts, Verdict};
pub use platform_log::PlatformLog;
pub use simulation::{Channel, Plan, Simulation};
pub use token::{Token, tokens};
