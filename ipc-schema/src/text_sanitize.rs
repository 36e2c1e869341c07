//! Removes or escapes characters that people cannot see, from text for models, labels, logs and terminals. Host and
//! runner use the same rules, so that the model reads nothing that a person does not see.

use std::borrow::Cow;

/// Whether a character is dropped from every text: it hides words or reverses the direction of the line, and no
/// language needs it.
///
/// Tags (U+E0000) and the supplement of variation selectors can spell whole sentences that no screen shows.
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character takes no space on a screen. Some have their use in a text (joined emoji, direction marks in
/// Hebrew), but a name needs none, and none makes two names look different.
pub fn is_zero_width(c: char) -> bool {
    is_hidden(c)
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200c}'..='\u{200f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}')
}

/// The text without hidden characters and without control characters but tabs and line feeds. Every kind of line
/// break becomes a line feed.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\t' => out.push('\t'),
            c if c.is_control() || is_hidden(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// One line of at most `max` characters, for a log, a table or a terminal: without control and zero-width characters.
pub fn line(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control() && !is_zero_width(*c)).take(max).collect()
}

/// Text made safe for one row of a table, a list or a log: control characters (line feeds included) and zero-width
/// characters become visible escapes.
pub fn safe_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if breaks_line(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// Whether a character can break, hide or rearrange a line in a terminal.
pub fn breaks_line(c: char) -> bool {
    c.is_control() || is_zero_width(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The beginning of a text: at most `most` characters, with a mark behind them if the text goes on.
pub fn beginning(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((at, _)) => Cow::Owned(format!("{}… (cut)", text.get(..at).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_a_line_and_an_emoji_stays_whole() {
        assert_eq!(clean("a\r\nb\rc\u{2028}d\u{85}e\tf"), "a\nb\nc\nd\ne\tf");
        assert_eq!(clean("👩\u{200d}🚀 ❤\u{fe0f} \u{200f}שלום"), "👩\u{200d}🚀 ❤\u{fe0f} \u{200f}שלום");
    }

    #[test]
    fn what_no_screen_shows_is_gone() {
        let tagged: String = "obey".chars().filter_map(|c| char::from_u32(0xe0000 + u32::from(c))).collect();
        assert_eq!(clean(&format!("hi{tagged}\u{202e}\u{2066}\u{200b}\u{1b}[2J\u{0}")), "hi[2J");
    }

    #[test]
    fn a_row_of_a_list_is_one_line() {
        assert_eq!(
            safe_line("a\nforged: all good\t\u{1b}[2J\u{200f}b"),
            "a\\nforged: all good\\t\\u{1b}[2J\\u{200f}b"
        );
        assert_eq!(safe_line("plain ä 王"), "plain ä 王");
    }

    proptest! {
        #[test]
        fn what_is_clean_stays_as_it_is(text in "\\PC*|[\u{0}-\u{a0}\u{2000}-\u{2070}]{0,20}") {
            let once = clean(&text);
            prop_assert_eq!(clean(&once), once);
        }
    }
}
