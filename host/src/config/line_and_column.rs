//! Where a value stands in a settings file.

use std::path::Path;

use toml_edit::{Document, Item};

/// `lazaret.toml:3:8`, where a value begins. A value that is not in the file (it comes from the environment) has no
/// line: then it is the file, and the setting's name.
pub(super) fn of(path: &Path, text: &str, keys: &[&str]) -> String {
    match start(text, keys, None).and_then(|at| text.get(..at)) {
        Some(before) => at(path, before),
        None => format!("{}: {}", path.display(), keys.join(".")),
    }
}

/// `lazaret.toml:3`, the line of a list's member, written in one of the two ways that TOML has.
pub(super) fn of_member(path: &Path, text: &str, list: &[&str], n: usize) -> String {
    match start(text, list, Some(n)).and_then(|at| text.get(..at)) {
        Some(before) => format!("{}:{}", path.display(), before.matches('\n').count() + 1),
        None => path.display().to_string(),
    }
}

/// The place after this text.
pub(super) fn at(path: &Path, before: &str) -> String {
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    format!("{}:{line}:{column}", path.display())
}

fn start(text: &str, keys: &[&str], member: Option<usize>) -> Option<usize> {
    let file = Document::parse(text.to_owned()).ok()?;
    let item = keys.iter().try_fold(file.as_item(), |item: &Item, key| item.get(key))?;
    let span = match (item, member) {
        (Item::Value(value), Some(n)) => value.as_array()?.get(n)?.span(),
        (Item::ArrayOfTables(tables), Some(n)) => tables.get(n)?.span(),
        (item, _) => item.span(),
    };
    Some(span?.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_in_its_file_however_it_is_written() {
        let line = |text, list: &[&str], n| of_member(Path::new("f"), text, list, n);
        let inline = "persona = \"x\"\nmounts = [\n  { source = \"/a\" },\n  { source = \"/b\" },\n]\n";
        assert_eq!(line(inline, &["mounts"], 1), "f:4");
        let tables = "[[mounts]]\nsource = \"/a\"\n\n[[mounts]]\nsource = \"/b\"\n";
        assert_eq!(line(tables, &["mounts"], 1), "f:4");
        let install = "[mounts]\nallow = [\n  { path = \"/a\" },\n]\n";
        assert_eq!(line(install, &["mounts", "allow"], 0), "f:3");
        assert_eq!(line("", &["mounts"], 0), "f");
    }

    #[test]
    fn a_value_is_found_in_a_table_and_under_a_dotted_name() {
        let place = |text| of(Path::new("f"), text, &["limits", "pids"]);
        assert_eq!(place("[limits]\nturn = 5\npids =  0\n"), "f:3:9");
        assert_eq!(place("limits.pids = 0"), "f:1:15");
        assert_eq!(place("limits = { pids = 0 }"), "f:1:19");
        assert_eq!(place("[limits]\n"), "f: limits.pids");
    }
}
