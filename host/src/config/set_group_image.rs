//! Changes one setting in a group's file for `lazaret image`. Comments and everything else in the file stay as they
//! were.

#![allow(clippy::disallowed_methods, reason = "settings of the owner, in no mount")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use toml_edit::{DocumentMut, value};

use super::{ConfigError, Mistake, Root, read_or_empty};
use crate::domain::GroupName;

/// Writes `image = "…"` into a group's file.
///
/// # Errors
/// The file cannot be read, parsed or written. Nothing has changed then.
pub fn set_image(root: &Root, group: &GroupName, image: &str) -> Result<(), ConfigError> {
    let path = root.group_file(group);
    let failed =
        |what: String| ConfigError::from(Mistake::of(path.display().to_string(), what).coded("config.write"));
    let text = read_or_empty(&path)?;
    let changed = with_image(&text, image).map_err(|e| failed(format!("cannot be parsed: {e}")))?;
    if changed == text {
        return Ok(());
    }
    let dir = path.parent().ok_or_else(|| failed("has no folder".into()))?;
    fs::create_dir_all(dir).map_err(|e| failed(format!("its folder cannot be made: {e}")))?;
    let staged = dir.join(format!(".group.toml.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&staged)?;
        file.write_all(changed.as_bytes())?;
        // The same people can read and write it.
        if let Ok(old) = fs::metadata(&path) {
            file.set_permissions(old.permissions())?;
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&staged, &path)?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&staged);
        failed(format!("cannot be written: {e}"))
    })
}

fn with_image(text: &str, image: &str) -> Result<String, toml_edit::TomlError> {
    let mut file: DocumentMut = text.parse()?;
    match file.get_mut("image").and_then(|item| item.as_value_mut()) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = image.into();
            *old.decor_mut() = decor;
        }
        None => file["image"] = value(image),
    }
    Ok(file.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_around_the_image_stays() {
        let before = "# ours\nimage   = 'old' # why\n\n[limits]\nturn = \"5m\"\n";
        assert_eq!(
            with_image(before, "python:3.12").unwrap(),
            "# ours\nimage   = \"python:3.12\" # why\n\n[limits]\nturn = \"5m\"\n"
        );
        let tables = "[limits]\nturn = \"5m\"\n";
        let changed = with_image(tables, "busybox").unwrap();
        assert!(
            changed.starts_with("image = \"busybox\"\n"),
            "a key of its own, above every table: {changed}"
        );
        assert!(changed.ends_with(tables), "{changed}");
        assert_eq!(with_image("", "busybox").unwrap(), "image = \"busybox\"\n");
        assert!(with_image("image = ", "busybox").is_err());
    }

    #[test]
    fn the_file_is_replaced_whole_and_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        let group: GroupName = "family".parse().unwrap();
        set_image(&root, &group, "one").unwrap();
        let path = root.group_file(&group);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        set_image(&root, &group, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "image = \"two\"\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        fs::write(&path, "image = ").unwrap();
        assert_eq!(set_image(&root, &group, "three").unwrap_err().code(), "config.write");
        assert_eq!(fs::read_to_string(&path).unwrap(), "image = ");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }
}
