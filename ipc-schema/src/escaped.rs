//! The room that a text takes in a letter: JSON writes some characters as two bytes or as six.

/// The bytes of a character as serde_json writes it.
fn bytes_of(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

/// The bytes of a text in a letter, without the quotation marks around it.
pub fn len(text: &str) -> usize {
    text.chars().map(bytes_of).sum()
}

/// The longest beginning of a text that takes at most `most` bytes in a letter.
pub fn beginning(text: &str, most: usize) -> &str {
    let mut left = most;
    let end = text.char_indices().find_map(|(at, c)| match left.checked_sub(bytes_of(c)) {
        Some(rest) => {
            left = rest;
            None
        }
        None => Some(at),
    });
    text.get(..end.unwrap_or(text.len())).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_text_takes_the_room_that_json_gives_it(text in "(\\PC|[\u{0}-\u{9f}\"\\\\]){0,60}", most in 0usize..80) {
            prop_assert_eq!(len(&text), serde_json::to_string(&text).unwrap().len() - 2);
            let begins = beginning(&text, most);
            prop_assert!(text.starts_with(begins) && len(begins) <= most);
            let next = text[begins.len()..].chars().next();
            prop_assert!(next.is_none_or(|c| len(begins) + bytes_of(c) > most), "not one character fewer");
        }
    }
}
