//! The tool `write_file`: writes a whole file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{LocalCall, LocalTool, Output, Running, Toolbox, define, file_access, local, one_line};
use crate::box_paths::BoxPaths;

pub(super) static TOOL: LocalTool = LocalTool {
    definition: define("write_file", ABOUT, properties, &["path", "content"]),
    read: |input| local::<Args>("write_file", input),
};

const ABOUT: &str = "Writes a whole text file and the directories above it; what the file held is replaced. Relative paths are below /workspace.";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    pub path: String,
    /// The file's complete text.
    pub content: String,
}

fn properties() -> Value {
    json!({ "path": { "type": "string" }, "content": { "type": "string" } })
}

impl LocalCall for Args {
    fn detail(&self) -> String {
        one_line(&self.path)
    }

    fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_> {
        Box::pin(toolbox.blocking(move |paths, _| run(paths, &self)))
    }
}

/// Writes it.
///
/// # Errors
/// For the model: what failed and what to do.
fn run(paths: &BoxPaths, args: &Args) -> Result<Output, String> {
    let path = paths.resolve(&args.path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| file_access::problem(paths, parent, &e))?;
    }
    overwrite(&path, args.content.as_bytes()).map_err(|e| file_access::problem(paths, &path, &e))?;
    Ok(Output::ok(format!("wrote {} bytes to {}", args.content.len(), paths.shown(&path))))
}

/// Replaces a file by writing a new one beside it and renaming it: a kill leaves the old text or the new one,
/// complete. The mode is kept, and a link is followed. A file whose owner or hard link a rename would lose, or in a
/// directory that takes no new names, is written in place.
///
/// # Errors
/// The error of the system; [`file_access::NotRegular`] for anything but a regular file.
pub fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, there) = match file_access::open_with(path, OFlags::WRONLY) {
        Ok(file) => (fs::canonicalize(path)?, Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
        Err(e) => return Err(e),
    };
    let seen = there.as_ref().map(File::metadata).transpose()?;
    let ours = rustix::process::geteuid().as_raw();
    if seen.as_ref().is_none_or(|seen| seen.nlink() == 1 && seen.uid() == ours) {
        match replace(&path, seen.map(|seen| seen.permissions()), bytes) {
            Err(e)
                if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidFilename) => {}
            done => return done,
        }
    }
    let mut file = match there {
        Some(file) => file,
        None => file_access::open_with(&path, OFlags::WRONLY | OFlags::CREATE)?,
    };
    // Truncated only here, after the check of the file type: O_TRUNC would already have acted at the open.
    file.set_len(0)?;
    file.write_all(bytes)
}

fn replace(path: &Path, rights: Option<fs::Permissions>, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    // Left by a container that was killed.
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let written = File::create_new(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        if let Some(rights) = rights {
            file.set_permissions(rights)?;
        }
        fs::rename(&part, path)
    });
    written.inspect_err(|_| drop(fs::remove_file(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::PermissionsExt;

    fn write(paths: &BoxPaths, path: &str, content: &str) -> Result<String, String> {
        run(paths, &Args { path: path.into(), content: content.into() }).map(|output| output.text)
    }

    #[test]
    fn directories_above_are_made_and_rights_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        assert_eq!(write(&paths, "a/b/run.sh", "one").unwrap(), "wrote 3 bytes to /workspace/a/b/run.sh");
        let path = paths.resolve("a/b/run.sh");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        write(&paths, "a/b/run.sh", "2").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
    }

    #[test]
    fn a_file_is_replaced_whole_and_its_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        let path = |name: &str| paths.resolve(name);
        write(&paths, "a", "one").unwrap();
        // Whoever has it open reads on in what it was.
        let mut open = File::open(path("a")).unwrap();
        std::os::unix::fs::symlink("a", path("link")).unwrap();
        write(&paths, "link", "two").unwrap();
        assert!(path("link").is_symlink());
        assert_eq!(io::read_to_string(&mut open).unwrap(), "one");
        assert_eq!(fs::read_to_string(path("a")).unwrap(), "two");
        fs::hard_link(path("a"), path("twin")).unwrap();
        write(&paths, "a", "three").unwrap();
        assert_eq!(fs::read_to_string(path("twin")).unwrap(), "three", "in place");
        std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
        write(&paths, "dangling", "x").unwrap();
        fs::write(path(".a.part"), "of a box that was killed").unwrap();
        fs::remove_file(path("twin")).unwrap();
        write(&paths, "a", "four").unwrap();
        assert_eq!(fs::read_to_string(path("a")).unwrap(), "four");
        assert!(!path(".a.part").exists());
        let long = "n".repeat(255);
        write(&paths, &long, "a name that leaves no room for another").unwrap();
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        std::fs::create_dir_all(paths.workspace()).unwrap();
        mknodat(CWD, paths.resolve("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        std::fs::write(paths.resolve("file"), "").unwrap();
        for (path, expected) in [("fifo", "FIFO"), (".", "is a directory"), ("file/x", "/workspace/file")] {
            let problem = write(&paths, path, "x").unwrap_err();
            assert!(problem.contains(expected), "{path}: {problem}");
        }
    }
}
