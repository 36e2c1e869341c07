//! The targets by name: every door of the host and of the runner.

/// What a target is given bytes through.
pub type Door = fn(&[u8]);

/// The door of a target.
pub fn door(name: &str) -> Option<Door> {
    let all = lazaret_host::fuzz_targets::FUZZ_TARGETS.iter().chain(&agent_runner::fuzz_targets::FUZZ_TARGETS);
    all.copied().find(|(its, _)| *its == name).map(|(_, door)| door)
}
