//! Attacks on the box: a table of cases that the evil agent performs in real boxes, each with its requirements.
//!
//! The [`harness`] is a host with many groups whose runner is the evil agent. A [`case`](Case) is one message, `attack
//! NAME`. The reply reports the box's view of the attack; the host's log, counters, disk and chats show its effect on
//! the host. Every case also requires that the host takes the letter after the attack soon, answers another group
//! meanwhile, and survives.
//!
//! | file | contents |
//! |---|---|
//! | [`table`] | all cases: [`files`], [`letters`], [`isolation`], [`kernel`], [`chats`] |
//! | [`gvisor_expectations`] | the requirements that differ under gVisor |
//! | [`harness`] | the host, its groups, and running one case |
//! | [`expectations`] | what a case can require |
//! | [`measurements`] | the race and the flood, measured |

mod chats;
mod expectations;
mod files;
mod floods;
mod gvisor_expectations;
mod harness;
mod isolation;
mod kernel;
mod letters;
pub mod measurements;
mod table;

pub use expectations::{Expectation, Seen};
pub use harness::{Harness, Outcome, SLOTS};
pub use table::{Action, BoxUse, Case, RuntimeVariant, Terms, cases};
