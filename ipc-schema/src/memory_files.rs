//! The files of an agent's memory: their layout below [`DIR`], and the text of an entry. The runner's memory tools and
//! the host's `lazaret memory` both call it. It is pure; the files are read through [`crate::untrusted_fs`].
//!
//! ```text
//! MEMORY.md              what the model sees in every turn
//! topics/NAME.md         facts about one subject
//! people/NAME.md         facts about one person
//! daily/YYYY-MM-DD.md    what happened on one day
//! ```
//!
//! An entry that a tool writes is a list item that ends in its origin: the date, the chat and the message.
//!
//! ```text
//! - Ann's sister is called Mia. *(2026-11-30, telegram:42, m-17)*
//! ```
//!
//! People edit these files, so [`entries`] takes any Markdown. An entry is a list item, a paragraph, or a heading with
//! nothing under it.

use std::ops::Range;
use std::path::{Component, Path};

use pulldown_cmark::{Event, Options, Parser, Tag};

use crate::text_sanitize::{self, breaks_line};

/// The memory's directory, below `/workspace` and below `/global`.
pub const DIR: &str = "memory";
/// The file that the model sees in every turn.
pub const PINNED: &str = "MEMORY.md";
/// The directory with a file for each subject.
pub const TOPICS: &str = "topics";
/// The directory with a file for each person.
pub const PEOPLE: &str = "people";
/// The directory with a file for each day.
pub const DAILY: &str = "daily";
/// The topic of an entry that names none.
pub const DEFAULT_TOPIC: &str = "notes";

/// The largest file that is read or written, in bytes.
pub const FILE_MAX_BYTES: u64 = 1 << 20;
/// The size of `MEMORY.md` in bytes above which a tool adds nothing to it.
pub const PINNED_MAX_BYTES: usize = 6_000;
/// The most files that are read.
pub const FILES_MAX: usize = 2_000;
/// The most entries that are read, over all files.
pub const ENTRIES_MAX: usize = 50_000;
/// The longest text of an entry in characters. A longer one that a person wrote is read as several entries.
pub const TEXT_MAX_CHARS: usize = 4_000;
/// The longest name of a topic or a person in characters.
pub const NAME_MAX_CHARS: usize = 60;

const HEADING_MAX_CHARS: usize = 200;

/// One entry of a memory file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file below [`DIR`], such as `topics/cooking.md`.
    pub file: String,
    /// The number of its first line, from 1.
    pub line: usize,
    /// How many lines it takes.
    pub lines: usize,
    /// The headings above it, such as `Family / Children`.
    pub heading: Option<String>,
    /// What it says: clean text without the list's mark and without the origin.
    pub text: String,
    /// `YYYY-MM-DD`: the origin's date, or the day of a daily file.
    pub date: Option<String>,
    /// The chat that it comes from, such as `telegram:42`.
    pub chat: Option<String>,
    /// The message (`m-17`) or fire (`f-3`) that it comes from.
    pub message: Option<String>,
}

impl Entry {
    /// What it is found by: its text, its headings, and its file's name.
    pub fn searched(&self) -> String {
        let name = Path::new(&self.file).file_stem().unwrap_or_default().to_string_lossy();
        let named = if self.file == PINNED { "" } else { &name };
        format!("{named} {} {}", self.heading.as_deref().unwrap_or_default(), self.text)
    }
}

/// Where an entry comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// `YYYY-MM-DD`.
    pub date: String,
    /// The chat's id.
    pub chat: Option<String>,
    /// The message's or the fire's id.
    pub message: Option<String>,
}

/// A file that the tools write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `MEMORY.md`.
    Pinned,
    /// `topics/NAME.md`.
    Topic(String),
    /// `people/NAME.md`.
    Person(String),
    /// `daily/YYYY-MM-DD.md`.
    Daily(String),
}

impl Place {
    /// The file below [`DIR`]; `None` if the name holds nothing that a file can be called by.
    pub fn file(&self) -> Option<String> {
        let (folder, name) = match self {
            Self::Pinned => return Some(PINNED.into()),
            Self::Topic(name) => (TOPICS, name),
            Self::Person(name) => (PEOPLE, name),
            Self::Daily(date) => (DAILY, date),
        };
        let prefix = format!("{folder}/");
        let name = name.trim();
        let name = name.strip_prefix(&prefix).unwrap_or(name);
        file_stem(name.strip_suffix(".md").unwrap_or(name)).map(|stem| format!("{prefix}{stem}.md"))
    }

    /// The first heading of a new file.
    pub fn title(&self) -> String {
        match self {
            Self::Pinned => "Memory".into(),
            Self::Topic(name) | Self::Person(name) => text_sanitize::line(name.trim(), NAME_MAX_CHARS),
            Self::Daily(date) => date.clone(),
        }
    }
}

/// A name as a file name: lower-case letters and digits of any script, with single dashes between them. So it has no
/// path in it, is never hidden, and two spellings of one name share a file.
fn file_stem(name: &str) -> Option<String> {
    let mut stem = String::new();
    for c in name.chars().flat_map(char::to_lowercase).take(NAME_MAX_CHARS) {
        let punctuation = matches!(c, '\u{a0}'..='\u{bf}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}'
            | '\u{ff00}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}');
        let kept =
            c.is_alphanumeric() || !(c.is_ascii() || punctuation || c.is_whitespace() || breaks_line(c));
        // A file name has at most 255 bytes.
        if kept && stem.len() < 200 {
            stem.push(c);
        } else if !stem.is_empty() && !stem.ends_with('-') {
            stem.push('-');
        }
    }
    let stem = stem.trim_end_matches('-');
    (!stem.is_empty()).then(|| stem.to_owned())
}

/// Whether a path below [`DIR`] is a file of the memory: Markdown, at most two folders deep, and nothing hidden.
pub fn is_memory_file(path: &Path) -> bool {
    let mut parts = 0;
    let plain = path.components().all(|part| {
        parts += 1;
        matches!(part, Component::Normal(name) if !name.as_encoded_bytes().starts_with(b"."))
    });
    plain && parts <= 3 && path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("md"))
}

/// Whether two entries say the same: the same words, however they are spaced.
pub fn same_text(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

/// The text of an entry as a tool keeps it: clean, and without lines at its beginning that would only divide the list.
fn words(text: &str) -> String {
    let clean = text_sanitize::clean(text);
    let divides = |line: &&str| line.chars().all(|c| c.is_whitespace() || matches!(c, '-' | '*' | '_'));
    clean.lines().skip_while(divides).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// An entry as a list item with its origin, without a last line feed.
pub fn render(text: &str, origin: &Origin) -> String {
    let text = words(text);
    let mut facts = origin.date.clone();
    let ids =
        [&origin.chat, &origin.message].into_iter().flatten().filter(|id| is_chat(id) || is_message(id));
    for id in ids {
        facts.push_str(", ");
        facts.push_str(id);
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    // A text of several lines may end in a code block, which the origin must not touch.
    let joint = if lines.len() > 1 { "\n  " } else { " " };
    format!("- {}{joint}*({facts})*", lines.join("\n  ").replace("\n  \n", "\n\n"))
}

/// The file's text with one more entry at its end.
pub fn append(text: &str, title: &str, rendered: &str) -> String {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let rendered = rendered.replace('\n', end);
    let kept = text.trim_end();
    if kept.trim_start_matches('\u{feff}').is_empty() {
        return format!("# {title}{end}{end}{rendered}{end}");
    }
    let last = pieces(kept).pop();
    let fence = last.as_ref().map_or("", |last| fence_of(&kept[last.range.clone()]));
    let gap = if last.is_none_or(|last| last.kind != Kind::Item) { end } else { "" };
    // A code block, a comment or the like that a person left open would swallow the entry.
    for closing in ["", fence, "-->", "</pre>", "?>", "]]>", ">"] {
        let closed = if closing.is_empty() { gap.to_owned() } else { format!("{closing}{end}{end}") };
        let more = format!("{kept}{end}{closed}{rendered}{end}");
        let whole = pieces(&more).pop().is_some_and(|last| more[last.range].trim() == rendered.trim());
        if whole {
            return more;
        }
    }
    format!("{kept}{end}{gap}{rendered}{end}")
}

/// The marks with which a code block begins.
fn fence_of(block: &str) -> &str {
    let marks = block.trim_start();
    let rest =
        marks.trim_start_matches(marks.chars().next().filter(|c| matches!(c, '`' | '~')).unwrap_or('`'));
    &marks[..marks.len() - rest.len()]
}

/// The file's text without these lines; `None` if nothing but headings is left.
pub fn remove(text: &str, line: usize, lines: usize) -> Option<String> {
    let gone = line.saturating_sub(1)..line.saturating_sub(1).saturating_add(lines);
    let kept = text.split_inclusive('\n').enumerate().filter(|(at, _)| !gone.contains(at));
    let mut rest = String::with_capacity(text.len());
    for (at, piece) in kept {
        let blank = piece.trim().is_empty();
        if at == gone.end && blank && (rest.is_empty() || rest.ends_with("\n\n") || rest.ends_with("\n\r\n"))
        {
            continue;
        }
        rest.push_str(piece);
    }
    let any = pieces(&rest).iter().any(|piece| !matches!(piece.kind, Kind::Heading(_)));
    any.then_some(rest)
}

/// The entries of a file's text, in its order. Lines are counted at line feeds, as an editor counts them.
pub fn entries(file: &str, text: &str) -> Vec<Entry> {
    let day = file.strip_prefix(DAILY).and_then(|rest| rest.strip_prefix('/')?.strip_suffix(".md"));
    let mut outline = Outline {
        file,
        day: day.filter(|day| is_date(day)).map(ToOwned::to_owned),
        headings: Vec::new(),
        entries: Vec::new(),
    };
    let mut starts = vec![0];
    starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
    for Piece { kind, range } in pieces(text) {
        let source = &text[range.clone()];
        let line = starts.partition_point(|start| *start <= range.start);
        match kind {
            Kind::Heading(level) => outline.heading(level, line, source),
            Kind::Item => outline.block(line, source, range.start - starts[line - 1]),
            Kind::Block => outline.block(line, source, 0),
        }
    }
    outline.leave_headings(0);
    outline.entries
}

/// A part of a file that no other part contains.
struct Piece {
    kind: Kind,
    /// Its bytes, without the white space behind it.
    range: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Heading(usize),
    /// An item of a list, with everything in it.
    Item,
    Block,
}

/// The pieces of a text: headings, the items of its lists, and what else stands at the margin.
fn pieces(text: &str) -> Vec<Piece> {
    let mut depth = 0;
    let mut pieces = Vec::new();
    let options = Options::ENABLE_TABLES;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        let kind = match &event {
            Event::Start(Tag::List(_)) if depth == 0 => None,
            Event::Start(Tag::Heading { level, .. }) => Some(Kind::Heading(*level as usize)),
            Event::Start(Tag::Item) => Some(Kind::Item),
            Event::Start(_) | Event::Html(_) => Some(Kind::Block),
            _ => None,
        };
        let in_list = usize::from(matches!(kind, Some(Kind::Item)));
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            _ => {}
        }
        if let Some(kind) = kind.filter(|_| depth == 1 + in_list) {
            let end = range.start + text[range.clone()].trim_end().len();
            pieces.push(Piece { kind, range: range.start..end });
        }
    }
    pieces
}

/// The entries so far, and the headings above the next one.
struct Outline<'a> {
    file: &'a str,
    day: Option<String>,
    headings: Vec<Heading>,
    entries: Vec<Entry>,
}

struct Heading {
    level: usize,
    line: usize,
    text: String,
    used: bool,
}

impl Outline<'_> {
    fn heading(&mut self, level: usize, line: usize, source: &str) {
        self.leave_headings(level);
        if let Some(above) = self.headings.last_mut() {
            above.used = true;
        }
        let first = source.lines().next().unwrap_or_default();
        let text = text_sanitize::line(first.trim_matches(['#', ' ', '\t']), HEADING_MAX_CHARS);
        self.headings.push(Heading { level, line, text, used: false });
    }

    /// Leaves the headings of `level` and below. One with nothing under it is an entry itself.
    fn leave_headings(&mut self, level: usize) {
        while let Some(left) = self.headings.pop_if(|heading| level == 0 || heading.level >= level) {
            if !left.used {
                self.entry(left.line, 1, left.text, None);
            }
        }
    }

    /// Adds an item or a block. `margin` is how far an item is indented.
    fn block(&mut self, line: usize, source: &str, margin: usize) {
        let (text, origin) = match split_origin(source) {
            Some((end, origin)) => (&source[..end], Some(origin)),
            None => (source, None),
        };
        let text = match marker(text) {
            Some(mark) => dedented(&text[mark..], margin + mark),
            None => text.to_owned(),
        };
        let mut pieces: Vec<(usize, String)> = Vec::new();
        for (at, row) in text.split('\n').enumerate() {
            let row: Vec<char> = text_sanitize::clean(row).trim_end().chars().collect();
            match pieces.last_mut() {
                Some((_, piece)) if piece.chars().count() + row.len() < TEXT_MAX_CHARS => {
                    piece.push('\n');
                    piece.extend(&row);
                }
                _ => pieces.extend(row.chunks(TEXT_MAX_CHARS).map(|part| (line + at, part.iter().collect()))),
            }
        }
        let last = line + source.split('\n').count() - 1;
        let ends: Vec<usize> = pieces.iter().skip(1).map(|(next, _)| next - 1).chain([last]).collect();
        for ((line, piece), end) in pieces.into_iter().zip(ends) {
            self.entry(line, (end + 1).saturating_sub(line).max(1), piece.trim().to_owned(), origin.clone());
        }
    }

    fn entry(&mut self, line: usize, lines: usize, text: String, origin: Option<Origin>) {
        if text.is_empty() || self.entries.len() >= ENTRIES_MAX {
            return;
        }
        if let Some(above) = self.headings.last_mut() {
            above.used = true;
        }
        let above = self.headings.iter().map(|heading| heading.text.as_str()).filter(|text| !text.is_empty());
        let heading = above.collect::<Vec<_>>().join(" / ");
        let (date, chat, message) = match origin {
            Some(Origin { date, chat, message }) => (Some(date), chat, message),
            None => (self.day.clone(), None, None),
        };
        let heading = (!heading.is_empty()).then_some(heading);
        self.entries.push(Entry {
            file: self.file.to_owned(),
            line,
            lines,
            heading,
            text,
            date,
            chat,
            message,
        });
    }
}

/// The text of an item as if it stood at the margin.
fn dedented(text: &str, indent: usize) -> String {
    let mut rows = text.split('\n');
    let first = rows.next().unwrap_or_default().to_owned();
    rows.fold(first, |mut out, row| {
        let blanks = row.bytes().take(indent).take_while(|b| matches!(b, b' ' | b'\t')).count();
        out.push('\n');
        out.push_str(&row[blanks..]);
        out
    })
}

/// The length of a list item's mark, such as `- ` or `1) `.
fn marker(line: &str) -> Option<usize> {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest =
        line[digits..].strip_prefix(|c| if digits == 0 { "-*+".contains(c) } else { ".)".contains(c) })?;
    let blanks = rest.bytes().take_while(|b| matches!(b, b' ' | b'\t')).count();
    Some(line.len() - rest.len() + blanks)
}

/// Where the text ends, and the origin behind it.
fn split_origin(text: &str) -> Option<(usize, Origin)> {
    let end = text.trim_end();
    let mark = end.chars().next_back().filter(|c| matches!(c, '*' | '_'))?;
    let inside = end.strip_suffix(mark)?.strip_suffix(')')?;
    let start = inside.rfind(&format!("{mark}("))?;
    let mut facts = inside.get(start + 2..)?.split(',').map(str::trim);
    let mut origin =
        Origin { date: facts.next().filter(|date| is_date(date))?.to_owned(), ..Origin::default() };
    for fact in facts {
        if is_message(fact) {
            origin.message = Some(fact.to_owned());
        } else if is_chat(fact) {
            origin.chat = Some(fact.to_owned());
        } else {
            return None;
        }
    }
    Some((text.get(..start)?.trim_end().len(), origin))
}

/// Whether this has the form `YYYY-MM-DD`.
pub fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(at, b)| if matches!(at, 4 | 7) { *b == b'-' } else { b.is_ascii_digit() })
}

fn is_message(text: &str) -> bool {
    let digits = text.strip_prefix("m-").or_else(|| text.strip_prefix("f-"));
    digits.is_some_and(|rest| (1..=20).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_digit()))
}

fn is_chat(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b":/-@._+#".contains(&b);
    text.len() <= 200 && text.contains(':') && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin() -> Origin {
        Origin {
            date: "2026-11-30".into(),
            chat: Some("telegram:-100/7".into()),
            message: Some("m-17".into()),
        }
    }

    /// Line, number of lines, heading and text of each entry.
    fn read(text: &str) -> Vec<(usize, usize, String, String)> {
        let told = |e: Entry| (e.line, e.lines, e.heading.unwrap_or_default(), e.text);
        entries("topics/x.md", text).into_iter().map(told).collect()
    }

    fn row(line: usize, lines: usize, heading: &str, text: &str) -> (usize, usize, String, String) {
        (line, lines, heading.into(), text.into())
    }

    #[test]
    fn what_a_tool_writes_is_read_back_with_its_origin() {
        let text = append("", "Ann", &render("Her sister is Mia.", &origin()));
        assert_eq!(text, "# Ann\n\n- Her sister is Mia. *(2026-11-30, telegram:-100/7, m-17)*\n");
        let [entry] = &entries("people/ann.md", &text)[..] else { panic!() };
        assert_eq!((entry.line, entry.lines, entry.heading.as_deref()), (3, 1, Some("Ann")));
        assert_eq!(entry.text, "Her sister is Mia.");
        let Origin { date, chat, message } = origin();
        assert_eq!((&entry.date, &entry.chat, &entry.message), (&Some(date), &chat, &message));
    }

    #[test]
    fn what_a_person_writes_is_read_as_it_stands() {
        let text = "Loose words\r\nover two lines.\r\n\r\n# Family\r\n## Children\r\n* Mia, 9\r\n  - likes tea\r\n\r\n  and \
                    cake\r\n1) Tom\r\n\r\nPlain.\r\n# Empty\r\nTitle\r\n=====\r\nlast _(2026-01-02)_";
        let expected = [
            row(1, 2, "", "Loose words\nover two lines."),
            row(6, 4, "Family / Children", "Mia, 9\n- likes tea\n\nand cake"),
            row(10, 1, "Family / Children", "Tom"),
            row(12, 1, "Family / Children", "Plain."),
            row(13, 1, "", "Empty"),
            row(16, 1, "Title", "last"),
        ];
        let found = read(text);
        assert_eq!(found, expected);
        assert_eq!(entries("x.md", text).last().unwrap().date.as_deref(), Some("2026-01-02"));
        assert_eq!(entries("daily/2026-11-30.md", "- 09:10 Rain")[0].date.as_deref(), Some("2026-11-30"));
    }

    #[test]
    fn a_code_block_is_one_entry_and_an_open_one_swallows_nothing_new() {
        assert_eq!(
            read("a\n```\n# no\n\n- no\n```\n- b"),
            [row(1, 1, "", "a"), row(2, 5, "", "```\n# no\n\n- no\n```"), row(7, 1, "", "b")]
        );
        let text = append("```\nopen\n", "T", &render("new", &origin()));
        assert_eq!(entries("a.md", &text).last().unwrap().text, "new");
        // The code block of an item ends where the item does.
        assert_eq!(read("- a\n  ```\n  x\n- b").len(), 2);
    }

    #[test]
    fn odd_bytes_and_huge_lines_are_entries_too() {
        let huge = "ä".repeat(TEXT_MAX_CHARS * 2 + 10);
        let pieces = read(&format!("\u{feff}- {huge}\n- next"));
        assert_eq!(pieces.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(1, 1), (1, 1), (1, 1), (2, 1)]);
        assert_eq!(read("\u{fffd}\u{0}\u{1b}[31mred\u{202e}")[0].3, "\u{fffd}[31mred");
        let many = format!("x\n{}", "word ".repeat(300)).repeat(40);
        let pieces = read(&many);
        assert!(pieces.len() > 5 && pieces.iter().all(|p| p.3.chars().count() <= TEXT_MAX_CHARS));
        assert_eq!(pieces.iter().map(|p| p.1).sum::<usize>(), many.lines().count());
    }

    #[test]
    fn only_an_origin_is_taken_for_one() {
        let text = |text: &str| entries("a.md", text)[0].text.clone();
        for kept in ["- a *(really)*", "- a *(2026-13)*", "- a *(2026-11-30, soon)*", "- a (2026-11-30)"] {
            assert_eq!(text(kept), kept[2..]);
        }
        assert_eq!(text(&render("a *(2020-01-01, m-1)*", &origin())), "a *(2020-01-01, m-1)*");
        let odd = Origin { chat: Some("x) obey".into()), ..origin() };
        assert_eq!(render("a", &odd), "- a *(2026-11-30, m-17)*");
    }

    #[test]
    fn a_name_is_a_file_name_and_never_a_path() {
        let topic = |name: &str| Place::Topic(name.into()).file();
        for (name, file) in [
            ("Cooking", "topics/cooking.md"),
            ("topics/Cooking.md", "topics/cooking.md"),
            ("../../etc/passwd", "topics/etc-passwd.md"),
            (".hidden\u{0}\n", "topics/hidden.md"),
            ("Ann Müller", "topics/ann-müller.md"),
            ("王小明", "topics/王小明.md"),
            ("สมชาย ก้อง", "topics/สมชาย-ก้อง.md"),
            ("a\u{202e}b", "topics/a-b.md"),
        ] {
            assert_eq!(topic(name).as_deref(), Some(file));
            assert!(is_memory_file(Path::new(file)));
        }
        assert_eq!(topic("../..").or(topic("")).or(topic("!?\u{200b}")), None);
        assert!(topic(&"ß".repeat(500)).unwrap().len() < 255);
        for not in [".git/x.md", "a/../b.md", "/a.md", "a.txt", "a/b/c/d.md", ".index.md", "topics"] {
            assert!(!is_memory_file(Path::new(not)), "{not}");
        }
    }

    #[test]
    fn entries_go_where_people_would_write_them_and_leave_no_gap() {
        let one = render("one", &origin());
        assert_eq!(append("# T\n\nwords", "T", "- x"), "# T\n\nwords\n\n- x\n");
        assert_eq!(append("# T\r\n\r\n- a\r\n\r\n", "T", "- x"), "# T\r\n\r\n- a\r\n- x\r\n");
        let text = append(&append("", "T", &one), "T", "- two\n  lines");
        assert_eq!(remove(&text, 3, 1).as_deref(), Some("# T\n\n- two\n  lines\n"));
        assert_eq!(remove(&text, 4, 2), Some(append("", "T", &one)));
        assert_eq!(remove("# T\n\n- a\n", 3, 1), None);
        assert_eq!(remove("a\n\nb\n\nc", 3, 1).as_deref(), Some("a\n\nc"));
        assert_eq!(remove("a", 7, usize::MAX).as_deref(), Some("a"));
    }

    proptest! {
        #[test]
        fn every_text_survives_its_file(texts in proptest::collection::vec("[-a `~#*_()0-9.\n\t=äก王]{0,30}", 1..6)) {
            let mut file = String::new();
            let mut wanted = Vec::new();
            for text in texts {
                let rendered = render(&text, &origin());
                file = append(&file, "T", &rendered);
                let clean = words(&text);
                if !clean.is_empty() {
                    wanted.push(clean.split_whitespace().collect::<Vec<_>>().join(" "));
                }
            }
            let read = entries("topics/t.md", &file);
            let written = read.iter().filter(|e| e.message.is_some());
            let got: Vec<_> = written.map(|e| e.text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            prop_assert_eq!(got, wanted, "{}", file);
        }

        #[test]
        fn no_markdown_panics_and_every_line_can_be_removed(text in "(\\PC|\n|\r|- |# |```|---|  |\t){0,60}") {
            let read = entries("a.md", &text);
            for entry in &read {
                prop_assert!(entry.line >= 1 && entry.line + entry.lines - 1 <= text.split('\n').count());
                prop_assert!(!entry.text.is_empty());
                let _ = remove(&text, entry.line, entry.lines);
            }
            prop_assert!(append(&text, "T", &render("new", &origin())).contains("- new"));
        }
    }
}
