//! The tool `edit_file`: replaces one exact text by another.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    LocalCall, LocalTool, Output, Running, Toolbox, define, file_access, local, one_line, write_file,
};
use crate::box_paths::BoxPaths;

pub(super) static TOOL: LocalTool = LocalTool {
    definition: define("edit_file", ABOUT, properties, &["path", "old", "new"]),
    read: |input| local::<Args>("edit_file", input),
};

const ABOUT: &str = "Replaces text in a file. `old` must stand in the file exactly as given, white space included, and only once; with `all`, every occurrence is replaced.";

/// Larger text files need a program such as sed.
const FILE_MAX_BYTES: u64 = 10 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    pub path: String,
    pub old: String,
    pub new: String,
    #[serde(default)]
    pub all: bool,
}

fn properties() -> Value {
    json!({
        "path": { "type": "string" },
        "old": { "type": "string", "description": "the exact text to replace" },
        "new": { "type": "string", "description": "the text to put there" },
        "all": { "type": "boolean", "description": "replace every occurrence" },
    })
}

impl LocalCall for Args {
    fn detail(&self) -> String {
        one_line(&self.path)
    }

    fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_> {
        Box::pin(toolbox.blocking(move |paths, _| run(paths, &self)))
    }
}

/// Edits it.
///
/// # Errors
/// For the model: what failed and what to do. Only a write that failed half-way changes the file.
fn run(paths: &BoxPaths, args: &Args) -> Result<Output, String> {
    let path = paths.resolve(&args.path);
    let text = file_access::read_text(paths, &path, FILE_MAX_BYTES)?;
    let (edited, count) =
        edit(&text, args).map_err(|problem| format!("{}: {problem}", paths.shown(&path)))?;
    write_file::overwrite(&path, edited.as_bytes()).map_err(|e| file_access::problem(paths, &path, &e))?;
    let lines = lines_of(&text, &args.old);
    Ok(Output::ok(format!("replaced {count} in {} at line {lines}", paths.shown(&path))))
}

fn edit(text: &str, Args { old, new, all, .. }: &Args) -> Result<(String, usize), String> {
    let (old, new) = (&with_line_ends_of(text, old), &with_line_ends_of(text, new));
    if old.is_empty() {
        return Err("`old` is empty; to write a file use write_file".into());
    }
    if old == new {
        return Err("`old` and `new` are the same".into());
    }
    // Two places that overlap are two: nobody knows which one is meant.
    let places = if *all { text.matches(old.as_str()).count() } else { overlapping(text, old) };
    match places {
        0 => Err(format!("`old` does not stand in the file{}", near_miss(text, old))),
        count if count > 1 && !all => Err(format!(
            "`old` stands there {count} times, at line {}; give more text around it, or set `all`",
            lines_of(text, old)
        )),
        count => Ok((text.replace(old.as_str(), new), count)),
    }
}

/// The text with the line ends of the file, if all of its lines end in CR LF: read_file does not show them.
fn with_line_ends_of(file: &str, text: &str) -> String {
    let (all, crlf) = (file.matches('\n').count(), file.matches("\r\n").count());
    if crlf > 0 && all == crlf && !text.contains('\r') { text.replace('\n', "\r\n") } else { text.to_owned() }
}

/// How often `old` stands in the text, overlapping places included. More than two are not counted.
fn overlapping(text: &str, old: &str) -> usize {
    let Some(first) = text.find(old) else { return 0 };
    let next = first + old.chars().next().map_or(1, char::len_utf8);
    let again = text.get(next..).is_some_and(|rest| rest.contains(old));
    if again { text.matches(old).count().max(2) } else { 1 }
}

/// Says so if only the white space differs, which is the most common mistake.
fn near_miss(text: &str, old: &str) -> String {
    let loose = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted = loose(old);
    if !wanted.is_empty() && loose(text).contains(&wanted) {
        return "; it does with other white space (blanks, tabs, line ends): read the file and copy it exactly".into();
    }
    "; read the file and copy the text exactly".into()
}

fn lines_of(text: &str, old: &str) -> String {
    const SHOWN: usize = 10;
    let mut lines: Vec<_> = text
        .match_indices(old)
        .take(SHOWN + 1)
        .map(|(at, _)| (text.get(..at).unwrap_or_default().matches('\n').count() + 1).to_string())
        .collect();
    if lines.len() > SHOWN {
        lines.truncate(SHOWN);
        lines.push("…".into());
    }
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(old: &str, new: &str, all: bool) -> Args {
        Args { path: "f".into(), old: old.into(), new: new.into(), all }
    }

    fn edited(text: &str, args: &Args) -> Result<String, String> {
        edit(text, args).map(|(text, _)| text)
    }

    #[test]
    fn a_unique_text_is_replaced() {
        assert_eq!(edited("a\nb\nc", &args("b\n", "x", false)).unwrap(), "a\nxc");
        assert_eq!(edited("a a a", &args("a", "b", true)).unwrap(), "b b b");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (old, new, expected) in [
            ("", "x", "empty"),
            ("a", "a", "the same"),
            ("zebra", "x", "does not stand in the file; read"),
            ("a  b", "x", "other white space"),
            ("a", "x", "3 times, at line 1, 2, 3"),
        ] {
            let problem = edited("a\tb\na\na", &args(old, new, false)).unwrap_err();
            assert!(problem.contains(expected), "{old:?}: {problem}");
        }
        let many = edited(&"a\n".repeat(50), &args("a", "x", false)).unwrap_err();
        assert!(many.contains("10, …"));
    }

    #[test]
    fn two_places_that_overlap_are_ambiguous() {
        let problem = edited("aaa", &args("aa", "b", false)).unwrap_err();
        assert!(problem.contains("2 times"), "{problem}");
        assert_eq!(edited("aaa", &args("aa", "b", true)).unwrap(), "ba");
        assert!(edited("é\né\né", &args("é\né", "b", false)).unwrap_err().contains("2 times"));
    }

    #[test]
    fn a_file_with_crlf_line_ends_keeps_them() {
        let file = "one\r\ntwo\r\nthree\r\n";
        assert_eq!(edited(file, &args("one\ntwo", "1\n2", false)).unwrap(), "1\r\n2\r\nthree\r\n");
        assert_eq!(edited(file, &args("two", "2\n2", false)).unwrap(), "one\r\n2\r\n2\r\nthree\r\n");
        assert_eq!(edited(file, &args("two\r\n", "", false)).unwrap(), "one\r\nthree\r\n");
        let mixed = edited("one\r\ntwo\nthree", &args("two\n", "2\n", false)).unwrap();
        assert_eq!(mixed, "one\r\n2\nthree");
    }

    #[test]
    fn a_file_is_edited_where_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        std::fs::create_dir_all(paths.workspace()).unwrap();
        std::fs::write(paths.resolve("f"), "one\ntwo\n").unwrap();
        let output = run(&paths, &args("two", "2", false)).unwrap();
        assert_eq!(output.text, "replaced 1 in /workspace/f at line 2");
        assert_eq!(std::fs::read_to_string(paths.resolve("f")).unwrap(), "one\n2\n");
        std::fs::write(paths.resolve("f"), b"\xff").unwrap();
        assert!(run(&paths, &args("two", "2", false)).unwrap_err().contains("UTF-8"));
    }
}
