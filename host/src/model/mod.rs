//! The model providers: writes a request for one, sends it, and reads the answer.
//!
//! `gateway` calls this module for every attempt at a model call. A request comes in the Anthropic Messages wire, and
//! every answer leaves in it, whatever the provider speaks. The module adds the provider's key and hides it in what
//! comes back.
//!
//! It forwards no header of a box but the checked version of the wire, follows no redirect, and lets no request make a
//! provider fetch anything. It knows no socket and no run: who may call, and how often, is the gateway's to decide.
//!
//! | file | what |
//! |---|---|
//! | `request` | a request from a box, read into types: hostile bytes |
//! | `strict_json` | reads objects and lists strictly, and names the place in refusals |
//! | `attempt` | sends one request to one provider and reads its answer |
//! | `retry_policy` | decides whether a failed attempt is repeated |
//! | `provider` | settings, addresses, keys and HTTP clients |
//! | `anthropic`, `demo_model` | one wire each |
//! | `demo_plans` | reminders and tasks of the demo model |
//! | `openai`, `openai_answer`, `openai_stream` | the other wire: requests, what an answer holds, streams |
//! | `write_events` | writes server-sent events of the Messages wire |
//! | `normalise` | ids, names and arguments as every wire takes them |
//! | `opaque` | what an answer holds for its own provider only |
//! | `dialect` | how requests to a model are written beyond its wire, and what its refusals teach |
//! | `token_meter`, `price` | count tokens, and what they cost |
//! | `transcription` | turns voice messages into text |
//! | `redact`, `redact_events` | hide keys in streamed bytes, and in the texts of streamed events |
//! | `refusal` | decides what a provider's refusal means |
//! | `error` | errors in the shape that the Messages wire gives them |

pub mod anthropic;
pub mod attempt;
mod configured_providers;
pub mod demo_model;
mod demo_plans;
mod dialect;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
#[cfg(any(test, fuzzing))]
mod known_keys;
mod normalise;
mod opaque;
mod openai;
mod openai_answer;
mod openai_stream;
#[cfg(test)]
pub mod openai_test_chunks;
pub mod price;
mod redact;
mod redact_events;
mod refusal;
mod request;
#[cfg(test)]
mod request_property_tests;
pub mod retry_policy;
mod strict_json;
mod token_meter;
#[cfg(test)]
mod transcript_tests;
pub mod transcription;
pub mod write_events;

pub use configured_providers::{Provider, ProviderSettings, Remote, build};
pub use dialect::{Dialect, lower};
pub use error::{ApiError, ProviderError, Reason};
pub use redact::Redactor;
pub use request::ModelRequest;
pub use retry_policy::RetryLimits;
pub use token_meter::TokenMeter;
