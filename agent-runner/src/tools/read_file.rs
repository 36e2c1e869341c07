//! The tool `read_file`: reads a text file page by page.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{LocalCall, LocalTool, Output, Running, Toolbox, define, file_access, local, one_line};
use crate::box_paths::BoxPaths;
use crate::sight;
use crate::transcript::{FileKind, ShownFile};

pub(super) static TOOL: LocalTool = LocalTool {
    definition: define("read_file", ABOUT, properties, &["path"]),
    read: |input| local::<Args>("read_file", input),
};

const ABOUT: &str = "Reads a text file, at most 30 kB at once, and says how to go on when there is more. It also shows you a picture (JPEG, PNG, GIF, WebP) or a PDF document. Relative paths are below /workspace.";

const PAGE_BYTES: usize = 30_000;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    pub path: String,
    /// The first line, from 1.
    #[serde(default)]
    pub offset: Option<u64>,
    #[serde(default)]
    pub limit: Option<u64>,
}

fn properties() -> Value {
    json!({
        "path": { "type": "string" },
        "offset": { "type": "integer", "minimum": 1, "description": "first line, from 1" },
        "limit": { "type": "integer", "minimum": 1, "description": "number of lines" },
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

/// Reads a page. The file is streamed, so it may have any size.
///
/// # Errors
/// For the model: what the path is instead of a text file, and what to do.
fn run(paths: &BoxPaths, args: &Args) -> Result<Output, String> {
    let path = paths.resolve(&args.path);
    let (file, size) = file_access::open(paths, &path)?;
    let mut reader = BufReader::new(file);
    let failed = |e| file_access::problem(paths, &path, &e);
    let start = reader.fill_buf().map_err(failed)?;
    if let Some(kind) = sight::kind_of(start) {
        return show(&mut reader.into_inner(), kind, paths.shown(&path));
    }
    if file_access::looks_binary(start) {
        return Err(format!(
            "{} is binary ({size} bytes); look at it with run_command, for example `file` or `xxd | head`",
            paths.shown(&path)
        ));
    }
    let first = args.offset.unwrap_or(1).max(1);
    let skipped = skip_lines(&mut reader, first - 1).map_err(failed)?;
    if skipped < first - 1 {
        return Err(format!("{} has only {skipped} lines", paths.shown(&path)));
    }
    let page = read_page(&mut reader, args.limit.unwrap_or(u64::MAX)).map_err(failed)?;
    Ok(Output::ok(page.text(first, size)))
}

/// The request shows the file beside the result.
fn show(file: &mut File, kind: FileKind, path: String) -> Result<Output, String> {
    file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
    let content = sight::whole(file).map_err(|why| format!("{path} cannot be shown: {why}"))?;
    let (sha256, bytes) = (ipc_schema::sha256_hex(&content), content.len() as u64);
    let text = format!("{path} ({bytes} bytes):");
    Ok(Output { shown: Some(ShownFile { kind, path, sha256, bytes }), ..Output::ok(text) })
}

fn skip_lines(reader: &mut impl BufRead, lines: u64) -> std::io::Result<u64> {
    for skipped in 0..lines {
        if reader.skip_until(b'\n')? == 0 {
            return Ok(skipped);
        }
    }
    Ok(lines)
}

#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    lines: u64,
    more: bool,
    /// The first line is longer than a page and was cut.
    line_cut: bool,
}

fn read_page(reader: &mut impl BufRead, limit: u64) -> std::io::Result<Page> {
    let mut page = Page::default();
    while page.lines < limit {
        let mut line = Vec::new();
        // One byte beyond the page is enough to know that a line does not fit.
        let room = (PAGE_BYTES + 1) as u64;
        let read = std::io::Read::take(&mut *reader, room).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(page);
        }
        if page.bytes.len() + line.len() > PAGE_BYTES {
            page.more = true;
            if page.lines == 0 {
                line.truncate(PAGE_BYTES);
                page.bytes = line;
                page.lines = 1;
                page.line_cut = true;
            }
            return Ok(page);
        }
        page.bytes.extend(line);
        page.lines += 1;
    }
    page.more = !reader.fill_buf()?.is_empty();
    Ok(page)
}

impl Page {
    fn text(self, first: u64, size: u64) -> String {
        if self.bytes.is_empty() && first == 1 {
            return "(the file is empty)".into();
        }
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.line_cut {
            text.push_str(&format!(
                "\n[line {first} is longer than {PAGE_BYTES} bytes and cut here; for the rest use run_command (cut -c, \
                 dd). The next line is offset={}.]",
                first + 1
            ));
        } else if self.more {
            let last = first + self.lines - 1;
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!(
                "[lines {first} to {last} of a file of {size} bytes; go on with offset={}]",
                last + 1
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    fn paths() -> (tempfile::TempDir, BoxPaths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        std::fs::create_dir_all(paths.home()).unwrap();
        (dir, paths)
    }

    fn read(paths: &BoxPaths, path: &str, offset: Option<u64>, limit: Option<u64>) -> Result<String, String> {
        run(paths, &Args { path: path.into(), offset, limit }).map(|output| output.text)
    }

    #[test]
    fn paging_by_the_answers_own_advice_gives_the_whole_file() {
        let (_dir, paths) = paths();
        let whole: String = (0..9000).map(|n| format!("line {n} ä\n")).collect();
        std::fs::write(paths.resolve("big"), &whole).unwrap();
        let (mut all, mut offset, mut pages) = (String::new(), None, 0);
        loop {
            let page = read(&paths, "big", offset, None).unwrap();
            pages += 1;
            match page.split_once("[lines ") {
                Some((text, advice)) => {
                    all.push_str(text);
                    offset = advice.rsplit('=').next().and_then(|n| n.trim_end_matches(']').parse().ok());
                    assert!(offset.is_some());
                }
                None => {
                    all.push_str(&page);
                    break;
                }
            }
        }
        assert_eq!(all, whole);
        assert!(pages > 2);
    }

    #[test]
    fn a_slice_is_what_was_asked_for() {
        let (_dir, paths) = paths();
        std::fs::write(paths.resolve("f"), "a\nb\nc\nd").unwrap();
        assert_eq!(
            read(&paths, "f", Some(2), Some(2)).unwrap(),
            "b\nc\n[lines 2 to 3 of a file of 7 bytes; go on with offset=4]"
        );
        assert_eq!(read(&paths, "f", Some(4), None).unwrap(), "d");
        assert_eq!(read(&paths, "f", Some(9), None).unwrap_err(), "/workspace/f has only 4 lines");
        std::fs::write(paths.resolve("e"), "").unwrap();
        assert_eq!(read(&paths, "e", None, None).unwrap(), "(the file is empty)");
    }

    #[test]
    fn a_line_longer_than_a_page_is_cut_and_named() {
        let (_dir, paths) = paths();
        std::fs::write(paths.resolve("f"), format!("{}\nshort\n", "x".repeat(100_000))).unwrap();
        let page = read(&paths, "f", None, None).unwrap();
        assert!(page.len() < 31_000 && page.contains("offset=2"));
        assert_eq!(read(&paths, "f", Some(2), None).unwrap(), "short\n");
    }

    #[test]
    fn what_is_no_text_file_is_named_and_hangs_nobody() {
        let (dir, paths) = paths();
        std::fs::write(paths.resolve("bin"), b"ab\0cd").unwrap();
        mknodat(CWD, paths.resolve("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        std::os::unix::net::UnixListener::bind(paths.resolve("sock")).unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("dev/zero")).unwrap();
        for (path, expected) in [
            ("bin", "binary (5 bytes)"),
            ("fifo", "FIFO"),
            ("sock", "FIFO or socket"),
            ("/dev/zero", "device"),
            (".", "is a directory; use list_files"),
            ("missing", "does not exist"),
        ] {
            let problem = read(&paths, path, None, None).unwrap_err();
            assert!(problem.contains(expected), "{path}: {problem}");
        }
    }
}
