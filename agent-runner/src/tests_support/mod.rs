//! Test fixtures: a scripted model, a test host, a checker of API requests.

pub mod host;
pub mod messages_api_rules;
pub mod script;

use crate::box_paths::BoxPaths;
use crate::tools::{Shell, Toolbox};
use crate::transcript::Transcript;

/// A toolbox on an empty directory.
pub fn toolbox() -> Toolbox {
    Toolbox::new(BoxPaths::below("/nonexistent"), Shell::probe(), host::begin().limits)
}

pub fn transcript() -> (tempfile::TempDir, Transcript) {
    let dir = tempfile::tempdir().unwrap();
    let transcript = Transcript::load(dir.path().to_owned(), "s").unwrap();
    (dir, transcript)
}
