//! The box under attack: one table of cases, each with what is required, acted by the evil agent in real boxes.
//!
//! The [`harness`] is a host with many groups whose runner is the evil agent. A [`case`](Case) is one message,
//! `attack NAME`; what the box saw comes back as the reply, and what the host did is read from its log, its counters,
//! its disk and its chats. Beside what a case requires itself, every case requires that the letter behind the attack
//! is taken soon, that another group is answered meanwhile, and that the host lives.
//!
//! | file | what |
//! |---|---|
//! | [`table`] | all cases: [`files`], [`letters`], [`boxes`], [`kernel`], [`chats`] |
//! | [`gvisor`] | what is required instead where the runtime is gVisor's |
//! | [`harness`] | the host, its groups, and how one case is run |
//! | [`judge`] | what a case may require |
//! | [`shows`] | the race and the flood, measured |

mod boxes;
mod chats;
mod expectations;
mod files;
mod floods;
mod gvisor;
mod harness;
mod kernel;
mod letters;
pub mod measurements;
mod table;

pub use expectations::{Expectation, Seen};
pub use harness::{Harness, Outcome, SLOTS};
pub use table::{Action, BoxUse, Case, RuntimeVariant, Terms, cases};
