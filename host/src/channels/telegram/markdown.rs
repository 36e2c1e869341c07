//! Renders Markdown as Telegram's HTML (Bot API, "HTML style"): few tags, and everything else as text.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Renders Markdown. The result is balanced and escaped for any input.
pub(super) fn to_html(markdown: &str) -> String {
    let mut html = Html::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_STRIKETHROUGH) {
        html.event(event);
    }
    html.out.trim_end().to_owned()
}

/// Returns what people see of rendered text: without tags, and with decoded entities.
pub(super) fn visible(html: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            _ if !inside => text.push(c),
            _ => {}
        }
    }
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// The deepest level of nested lists that is indented.
const DEEPEST: usize = 6;

#[derive(Default)]
struct Html {
    out: String,
    /// The number of the next item of each open list; `None` for bullets.
    lists: Vec<Option<u64>>,
    /// Whether each open link has a tag.
    links: Vec<bool>,
}

impl Html {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => {
                self.out.push_str(&escape(&text))
            }
            Event::Code(text) => self.out.push_str(&format!("<code>{}</code>", escape(&text))),
            Event::SoftBreak | Event::HardBreak => self.out.push('\n'),
            Event::Rule => {
                self.block();
                self.out.push_str("———\n");
            }
            Event::TaskListMarker(_)
            | Event::FootnoteReference(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_) => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.block(),
            Tag::Heading { .. } => {
                self.block();
                self.out.push_str("<b>");
            }
            Tag::BlockQuote(_) => {
                self.block();
                self.out.push_str("<blockquote>");
            }
            Tag::CodeBlock(kind) => {
                self.block();
                self.out.push_str("<pre>");
                if let CodeBlockKind::Fenced(language) = kind
                    && let Some(word) = language.split_whitespace().next()
                {
                    self.out.push_str(&format!("<code class=\"language-{}\">", escape(word)));
                } else {
                    self.out.push_str("<code>");
                }
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.block();
                }
                self.lists.push(first);
            }
            Tag::Item => self.item(),
            Tag::Strong => self.out.push_str("<b>"),
            Tag::Emphasis => self.out.push_str("<i>"),
            Tag::Strikethrough => self.out.push_str("<s>"),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                let plain =
                    ["http://", "https://", "mailto:", "tg://"].iter().any(|s| dest_url.starts_with(s));
                if plain {
                    self.out.push_str(&format!("<a href=\"{}\">", escape(&dest_url)));
                }
                self.links.push(plain);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.out.push('\n'),
            TagEnd::Heading(_) => self.out.push_str("</b>\n"),
            TagEnd::BlockQuote(_) => {
                self.trim_newline();
                self.out.push_str("</blockquote>\n");
            }
            TagEnd::CodeBlock => {
                self.trim_newline();
                self.out.push_str("</code></pre>\n");
            }
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::Item => self.end_line(),
            TagEnd::Strong => self.out.push_str("</b>"),
            TagEnd::Emphasis => self.out.push_str("</i>"),
            TagEnd::Strikethrough => self.out.push_str("</s>"),
            TagEnd::Link | TagEnd::Image => {
                let tagged = self.links.pop() == Some(true);
                self.out.push_str(if tagged { "</a>" } else { "" });
            }
            _ => {}
        }
    }

    fn item(&mut self) {
        self.end_line();
        // At deeper levels the indentation would be longer than the items.
        let depth = self.lists.len().saturating_sub(1).min(DEEPEST);
        self.out.push_str(&"  ".repeat(depth));
        match self.lists.last_mut() {
            Some(Some(number)) => {
                self.out.push_str(&format!("{number}. "));
                *number += 1;
            }
            _ => self.out.push_str("• "),
        }
    }

    /// Starts a block with an empty line before it, except at the start of an item or a quote.
    fn block(&mut self) {
        let head = self.out.is_empty()
            || ["• ", ". ", "<blockquote>"].iter().any(|h| self.out.ends_with(h))
                && !self.out.ends_with('\n');
        if head {
            return;
        }
        self.end_line();
        if !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn end_line(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    fn trim_newline(&mut self) {
        let length = self.out.trim_end_matches('\n').len();
        self.out.truncate(length);
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn raw_html_is_text_and_odd_links_are_only_words() {
        assert_eq!(to_html("<b>x</b> & <script>"), "&lt;b&gt;x&lt;/b&gt; &amp; &lt;script&gt;");
        assert_eq!(to_html("[x](javascript:alert)"), "x");
    }

    proptest! {
        #[test]
        fn whatever_is_written_every_tag_is_closed(text in "([a-z<>&\"`*_~#>\\[\\]() \n.-]|```|https://e.org){0,120}") {
            let html = to_html(&text);
            for tag in ["b", "i", "s", "code", "pre", "blockquote", "a"] {
                let open = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
                prop_assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{} in {}", tag, html);
            }
        }
    }
}
