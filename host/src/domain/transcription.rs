//! The endpoint that turns recorded speech into text, as the settings choose it.

use std::time::Duration;

use super::Secret;

#[derive(Debug, Clone)]
pub struct TranscriptionChoice {
    /// The address without the path that the API adds.
    pub base_url: String,
    /// The model's name there.
    pub model: String,
    /// A server of one's own may need none.
    pub key: Option<Secret>,
    /// The language that is spoken, such as `de`; the model finds out if there is none.
    pub language: Option<String>,
    /// The largest recording.
    pub max_bytes: u64,
    /// The longest wait for the recordings of one letter.
    pub timeout: Duration,
}
