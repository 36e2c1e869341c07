//! Files that people send: how many of a message are looked at, and what a stored one is called. Nobody here looks into
//! one: what it claims to be is a label, and its name on the disk is made of its bytes.

/// Files of one message that are looked at.
pub const FILES: usize = 10;

/// The name of a stored file: of its digest, and of the sender's label no more than a short plain ending.
pub fn file_name(sha256: &str, label: &str) -> String {
    let short: String = sha256.chars().take(20).collect();
    let ending = label.rsplit_once('.').map_or("", |(_, ending)| ending);
    let ending: String =
        ending.chars().filter(char::is_ascii_alphanumeric).take(8).collect::<String>().to_lowercase();
    if ending.is_empty() { short } else { format!("{short}.{ending}") }
}

/// What the agent reads about the files of a message that nobody looked at.
pub fn beyond(rest: usize) -> String {
    format!("not stored: {rest} more; a message may carry {FILES} files")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stored_file_is_called_by_its_bytes_whatever_its_sender_calls_it(label in any::<String>()) {
            let name = file_name(&"ab".repeat(32), &label);
            prop_assert!(name.starts_with("abababababababababab") && name.len() <= 29, "{name}");
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'), "{name}");
        }
    }

    #[test]
    fn d2_a_label_reaches_the_disk_as_an_ending_or_not_at_all() {
        let digest = "0123456789abcdef0123456789abcdef";
        for (label, expected) in [
            ("fridge.JPG", "0123456789abcdef0123.jpg"),
            ("../../etc/passwd", "0123456789abcdef0123.etcpassw"),
            ("a.\u{202e}gpj.exe", "0123456789abcdef0123.exe"),
            ("-rf", "0123456789abcdef0123"),
            ("a.\n", "0123456789abcdef0123"),
            ("a.superlongending", "0123456789abcdef0123.superlon"),
        ] {
            assert_eq!(file_name(digest, label), expected, "{label:?}");
        }
    }
}
