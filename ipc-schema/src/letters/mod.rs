//! The letters' bodies, one module per direction.
//!
//! The two directions trust differently. The host refuses any field it does not know, so every type in
//! [`from_agent`] denies unknown fields. The runner ignores what it does not know, so that a newer host can
//! talk to a box that an older one started; the types in [`to_agent`] are lenient.

pub mod from_agent;
pub mod to_agent;

pub use crate::requests::Request;
pub use from_agent::FromAgent;
pub use to_agent::ToAgent;
