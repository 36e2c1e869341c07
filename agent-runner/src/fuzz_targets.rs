//! The fuzz targets of the runner: one for every parser that reads foreign bytes, those of the protocol included.
//! `tests/fuzz` calls them. Each does with the bytes what the runner does, and panics if a property does not hold. They
//! exist in fuzz builds and in tests, which run them over the committed corpus.

use ipc_schema::image_inventory::{ImageInventory, PROGRAMS};
use ipc_schema::names_and_paths::{self, FileName};
use ipc_schema::{FromAgentLetter, LETTER_MAX_BYTES, ToAgentLetter};

use crate::{model, prompt, tool_policy, transcript};

/// A fuzz target with its name.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// The fuzz targets of this crate, by name.
pub const FUZZ_TARGETS: [FuzzTarget; 9] = [
    ("answer_stream", model::fuzz_targets::answer_stream),
    ("file_name", file_name),
    ("frames", prompt::fuzz),
    ("from_agent", from_agent),
    ("model_error", model::fuzz_targets::model_error),
    ("image_inventory", image_inventory),
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
