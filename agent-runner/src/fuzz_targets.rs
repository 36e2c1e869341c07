//! The fuzz targets of the runner: one for every parser that reads foreign bytes, those of the protocol included.
//! `tests/fuzz` calls them. Each does with the bytes what the runner does, and panics if a property does not hold. They
//! exist in fuzz builds and in tests, which run them over the committed corpus.

use ipc_schema::image_inventory::{ImageInventory, PROGRAMS};
use ipc_schema::memory_files::{self, Origin};
use ipc_schema::names_and_paths::{self, FileName};
use ipc_schema::{FromAgentLetter, LETTER_MAX_BYTES, ToAgentLetter, search_terms};

use crate::{model, prompt, sight, tool_policy, transcript};

/// A fuzz target with its name.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// The fuzz targets of this crate, by name.
pub const FUZZ_TARGETS: [FuzzTarget; 12] = [
    ("answer_stream", model::fuzz_targets::answer_stream),
    ("document", document),
    ("file_name", file_name),
    ("frames", prompt::fuzz),
    ("from_agent", from_agent),
    ("model_error", model::fuzz_targets::model_error),
    ("image_inventory", image_inventory),
    ("memory_file", memory_file),
    ("search_terms", search),
    ("shell_policy", tool_policy::fuzz),
    ("to_agent", to_agent),
    ("transcript", transcript::fuzz),
];

/// A letter of the box: an accepted letter serializes to the same letter and holds no NUL.
fn from_agent(data: &[u8]) {
    let Ok(letter) = FromAgentLetter::parse(data) else { return };
    assert!(data.len() as u64 <= LETTER_MAX_BYTES);
    assert!(
        names_and_paths::parse_name(letter.file_name().as_bytes()).is_ok()
            || letter.n == 0
            || letter.n > 9_999_999_999
    );
    let Ok(bytes) = letter.to_bytes() else { return };
    assert!(!bytes.contains(&0) && !String::from_utf8_lossy(&bytes).replace("\\\\", "").contains("\\u0000"));
    // What an unknown request carried is dropped, so what is written may be no letter any more; it is never another.
    if let Ok(again) = FromAgentLetter::parse(&bytes) {
        assert_eq!(again, letter);
    }
}

/// The image inventory that a box writes.
fn image_inventory(data: &[u8]) {
    let Ok(inventory) = ImageInventory::read(data) else { return };
    assert!(inventory.programs.len() <= PROGRAMS.len() && inventory.programs.is_sorted());
    let words = [Some(inventory.runner), inventory.system, inventory.shell];
    assert!(
        words.into_iter().flatten().all(|words| words.chars().count() <= 200 && !words.contains('\u{1b}'))
    );
}

/// A PDF document that somebody sent.
fn document(data: &[u8]) {
    let small = sight::check_document(data, 8_000);
    assert!(small.is_err() || sight::check_document(data, 200_000).is_ok(), "a larger model shows less");
}

/// A file of the memory: each entry is where it says, and a new one comes after them.
fn memory_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.split('\n').count();
    let entries = memory_files::entries("topics/x.md", &text);
    for entry in &entries {
        assert!(entry.line >= 1 && entry.line + entry.lines - 1 <= lines && !entry.text.is_empty());
        let _ = memory_files::remove(&text, entry.line, entry.lines);
    }
    let origin = Origin { date: "2026-11-30".into(), ..Origin::default() };
    let more = memory_files::append(&text, "x", &memory_files::render("a new fact", &origin));
    let read = memory_files::entries("topics/x.md", &more);
    assert_eq!(read.last().map(|entry| entry.text.as_str()), Some("a new fact"), "{more}");
}

/// A text to search in, and a query: no term has a quote, which would end it.
fn search(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(!search_terms::index_text(&text).contains('"'));
    let quotes = search_terms::match_expression(&text).map_or(0, |query| query.matches('"').count());
    assert!(quotes.is_multiple_of(2));
}

/// A letter of the host: an accepted letter serializes to the same letter.
fn to_agent(data: &[u8]) {
    let Ok(letter) = ToAgentLetter::parse(data) else { return };
    if let Ok(bytes) = letter.to_bytes() {
        assert_eq!(ToAgentLetter::parse(&bytes).ok(), Some(letter));
    }
}

/// A file name in a directory that the box can write.
fn file_name(data: &[u8]) {
    if let Ok(FileName::Letter { n, kind }) = names_and_paths::parse_name(data) {
        assert_eq!(names_and_paths::letter_name(n, kind).as_bytes(), data);
        assert!(n > 0 && (1..=32).contains(&kind.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs that a fuzz run has found once stay tested: every file of the corpus runs through its target.
    #[test]
    fn every_target_accepts_its_corpus() {
        for (name, target) in FUZZ_TARGETS {
            let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
            let files: Vec<_> = std::fs::read_dir(format!("{corpus}/{name}")).unwrap().collect();
            assert!(files.len() >= 2, "{name} has no corpus");
            for file in files {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
            target(b"");
            target(&[0xff; 64]);
        }
    }
}
