//! Reads Markdown as a text with the few looks that chat platforms have.
//!
//! No word of the source is lost. What Markdown would hide (a definition that no link uses, a comment, a title, the
//! address of an image without words, a table's cell too many) is shown as text.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd};

use super::rich_text::{Look, Mark, RichText, is_visible};
use super::table::Table;

/// What a platform can show.
#[derive(Debug)]
pub struct Dialect {
    /// What addresses begin with that the platform makes links of.
    pub links: &'static [&'static str],
    /// The widest table, in columns of a screen, that is shown as one. A phone breaks each line of a wider one.
    pub widest_table: usize,
}

impl Dialect {
    fn links_to(&self, address: &str) -> bool {
        self.links.iter().any(|scheme| address.starts_with(scheme))
    }
}

/// Reads a whole reply, so that each link finds its definition.
pub fn read(markdown: &str, dialect: &Dialect) -> RichText {
    let mut page = Page::new(markdown, dialect);
    for (event, range) in parser(markdown).into_offset_iter() {
        page.event(event, range);
    }
    page.show_skipped(markdown.len());
    let read = page.out.trimmed();
    if is_visible(&read.text) { read } else { RichText::plain(markdown.trim()) }
}

fn parser(markdown: &str) -> Parser<'_> {
    Parser::new_ext(markdown, Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES)
}

/// Returns the places of the definitions that links use. People read the links instead.
fn used_definitions(markdown: &str, dialect: &Dialect) -> Vec<Range<usize>> {
    let mut events = parser(markdown).into_offset_iter();
    let mut ids = Vec::new();
    for (event, _) in events.by_ref() {
        if let Event::Start(Tag::Link { dest_url, id, .. } | Tag::Image { dest_url, id, .. }) = event
            && dialect.links_to(&dest_url)
        {
            ids.push(id);
        }
    }
    let definitions = events.reference_definitions();
    ids.iter().filter_map(|id| definitions.get(id)).map(|definition| definition.span.clone()).collect()
}

/// The deepest level of nested lists that is indented.
const DEEPEST: usize = 6;

struct Page<'a> {
    source: &'a str,
    dialect: &'a Dialect,
    /// Where definitions stand that links use.
    used: Vec<Range<usize>>,
    /// How far the source was read.
    seen: usize,
    out: RichText,
    /// Where the newest item or quote begins, or the page: the first block in it needs no empty line before it.
    head: usize,
    /// Where the newest quote begins, or the page: a line begins there.
    bare: usize,
    lists: Vec<List>,
    /// The open marks, except those of links.
    open: Vec<usize>,
    links: Vec<Link<'a>>,
    quotes: usize,
    /// Where the text ended before the open code block.
    before_code: usize,
    table: Option<OpenTable>,
}

#[derive(Clone, Copy)]
struct List {
    /// The number of the first item; `None` for bullets.
    first: Option<u64>,
    next: u64,
}

struct Link<'a> {
    /// Absent if the platform makes no link of it.
    mark: Option<usize>,
    start: usize,
    address: CowStr<'a>,
    title: CowStr<'a>,
    /// What closes a link that is shown as it was written.
    closing: String,
}

#[derive(Default)]
struct OpenTable {
    table: Table,
    row: Vec<String>,
    /// Where the last cell ends in the source.
    cell_end: usize,
    /// Where the text ended before the cell, and the marks before the table.
    cell: usize,
    marks: usize,
}

impl<'a> Page<'a> {
    fn new(source: &'a str, dialect: &'a Dialect) -> Self {
        Self {
            source,
            dialect,
            used: used_definitions(source, dialect),
            seen: 0,
            out: RichText::default(),
            head: 0,
            bare: 0,
            lists: Vec::new(),
            open: Vec::new(),
            links: Vec::new(),
            quotes: 0,
            before_code: 0,
            table: None,
        }
    }

    fn event(&mut self, event: Event<'a>, range: Range<usize>) {
        let (from, to) = match &event {
            Event::Start(Tag::BlockQuote(_) | Tag::List(_) | Tag::Item) => (range.start, range.start),
            Event::End(TagEnd::BlockQuote(_) | TagEnd::List(_) | TagEnd::Item) => (range.end, range.end),
            _ => (range.start, range.end),
        };
        self.show_skipped(from);
        self.seen = self.seen.max(to);
        match event {
            Event::Start(tag) => self.start(tag, range),
            Event::End(tag) => self.end(tag, range),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.say(&text),
            Event::Code(text) => {
                let mark = self.begin(Look::Code);
                self.say(&text);
                self.out.end(mark);
            }
            Event::SoftBreak | Event::HardBreak => self.say("\n"),
            Event::Rule => {
                self.block();
                self.say("———\n");
            }
            // These are text without their options.
            Event::TaskListMarker(_)
            | Event::FootnoteReference(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_) => {}
        }
    }

    fn start(&mut self, tag: Tag<'a>, range: Range<usize>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.block(),
            Tag::Heading { .. } => {
                self.block();
                self.open(Look::Bold);
            }
            Tag::BlockQuote(_) => {
                self.block();
                // The platforms have no quote in a quote.
                if self.quotes == 0 {
                    self.open(Look::Quote);
                } else {
                    self.say("> ");
                }
                self.quotes += 1;
                (self.head, self.bare) = (self.out.text.len(), self.out.text.len());
            }
            Tag::CodeBlock(kind) => self.start_code(&kind),
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.block();
                }
                self.lists.push(List { first, next: first.unwrap_or(0) });
            }
            Tag::Item => self.item(range.start),
            Tag::Strong => self.open(Look::Bold),
            Tag::Emphasis => self.open(Look::Italic),
            Tag::Strikethrough => self.open(Look::Struck),
            Tag::Link { link_type, dest_url, title, id } | Tag::Image { link_type, dest_url, title, id } => {
                self.start_link(link_type, dest_url, title, &id);
            }
            Tag::Table(alignments) => {
                self.block();
                let table = Table { alignments, rows: Vec::new() };
                let marks = self.out.marks.len();
                self.table = Some(OpenTable { table, marks, ..OpenTable::default() });
            }
            Tag::TableCell => {
                let cell = self.out.text.len();
                self.table.iter_mut().for_each(|open| open.cell = cell);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd, range: Range<usize>) {
        match tag {
            TagEnd::Paragraph | TagEnd::HtmlBlock | TagEnd::Item => self.end_line(),
            TagEnd::Heading(_) => {
                self.close();
                self.say("\n");
            }
            TagEnd::BlockQuote(_) => {
                self.trim_newline();
                self.quotes -= 1;
                if self.quotes == 0 {
                    self.close();
                }
                self.say("\n");
            }
            TagEnd::CodeBlock => self.end_code(range),
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::Strong | TagEnd::Emphasis | TagEnd::Strikethrough => self.close(),
            TagEnd::Link | TagEnd::Image => self.end_link(),
            TagEnd::TableCell => {
                if let Some(open) = &mut self.table {
                    open.row.push(self.out.text.split_off(open.cell).trim().to_owned());
                    open.cell_end = range.end;
                }
            }
            TagEnd::TableHead | TagEnd::TableRow => self.end_row(range.end),
            TagEnd::Table => self.end_table(),
            _ => {}
        }
    }

    fn start_code(&mut self, kind: &CodeBlockKind<'_>) {
        self.before_code = self.out.text.len();
        self.block();
        let info = match kind {
            CodeBlockKind::Fenced(info) => info.trim(),
            CodeBlockKind::Indented => "",
        };
        let (word, more) = info.split_once(char::is_whitespace).unwrap_or((info, ""));
        let is_language = word.chars().all(|c| c.is_alphanumeric() || "+-#._".contains(c));
        let (language, more) = if is_language { (word, more) } else { ("", info) };
        if !more.is_empty() {
            self.say(&format!("{more}\n"));
        }
        self.open(Look::Block(Some(language.to_owned()).filter(|language| !language.is_empty())));
    }

    /// Ends a code block. An empty one is shown as it was written: its fence may hold the words.
    fn end_code(&mut self, range: Range<usize>) {
        let Some(mark) = self.open.pop() else { return };
        let start = self.out.marks.get(mark).map_or(0, |mark: &Mark| mark.start);
        if self.out.text.get(start..).is_some_and(is_visible) {
            self.trim_newline();
            self.out.end(mark);
        } else {
            self.out.marks.truncate(mark);
            self.out.text.truncate(self.before_code);
            self.block();
            let written = self.source.get(range).unwrap_or_default();
            let lines: Vec<&str> = written.lines().map(|line| line.trim_matches([' ', '\t', '>'])).collect();
            self.say(lines.join("\n").trim_end());
        }
        self.say("\n");
    }

    /// Begins an item with its number as it was written. Where each item has the number of the first, the host counts.
    fn item(&mut self, at: usize) {
        self.end_line();
        // At deeper levels the indentation would be longer than the items.
        let depth = self.lists.len().saturating_sub(1).min(DEEPEST);
        self.say(&"  ".repeat(depth));
        let source = self.source.get(at..).unwrap_or_default().trim_start();
        let digits = source.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let written: Option<u64> = digits.parse().ok();
        match self.lists.last_mut() {
            Some(List { first: Some(first), next }) => {
                let number = written.filter(|written| *written != *first).unwrap_or(*next);
                *next = number.saturating_add(1);
                self.say(&format!("{number}. "));
            }
            _ => self.say("• "),
        }
        self.head = self.out.text.len();
    }

    fn start_link(&mut self, kind: LinkType, address: CowStr<'a>, title: CowStr<'a>, id: &str) {
        let reference = matches!(kind, LinkType::Reference | LinkType::Collapsed | LinkType::Shortcut);
        let web = self.dialect.links_to(&address);
        let start = self.out.text.len();
        // There is no link in a link, and none in a table.
        let linked = web && self.table.is_none() && self.links.iter().all(|link| link.mark.is_none());
        let mark = linked.then(|| self.begin(Look::Link(address.to_string())));
        let note = kind == LinkType::Shortcut && id.starts_with(|c: char| c == '^' || c.is_ascii_digit());
        let (opening, closing) = match (reference, kind) {
            (true, LinkType::Reference) if !web => ("[", format!("][{id}]")),
            (true, _) if !web || note => ("[", "]".to_owned()),
            _ => ("", String::new()),
        };
        self.say(opening);
        // What is shown as it was written has its address in the definition, which is shown too.
        let address = if reference && !web { CowStr::Borrowed("") } else { address };
        self.links.push(Link { mark, start, address, title, closing });
    }

    fn end_link(&mut self) {
        let Some(link) = self.links.pop() else { return };
        self.say(&link.closing);
        if !self.out.text.get(link.start..).is_some_and(is_visible) {
            self.say(&link.address);
        }
        if let Some(mark) = link.mark {
            self.out.end(mark);
        }
        let is_read = link.mark.is_some() || self.out.text.get(link.start..) == Some(&*link.address);
        let address = if is_read { "" } else { &*link.address };
        for words in [address, &*link.title].into_iter().filter(|words| !words.is_empty()) {
            self.say(&format!(" ({words})"));
        }
    }

    /// Ends a row. Markdown drops the cells that the head has no column for.
    fn end_row(&mut self, end: usize) {
        let Some(open) = &mut self.table else { return };
        let more = self.source.get(open.cell_end..end).unwrap_or_default().trim().trim_matches('|');
        if !more.trim().is_empty() {
            open.row.extend(more.split('|').map(|cell| cell.trim().to_owned()));
        }
        open.table.rows.push(std::mem::take(&mut open.row));
        open.cell_end = end;
    }

    fn end_table(&mut self) {
        let Some(OpenTable { table, marks, .. }) = self.table.take() else { return };
        self.out.marks.truncate(marks);
        if let Some(lines) = table.aligned(self.dialect.widest_table) {
            let mark = self.begin(Look::Block(None));
            self.say(&lines);
            self.out.end(mark);
            return self.say("\n");
        }
        for record in table.records() {
            self.block();
            for (title, cell) in record {
                if !title.is_empty() {
                    let mark = self.begin(Look::Bold);
                    self.say(title);
                    self.out.end(mark);
                    self.say(": ");
                }
                self.say(cell);
                self.say("\n");
            }
        }
    }

    /// Shows the definitions between what was read and `until` that no link uses. Only they leave no event.
    fn show_skipped(&mut self, until: usize) {
        let mut at = self.seen;
        let skipped = self.source.get(at..until).unwrap_or_default();
        self.seen = at.max(until);
        if !skipped.contains("]:") {
            return;
        }
        let mut lines = Vec::new();
        for line in skipped.split_inclusive('\n') {
            // A list's or a quote's sign stands before the first definition.
            let words = match line.find('[') {
                Some(start) if lines.is_empty() => line.get(start..).unwrap_or_default(),
                None if lines.is_empty() => "",
                _ => line.trim_start_matches([' ', '\t', '>']),
            };
            let start = at + line.len() - words.len();
            at += line.len();
            if !words.trim().is_empty() && !self.used.iter().any(|used| used.contains(&start)) {
                lines.push(words.trim());
            }
        }
        if !lines.is_empty() {
            self.block();
            self.say(&lines.join("\n"));
            self.say("\n");
        }
    }

    fn say(&mut self, words: &str) {
        self.out.text.push_str(words);
    }

    fn begin(&mut self, look: Look) -> usize {
        let start = self.out.text.len();
        self.out.marks.push(Mark { start, end: start, look });
        self.out.marks.len() - 1
    }

    fn open(&mut self, look: Look) {
        let mark = self.begin(look);
        self.open.push(mark);
    }

    fn close(&mut self) {
        if let Some(mark) = self.open.pop() {
            self.out.end(mark);
        }
    }

    /// Starts a block with an empty line before it, except at the start of the page, an item or a quote.
    fn block(&mut self) {
        if self.out.text.len() == self.head {
            return;
        }
        self.end_line();
        if !self.out.text.ends_with("\n\n") {
            self.say("\n");
        }
    }

    fn end_line(&mut self) {
        if self.out.text.len() != self.bare && !self.out.text.ends_with('\n') {
            self.say("\n");
        }
    }

    fn trim_newline(&mut self) {
        let length = self.out.text.trim_end_matches('\n').len();
        self.out.text.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEB: Dialect = Dialect { links: &["https://"], widest_table: 64 };

    #[test]
    fn words_that_markdown_hides_are_shown() {
        for (markdown, shown) in [
            ("a\n\n[note]: important\n[note]: twice\n\nb", "a\n\n[note]: important\n[note]: twice\n\nb"),
            ("[note]: important\nsee [note]", "[note]: important\n\nsee [note]"),
            ("[why][note]\n\n[note]: important", "[why][note]\n\n[note]: important"),
            ("[^1]: alone", "[^1]: alone"),
            ("---\ntitle: x\n---\nb", "———\n\ntitle: x\n\nb"),
            ("[a](https://e.org \"the title\")", "a (the title)"),
            ("```js the rest\nx\n```", "the rest\nx"),
            ("3. a\n5. b\n9) c", "3. a\n5. b\n\n9. c"),
            ("1. a\n1. b", "1. a\n2. b"),
            ("-\n- - b\n> - c", "• \n• \n  • b\n\n• c"),
            ("> a\n> > b", "a\n\n> b"),
            ("[![alt](https://e.org/i)](https://e.org/l)", "alt (https://e.org/i)"),
        ] {
            assert_eq!(read(markdown, &WEB).text, shown, "{markdown}");
        }
    }

    /// A reply in which each word is another one, so that each must be found.
    fn replies() -> impl Strategy<Value = String> {
        let templates = prop::sample::select(vec![
            "@ @ **@** _@_ ~~@~~ `@` ***@*** <@> <!-- @ --> \\@ &amp; @\n",
            "# @ #\n",
            "@\n===\n",
            "> @\n> > @\n",
            "- @\n  - @\n\n    @\n",
            "7. @\n9. @\n",
            "* [@]: @\n",
            "[@](@) [@](https://e.org/@ \"@\") ![@](@) ![](https://@) [](@) <https://e.org/@>\n",
            "[@]: @\n",
            "[@]: https://e.org/@ '@'\n",
            "[@]: @\n[@]: @\n@\n",
            "> [@]: @\n",
            "[@][ref] [ref] ![@][ref]\n",
            "[ref]: https://e.org/@\n",
            "[@][odd] [odd]\n",
            "[odd]: @\n",
            "[^@]: @\n",
            "```@ @\n@\n",
            "```\n",
            "~~~@\n",
            "~~~\n",
            "- ```@\n  @\n  ```\n",
            "> ```@\n> @\n",
            "    @\n",
            "```@```\n",
            "|@|@|\n|-|-|\n|@|@|@|@|\n|@|\n",
            "|@\n",
            "---\n@: @\n---\n",
            "<div>@\n@\n",
            "</div>\n",
            "<@ @=\"@\">\n",
            "\n",
            "\n\n",
            "[@\n",
            "](@\n",
            "**@\n",
            "- [x] @\n",
            "$@$ [[@]] [^@] :@:\n",
            "![[@](@)](@)\n",
        ]);
        prop::collection::vec(templates, 1..12).prop_map(|pieces| {
            let mut words = 0;
            pieces.concat().split('@').fold(String::new(), |mut out, piece| {
                if words > 0 {
                    out.push_str(&format!("w{words}w"));
                }
                words += 1;
                out + piece
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// Each word is in the text, or is the address of a link or the language of a code block in it.
        #[test]
        fn every_word_of_a_reply_is_read(markdown in replies()) {
            let read = read(&markdown, &WEB);
            let marks: String = read.marks.iter().map(|mark| match &mark.look {
                Look::Link(words) | Look::Block(Some(words)) => format!(" {words}"),
                _ => String::new(),
            }).collect();
            for word in markdown.split(|c: char| !c.is_alphanumeric()).filter(|word| word.starts_with('w')) {
                prop_assert!(read.text.contains(word) || marks.contains(word), "{} of:\n{}\nin:\n{}", word, markdown, read.text);
            }
        }
    }
}
