//! Splits a reply into messages. Telegram takes 4096 UTF-16 units after it has parsed the markup (Bot API,
//! sendMessage). A code block that is cut is closed, and opened again in the next part.

/// Telegram's limits for a message and for a file's caption.
pub(super) const TEXT_UNITS: usize = 4_096;
pub(super) const CAPTION_UNITS: usize = 1_024;
/// The limit of a part. The rest is room for the notice prefix, closing fences, and bullets that are longer than their
/// markup.
const PART_UNITS: usize = 3_800;

/// Returns the length as Telegram counts it.
pub(super) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Splits Markdown. It prefers to cut between paragraphs, then between lines, then between words.
pub(super) fn parts(markdown: &str) -> Vec<String> {
    let text = markdown.trim();
    if text.is_empty() {
        return Vec::new();
    }
    let mut splitter = Splitter::default();
    for line in text.split('\n') {
        splitter.line(line);
    }
    splitter.finish()
}

#[derive(Default)]
struct Splitter {
    parts: Vec<String>,
    part: String,
    /// The opening line of the code block in which `part` ends.
    fence: Option<String>,
    /// Where the last paragraph outside a code block began, which is the best place to cut.
    paragraph: usize,
}

impl Splitter {
    fn line(&mut self, line: &str) {
        if line.trim().is_empty() && self.fence.is_none() {
            self.add("");
            self.paragraph = self.part.len();
            return;
        }
        for piece in pieces(line) {
            // After a cut at a paragraph, the rest can still be too long together with the piece.
            while units(&self.part) + units(piece) + 1 > PART_UNITS && self.cut() {}
            self.add(piece);
        }
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            self.fence = match self.fence.take() {
                None => Some(opening(trimmed)),
                Some(_) => None,
            };
        }
    }

    fn add(&mut self, piece: &str) {
        if !self.part.is_empty() {
            self.part.push('\n');
        }
        self.part.push_str(piece);
    }

    /// Ends the part at the last paragraph if this keeps at least a third of it, and at its end otherwise. Returns
    /// whether there was anything to end: a part with only a code block's opening line stays.
    fn cut(&mut self) -> bool {
        if self.part.is_empty() || self.fence.as_ref() == Some(&self.part) {
            return false;
        }
        let rest = if self.fence.is_none() && self.paragraph > self.part.len() / 3 {
            self.part.split_off(self.paragraph)
        } else {
            String::new()
        };
        let mut done = std::mem::take(&mut self.part);
        if let Some(fence) = &self.fence {
            done.push('\n');
            done.extend(fence.chars().take_while(|c| matches!(c, '`' | '~')));
            self.part.clone_from(fence);
        } else {
            self.part = rest.trim_start_matches('\n').to_owned();
        }
        self.paragraph = 0;
        self.keep(&done);
        true
    }

    fn keep(&mut self, part: &str) {
        let part = part.trim_matches('\n').trim_end();
        if !part.trim().is_empty() {
            self.parts.push(part.to_owned());
        }
    }

    fn finish(mut self) -> Vec<String> {
        let last = std::mem::take(&mut self.part);
        self.keep(&last);
        self.parts
    }
}

/// Returns the line that opens a code block again: its fence and its language. Other text of the line is not repeated
/// in every part.
fn opening(line: &str) -> String {
    let fence: String = line.chars().take_while(|c| matches!(c, '`' | '~')).take(10).collect();
    let language = line.trim_start_matches(['`', '~']).split_whitespace().next().unwrap_or_default();
    if language.len() <= 30 { format!("{fence}{language}") } else { fence }
}

/// Splits a line into pieces that fit: after a space in the second half where there is one, and between any two
/// characters otherwise.
fn pieces(line: &str) -> Vec<&str> {
    const PIECE: usize = PART_UNITS - 200;
    let mut rest = line;
    let mut pieces = Vec::new();
    while units(rest) > PIECE {
        let mut length = 0;
        let fits = rest.char_indices().take_while(|(_, c)| {
            length += c.len_utf16();
            length <= PIECE
        });
        let end = fits.last().map_or(rest.len(), |(at, c)| at + c.len_utf8());
        let head = rest.get(..end).unwrap_or(rest);
        let at = head.rfind(' ').map(|space| space + 1).filter(|at| *at > end / 2).unwrap_or(end);
        let (piece, more) = rest.split_at(at);
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn d11_nothing_to_say_is_no_message() {
        assert!(parts("").is_empty());
        assert!(parts(" \n\t\n").is_empty());
        assert_eq!(parts("hi\n"), ["hi"]);
    }

    #[test]
    fn a_long_reply_is_cut_between_paragraphs() {
        let paragraph = "word ".repeat(300);
        let text = [paragraph.trim(), paragraph.trim(), paragraph.trim()].join("\n\n");
        let parts = parts(&text);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts.join("\n\n"), text);
    }

    #[test]
    fn a_code_block_that_is_cut_is_closed_and_opened_again() {
        let code: String = (0..400).map(|n| format!("let line_{n} = {n};\n")).collect();
        let parts = parts(&format!("Here:\n```rust\n{code}```\nDone."));
        assert!(parts.len() > 1);
        for part in &parts {
            assert_eq!(part.matches("```").count() % 2, 0, "{part}");
        }
        assert!(parts[1].starts_with("```rust\n"), "{}", parts[1]);
        let all = parts.join("\n");
        for n in 0..400 {
            assert_eq!(all.matches(&format!("let line_{n} = {n};")).count(), 1);
        }
    }

    #[test]
    fn a_line_without_spaces_is_cut_between_characters() {
        let parts = parts(&"👍".repeat(5_000));
        assert!(parts.iter().all(|p| units(p) <= 4096));
        assert_eq!(parts.concat().chars().filter(|c| *c == '👍').count(), 5_000);
    }

    proptest! {
        #[test]
        fn every_part_fits_and_no_word_is_lost(
            words in proptest::collection::vec("[a-zäß👍]{1,40}|```|\n|\n\n", 0..500)
        ) {
            let text = words.join(" ");
            let parts = parts(&text);
            for part in &parts {
                prop_assert!(units(part) <= 4096, "{}", units(part));
                prop_assert!(!part.trim().is_empty());
            }
            let letters = |t: &str| t.chars().filter(|c| c.is_alphabetic() || *c == '👍').collect::<String>();
            prop_assert_eq!(letters(&parts.concat()).len() >= letters(&text).len(), true);
        }
    }
}
