//! Fetches what people have sent: WhatsApp keeps a file encrypted on its media servers, and the message holds the key.

use std::fmt;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use whatsapp_rust::download::{DownloadParams, DownloadWriter, MediaDecryptionError, MediaType};
use whatsapp_rust::{
    Client, ErrorChainExt, Jid, MediaRetryResult, MediaReuploadError, MediaReuploadRequest, anyhow,
};

use crate::channels::FetchError;

/// What the host keeps of a file until it fetches it. It holds the file's key, so no log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handle {
    pub path: String,
    #[serde(with = "bytes")]
    pub key: Vec<u8>,
    #[serde(with = "bytes")]
    pub plain: Vec<u8>,
    #[serde(with = "bytes")]
    pub encrypted: Vec<u8>,
    /// As the sender states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    pub kind: Kind,
    /// The platform's id of the message, to ask its sender's phone for the file again.
    pub message: String,
    pub chat: Jid,
    /// The author of a message in a room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Jid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Image,
    Video,
    Audio,
    Document,
    Sticker,
}

/// Bytes as base64.
mod bytes {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD_NO_PAD.decode(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("kind", &self.kind)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl FromStr for Handle {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

impl Handle {
    fn params(&self) -> DownloadParams {
        let kind = match self.kind {
            Kind::Image => MediaType::Image,
            Kind::Video => MediaType::Video,
            Kind::Audio => MediaType::Audio,
            Kind::Document => MediaType::Document,
            Kind::Sticker => MediaType::Sticker,
        };
        let length = self.length.unwrap_or_default();
        DownloadParams::encrypted(&self.path, &self.key, &self.plain, &self.encrypted, length, kind)
    }
}

/// Fetches the file of a handle, at most `most` bytes. If the media servers have it no more, it asks the sender's phone
/// once to put it there again.
pub(super) async fn fetch(client: &Client, handle: &str, most: u64) -> Result<Vec<u8>, FetchError> {
    let mut handle: Handle =
        handle.parse().map_err(|_| FetchError::Failed("what the host stored of it is damaged".into()))?;
    if let Some(bytes) = handle.length.filter(|bytes| *bytes > most) {
        return Err(FetchError::TooBig { bytes });
    }
    match download(client, &handle, most).await {
        Err(Missed::Gone) => {}
        other => return other.map_err(Missed::into_error),
    }
    handle.path = again(client, &handle).await?;
    download(client, &handle, most).await.map_err(Missed::into_error)
}

/// Why a download failed.
#[derive(Debug, PartialEq, Eq)]
enum Missed {
    TooBig(u64),
    /// The servers have the file no more.
    Gone,
    /// The file is not what the message says.
    Damaged,
    Away(String),
}

const GONE: &str = "WhatsApp has it no more; the sender must send it again";

impl Missed {
    fn into_error(self) -> FetchError {
        match self {
            Self::TooBig(bytes) => FetchError::TooBig { bytes },
            Self::Gone => FetchError::Failed(GONE.into()),
            Self::Damaged => FetchError::Failed("WhatsApp gave another file than the message names".into()),
            Self::Away(why) => FetchError::Away { why, after: None },
        }
    }

    fn of(error: &anyhow::Error) -> Self {
        match error.http_status() {
            // The servers refuse an old address with 401 or 403. The library has asked again with new rights by now.
            Some(401 | 403 | 404 | 410) => Self::Gone,
            Some(status) => Self::Away(format!("the media servers answered {status}")),
            None if error.chain().any(|e| e.is::<MediaDecryptionError>()) => Self::Damaged,
            // The text of the error holds the file's address.
            None => Self::Away("WhatsApp's media servers did not give it".into()),
        }
    }
}

async fn download(client: &Client, handle: &Handle, most: u64) -> Result<Vec<u8>, Missed> {
    let over = Arc::new(AtomicBool::new(false));
    let writer = Capped { file: Cursor::default(), most, over: Arc::clone(&over) };
    match client.download_from_params_to_writer(&handle.params(), writer).await {
        Ok(writer) => Ok(writer.file.into_inner()),
        Err(_) if over.load(Ordering::Relaxed) => Err(Missed::TooBig(most.saturating_add(1))),
        Err(e) => Err(Missed::of(&e)),
    }
}

/// Asks the sender's phone to put the file on the servers again, and returns its new address.
async fn again(client: &Client, handle: &Handle) -> Result<String, FetchError> {
    let request = MediaReuploadRequest {
        msg_id: &handle.message,
        chat_jid: &handle.chat,
        media_key: &handle.key,
        is_from_me: false,
        participant: handle.author.as_ref(),
    };
    match client.media_reupload().request(&request).await {
        Ok(MediaRetryResult::Success { direct_path }) if direct_path.starts_with('/') => Ok(direct_path),
        Ok(_) | Err(MediaReuploadError::Timeout) => Err(FetchError::Failed(GONE.into())),
        Err(_) => Err(FetchError::Away { why: "the sender's phone could not be asked".into(), after: None }),
    }
}

/// Takes at most so many bytes.
struct Capped {
    file: Cursor<Vec<u8>>,
    most: u64,
    over: Arc<AtomicBool>,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.position().saturating_add(bytes.len() as u64) > self.most {
            self.over.store(true, Ordering::Relaxed);
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Capped {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl DownloadWriter for Capped {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::http::HttpStatusError;

    use super::*;

    fn handle() -> Handle {
        Handle {
            path: "/v/t62.7118-24/1?ccb=11-4".into(),
            key: vec![7; 32],
            plain: vec![1; 32],
            encrypted: vec![2; 32],
            length: Some(94_371_840),
            kind: Kind::Video,
            message: "3EB0C431".into(),
            chat: "120363021@g.us".parse().unwrap(),
            author: Some("123@lid".parse().unwrap()),
        }
    }

    #[test]
    fn a_handle_comes_back_from_the_store_and_shows_no_key() {
        let text = handle().to_string();
        assert_eq!(text.parse::<Handle>().unwrap(), handle());
        assert!(text.len() < 500, "{} bytes", text.len());
        assert_eq!(format!("{:?}", handle()), "Handle { kind: Video, length: Some(94371840), .. }");
        assert!("torn".parse::<Handle>().is_err());
    }

    #[test]
    fn a_download_ends_at_the_limit_whatever_length_the_sender_stated() {
        let over = Arc::new(AtomicBool::new(false));
        let mut writer = Capped { file: Cursor::default(), most: 5, over: Arc::clone(&over) };
        writer.write_all(b"12345").unwrap();
        assert!(!over.load(Ordering::Relaxed));
        writer.write_all(b"6").unwrap_err();
        assert!(over.load(Ordering::Relaxed));
        // The next server begins at the beginning.
        writer.truncate(0).unwrap();
        writer.rewind().unwrap();
        writer.write_all(b"abc").unwrap();
        assert_eq!(writer.file.into_inner(), b"abc");
    }

    #[test]
    fn what_the_media_servers_say_decides_whether_the_host_asks_again() {
        let refused = |status| anyhow::Error::new(HttpStatusError { status });
        for gone in [401, 403, 404, 410] {
            assert_eq!(Missed::of(&refused(gone)), Missed::Gone);
        }
        for later in [429, 500, 503] {
            assert!(matches!(Missed::of(&refused(later)).into_error(), FetchError::Away { .. }));
        }
        let away = Missed::of(&anyhow::anyhow!("https://mmg.whatsapp.net/v/secret: connection reset"));
        assert!(!away.into_error().to_string().contains("secret"));
        let damaged = anyhow::Error::new(MediaDecryptionError::InvalidMac);
        assert!(matches!(Missed::of(&damaged).into_error(), FetchError::Failed(_)));
    }
}
