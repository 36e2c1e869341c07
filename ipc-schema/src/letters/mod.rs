//! The bodies of letters, one module per direction, and the requests.
//!
//! The two directions are parsed differently. The host refuses unknown fields, so every type in [`from_agent`] denies
//! them. The runner ignores unknown fields, so that a newer host can talk to a box that an older one started; the
//! types in [`to_agent`] are lenient.

pub mod from_agent;
pub mod to_agent;

pub use crate::requests::Request;
pub use from_agent::FromAgent;
pub use to_agent::ToAgent;
