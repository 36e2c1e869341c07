//! What Anthropic's API refuses in pictures and documents
//! (<https://platform.claude.com/docs/en/build-with-claude/vision>).

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::ImageReader;
use serde_json::Value;

const PICTURES_MAX: usize = 100;
/// The most bytes of a picture in base64, and the longest edge in pixels.
const PICTURE_BYTES_MAX: usize = 5 * 1024 * 1024;
const PICTURE_EDGE_MAX: u32 = 8_000;

/// A picture or document of a request: the media type and the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// The pictures and documents of a request in order, those of tools' results too. Content that is no base64 is empty.
pub fn of_request(body: &Value) -> Vec<Media> {
    let mut all = Vec::new();
    gather(&body["messages"], &mut all);
    all.iter().map(|block| media(block)).collect()
}

fn media(block: &Value) -> Media {
    let source = &block["source"];
    let bytes = BASE64_STANDARD.decode(source["data"].as_str().unwrap_or_default()).unwrap_or_default();
    Media { media_type: source["media_type"].as_str().unwrap_or_default().to_owned(), bytes }
}

fn gather<'a>(value: &'a Value, all: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, all)),
        Value::Object(_) if matches!(value["type"].as_str(), Some("image" | "document")) => all.push(value),
        // The arguments of a call are the model's own.
        Value::Object(_) => gather(&value["content"], all),
        _ => {}
    }
}

/// What the provider would refuse, in words.
pub(super) fn violations(body: &Value) -> Vec<String> {
    let mut blocks = Vec::new();
    gather(&body["messages"], &mut blocks);
    let mut broken: Vec<String> = blocks.iter().filter_map(|block| refused(block)).collect();
    if blocks.len() > PICTURES_MAX {
        broken.push(format!("more than {PICTURES_MAX} pictures"));
    }
    broken
}

fn refused(block: &Value) -> Option<String> {
    let Media { media_type, bytes } = media(block);
    let rule =
        |holds: bool, rule: &str| (!holds).then(|| format!("{rule}: {media_type}, {} bytes", bytes.len()));
    if block["source"]["type"] != "base64" || bytes.is_empty() {
        return rule(false, "the source is base64");
    }
    if block["type"] == "document" {
        let is_pdf = media_type == "application/pdf" && bytes.starts_with(b"%PDF-");
        return rule(is_pdf, "a document is a PDF");
    }
    let length = block["source"]["data"].as_str().map_or(0, str::len);
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format().ok()?;
    let named = reader.format().map(|format| format.to_mime_type());
    rule(length <= PICTURE_BYTES_MAX, "image exceeds 5 MB maximum")
        .or_else(|| rule(named == Some(&*media_type), "the media type is not that of the picture"))
        .or_else(|| match reader.decode() {
            Err(_) => rule(false, "could not process image"),
            Ok(picture) => {
                rule(picture.width().max(picture.height()) <= PICTURE_EDGE_MAX, "an edge exceeds 8000 pixels")
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageFormat};
    use serde_json::json;

    fn broken(kind: &str, media_type: &str, bytes: &[u8]) -> Vec<String> {
        let data = BASE64_STANDARD.encode(bytes);
        let block =
            json!({ "type": kind, "source": { "type": "base64", "media_type": media_type, "data": data } });
        violations(&json!({ "messages": [{ "role": "user", "content": [block] }] }))
    }

    #[test]
    fn a_picture_is_what_its_media_type_says_and_can_be_decoded() {
        let mut png = Cursor::new(Vec::new());
        DynamicImage::new_rgb8(4, 4).write_to(&mut png, ImageFormat::Png).unwrap();
        let png = png.into_inner();
        assert_eq!(broken("image", "image/png", &png), Vec::<String>::new());
        assert_eq!(broken("document", "application/pdf", b"%PDF-1.4"), Vec::<String>::new());
        for (kind, media_type, bytes, rule) in [
            ("image", "image/jpeg", &png[..], "not that of the picture"),
            ("image", "image/png", &png[..40], "could not process image"),
            ("image", "image/png", b"", "the source is base64"),
            ("document", "application/pdf", b"text", "a document is a PDF"),
        ] {
            assert!(broken(kind, media_type, bytes)[0].contains(rule), "{rule}");
        }
    }
}
