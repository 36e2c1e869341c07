//! `write_file`: a whole file.

use std::io::Write;

use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Output, files};
use crate::places::Places;

/// What the model is told of it.
pub const ABOUT: &str = "Writes a whole text file and the directories above it; what the file held is replaced. Relative paths are below /workspace.";

/// Arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file.
    pub path: String,
    /// All of its text.
    pub content: String,
}

/// Its arguments, as JSON Schema.
pub fn properties() -> Value {
    json!({ "path": { "type": "string" }, "content": { "type": "string" } })
}

/// Writes it.
///
/// # Errors
/// Why not, in a sentence for the model.
pub fn run(places: &Places, args: &Args) -> Result<Output, String> {
    let path = places.resolve(&args.path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| files::problem(places, parent, &e))?;
    }
    overwrite(&path, args.content.as_bytes()).map_err(|e| files::problem(places, &path, &e))?;
    Ok(Output::ok(format!("wrote {} bytes to {}", args.content.len(), places.shown(&path))))
}

/// In place, not by rename: rights, owner and links of an existing file stay, and a program that watches it sees
/// what it expects. A crash in the middle is told as "it may have run".
///
/// # Errors
/// What the system says; [`files::NotRegular`] for what is no file.
pub fn overwrite(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = files::open_with(path, OFlags::WRONLY | OFlags::CREATE)?;
    // Only after the look at what it is: O_TRUNC would already have acted.
    file.set_len(0)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::PermissionsExt;

    fn write(places: &Places, path: &str, content: &str) -> Result<String, String> {
        run(places, &Args { path: path.into(), content: content.into() }).map(|output| output.text)
    }

    #[test]
    fn directories_above_are_made_and_rights_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(dir.path());
        assert_eq!(write(&places, "a/b/run.sh", "one").unwrap(), "wrote 3 bytes to /workspace/a/b/run.sh");
        let path = places.resolve("a/b/run.sh");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        write(&places, "a/b/run.sh", "2").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(dir.path());
        std::fs::create_dir_all(places.workspace()).unwrap();
        mknodat(CWD, places.resolve("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        std::fs::write(places.resolve("file"), "").unwrap();
        for (path, expected) in [("fifo", "FIFO"), (".", "is a directory"), ("file/x", "/workspace/file")] {
            let problem = write(&places, path, "x").unwrap_err();
            assert!(problem.contains(expected), "{path}: {problem}");
        }
    }
}
