//! The program inside the box. It reads the host's letters, lets a model work with tools, and writes letters back.
//!
//! The host starts it as the container's entrypoint. It has no settings and expects nothing of the image, not even a
//! shell: the `begin` letter holds its configuration, and the session's transcript holds its state. It may be killed
//! at any moment, so it must never act on something that the transcript does not hold yet.
//!
//! It is a library so that the fuzz targets (`tests/fuzz`) can call `fuzz_targets`; every module is private.
//!
//! Reading order: [`run_loop`] (one run, from `begin` to the exit), [`turn`] (one turn: [`turn::decide`] decides, the
//! rest performs), [`transcript`] (the stored conversation), [`mailbox`] (letters in both directions), [`model`],
//! [`tools`], [`prompt`].

#[macro_use]
mod failpoint;

mod box_paths;
mod command_line;
mod compaction_plan;
mod fatal;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod inspect_image;
mod local_time;
mod loopback_proxy;
mod mailbox;
mod memory;
mod model;
mod probe;
mod prompt;
mod run_loop;
#[cfg(feature = "test-door")]
pub mod test_door;
#[cfg(test)]
mod tests_support;
mod tool_policy;
mod tools;
mod transcript;
mod turn;
mod unlock_dirs;

pub use command_line::main;
