//! A text with its formatting, as Telegram keeps a message: what people read, and marks over ranges of it. Telegram
//! counts the text alone. It can be cut anywhere: a mark that is cut goes on in the rest.

use ipc_schema::text_sanitize::is_zero_width;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    Bold,
    Italic,
    Struck,
    Code,
    /// A code block and its language.
    Block(Option<String>),
    Quote,
    /// A link and its address.
    Link(String),
}

/// The bytes from `start` to `end` have a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub start: usize,
    pub end: usize,
    pub look: Look,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct RichText {
    pub text: String,
    /// In the order of their beginnings, the outer ones first.
    pub marks: Vec<Mark>,
}

/// Returns the length as Telegram counts it.
pub(super) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Whether a person sees anything of the text. Telegram refuses a text of which nothing is seen.
pub(super) fn is_visible(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace() && !c.is_control() && !is_zero_width(c))
}

impl RichText {
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), marks: Vec::new() }
    }

    /// Returns Telegram's HTML (Bot API, "HTML style"). It is balanced and escaped for any text.
    pub fn html(&self) -> String {
        let mut html = Html { out: String::new(), at: 0, text: &self.text, open: Vec::new() };
        for mark in &self.marks {
            html.close(mark.start);
            html.words(mark.start);
            html.out.push_str(&opening(&mark.look));
            html.open.push(mark);
        }
        html.close(usize::MAX);
        html.words(self.text.len());
        html.out
    }

    /// Reads what [`RichText::html`] has written.
    pub fn read(html: &str) -> Self {
        let mut rich = Self::default();
        let (mut open, mut block) = (Vec::new(), false);
        let mut pieces = html.split('<');
        rich.text.push_str(&unescape(pieces.next().unwrap_or_default()));
        for piece in pieces {
            let (tag, words) = piece.split_once('>').unwrap_or((piece, ""));
            let quoted = tag.split('"').nth(1).map(unescape);
            let look = match (tag.split(' ').next().unwrap_or_default(), quoted) {
                ("b", _) => Some(Look::Bold),
                ("i", _) => Some(Look::Italic),
                ("s", _) => Some(Look::Struck),
                ("blockquote", _) => Some(Look::Quote),
                ("a", Some(address)) => Some(Look::Link(address)),
                ("code", Some(class)) => {
                    Some(Look::Block(class.strip_prefix("language-").map(str::to_owned)))
                }
                ("code", None) if block => Some(Look::Block(None)),
                ("code", None) => Some(Look::Code),
                _ => None,
            };
            block = tag == "pre";
            if let Some(look) = look {
                open.push(rich.marks.len());
                rich.marks.push(Mark { start: rich.text.len(), end: 0, look });
            } else if tag.starts_with('/')
                && tag != "/pre"
                && let Some(at) = open.pop()
            {
                rich.end(at);
            }
            rich.text.push_str(&unescape(words));
        }
        rich
    }

    /// Ends a mark here.
    pub fn end(&mut self, mark: usize) {
        let end = self.text.len();
        if let Some(mark) = self.marks.get_mut(mark) {
            mark.end = end;
        }
    }

    /// The text with the address of each link behind its words, for a message without formatting.
    pub fn spelled_out(&self) -> String {
        let mut out = self.text.clone();
        let mut links: Vec<&Mark> = self.marks.iter().collect();
        links.sort_by_key(|mark| std::cmp::Reverse(mark.end));
        for mark in links {
            if let Look::Link(address) = &mark.look
                && self.text.get(mark.start..mark.end) != Some(address)
            {
                out.insert_str(mark.end, &format!(" ({address})"));
            }
        }
        out
    }

    /// Returns a part that people see something of and that has at most `most` units, and the rest.
    pub fn cut(&self, most: usize) -> (Self, Self) {
        let at = self.place_to_cut(0, most);
        if at == self.text.len() {
            return (self.clone(), Self::default());
        }
        (self.slice(0, at), self.slice(at, self.text.len()))
    }

    /// Returns the whole text in parts of at most `most` units. It copies each byte once: an agent can write a text of
    /// megabytes.
    pub fn parts(&self, most: usize) -> Vec<Self> {
        let (mut parts, mut start) = (Vec::new(), 0);
        while start < self.text.len() {
            let end = self.place_to_cut(start, most).max(start + 1);
            parts.push(self.slice(start, end));
            start = end;
            let rest = self.text.get(start..).unwrap_or_default();
            start += rest.len() - rest.trim_start_matches('\n').len();
        }
        parts
    }

    /// Returns where a part that begins at `start` ends. It prefers to cut between paragraphs, then between lines, then
    /// between words. A code block of one screen stays whole if it can.
    fn place_to_cut(&self, start: usize, most: usize) -> usize {
        let rest = self.text.get(start..).unwrap_or_default();
        let end = fitting(rest, most);
        let head = rest.get(..end).unwrap_or(rest);
        if head.len() == rest.len() {
            return self.text.len();
        }
        let near = |m: &&Mark| matches!(m.look, Look::Block(_)) && m.start < start + end && start < m.end;
        let blocks: Vec<&Mark> = self.marks.iter().filter(near).collect();
        let in_block = |at: usize| blocks.iter().any(|m| m.start <= start + at && start + at < m.end);
        let paragraph = head.rmatch_indices("\n\n").map(|(at, _)| at).find(|at| !in_block(*at));
        let line = head.rfind('\n');
        let word = head.rfind(' ').map(|at| at + 1);
        let at = [(paragraph, end / 3), (line, end / 3), (word, end / 2)]
            .into_iter()
            .find_map(|(at, least)| at.filter(|at| *at > least))
            .unwrap_or(end);
        start + at
    }

    /// Returns the text between two places, without empty lines around it.
    fn slice(&self, start: usize, end: usize) -> Self {
        let text = self.text.get(start..end).unwrap_or_default();
        let start = start + text.len() - text.trim_start_matches('\n').len();
        let text = text.trim_start_matches('\n').trim_end();
        let end = start + text.len();
        let inside = |mark: &Mark| {
            let (from, to) = (mark.start.max(start), mark.end.min(end));
            let seen = from < to && self.text.get(from..to).is_some_and(|words| !words.trim().is_empty());
            seen.then(|| Mark { start: from - start, end: to - start, look: mark.look.clone() })
        };
        Self { text: text.to_owned(), marks: self.marks.iter().filter_map(inside).collect() }
    }

    /// Returns the text without what surrounds it: empty lines, and marks over nothing.
    pub fn trimmed(&self) -> Self {
        self.slice(0, self.text.len())
    }
}

/// Returns how many bytes of the text have at most `most` units.
fn fitting(text: &str, most: usize) -> usize {
    let mut length = 0;
    let too_long = text.char_indices().find(|(_, c)| {
        length += c.len_utf16();
        length > most
    });
    too_long.map_or(text.len(), |(at, _)| at)
}

struct Html<'a> {
    out: String,
    /// How far the text is written.
    at: usize,
    text: &'a str,
    open: Vec<&'a Mark>,
}

impl Html<'_> {
    fn words(&mut self, until: usize) {
        let words = self.text.get(self.at..until).unwrap_or_default();
        self.out.push_str(&escape(words));
        self.at = self.at.max(until);
    }

    /// Closes the marks that end at `until` or before it.
    fn close(&mut self, until: usize) {
        while let Some(mark) = self.open.pop_if(|mark| mark.end <= until) {
            self.words(mark.end);
            self.out.push_str(closing(&mark.look));
        }
    }
}

fn opening(look: &Look) -> String {
    match look {
        Look::Bold => "<b>".into(),
        Look::Italic => "<i>".into(),
        Look::Struck => "<s>".into(),
        Look::Code => "<code>".into(),
        Look::Block(None) => "<pre><code>".into(),
        Look::Block(Some(language)) => format!("<pre><code class=\"language-{}\">", escape(language)),
        Look::Quote => "<blockquote>".into(),
        Look::Link(address) => format!("<a href=\"{}\">", escape(address)),
    }
}

fn closing(look: &Look) -> &'static str {
    match look {
        Look::Bold => "</b>",
        Look::Italic => "</i>",
        Look::Struck => "</s>",
        Look::Code => "</code>",
        Look::Block(_) => "</code></pre>",
        Look::Quote => "</blockquote>",
        Look::Link(_) => "</a>",
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_as_html_is_read_as_it_was() {
        let html = "<b>a &amp; <i>b</i></b> <pre><code class=\"language-rust\">&lt;x&gt;</code></pre>\
                    <pre><code>y</code></pre> <blockquote>q <a href=\"https://e.org/?a=1&amp;b=2\">l</a></blockquote>\
                    <code>c</code><s>d</s>";
        let rich = RichText::read(html);
        assert_eq!(rich.text, "a & b <x>y q lcd");
        assert_eq!(rich.html(), html);
        assert_eq!(rich.spelled_out(), "a & b <x>y q l (https://e.org/?a=1&b=2)cd");
    }

    #[test]
    fn a_mark_that_is_cut_goes_on_in_the_rest() {
        let rich = RichText::read("<b>one two</b> three");
        let (head, rest) = rich.cut(5);
        assert_eq!((head.html().as_str(), rest.html().as_str()), ("<b>one</b>", "<b>two</b> three"));
        assert_eq!(rest.cut(100), (rest, RichText::default()));
    }

    #[test]
    fn a_text_without_a_gap_is_cut_between_characters() {
        let (head, rest) = RichText::plain("👍👍👍").cut(5);
        assert_eq!((head.text.as_str(), rest.text.as_str()), ("👍👍", "👍"));
    }
}
