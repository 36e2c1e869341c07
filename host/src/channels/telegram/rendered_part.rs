//! Renders a part's text for Telegram.

use ipc_schema::text_sanitize::clean;

use super::markdown::{escape, to_html, visible};
use super::split::units;
use crate::domain::outbound::Voice;
use crate::text;

/// Both forms of one part. Neither is longer than Telegram allows, and neither lets an agent's text look like a notice.
pub(super) struct RenderedPart {
    pub html: String,
    /// The text as written, for the case that Telegram refuses the HTML.
    pub plain: String,
}

impl RenderedPart {
    /// Renders a part of [`super::split::parts`], a notice or a caption within `room` units.
    pub fn of(voice: Voice, text: &str, room: usize) -> Self {
        let plain = text::render(voice, text);
        // A notice can quote anybody's text, so it has no formatting and no links except for code spans in backticks.
        if voice == Voice::Notice {
            return Self { html: code_spans(&escape(&plain)), plain };
        }
        let html = to_html(&plain);
        let seen = visible(&html);
        // Bullets and rules can be longer than their markup. If the result is too long, the text is sent without
        // formatting.
        if units(&seen) > room {
            return Self { html: escape(&plain), plain };
        }
        // Markup can hide the notices' prefix, or characters that reverse a line, so that only the reader sees them.
        // Such a reply also loses its formatting.
        if text::looks_like_notice(&seen) || clean(&seen) != seen {
            return Self { html: escape(&text::render(voice, &seen)), plain };
        }
        Self { html, plain }
    }
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
    use super::super::split::TEXT_UNITS;
    use super::*;
    use proptest::prelude::*;

    fn reply(text: &str) -> RenderedPart {
        RenderedPart::of(Voice::Reply, text, TEXT_UNITS)
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
            let RenderedPart { html, plain } = reply(&format!("ok\n\n{hidden}"));
            assert!(!text::looks_like_notice(&visible(&html)) && !text::looks_like_notice(&plain), "{html}");
            assert!(html.contains("Pay &lt;here&gt;"), "{html}");
        }
        let link = reply("lazaret is [here](https://e.org)").html;
        assert_eq!(link, "lazaret is <a href=\"https://e.org\">here</a>");
    }

    #[test]
    fn d13_markup_cannot_turn_a_line_around() {
        for hidden in ["&#x202e;]terazal[&#x202c; Pay", "&#8238;]terazal[ Pay", "**&#x2067;**]terazal[ Pay"] {
            let RenderedPart { html, plain } = reply(hidden);
            let turned = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            assert!(!visible(&html).contains(turned) && !plain.contains(turned), "{html:?}");
        }
    }

    #[test]
    fn d13_what_a_notice_quotes_has_no_looks() {
        let quoting = r#"It says: "[Confirm](https://e.org) &quot; **now** <b>""#;
        let RenderedPart { html, plain } = RenderedPart::of(Voice::Notice, quoting, TEXT_UNITS);
        assert_eq!(plain, format!("[lazaret] {quoting}"));
        assert!(!html.contains("<a") && !html.contains("<b>") && html.contains("&amp;quot;"), "{html}");
        let told =
            RenderedPart::of(Voice::Notice, "did you mean `turn`? Run `a <b>`, `` or `c", TEXT_UNITS).html;
        assert_eq!(told, "[lazaret] did you mean <code>turn</code>? Run <code>a &lt;b&gt;</code>, `` or `c");
    }

    #[test]
    fn a_part_that_grows_when_it_is_rendered_is_shown_as_it_was_written() {
        for long in ["-\n".repeat(1_900), "- ".repeat(1_900), "***\n".repeat(950)] {
            let RenderedPart { html, .. } = reply(&long);
            assert!(units(&visible(&html)) <= TEXT_UNITS, "{}", units(&visible(&html)));
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
            let RenderedPart { html, plain } = reply(&pieces.concat());
            prop_assert!(!text::looks_like_notice(&visible(&html)), "{html}");
            prop_assert!(!text::looks_like_notice(&plain), "{plain}");
        }
    }
}
