//! The targets by name: every target of the host and of the runner.

/// What a target is given bytes through.
pub type Target = fn(&[u8]);

/// The target of a target.
pub fn target(name: &str) -> Option<Target> {
    let all = lazaret_host::fuzz_targets::FUZZ_TARGETS.iter().chain(&agent_runner::fuzz_targets::FUZZ_TARGETS);
    all.copied().find(|(its, _)| *its == name).map(|(_, target)| target)
}
