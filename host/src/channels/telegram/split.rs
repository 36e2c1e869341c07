//! Splits a reply into messages. Telegram takes 4096 UTF-16 units after it has parsed the markup (Bot API,
//! sendMessage), so the rendered reply is cut, and each part is stored as HTML.

use super::html::{DIALECT, write_html};
use crate::channels::markdown::{RichText, is_visible, read};
use crate::domain::outbound::{PartText, Voice};
use crate::text;

/// Telegram's limits for a message and for a file's caption.
pub(super) const TEXT_UNITS: usize = 4_096;
pub(super) const CAPTION_UNITS: usize = 1_024;

/// Splits Markdown into parts of which something is seen.
pub(super) fn parts(markdown: &str) -> Vec<PartText> {
    let whole = read(&text::render(Voice::Reply, markdown), &DIALECT);
    let shown = whole.parts(TEXT_UNITS).into_iter().filter(|part| is_visible(&part.text));
    shown.map(|part| PartText { markup: Some(write_html(&part)), text: part.text, file: None }).collect()
}

/// Whether Telegram takes this Markdown below a file.
pub(super) fn is_caption(markdown: &str) -> bool {
    let (_, rest) = read(&text::render(Voice::Reply, markdown), &DIALECT).cut(CAPTION_UNITS);
    rest == RichText::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::markdown::units;
    use proptest::prelude::*;

    fn texts(markdown: &str) -> Vec<String> {
        parts(markdown).into_iter().map(|part| part.text).collect()
    }

    fn markup(markdown: &str) -> Vec<String> {
        parts(markdown).into_iter().filter_map(|part| part.markup).collect()
    }

    #[test]
    fn d11_nothing_to_say_is_no_message() {
        assert!(parts("").is_empty());
        assert!(parts(" \n\t\n\u{200b}").is_empty());
        assert_eq!(texts("hi\n"), ["hi"]);
        assert_eq!(markup("**hi\u{200b}**\r\n"), ["<b>hi</b>"], "what nobody sees costs no formatting");
    }

    #[test]
    fn a_long_reply_is_cut_between_paragraphs() {
        let paragraph = "word ".repeat(300);
        let text = [paragraph.trim(), paragraph.trim(), paragraph.trim()].join("\n\n");
        let parts = texts(&text);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts.join("\n\n"), text);
    }

    #[test]
    fn what_telegram_does_not_count_makes_no_part() {
        let link = format!("[word](https://e.org/{}) ", "x".repeat(60));
        assert_eq!(texts(&link.repeat(800)).len(), 1);
        assert_eq!(texts(&"👍".repeat(2_048)).len(), 1);
        assert_eq!(texts(&"👍".repeat(2_049)).len(), 2);
        assert!(
            is_caption(&"é".repeat(1_024)) && is_caption(&"👍".repeat(512)) && !is_caption(&"👍".repeat(513))
        );
    }

    #[test]
    fn a_link_finds_its_definition_in_a_later_part() {
        let text = format!("See [the page][p].\n\n{}\n\n[p]: https://e.org/p", "word ".repeat(1_500));
        let parts = markup(&text);
        assert!(parts.len() > 1);
        assert!(parts[0].starts_with("See <a href=\"https://e.org/p\">the page</a>."), "{}", parts[0]);
        assert!(!parts.concat().contains("[p]"));
    }

    #[test]
    fn a_code_block_that_is_cut_is_closed_and_opened_again() {
        let code: String = (0..400).map(|n| format!("let line_{n} = {n};\n")).collect();
        let indented = |with: &str| code.lines().map(|line| format!("{with}{line}\n")).collect::<String>();
        for text in [
            format!("Here:\n```rust\n{code}```\nDone."),
            format!("Here:\n~~~~ rust\n{code}```\n~~~\n~~~~\nDone."),
            format!("- Here:\n  ```rust\n{}  ```\n\nDone.", indented("  ")),
            format!("> Here:\n> ```rust\n{}> ```\n\nDone.", indented("> ")),
            format!("1. > Here:\n   > ```rust\n{}   > ```\n\nDone.", indented("   > ")),
        ] {
            let parts = markup(&text);
            assert!(parts.len() > 1);
            for part in &parts {
                assert_eq!(part.matches("<pre><code class=\"language-rust\">").count(), 1, "{part}");
                assert_eq!(part.matches("</code></pre>").count(), 1, "{part}");
            }
            assert!(parts[parts.len() - 1].ends_with("Done."), "{}", parts[parts.len() - 1]);
            for n in 0..400 {
                assert_eq!(parts.concat().matches(&format!("let line_{n} = {n};")).count(), 1);
            }
        }
    }

    #[test]
    fn a_fence_in_one_line_opens_no_code_block() {
        let parts = markup(&format!("```one line```\n\n{}", "word ".repeat(2_000)));
        assert!(parts[0].starts_with("<code>one line</code>\n\nword"), "{}", parts[0]);
        assert!(parts.len() > 1 && !parts.concat().contains("<pre>"));
    }

    #[test]
    fn a_list_that_is_cut_counts_on() {
        let items: String = (0..600).map(|n| format!("1. **item** {n}\n")).collect();
        let parts = texts(&items);
        assert!(parts.len() > 1 && parts.join("\n").contains("\n600. item 599"), "{}", parts.len());
    }

    proptest! {
        #[test]
        fn every_part_fits_and_no_word_is_lost_or_doubled(
            words in proptest::collection::vec("[a-zäß👍]{1,40}|```|\n|\n\n|> |- |\\*\\*|\\|", 0..600)
        ) {
            let text = words.join(" ");
            let whole = read(&text, &DIALECT).text;
            let parts = texts(&text);
            for part in &parts {
                prop_assert!(units(part) <= TEXT_UNITS, "{}", units(part));
                prop_assert!(is_visible(part));
            }
            let words = |t: &str| t.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(words(&parts.concat()), if is_visible(&whole) { words(&whole) } else { String::new() });
        }
    }
}
