//! Names and captions of files in a chat, and why a file or message was not taken.

use unicode_normalization::UnicodeNormalization;

use super::impersonation::neutralize_prefix;
use super::{label, one_line, size};

/// The name of a file in a chat: one line, a label and no path, with its extension.
pub fn file_name(wanted: &str) -> String {
    const STEM: usize = 60;
    const ENDING: usize = 12;
    // Compatibility forms first, as in a label: a full-width slash becomes a slash.
    let wanted: String = wanted.nfkc().collect();
    let last = wanted.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or_default();
    let (stem, ending) = match last.rsplit_once('.') {
        Some((stem, ending)) if ending.chars().count() <= ENDING => (stem, format!(".{}", label(ending))),
        _ => (last, String::new()),
    };
    let stem: String = label(stem).trim_start_matches(['.', ' ', '-']).chars().take(STEM).collect();
    let stem = if stem.trim().is_empty() { "file".to_owned() } else { stem };
    neutralize_prefix(&format!("{stem}{}", ending.trim_end_matches('.')))
}

/// A file and its caption, for a channel that can only show a path.
pub fn file_at(caption: &str, name: &str, bytes: u64, path: &str) -> String {
    let size = if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    };
    let line = format!("[file {name}, {size}: {path}]");
    if caption.is_empty() { line } else { format!("{caption}\n{line}") }
}

/// Stands below a reply that is sent as a file: how it begins, and where the rest is.
pub fn reply_as_file(begins: &str, bytes: u64) -> String {
    const BEGINNING: usize = 200;
    format!("{} (The reply has {}: all of it is in the file.)", one_line(begins, BEGINNING), size(bytes))
}

/// A message is longer than a letter can carry. Both numbers are in bytes.
pub fn too_long(bytes: usize, most: usize) -> String {
    format!(
        "That message has {} KiB; at most {} KiB fit. Send it as a file instead.",
        bytes.div_ceil(1024),
        most / 1024
    )
}

/// Both numbers are in bytes. The text is for the agent.
pub fn not_stored(bytes: u64, most: u64) -> String {
    format!("not stored: {} MiB, at most {} MiB are taken", bytes.div_ceil(1 << 20), most >> 20)
}
