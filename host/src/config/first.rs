//! Writes the first files of an install and of a group. It never overwrites a file.

#![allow(clippy::disallowed_methods, reason = "the first settings, in no mount")]

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Root;
use crate::host_files;

const FILES: [(&str, &str); 7] = [
    ("lazaret.toml", include_str!("../../lazaret.example.toml")),
    ("groups/main/CLAUDE.md", include_str!("../../../groups/main/CLAUDE.md")),
    ("groups/main/group.toml", include_str!("../../../groups/main/group.toml")),
    ("groups/global/CLAUDE.md", include_str!("../../../groups/global/CLAUDE.md")),
    ("groups/template/CLAUDE.md", include_str!("../../../groups/template/CLAUDE.md")),
    ("groups/template/group.toml", include_str!("../../../groups/template/group.toml")),
    (".gitignore", "*\n"),
];

/// Writes the files of a new install. Does nothing in an install that has a `groups/` folder.
///
/// # Errors
/// The file system's error.
pub fn lay_out(root: &Root) -> io::Result<()> {
    if host_files::there(&root.groups()) {
        return Ok(());
    }
    for (name, text) in FILES {
        write_new(&root.path().join(name), text)?;
    }
    Ok(())
}

/// Makes a group's folder from the install's template, or from the one in the binary.
///
/// # Errors
/// The file system's error.
pub fn add_group(root: &Root, name: &crate::domain::GroupName) -> io::Result<()> {
    for file in ["CLAUDE.md", "group.toml"] {
        let template = root.groups().join("template").join(file);
        let embedded = FILES.iter().find(|(path, _)| path.ends_with(&format!("template/{file}")));
        let text = match fs::read_to_string(&template) {
            Ok(text) => text,
            Err(_) => embedded.map_or_else(String::new, |(_, text)| (*text).to_owned()),
        };
        write_new(&root.groups().join(name.as_str()).join(file), &text)?;
    }
    Ok(())
}

/// Renames a group's folder, if there is one.
///
/// # Errors
/// The file system's error.
pub fn set_aside(folder: &Path, aside: &Path) -> io::Result<bool> {
    match fs::rename(folder, aside) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(path) {
        Ok(mut file) => io::Write::write_all(&mut file, text.as_bytes()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}
