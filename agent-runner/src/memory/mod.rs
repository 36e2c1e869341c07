//! What the agent remembers of its group.

#[cfg_attr(not(feature = "test-door"), allow(dead_code, reason = "the tools that ask it come next"))]
pub mod index;
