//! Reads markup as WhatsApp shows it, by its rules. The tests compare this with what the writer meant.

use super::rules::{
    BULLET, CODE, FENCE, GRAVE, HAIR, JOINER, MARKERS, QUOTE, Reading, addresses, closes, is_sign, opens,
};
use crate::channels::markdown::{Look, Mark, RichText};

/// What people see of a message, and what of it has which look.
pub fn shown(markup: &str, reading: Reading) -> RichText {
    let mut screen = Screen { reading, out: RichText::default() };
    let mut rest = markup;
    while let Some((before, block, after)) = first_block(rest) {
        screen.lines(before);
        screen.with(Look::Block(None), |screen| screen.out.text.push_str(block));
        rest = after;
    }
    screen.lines(rest);
    screen.out
}

fn first_block(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(FENCE)?;
    let (block, after) = rest.split_once(FENCE).filter(|(block, _)| !block.is_empty())?;
    Some((before, block, after))
}

/// The text without what keeps its characters from being markers, which nobody sees.
pub fn bare(text: &str) -> String {
    let seen = text.chars().filter(|c| ![HAIR, JOINER].contains(c));
    seen.map(|c| if c == GRAVE { CODE } else { c }).collect()
}

struct Screen {
    reading: Reading,
    out: RichText,
}

impl Screen {
    fn with(&mut self, look: Look, show: impl FnOnce(&mut Self)) {
        let (mark, start) = (self.out.marks.len(), self.out.text.len());
        self.out.marks.push(Mark { start, end: start, look });
        show(self);
        self.out.end(mark);
    }

    fn lines(&mut self, text: &str) {
        for (n, line) in text.split('\n').enumerate() {
            if n > 0 {
                self.out.text.push('\n');
            }
            match line.strip_prefix(QUOTE) {
                Some(quoted) => self.with(Look::Quote, |screen| screen.inline(&chars(quoted))),
                None if is_sign(line) => {
                    self.out.text.push_str(BULLET);
                    self.inline(&chars(line).split_off(2));
                }
                None => self.inline(&chars(line)),
            }
        }
    }

    /// Shows characters of a line; those of addresses are no markers.
    fn inline(&mut self, line: &[(char, bool)]) {
        let at = |n: usize| line.get(n).map(|(c, _)| *c);
        let around = |n: usize| (n.checked_sub(1).and_then(at), at(n + 1));
        let mut n = 0;
        while let Some((c, is_marker)) = line.get(n).copied() {
            let (before, after) = around(n);
            let end = match c {
                _ if !is_marker => None,
                CODE if self.reading == Reading::Liberal || opens(self.reading, before, after) => {
                    (n + 2..line.len()).find(|end| line[*end] == (CODE, true))
                }
                _ if MARKERS.contains(&c) && opens(self.reading, before, after) => {
                    let ticks =
                        |part: &[(char, bool)]| part.iter().filter(|one| **one == (CODE, true)).count();
                    let code = |end: usize| ticks(&line[n..end]) % 2 == 1 && ticks(&line[end..]) > 0;
                    let closing = |end: &usize| closes(around(*end).0, around(*end).1) && !code(*end);
                    (n + 2..line.len()).filter(|end| line[*end] == (c, true)).find(closing)
                }
                _ => None,
            };
            let Some(end) = end else {
                self.out.text.push(c);
                n += 1;
                continue;
            };
            let inside = &line[n + 1..end];
            match c {
                CODE => {
                    self.with(Look::Code, |screen| screen.out.text.extend(inside.iter().map(|(c, _)| *c)))
                }
                '*' => self.with(Look::Bold, |screen| screen.inline(inside)),
                '_' => self.with(Look::Italic, |screen| screen.inline(inside)),
                _ => self.with(Look::Struck, |screen| screen.inline(inside)),
            }
            n = end + 1;
        }
    }
}

/// The characters of a line, and whether each can be a marker.
fn chars(line: &str) -> Vec<(char, bool)> {
    let addresses = addresses(line);
    line.char_indices().map(|(at, c)| (c, !addresses.iter().any(|address| address.contains(&at)))).collect()
}
