//! The tools `list_files` and `search_files`.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ignore::DirEntry;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{LocalCall, LocalTool, Output, Running, Toolbox, define, file_access, local, one_line};
use crate::box_paths::BoxPaths;

pub(super) static LIST: LocalTool = LocalTool {
    definition: define("list_files", LIST_ABOUT, list_properties, &[]),
    read: |input| local::<ListArgs>("list_files", input),
};

pub(super) static SEARCH: LocalTool = LocalTool {
    definition: define("search_files", SEARCH_ABOUT, search_properties, &["pattern"]),
    read: |input| local::<SearchArgs>("search_files", input),
};

const LIST_ABOUT: &str = "Lists files and directories with their sizes, sorted. What .gitignore names, .git, node_modules and such are left out unless `path` is inside them. With `glob`, only files that match.";
const SEARCH_ABOUT: &str = "Searches text files below `path` for a regular expression (Rust syntax: no look-around, no back-references; (?i) ignores case), line by line. Leaves out what list_files leaves out, and binary files.";

/// Entries in one list.
const LIST_MAX: usize = 500;
/// Entries beyond the list that are counted before the count becomes "at least".
const COUNT_MAX: usize = 100_000;
/// Matching lines in one answer.
const MATCHES_MAX: usize = 200;
/// Bytes of one answer.
const ANSWER_BYTES: usize = 30_000;
/// Characters of one line.
const LINE_MAX: usize = 300;
/// Bytes of one file that are searched.
const FILE_MAX_BYTES: u64 = 10 * 1024 * 1024;
/// Lines around a match.
const CONTEXT_MAX: u32 = 10;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListArgs {
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub glob: Option<String>,
    #[serde(default)]
    pub depth: Option<u32>,
}

fn list_properties() -> Value {
    json!({
        "path": { "type": "string", "description": "directory; /workspace by default" },
        "glob": { "type": "string", "description": "for example *.rs or docs/**" },
        "depth": { "type": "integer", "minimum": 1, "description": "levels to go down; 3 by default, no limit with a glob" },
    })
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchArgs {
    pub pattern: String,
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub glob: Option<String>,
    /// Lines around each match.
    #[serde(default)]
    pub context: Option<u32>,
}

fn search_properties() -> Value {
    json!({
        "pattern": { "type": "string", "description": "regular expression" },
        "path": { "type": "string", "description": "file or directory; /workspace by default" },
        "glob": { "type": "string", "description": "only files that match, for example *.py" },
        "context": { "type": "integer", "minimum": 0, "description": "lines to show around each match, at most 10" },
    })
}

impl LocalCall for ListArgs {
    fn detail(&self) -> String {
        one_line(self.path.as_deref().unwrap_or("."))
    }

    fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_> {
        Box::pin(toolbox.blocking(move |paths, stop| list(paths, &self, stop)))
    }
}

impl LocalCall for SearchArgs {
    fn detail(&self) -> String {
        one_line(&self.pattern)
    }

    fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_> {
        Box::pin(toolbox.blocking(move |paths, stop| search(paths, &self, stop)))
    }
}

/// Lists.
///
/// # Errors
/// For the model: what failed and what to do.
fn list(paths: &BoxPaths, args: &ListArgs, stop: &file_access::Stop) -> Result<Output, String> {
    let root = paths.resolve(args.path.as_deref().unwrap_or("."));
    let meta = std::fs::metadata(&root).map_err(|e| file_access::problem(paths, &root, &e))?;
    if !meta.is_dir() {
        return Err(format!("{} is not a directory; use read_file", paths.shown(&root)));
    }
    let default_depth = if args.glob.is_some() { None } else { Some(3) };
    let depth = args.depth.map(|d| d.max(1) as usize).or(default_depth);
    let mut lines = Vec::new();
    let mut more = 0;
    let only_files = args.glob.is_some();
    for entry in file_access::walk(&root, args.glob.as_deref(), depth, stop)? {
        let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
        if is_dir && only_files {
            continue;
        }
        if lines.len() < LIST_MAX {
            lines.push(list_line(&root, &entry));
        } else {
            more += 1;
        }
        if more == COUNT_MAX {
            break;
        }
    }
    if lines.is_empty() {
        return Ok(Output::ok(format!("nothing in {}", paths.shown(&root))));
    }
    if more > 0 {
        let least = if more == COUNT_MAX { "at least " } else { "" };
        lines.push(format!("…and {least}{more} more; name a deeper `path`, a `glob` or a smaller `depth`"));
    }
    Ok(Output::ok(lines.join("\n")))
}

fn list_line(root: &Path, entry: &DirEntry) -> String {
    let path = entry.path().strip_prefix(root).unwrap_or(entry.path()).display();
    match entry.file_type() {
        Some(kind) if kind.is_dir() => format!("{path}/"),
        Some(kind) if kind.is_symlink() => match std::fs::read_link(entry.path()) {
            Ok(target) => format!("{path} -> {}", target.display()),
            Err(_) => format!("{path} -> ?"),
        },
        _ => match entry.metadata() {
            Ok(meta) => format!("{path}  {} bytes", meta.len()),
            Err(_) => format!("{path}  ? bytes"),
        },
    }
}

/// Searches.
///
/// # Errors
/// For the model: what failed and what to do.
fn search(paths: &BoxPaths, args: &SearchArgs, stop: &file_access::Stop) -> Result<Output, String> {
    let pattern = RegexBuilder::new(&args.pattern)
        .size_limit(4 * 1024 * 1024)
        .build()
        .map_err(|e| format!("the pattern cannot be used: {e}"))?;
    let root = paths.resolve(args.path.as_deref().unwrap_or("."));
    let meta = std::fs::metadata(&root).map_err(|e| file_access::problem(paths, &root, &e))?;
    let mut found = Found::new(pattern, args.context.unwrap_or(0).min(CONTEXT_MAX) as usize);
    if meta.is_dir() {
        for entry in file_access::walk(&root, args.glob.as_deref(), None, stop)? {
            if entry.file_type().is_some_and(|kind| kind.is_file()) {
                let shown = entry.path().strip_prefix(&root).unwrap_or(entry.path()).display().to_string();
                found.search_file(entry.path(), &shown);
            }
        }
    } else {
        file_access::open(paths, &root)?;
        found.search_file(&root, &paths.shown(&root));
    }
    Ok(Output::ok(found.text(&paths.shown(&root))))
}

struct Found {
    pattern: Regex,
    context: usize,
    out: String,
    shown: usize,
    matches: usize,
    files: usize,
}

impl Found {
    fn new(pattern: Regex, context: usize) -> Self {
        Self { pattern, context, out: String::new(), shown: 0, matches: 0, files: 0 }
    }

    /// Skips an unreadable file: it must not end a search over a tree.
    fn search_file(&mut self, path: &Path, shown: &str) {
        let Ok(file) = file_access::open_with(path, rustix::fs::OFlags::RDONLY) else { return };
        let mut reader = BufReader::new(file.take(FILE_MAX_BYTES));
        if reader.fill_buf().map_or(true, file_access::looks_binary) {
            return;
        }
        self.files += 1;
        let mut bytes = Vec::new();
        if reader.read_to_end(&mut bytes).is_ok() {
            self.search_text(&String::from_utf8_lossy(&bytes), shown);
        }
    }

    fn search_text(&mut self, text: &str, shown: &str) {
        let lines: Vec<_> = text.lines().collect();
        let mut done = 0;
        for (index, line) in lines.iter().enumerate() {
            if !self.pattern.is_match(line) {
                continue;
            }
            self.matches += 1;
            if self.shown == MATCHES_MAX || self.out.len() > ANSWER_BYTES {
                continue;
            }
            self.shown += 1;
            let from = index.saturating_sub(self.context).max(done);
            let to = (index + self.context + 1).min(lines.len());
            if self.context > 0 && from > done && done > 0 {
                self.out.push_str("--\n");
            }
            for (at, line) in lines.iter().enumerate().take(to).skip(from) {
                let mark = if self.pattern.is_match(line) { ':' } else { '-' };
                self.out.push_str(&format!("{shown}{mark}{}{mark} {}\n", at + 1, cut(line)));
            }
            done = done.max(to);
        }
    }

    fn text(self, root: &str) -> String {
        if self.matches == 0 {
            return format!("no match in {} text files below {root}", self.files);
        }
        let more = self.matches - self.shown;
        let mut out = self.out;
        if more > 0 {
            out.push_str(&format!(
                "…and {more} more matching lines; narrow the pattern, the path or the glob"
            ));
        }
        out.trim_end().to_owned()
    }
}

fn cut(line: &str) -> String {
    let line = line.replace('\0', "\u{fffd}");
    match line.char_indices().nth(LINE_MAX) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree {
        _dir: tempfile::TempDir,
        paths: BoxPaths,
    }

    fn tree(files: &[(&str, &str)]) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        for (path, text) in files {
            let path = paths.resolve(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Tree { _dir: dir, paths }
    }

    impl Tree {
        fn list(&self, args: ListArgs) -> String {
            list(&self.paths, &args, &file_access::Stop::default()).unwrap().text
        }
        fn search(&self, args: SearchArgs) -> String {
            search(&self.paths, &args, &file_access::Stop::default()).unwrap().text
        }
    }

    fn pattern(pattern: &str) -> SearchArgs {
        SearchArgs { pattern: pattern.into(), ..SearchArgs::default() }
    }

    #[test]
    fn a_list_is_sorted_and_without_noise() {
        let tree = tree(&[
            ("b.txt", "12"),
            ("a/x.rs", ""),
            (".env", "k"),
            ("node_modules/m/index.js", ""),
            ("out/big", ""),
            (".gitignore", "out/\n"),
            (".home/.cache/x", ""),
            ("d/e/f/g/h", ""),
        ]);
        std::os::unix::fs::symlink("/etc", tree.paths.resolve("link")).unwrap();
        let all = tree.list(ListArgs::default());
        let names: Vec<_> = all.lines().map(|l| l.split("  ").next().unwrap()).collect();
        assert_eq!(
            names,
            [".env", ".gitignore", "a/", "a/x.rs", "b.txt", "d/", "d/e/", "d/e/f/", "link -> /etc"]
        );
        assert!(all.contains("b.txt  2 bytes"));
        assert_eq!(
            tree.list(ListArgs { glob: Some("*.rs".into()), ..ListArgs::default() }),
            "a/x.rs  0 bytes"
        );
        let inside = tree.list(ListArgs { path: Some("node_modules".into()), ..ListArgs::default() });
        assert_eq!(inside, "m/\nm/index.js  0 bytes");
    }

    #[test]
    fn a_long_list_says_how_much_is_left_out() {
        let tree = tree(&[]);
        let dir = tree.paths.resolve("many");
        std::fs::create_dir_all(&dir).unwrap();
        for n in 0..510 {
            std::fs::write(dir.join(n.to_string()), "").unwrap();
        }
        let text = tree.list(ListArgs { path: Some("many".into()), ..ListArgs::default() });
        assert_eq!(text.lines().count(), 501);
        assert!(text.contains("…and 10 more"));
    }

    #[test]
    fn matches_name_file_and_line() {
        let tree = tree(&[
            ("a.txt", "one\ntwo\nthree\nfour\nfive\nsix\ntwo"),
            ("b/c.md", "Two"),
            ("bin", "two\0"),
            ("node_modules/x", "two"),
        ]);
        assert_eq!(tree.search(pattern("two")), "a.txt:2: two\na.txt:7: two");
        assert_eq!(tree.search(pattern("(?i)^TWO$")), "a.txt:2: two\na.txt:7: two\nb/c.md:1: Two");
        let context = SearchArgs { context: Some(1), path: Some("a.txt".into()), ..pattern("two") };
        let expected = "/workspace/a.txt-1- one\n/workspace/a.txt:2: two\n/workspace/a.txt-3- three\n--\n/workspace/a.txt-6- six\n/workspace/a.txt:7: two";
        assert_eq!(tree.search(context), expected);
        assert!(tree.search(pattern("zebra")).starts_with("no match in 2 text files"));
        assert!(
            search(&tree.paths, &pattern("("), &file_access::Stop::default())
                .unwrap_err()
                .contains("pattern")
        );
    }

    #[test]
    fn a_flood_of_matches_is_counted_not_shown() {
        let tree = tree(&[("a", &"match\n".repeat(5_000)), ("b", &format!("match{}", "x".repeat(5_000)))]);
        let text = tree.search(pattern("match"));
        assert!(text.lines().count() <= 201 && text.contains("…and 4801 more"), "{}", text.lines().count());
        let long = tree.search(SearchArgs { path: Some("b".into()), ..pattern("match") });
        assert!(long.chars().count() < 400 && long.ends_with('…'));
    }

    #[test]
    fn a_walk_that_nobody_waits_for_ends() {
        let tree = tree(&[("a", "x")]);
        let stop = file_access::Stop::default();
        drop(stop.guard());
        assert!(stop.is_set());
        assert!(list(&tree.paths, &ListArgs::default(), &stop).unwrap().text.starts_with("nothing"));
    }
}
