//! The HTML that Telegram reads (Bot API, "HTML style").

use crate::channels::markdown::{Dialect, Look, Mark, RichText};

/// What Telegram shows.
pub(super) const DIALECT: Dialect = Dialect { links: &["http://", "https://", "mailto:"], widest_table: 64 };

/// Writes a text as HTML, which is balanced and escaped for any text.
pub(super) fn write_html(rich: &RichText) -> String {
    let mut writer = Html { out: String::new(), at: 0, text: &rich.text, open: Vec::new() };
    for mark in &rich.marks {
        writer.close(mark.start);
        writer.words(mark.start);
        writer.out.push_str(&opening(&mark.look));
        writer.open.push(mark);
    }
    writer.close(usize::MAX);
    writer.words(rich.text.len());
    writer.out
}

/// Reads what [`write_html`] has written.
pub(super) fn read_html(html: &str) -> RichText {
    let mut rich = RichText::default();
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
            ("code", Some(class)) => Some(Look::Block(class.strip_prefix("language-").map(str::to_owned))),
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
    use crate::channels::markdown::{is_visible, read};
    use proptest::prelude::*;

    fn to_html(markdown: &str) -> String {
        write_html(&read(markdown, &DIALECT))
    }

    #[test]
    fn what_models_write_looks_as_meant() {
        let html = to_html(
            "# Title\n\nSome **bold**, *soft* and `code<T>`.\n\n- one\n- two\n  - deep\n\n1. first\n2. second\n\n```rust\nlet x = 1 < 2;\n```\n\n> quoted\n\n[link](https://e.org/?a=1&b=2)",
        );
        assert_eq!(
            html,
            "<b>Title</b>\n\nSome <b>bold</b>, <i>soft</i> and <code>code&lt;T&gt;</code>.\n\n• one\n• two\n  • deep\n\n1. first\n2. second\n\n<pre><code class=\"language-rust\">let x = 1 &lt; 2;</code></pre>\n\n<blockquote>quoted</blockquote>\n\n<a href=\"https://e.org/?a=1&amp;b=2\">link</a>"
        );
    }

    #[test]
    fn raw_html_is_text_and_an_address_that_is_no_link_stands_behind_its_words() {
        assert_eq!(to_html("<b>x</b> & <script>"), "&lt;b&gt;x&lt;/b&gt; &amp; &lt;script&gt;");
        assert_eq!(to_html("[x](javascript:alert)"), "x (javascript:alert)");
        assert_eq!(to_html("[report](/workspace/report.md)"), "report (/workspace/report.md)");
        // An address in the app can press, join and pay: people see it before they follow it.
        assert_eq!(to_html("[ok](tg://resolve?domain=x)"), "ok (tg://resolve?domain=x)");
        assert_eq!(to_html("<ann@e.org>"), "ann@e.org");
    }

    #[test]
    fn a_reply_of_which_nothing_would_be_seen_is_shown_as_it_was_written() {
        let web = "<a href=\"https://e.org/cat.png\">https://e.org/cat.png</a>";
        assert_eq!(to_html("![](https://e.org/cat.png)"), web);
        assert_eq!(to_html("[](https://e.org/cat.png)"), web);
        for bare in
            ["[]()", "![]()", ">", "#", "[1]: https://e.org", "[note]: important", "```\n```", "```Buy milk"]
        {
            assert_eq!(to_html(bare), escape(bare));
        }
        assert_eq!(to_html("<!-- said aside -->"), "&lt;!-- said aside --&gt;");
        assert_eq!(to_html("> [note]: important"), "<blockquote>[note]: important</blockquote>");
        assert_eq!(to_html("- [note]: important\n- b"), "• [note]: important\n• b");
    }

    #[test]
    fn a_definition_that_a_link_uses_is_only_the_links_address() {
        assert_eq!(
            to_html(
                "The [docs][d] say so [1].\n\n[d]: https://e.org/d\n[1]: https://e.org/1\n[x]: https://e.org/x"
            ),
            "The <a href=\"https://e.org/d\">docs</a> say so <a href=\"https://e.org/1\">[1]</a>.\n\n[x]: https://e.org/x"
        );
    }

    #[test]
    fn a_table_is_monospace_and_a_wide_one_is_a_list_of_records() {
        assert_eq!(
            to_html("|Name|Age|\n|---|--:|\n|**Ann**|5|extra|\n|[Bob](https://e.org)|41|\n"),
            "<pre><code>Name                | Age |\n--------------------+-----+------\nAnn                 |   5 | extra\nBob (https://e.org) |  41 |</code></pre>"
        );
        let wide = "word ".repeat(15);
        assert_eq!(
            to_html(&format!("Look:\n\n|Name|What|\n|-|-|\n|Ann|{wide}|\n|Bob|x|")),
            format!(
                "Look:\n\n<b>Name</b>: Ann\n<b>What</b>: {}\n\n<b>Name</b>: Bob\n<b>What</b>: x",
                wide.trim()
            )
        );
    }

    #[test]
    fn what_is_written_as_html_is_read_as_it_was() {
        let written = "<b>a &amp; <i>b</i></b> <pre><code class=\"language-rust\">&lt;x&gt;</code></pre>\
                    <pre><code>y</code></pre> <blockquote>q <a href=\"https://e.org/?a=1&amp;b=2\">l</a></blockquote>\
                    <code>c</code><s>d</s>";
        let rich = read_html(written);
        assert_eq!(rich.text, "a & b <x>y q lcd");
        assert_eq!(write_html(&rich), written);
        assert_eq!(rich.spelled_out().text, "a & b <x>y q l (https://e.org/?a=1&b=2)cd");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn whatever_is_written_every_tag_is_closed_and_reads_back(
            text in "([a-z<>&\"`*_~#>\\[\\]():|! \n.-]|```|https://e.org|\\|-\\|){0,120}"
        ) {
            let rich = read(&text, &DIALECT);
            let written = write_html(&rich);
            for tag in ["b", "i", "s", "code", "pre", "blockquote", "a"] {
                let open = written.matches(&format!("<{tag}>")).count() + written.matches(&format!("<{tag} ")).count();
                prop_assert_eq!(open, written.matches(&format!("</{tag}>")).count(), "{} in {}", tag, written);
            }
            prop_assert_eq!(write_html(&read_html(&written)), written);
            prop_assert_eq!(is_visible(&rich.text), is_visible(&text));
        }
    }
}
