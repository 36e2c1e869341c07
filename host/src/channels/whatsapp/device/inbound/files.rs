//! The files of a message, as handles for a later download.

use whatsapp_rust::Jid;
use whatsapp_rust::waproto::whatsapp as wa;

use super::super::fetch::{Handle, Kind};
use crate::domain::message::OfferedFile;

/// What every kind of file in a message has.
struct Media<'a> {
    path: &'a Option<String>,
    key: &'a Option<Vec<u8>>,
    plain: &'a Option<Vec<u8>>,
    encrypted: &'a Option<Vec<u8>>,
    length: Option<u64>,
    mime: &'a Option<String>,
}

macro_rules! media {
    ($of:expr) => {
        $of.as_option().map(|m| Media {
            path: &m.direct_path,
            key: &m.media_key,
            plain: &m.file_sha256,
            encrypted: &m.file_enc_sha256,
            length: m.file_length,
            mime: &m.mimetype,
        })
    };
}

/// The longest address of a file on a media server. Real ones have some 200 characters.
const PATH: usize = 2048;

/// The message that holds a file.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub id: &'a str,
    pub chat: &'a Jid,
    /// In a room.
    pub author: Option<&'a Jid>,
}

/// The files of a message. One without an address or a key cannot be fetched, and is left out.
pub(super) fn of(m: &wa::Message, holder: Holder<'_>) -> Vec<OfferedFile> {
    let document = m.document_message.file_name.clone().filter(|name| !name.is_empty());
    let spoken = m.audio_message.ptt == Some(true);
    let audio = if spoken { "voice.ogg" } else { "audio" };
    let animated = m.video_message.gif_playback == Some(true);
    let video = if animated { "animation.mp4" } else { "video.mp4" };
    let named = document.as_deref().unwrap_or("document");
    [
        (media!(m.image_message), Kind::Image, "photo.jpg", "image/jpeg", false),
        (media!(m.video_message), Kind::Video, video, "video/mp4", false),
        (media!(m.ptv_message), Kind::Video, "video.mp4", "video/mp4", true),
        (media!(m.audio_message), Kind::Audio, audio, "audio/ogg", spoken),
        (media!(m.document_message), Kind::Document, named, "application/octet-stream", false),
        (media!(m.sticker_message), Kind::Sticker, "sticker.webp", "image/webp", false),
    ]
    .into_iter()
    .filter_map(|(media, kind, name, mime, spoken)| {
        let media = media?;
        let handle = Handle {
            // The address follows the server's name, so without the slash it could name another server.
            path: media.path.clone().filter(|path| path.starts_with('/') && path.len() <= PATH)?,
            key: media.key.clone().filter(|key| !key.is_empty())?,
            plain: media.plain.clone().unwrap_or_default(),
            encrypted: media.encrypted.clone().filter(|hash| !hash.is_empty())?,
            length: media.length,
            kind,
            message: holder.id.to_owned(),
            chat: holder.chat.clone(),
            author: holder.author.cloned(),
        };
        Some(OfferedFile {
            handle: handle.to_string(),
            name: name.to_owned(),
            mime: media.mime.clone().filter(|mime| !mime.is_empty()).unwrap_or_else(|| mime.to_owned()),
            bytes: media.length,
            spoken,
        })
    })
    .collect()
}
