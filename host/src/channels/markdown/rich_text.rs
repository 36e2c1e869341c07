//! A text with its formatting: what people read, and marks over ranges of it. Its length is that of the text alone. It
//! can be cut anywhere: a mark that is cut goes on in the rest.

use ipc_schema::text_sanitize::is_zero_width;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
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
pub struct Mark {
    pub start: usize,
    pub end: usize,
    pub look: Look,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RichText {
    pub text: String,
    /// In the order of their beginnings, the outer ones first.
    pub marks: Vec<Mark>,
}

/// Returns the length in UTF-16 units, as platforms count it.
pub fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Whether a person sees anything of the text. Platforms refuse a text of which nothing is seen.
pub fn is_visible(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace() && !c.is_control() && !is_zero_width(c))
}

impl RichText {
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), marks: Vec::new() }
    }

    /// Ends a mark here.
    pub fn end(&mut self, mark: usize) {
        let end = self.text.len();
        if let Some(mark) = self.marks.get_mut(mark) {
            mark.end = end;
        }
    }

    /// Returns the text with the address of each link behind its words, for where no words can be a link. What is added
    /// is part of the quotes around it, and has no other look.
    pub fn spelled_out(&self) -> Self {
        let address = |mark: &Mark| match &mark.look {
            Look::Link(address) => {
                let words = self.text.get(mark.start..mark.end);
                let known = words == Some(address) || words == address.strip_prefix("mailto:");
                (!known).then(|| (mark.end, format!(" ({address})")))
            }
            _ => None,
        };
        let mut added: Vec<(usize, String)> = self.marks.iter().filter_map(address).collect();
        added.sort_by_key(|(at, _)| *at);
        let (mut text, mut from) = (String::new(), 0);
        // Where the text goes on behind each address.
        let mut behind = Vec::new();
        for (at, words) in &added {
            text.push_str(self.text.get(from..*at).unwrap_or_default());
            text.push_str(words);
            from = *at;
            behind.push(text.len() - from);
        }
        text.push_str(self.text.get(from..).unwrap_or_default());
        let shift = |before: usize| before.checked_sub(1).and_then(|n| behind.get(n)).copied().unwrap_or(0);
        let mut marks = Vec::new();
        for Mark { start, end, look } in &self.marks {
            let first = added.partition_point(|(at, _)| at <= start);
            let last = added.partition_point(|(at, _)| at < end);
            match look {
                Look::Link(_) => {}
                Look::Quote => {
                    let last = added.partition_point(|(at, _)| at <= end);
                    marks.push(Mark {
                        start: start + shift(first),
                        end: end + shift(last),
                        look: look.clone(),
                    });
                }
                _ => {
                    let ends =
                        added.get(first..last).unwrap_or_default().iter().map(|(at, _)| *at).chain([*end]);
                    let mut start = *start;
                    for (n, end) in (first..).zip(ends) {
                        marks.push(Mark { start: start + shift(n), end: end + shift(n), look: look.clone() });
                        start = end;
                    }
                }
            }
        }
        marks.sort_by_key(|mark| (mark.start, std::cmp::Reverse(mark.end)));
        Self { text, marks }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rich(text: &str, marks: &[(&str, Look)]) -> RichText {
        let mark = |(words, look): &(&str, Look)| {
            let start = text.find(words).unwrap();
            Mark { start, end: start + words.len(), look: look.clone() }
        };
        RichText { text: text.into(), marks: marks.iter().map(mark).collect() }
    }

    #[test]
    fn a_mark_that_is_cut_goes_on_in_the_rest() {
        let whole = rich("one two three", &[("one two", Look::Bold)]);
        let (head, rest) = whole.cut(5);
        assert_eq!(head, rich("one", &[("one", Look::Bold)]));
        assert_eq!(rest, rich("two three", &[("two", Look::Bold)]));
        assert_eq!(rest.cut(100), (rest, RichText::default()));
    }

    #[test]
    fn a_text_without_a_gap_is_cut_between_characters() {
        let (head, rest) = RichText::plain("👍👍👍").cut(5);
        assert_eq!((head.text.as_str(), rest.text.as_str()), ("👍👍", "👍"));
    }

    #[test]
    fn addresses_stand_behind_the_words_of_links_and_have_no_look() {
        let link = |address: &str| Look::Link(address.into());
        let whole = rich(
            "see the page and https://e.org now. Quoted",
            &[
                ("see the page and https://e.org now.", Look::Bold),
                ("page", link("https://e.org/p")),
                ("https://e.org", link("https://e.org")),
                ("Quoted", Look::Quote),
                ("Quoted", link("https://e.org/q")),
            ],
        );
        assert_eq!(
            whole.spelled_out(),
            rich(
                "see the page (https://e.org/p) and https://e.org now. Quoted (https://e.org/q)",
                &[
                    ("see the page", Look::Bold),
                    (" and https://e.org now.", Look::Bold),
                    ("Quoted (https://e.org/q)", Look::Quote),
                ]
            )
        );
    }
}
