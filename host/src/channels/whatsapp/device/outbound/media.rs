//! Uploads a file to WhatsApp's media servers. They store it encrypted; the message holds the key.

#![allow(clippy::disallowed_methods, reason = "the host's copies in the spool, which no box sees")]

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use whatsapp_rust::wacore::download::MediaType;
use whatsapp_rust::wacore::upload::{
    EncryptedMediaInfo, MediaEncryptor, UploadSource, encrypt_media_streaming, encrypted_len,
};
use whatsapp_rust::{Client, ErrorChainExt, anyhow, upload::UploadResponse};

use crate::channels::SendError;
use crate::domain::outbound::SpooledFile;
use crate::host_files::blocking;

/// Larger pictures, recordings and videos go as documents: phones refuse to show them.
const SHOWN_MAX: u64 = 16 << 20;
/// The bytes that tell what a file is.
const BEGINNING: usize = 64;

/// How WhatsApp shows a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Jpeg,
    Png,
    Mp4,
    /// Sound in Opus, the only one that every phone plays.
    Opus,
    Document,
}

impl Kind {
    /// Decides by the first bytes: WhatsApp takes any bytes under any name, and phones then show a broken picture.
    fn of(beginning: &[u8], name: &str, bytes: u64) -> Self {
        let at = |offset: usize, mark: &[u8]| beginning.get(offset..).is_some_and(|b| b.starts_with(mark));
        match () {
            () if bytes > SHOWN_MAX => Self::Document,
            () if at(0, b"\xff\xd8\xff") => Self::Jpeg,
            () if at(0, b"\x89PNG\r\n\x1a\n") => Self::Png,
            // Other files have this mark too, such as sound and pictures of Apple's.
            () if at(4, b"ftyp") && name.to_ascii_lowercase().ends_with(".mp4") => Self::Mp4,
            () if at(0, b"OggS") && at(28, b"OpusHead") => Self::Opus,
            () => Self::Document,
        }
    }

    /// WhatsApp shows no words below a sound. With words it goes as a document.
    pub fn with_caption(self, caption: &str) -> Self {
        if self == Self::Opus && !caption.is_empty() { Self::Document } else { self }
    }

    /// Returns the MIME type. A document's comes from its name.
    pub fn mime(self, name: &str) -> String {
        match self {
            Self::Jpeg => "image/jpeg".to_owned(),
            Self::Png => "image/png".to_owned(),
            Self::Mp4 => "video/mp4".to_owned(),
            Self::Opus => "audio/ogg; codecs=opus".to_owned(),
            Self::Document => mime_guess::from_path(name).first_or_octet_stream().to_string(),
        }
    }

    fn media(self) -> MediaType {
        match self {
            Self::Jpeg | Self::Png => MediaType::Image,
            Self::Mp4 => MediaType::Video,
            Self::Opus => MediaType::Audio,
            Self::Document => MediaType::Document,
        }
    }
}

/// Finds out how a file of the spool is shown.
pub(super) async fn kind(file: &SpooledFile, path: &Path) -> Result<Kind, SendError> {
    let (path, mut beginning) = (path.to_owned(), Vec::new());
    let beginning = read(move || {
        File::open(path)?.take(BEGINNING as u64).read_to_end(&mut beginning)?;
        Ok(beginning)
    });
    Ok(Kind::of(&beginning.await?, &file.name, file.bytes))
}

/// Encrypts and uploads a file, without holding it in memory.
pub(super) async fn upload(client: &Client, path: &Path, kind: Kind) -> Result<UploadResponse, SendError> {
    let source = path.to_owned();
    // The server wants to know the digest of what comes, so the file is encrypted twice with the same key.
    let info = read(move || encrypt_media_streaming(File::open(source)?, io::sink(), kind.media()));
    let info = info.await?;
    let encrypted = Encrypted::of(path, kind.media(), &info)?;
    client.upload_stream(encrypted, info, kind.media()).await.map_err(|e| not_uploaded(&e))
}

async fn read<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, anyhow::Error> + Send + 'static,
) -> Result<T, SendError> {
    let unreadable =
        |e| SendError::Refused { why: format!("the host cannot read its copy of the file: {e}") };
    blocking(work).await.map_err(unreadable)
}

fn not_uploaded(error: &anyhow::Error) -> SendError {
    let cause: &(dyn std::error::Error + 'static) = error.as_ref();
    match cause.http_status() {
        // The answer may hold anything, so only its status is told.
        Some(413) => SendError::Refused { why: "the file is too large for WhatsApp (413)".into() },
        Some(status) => SendError::NotArrived {
            why: format!("WhatsApp's media server refused the file ({status})"),
            after: None,
        },
        None => SendError::NotArrived { why: format!("the file was not uploaded: {error}"), after: None },
    }
}

/// A file as the media servers store it. It is encrypted while it is read.
struct Encrypted {
    path: PathBuf,
    key: [u8; 32],
    media: MediaType,
    length: u64,
}

impl Encrypted {
    fn of(path: &Path, media: MediaType, info: &EncryptedMediaInfo) -> Result<Self, SendError> {
        let length =
            usize::try_from(info.file_length).map(encrypted_len).ok().and_then(|n| u64::try_from(n).ok());
        let length = length.ok_or_else(|| SendError::Refused { why: "the file is too large".into() })?;
        Ok(Self { path: path.to_owned(), key: info.media_key, media, length })
    }
}

impl UploadSource for Encrypted {
    fn len(&self) -> u64 {
        self.length
    }

    fn reader_from(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let encryptor = MediaEncryptor::with_key(self.key, self.media).map_err(io::Error::other)?;
        let file = File::open(&self.path)?;
        let mut reader = EncryptedReader { file, encryptor: Some(encryptor), ready: Vec::new(), read: 0 };
        // Each block depends on those before it.
        io::copy(&mut (&mut reader).take(offset), &mut io::sink())?;
        Ok(Box::new(reader))
    }
}

struct EncryptedReader {
    file: File,
    /// Absent after the end of the file.
    encryptor: Option<MediaEncryptor>,
    ready: Vec<u8>,
    /// How much of `ready` was read.
    read: usize,
}

impl Read for EncryptedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut plain = [0; 8 << 10];
        while self.read == self.ready.len() {
            let Some(mut encryptor) = self.encryptor.take() else { return Ok(0) };
            self.ready.clear();
            self.read = 0;
            match self.file.read(&mut plain)? {
                0 => drop(encryptor.finalize(&mut self.ready).map_err(io::Error::other)?),
                n => {
                    encryptor.update(&plain[..n], &mut self.ready);
                    self.encryptor = Some(encryptor);
                }
            }
        }
        let n = (&self.ready[self.read..]).read(buffer)?;
        self.read += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use whatsapp_rust::wacore::upload::encrypt_media_with_key;

    #[test]
    fn the_first_bytes_tell_how_a_file_is_shown() {
        let ogg = [b"OggS".as_slice(), &[0; 24], b"OpusHead"].concat();
        for (beginning, name, expected) in [
            (b"\xff\xd8\xff\xe0".as_slice(), "a.jpg", Kind::Jpeg),
            (b"\x89PNG\r\n\x1a\n....", "a.jpg", Kind::Png),
            (b"not a picture", "a.jpg", Kind::Document),
            (b"\0\0\0\x20ftypisom", "a.MP4", Kind::Mp4),
            (b"\0\0\0\x20ftypheic", "a.heic", Kind::Document),
            (&ogg, "a.ogg", Kind::Opus),
            (b"OggS and something else", "a.ogg", Kind::Document),
            (b"", "a.png", Kind::Document),
        ] {
            assert_eq!(Kind::of(beginning, name, 1_000), expected, "{name}");
        }
        assert_eq!(Kind::of(b"\xff\xd8\xff", "a.jpg", SHOWN_MAX + 1), Kind::Document);
    }

    #[test]
    fn the_words_below_a_sound_are_not_lost() {
        assert_eq!(Kind::Opus.with_caption(""), Kind::Opus);
        assert_eq!(Kind::Opus.with_caption("The call of the wren"), Kind::Document);
        assert_eq!(Kind::Jpeg.with_caption("A wren"), Kind::Jpeg);
    }

    #[test]
    fn a_document_has_the_type_of_its_name() {
        for (name, mime) in [
            ("report.pdf", "application/pdf"),
            ("notes.md", "text/markdown"),
            ("data", "application/octet-stream"),
        ] {
            assert_eq!(Kind::Document.mime(name), mime);
        }
    }

    #[test]
    fn a_file_is_encrypted_while_it_is_read_from_any_place_on() {
        for length in [0, 1, 15, 16, 17, 8 << 10, 100_001] {
            let plain: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0] ^ 0x5a).collect();
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&plain).unwrap();
            let info = encrypt_media_streaming(plain.as_slice(), io::sink(), MediaType::Document).unwrap();
            let expected =
                encrypt_media_with_key(&plain, MediaType::Document, Some(&info.media_key)).unwrap();
            let encrypted = Encrypted::of(file.path(), MediaType::Document, &info).unwrap();
            assert_eq!(encrypted.len(), expected.data_to_upload.len() as u64);
            for offset in [0, 1, 16, expected.data_to_upload.len() / 2] {
                let mut read = Vec::new();
                encrypted.reader_from(offset as u64).unwrap().read_to_end(&mut read).unwrap();
                assert_eq!(read, expected.data_to_upload[offset..], "{length} bytes from {offset}");
            }
        }
    }
}
