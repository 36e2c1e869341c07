//! Finds a fuzz target of the host or the runner by its name.

/// A fuzz target.
pub type Target = fn(&[u8]);

pub fn target(name: &str) -> Option<Target> {
    let all =
        lazaret_host::fuzz_targets::FUZZ_TARGETS.iter().chain(&agent_runner::fuzz_targets::FUZZ_TARGETS);
    all.copied().find(|(its, _)| *its == name).map(|(_, target)| target)
}
