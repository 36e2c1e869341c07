//! Turns recorded speech into text, at an endpoint with OpenAI's API
//! (<https://platform.openai.com/docs/api-reference/audio/createTranscription>). `run` calls it for voice messages.
//!
//! The text is what a machine heard in the words of a stranger: it goes to the agent as data, like any other text.

use std::time::Duration;

use bytes::Bytes;
use ipc_schema::text_sanitize;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};
use reqwest::multipart::{Form, Part};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::redact::Redactor;
use super::refusal::classify;
use crate::domain::transcription::TranscriptionChoice;
use crate::http::{Clients, HttpError, causes};

/// The longest text in characters: an hour of speech is some 50,000.
const TEXT_MAX: usize = 20_000;
/// The most bytes of an answer that are read.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;
/// How often an endpoint that cannot answer now is asked.
const TRIES: u32 = 2;
const PAUSE: Duration = Duration::from_secs(1);

/// A speech model at an endpoint.
pub struct Transcriber {
    choice: TranscriptionChoice,
    url: Url,
    client: reqwest::Client,
    redactor: Redactor,
}

/// Why there is no text. The agent reads it.
#[derive(Debug, thiserror::Error)]
pub enum NotHeard {
    #[error("it is larger than {} MiB (transcription.max_mib)", most >> 20)]
    TooLarge { most: u64 },
    #[error("the speech endpoint did not answer within {} s (transcription.timeout)", .0.as_secs())]
    Slow(Duration),
    #[error("the speech endpoint cannot be reached: {0}")]
    Away(String),
    #[error("the speech endpoint refused it ({status}): {said}")]
    Refused { status: u16, said: String },
    #[error("the speech endpoint's answer has no text")]
    Unreadable,
    #[error("the speech model heard no words in it")]
    Silent,
}

impl NotHeard {
    /// Whether another try may help.
    fn may_pass(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Refused { status, .. } => matches!(status, 429 | 500..),
            _ => false,
        }
    }
}

/// The endpoint cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum NotBuilt {
    #[error("transcription.base_url = {0:?} is no address")]
    Url(String),
    #[error(transparent)]
    Client(#[from] HttpError),
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

impl Transcriber {
    /// # Errors
    /// When its address cannot be used, or its HTTP client cannot be made.
    pub fn new(choice: &TranscriptionChoice) -> Result<Self, NotBuilt> {
        let url = Url::parse(&format!("{}/audio/transcriptions", choice.base_url.trim_end_matches('/')))
            .map_err(|_| NotBuilt::Url(choice.base_url.clone()))?;
        let client = Clients::default().of(&url)?;
        if url.scheme() == "http" && choice.key.is_some() && !crate::http::is_loopback(&url) {
            tracing::warn!(%url, "the key goes to the speech endpoint unencrypted (http://)");
        }
        Ok(Self { redactor: Redactor::new(&choice.key), choice: choice.clone(), url, client })
    }

    /// The longest wait for the recordings of one letter.
    pub fn time(&self) -> Duration {
        self.choice.timeout
    }

    /// The text of a recording. `name` tells its format by its ending.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn hear(
        &self,
        name: &str,
        mime: &str,
        recording: Bytes,
        until: Instant,
    ) -> Result<String, NotHeard> {
        if recording.len() as u64 > self.choice.max_bytes {
            return Err(NotHeard::TooLarge { most: self.choice.max_bytes });
        }
        let all = async {
            for tried in 1.. {
                match self.ask(name, mime, recording.clone()).await {
                    Err(e) if e.may_pass() && tried < TRIES => tokio::time::sleep(PAUSE).await,
                    answered => return answered,
                }
            }
            Err(NotHeard::Unreadable)
        };
        tokio::time::timeout_at(until, all).await.unwrap_or(Err(NotHeard::Slow(self.choice.timeout)))
    }

    async fn ask(&self, name: &str, mime: &str, recording: Bytes) -> Result<String, NotHeard> {
        let away = |e: reqwest::Error| NotHeard::Away(causes(&e));
        let part =
            Part::stream_with_length(recording.clone(), recording.len() as u64).file_name(name.to_owned());
        // A media type of the sender that is none is left out.
        let part = part.mime_str(mime).unwrap_or_else(|_| {
            Part::stream_with_length(recording.clone(), recording.len() as u64).file_name(name.to_owned())
        });
        let form = Form::new().text("model", self.choice.model.clone()).text("response_format", "json");
        let form = match &self.choice.language {
            Some(language) => form.text("language", language.clone()),
            None => form,
        };
        let mut request = self
            .client
            .post(self.url.clone())
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .multipart(form.part("file", part));
        if let Some(key) = &self.choice.key {
            let value = HeaderValue::try_from(format!("Bearer {}", key.expose()));
            let mut value = value.map_err(|_| NotHeard::Away("the key cannot be sent in a header".into()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let mut response = request.send().await.map_err(away)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(NotHeard::Unreadable);
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::OK {
            let said = self.redactor.text(&classify(status.as_u16(), None, &body).said);
            return Err(NotHeard::Refused { status: status.as_u16(), said: text_sanitize::line(&said, 200) });
        }
        let Answer { text } = serde_json::from_slice(&body).map_err(|_| NotHeard::Unreadable)?;
        let text = self.redactor.text(text.trim());
        match text.char_indices().nth(TEXT_MAX) {
            _ if text.is_empty() => Err(NotHeard::Silent),
            Some((end, _)) => Ok(format!("{} [the rest is left out]", &text[..end])),
            None => Ok(text),
        }
    }
}
