//! Attacks on the box: a table of cases that the evil agent performs in real boxes, each with its requirements.
//!
//! The [`harness`] is a host with many groups whose runner is the evil agent. A [`case`](Case) is one message, `attack
//! NAME`. The reply reports the box's view of the attack; the host's log, counters, disk and chats show its effect on
//! the host. Every case also requires that the host takes the letter after the attack soon, answers another group
//! meanwhile, and survives.
//!
//! | file | contents |
//! |---|---|
//! | [`cases`] | all cases, which the other files hold by subject |
//! | [`gvisor_expectations`] | the requirements that differ under gVisor |
//! | [`harness`] | the host, its groups, and running one case |
//! | [`expectation_kinds`] | what a case can require |
//! | [`race_and_flood_measured`] | the race and the flood, measured |

mod box_ends;
mod cases;
mod expectation_kinds;
mod filesystem;
mod gvisor_expectations;
mod harness;
mod kernel;
mod letter_files;
mod letter_floods;
mod letters;
mod messages_and_replies;
mod network_and_gateway;
mod own_session;
pub mod race_and_flood_measured;
mod resources;

pub use cases::{Action, BoxUse, Case, RuntimeVariant, Terms, cases};
pub use expectation_kinds::{Expectation, Seen};
pub use harness::{Harness, Outcome, SLOTS};
