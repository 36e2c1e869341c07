//! Separates `<think>…</think>` from the text of an answer. Many local models think in such tags.
//!
//! A tag counts at the beginning of an answer, and after another thought: in the middle of a text it may be what the
//! text is about.

const TAGS: [(&str, &str); 4] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
];

/// A part of an answer, separated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Separated {
    Text(String),
    Thought(String),
}

/// Reads the text piece by piece. It holds back what may be the beginning of a tag.
#[derive(Debug, Default)]
pub(super) struct ThoughtTags {
    place: Place,
    held: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing but blanks so far.
    #[default]
    Begin,
    /// The tag that ends the thought.
    Thought(&'static str),
    /// Nothing but blanks since a thought.
    AfterThought,
    Text,
}

impl ThoughtTags {
    pub fn push(&mut self, piece: &str) -> Vec<Separated> {
        if self.place == Place::Text {
            return vec![Separated::Text(piece.to_owned())];
        }
        self.held.push_str(piece);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// The held part, at the end of the answer.
    pub fn finish(&mut self) -> Vec<Separated> {
        let held = std::mem::take(&mut self.held);
        let rest = match self.place {
            Place::Thought(_) => Separated::Thought(held),
            Place::AfterThought => Separated::Text(held.trim_start().to_owned()),
            Place::Begin | Place::Text => Separated::Text(held),
        };
        Some(rest).filter(|rest| !rest.is_empty()).into_iter().collect()
    }

    /// Goes one place further. `false` when that needs more text.
    fn step(&mut self, out: &mut Vec<Separated>) -> bool {
        match self.place {
            Place::Text => {
                let text = std::mem::take(&mut self.held);
                out.extend(Some(Separated::Text(text)).filter(|text| !text.is_empty()));
                false
            }
            Place::Thought(end) => {
                let found = self.held.find(end);
                let thought_ends = found.unwrap_or_else(|| self.held.len() - begun(&self.held, end));
                let rest = self.held.split_off(thought_ends);
                let thought = std::mem::replace(&mut self.held, rest);
                out.extend(Some(Separated::Thought(thought)).filter(|thought| !thought.is_empty()));
                if found.is_some() {
                    self.held.drain(..end.len());
                    self.place = Place::AfterThought;
                }
                found.is_some()
            }
            Place::Begin | Place::AfterThought => {
                let words = self.held.trim_start();
                if let Some((tag, end)) = TAGS.iter().find(|(tag, _)| words.starts_with(tag)) {
                    self.held = words[tag.len()..].to_owned();
                    self.place = Place::Thought(end);
                    return true;
                }
                if TAGS.iter().any(|(tag, _)| tag.starts_with(words)) {
                    return false;
                }
                if self.place == Place::AfterThought {
                    self.held = words.to_owned();
                }
                self.place = Place::Text;
                true
            }
        }
    }
}

impl Separated {
    fn is_empty(&self) -> bool {
        let (Self::Text(text) | Self::Thought(text)) = self;
        text.is_empty()
    }
}

/// How many bytes at the end of `text` may be the beginning of `tag`.
fn begun(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|length| text.ends_with(&tag[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text and thoughts of an answer that comes in pieces of `step` characters.
    fn separated(answer: &str, step: usize) -> (String, String) {
        let mut tags = ThoughtTags::default();
        let characters: Vec<char> = answer.chars().collect();
        let mut parts = Vec::new();
        for piece in characters.chunks(step) {
            parts.extend(tags.push(&piece.iter().collect::<String>()));
        }
        parts.extend(tags.finish());
        let (mut text, mut thoughts) = (String::new(), String::new());
        for part in parts {
            match part {
                Separated::Text(more) => text.push_str(&more),
                Separated::Thought(more) => thoughts.push_str(&more),
            }
        }
        (text, thoughts)
    }

    #[test]
    fn thoughts_stay_out_of_the_text_wherever_the_tags_are_cut() {
        let table = [
            ("<think>\nhm\n</think>\n\nHello!", "Hello!", "\nhm\n"),
            ("\n<think>a</think> <think>b</think>c", "c", "ab"),
            ("<thinking>a < b </think </thinking>c", "c", "a < b </think "),
            ("<think>never ends", "", "never ends"),
            ("<think></think>so", "so", ""),
            ("  plain", "  plain", ""),
            ("", "", ""),
            (" ", " ", ""),
            ("<thin", "<thin", ""),
            ("<b>bold</b>", "<b>bold</b>", ""),
            ("Write `<think>x</think>` so.", "Write `<think>x</think>` so.", ""),
            ("<think>ü</think>ä <think>x</think>", "ä <think>x</think>", "ü"),
        ];
        for (answer, text, thoughts) in table {
            for step in [1, 2, 3, 5, 100] {
                let expected = (text.to_owned(), thoughts.to_owned());
                assert_eq!(separated(answer, step), expected, "{answer:?} by {step}");
            }
        }
    }
}
