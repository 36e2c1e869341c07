//! The HTTP client of the Bot API: one POST per method, JSON both ways, `{"ok":…}` around every answer
//! (<https://core.telegram.org/bots/api#making-requests>).
//!
//! Every URL contains the token, so no URL and no error with a URL leaves this file.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Url;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::channels::FetchError;
use crate::domain::Secret;
use crate::http::Clients;

/// The timeout of calls that Telegram answers at once.
pub(super) const QUICK: Duration = Duration::from_secs(30);
/// The timeout of an upload of 20 MiB over a slow line.
const UPLOAD: Duration = Duration::from_secs(240);
/// The timeout of a download of 20 MiB over a slow line.
const DOWNLOAD: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{what} ({code})")]
    Refused {
        /// Telegram's `error_code`.
        code: u16,
        /// Telegram's `description`.
        what: String,
        /// How long Telegram asks the host to wait.
        retry_after: Option<Duration>,
    },
    /// The chat has another id: a group has become a supergroup.
    #[error("{what}")]
    Moved { what: String, to: i64 },
    #[error("{why}")]
    Unreachable {
        why: String,
        /// Whether the request may have been written. Telegram may then have acted on it.
        written: bool,
    },
    /// The host cannot read the file to send; it made no call.
    #[error("{why}")]
    Unreadable { why: String },
    /// The response is not a Bot API answer.
    #[error("{why}")]
    Garbage { why: String, status: u16 },
}

#[derive(Deserialize)]
struct Answer<T> {
    ok: bool,
    result: Option<T>,
    error_code: Option<u16>,
    description: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Default, Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

#[derive(Deserialize)]
struct File {
    file_path: Option<String>,
}

pub(super) struct Api {
    client: reqwest::Client,
    base_url: String,
    token: Secret,
}

impl Api {
    pub(super) fn new(token: Secret, base_url: String) -> Result<Self, String> {
        let url = Url::parse(&base_url).map_err(|e| format!("{base_url:?}: {e}"))?;
        let client = Clients::default().of(&url).map_err(|e| e.to_string())?;
        Ok(Self { client, base_url, token })
    }

    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        ask: &serde_json::Value,
        within: Duration,
    ) -> Result<T, ApiError> {
        self.answered(self.post(method).json(ask).timeout(within)).await
    }

    /// Calls a method with a file and streams the file from the disk. `field` is the name of the form field.
    pub(super) async fn upload<T: DeserializeOwned>(
        &self,
        method: &str,
        ask: &serde_json::Value,
        field: &'static str,
        (path, name): (&Path, &str),
    ) -> Result<T, ApiError> {
        let unread =
            |e: io::Error| ApiError::Unreadable { why: format!("the spool's copy cannot be read: {e}") };
        let part = Part::file(path).await.map_err(unread)?.file_name(name.to_owned());
        // Telegram does not decode names encoded by RFC 5987: people would see the encoded form.
        let mut form = Form::new().percent_encode_noop();
        for (key, value) in ask.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            form = form.text(key.clone(), text);
        }
        self.answered(self.post(method).multipart(form.part(field, part)).timeout(UPLOAD)).await
    }

    fn post(&self, method: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}/bot{}/{method}", self.base_url, self.token.expose()))
    }

    async fn answered<T: DeserializeOwned>(&self, call: reqwest::RequestBuilder) -> Result<T, ApiError> {
        let answer = call.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        let answer: Answer<T> = serde_json::from_slice(&bytes).map_err(|e| match status.as_u16() {
            // A proxy, or a server in trouble, does not answer with the Bot API's format. It may have forwarded the
            // call.
            500.. => ApiError::Unreachable { why: format!("HTTP {status}"), written: true },
            status => {
                ApiError::Garbage { why: format!("HTTP {status}, and no answer of the Bot API: {e}"), status }
            }
        })?;
        match (answer.ok, answer.result) {
            (true, Some(result)) => Ok(result),
            (true, None) => {
                Err(ApiError::Garbage { why: "ok without a result".into(), status: status.as_u16() })
            }
            (false, _) => {
                let what = answer.description.unwrap_or_else(|| "no reason given".into());
                let parameters = answer.parameters.unwrap_or_default();
                if let Some(to) = parameters.migrate_to_chat_id {
                    return Err(ApiError::Moved { what, to });
                }
                let retry_after = parameters.retry_after.map(Duration::from_secs);
                Err(ApiError::Refused {
                    code: answer.error_code.unwrap_or(status.as_u16()),
                    what,
                    retry_after,
                })
            }
        }
    }

    /// Calls `getFile`, then downloads the file, and reads at most `most` bytes.
    pub(super) async fn download(&self, file_id: &str, most: u64) -> Result<Vec<u8>, FetchError> {
        let file: File =
            self.call("getFile", &json!({ "file_id": file_id }), QUICK).await.map_err(not_given)?;
        let path = file.file_path.ok_or_else(|| FetchError::Failed("Telegram gave no path for it".into()))?;
        let url = format!("{}/file/bot{}/{path}", self.base_url, self.token.expose());
        let answer =
            self.client.get(url).timeout(DOWNLOAD).send().await.map_err(unreachable).map_err(not_given)?;
        if !answer.status().is_success() {
            let why = format!("Telegram answered HTTP {}", answer.status());
            let passes = answer.status().is_server_error();
            return Err(if passes { FetchError::Away { why, after: None } } else { FetchError::Failed(why) });
        }
        let mut bytes = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(unreachable).map_err(not_given)?);
            if bytes.len() as u64 > most {
                return Err(FetchError::TooBig { bytes: bytes.len() as u64 });
            }
        }
        Ok(bytes)
    }
}

/// Classifies a failed call for a file: whether a retry can help.
fn not_given(error: ApiError) -> FetchError {
    let why = error.to_string();
    match error {
        ApiError::Unreachable { .. } => FetchError::Away { why, after: None },
        ApiError::Refused { retry_after: Some(after), .. } => FetchError::Away { why, after: Some(after) },
        ApiError::Refused { code: 500.., .. } | ApiError::Garbage { status: 500.., .. } => {
            FetchError::Away { why, after: None }
        }
        ApiError::Refused { .. }
        | ApiError::Moved { .. }
        | ApiError::Garbage { .. }
        | ApiError::Unreadable { .. } => FetchError::Failed(why),
    }
}

/// Formats the error without its URL and with its source. Only an error before the connection stands proves that
/// nothing was written; a connection that breaks later may have carried the call.
fn unreachable(error: reqwest::Error) -> ApiError {
    let error = error.without_url();
    let written = !(error.is_connect() || error.is_builder());
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    ApiError::Unreachable { why: text, written }
}
