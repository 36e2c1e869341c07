//! What people read, as WhatsApp formats it.

use crate::domain::outbound::{Part, PartText};
use crate::text;

/// A message of this length is still easy to read.
const TEXT_CHARS: usize = 4096;
const CAPTION_CHARS: usize = 1024;

pub(super) fn parts(markdown: &str) -> Vec<PartText> {
    let mut parts = Vec::new();
    let characters: Vec<char> = markdown.trim().chars().collect();
    for part in characters.chunks(TEXT_CHARS) {
        parts.push(part.iter().collect::<String>().into());
    }
    parts
}

pub(super) fn is_caption(caption: &str) -> bool {
    caption.chars().count() <= CAPTION_CHARS
}

pub(super) fn rendered(part: &Part) -> String {
    text::render(part.voice, &part.text)
}
