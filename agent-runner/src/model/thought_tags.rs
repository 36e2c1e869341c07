//! Separates `<think>…</think>` from the text of an answer. Many local models think in such tags, over each wire.
//! Pure: `stream` calls it.
//!
//! Tags count at the beginning of a text, and after another thought: in the middle of a text they may be what the text
//! is about. Some servers put the opening tag into the prompt. Then the answer has only the closing one, alone on its
//! line.

const TAGS: [(&str, &str); 4] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
];

/// Returns the thoughts and the words of a text.
pub(super) fn separate(text: &str) -> (String, &str) {
    let (mut thoughts, mut rest) = (String::new(), text);
    loop {
        let words = rest.trim_start();
        let Some((tag, end)) = TAGS.iter().find(|(tag, _)| words.starts_with(tag)) else { break };
        let (thought, after) = words[tag.len()..].split_once(end).unwrap_or((&words[tag.len()..], ""));
        thoughts.push_str(thought);
        rest = after;
    }
    if thoughts.is_empty() && rest.len() == text.len() {
        return lone_end(text).unwrap_or((thoughts, text));
    }
    (thoughts, rest.trim_start())
}

/// The words of a text that is still coming. What may become a tag is not shown.
pub(super) fn words_so_far(text: &str) -> &str {
    let (_, words) = separate(text);
    let may_become_one = TAGS.iter().any(|(tag, _)| tag.starts_with(words.trim_start()));
    if may_become_one { "" } else { words }
}

/// Separates a text at a closing tag that no opening one came before. A tag in a code block counts as text.
fn lone_end(text: &str) -> Option<(String, &str)> {
    let (mut at, mut in_code) = (0, false);
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        in_code ^= line.trim_start().starts_with("```");
        let Some((tag, _)) = TAGS.iter().find(|(_, end)| line.trim() == *end).filter(|_| !in_code) else {
            continue;
        };
        let thought = &text[..start];
        return (!thought.contains(tag)).then(|| (thought.to_owned(), text[at..].trim_start()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_stay_out_of_the_words() {
        for (text, words, thoughts) in [
            ("<think>\nhm\n</think>\n\nHello!", "Hello!", "\nhm\n"),
            ("\n<think>a</think> <think>b</think>c", "c", "ab"),
            ("<thinking>a < b </think </thinking>c", "c", "a < b </think "),
            ("<think>never ends", "", "never ends"),
            ("<think></think>so", "so", ""),
            ("they seem upset\n</think>\n\nHello!", "Hello!", "they seem upset\n"),
            ("a\n  </thinking>  \nso", "so", "a\n"),
            ("  plain", "  plain", ""),
            ("", "", ""),
            ("<thin", "<thin", ""),
            ("<b>bold</b>", "<b>bold</b>", ""),
            ("Write `<think>x</think>` so.", "Write `<think>x</think>` so.", ""),
            ("It ends with </think> there.", "It ends with </think> there.", ""),
            ("So:\n<think>\nx\n</think>\nend", "So:\n<think>\nx\n</think>\nend", ""),
            ("So:\n```\n</think>\n```\nend", "So:\n```\n</think>\n```\nend", ""),
            ("<think>ü</think>ä <think>x</think>", "ä <think>x</think>", "ü"),
        ] {
            assert_eq!(separate(text), (thoughts.to_owned(), words), "{text:?}");
        }
    }

    #[test]
    fn a_text_that_still_comes_shows_no_half_tag() {
        let answer = "<think>hm</think>\nHello!";
        let shown: Vec<&str> = (0..=answer.len()).map(|end| words_so_far(&answer[..end])).collect();
        assert!(shown.iter().all(|words| "Hello!".starts_with(words)), "{shown:?}");
        assert_eq!(shown.last(), Some(&"Hello!"));
        assert_eq!(words_so_far("<b>bold"), "<b>bold");
    }
}
