//! Keeps the head and the tail of a command's output, in constant memory.

use std::collections::VecDeque;

/// Keeps the first and the last bytes of a stream, each up to half of the limit.
#[derive(Debug)]
pub struct HeadAndTail {
    room: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut: u64,
}

impl HeadAndTail {
    /// `bytes` is the limit for head and tail together.
    pub fn new(bytes: u32) -> Self {
        let room = (bytes / 2) as usize;
        Self { room, head: Vec::new(), tail: VecDeque::new(), cut: 0 }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(self.room - self.head.len()));
        self.head.extend_from_slice(head);
        // Of one large piece only its end can stay.
        let (lost, kept) = rest.split_at(rest.len().saturating_sub(self.room));
        let overflow = (self.tail.len() + kept.len()).saturating_sub(self.room);
        self.tail.drain(..overflow);
        self.tail.extend(kept);
        self.cut += (lost.len() + overflow) as u64;
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }

    /// The last line that is not blank. `None` when there is none, or when its beginning is lost.
    pub fn last_line(&self) -> Option<String> {
        let kept: Vec<u8> = match self.cut {
            // Joined first: the line may lie across the boundary.
            0 => self.head.iter().chain(&self.tail).copied().collect(),
            _ => self.tail.iter().copied().collect(),
        };
        let text = clean(&kept);
        let (before, line) = match text.trim_end().rsplit_once('\n') {
            Some((before, line)) => (Some(before), line),
            None => (None, text.trim_end()),
        };
        let whole = self.cut == 0 || before.is_some();
        (whole && !line.trim().is_empty()).then(|| line.trim().to_owned())
    }

    /// The text, with a note in place of the removed middle. Invalid UTF-8 and NUL are replaced.
    pub fn text(mut self) -> String {
        if self.cut == 0 {
            // Joined first: a character may lie across the boundary.
            self.head.extend(self.tail);
            return clean(&self.head);
        }
        let tail: Vec<u8> = self.tail.into();
        format!("{}\n[… {} bytes cut out here …]\n{}", clean(&self.head), self.cut, clean(&tail))
    }
}

fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flood_keeps_head_and_tail_in_constant_memory() {
        let mut output = HeadAndTail::new(100);
        output.push(b"begin ");
        for _ in 0..10_000 {
            output.push(&[b'x'; 1000]);
        }
        output.push(b" end");
        assert!(output.tail.capacity() < 1000);
        let text = output.text();
        assert!(text.starts_with("begin xxx") && text.ends_with("xxx end"));
        assert!(text.contains("[… 9999910 bytes cut out here …]"), "{text}");
    }

    #[test]
    fn a_character_on_the_seam_survives() {
        let mut output = HeadAndTail::new(4);
        output.push("aä".as_bytes());
        assert_eq!(output.text(), "aä");
        let mut output = HeadAndTail::new(10);
        output.push(b"\0\xff");
        assert_eq!(output.text(), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_last_line_counts_if_it_is_whole() {
        let last = |limit, text: &str| {
            let mut output = HeadAndTail::new(limit);
            output.push(text.as_bytes());
            output.last_line()
        };
        assert_eq!(last(100, "one\ntwo \n\n \n").as_deref(), Some("two"));
        assert_eq!(last(8, "one\ntwo").as_deref(), Some("two"), "it lies across the boundary");
        assert_eq!(last(20, &format!("{}\nlast\n", "x".repeat(1_000_000))).as_deref(), Some("last"));
        assert_eq!(last(20, &"x".repeat(1_000_000)), None);
        assert_eq!(last(20, &format!("{}\n", "\n".repeat(1_000_000))), None);
        assert_eq!(last(20, ""), None);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(pieces in proptest::collection::vec("[a-z]{0,20}", 0..12), room in 0u32..60) {
            let whole = pieces.concat();
            let mut output = HeadAndTail::new(room);
            for piece in &pieces { output.push(piece.as_bytes()); }
            let half = (room / 2) as usize;
            let text = output.text();
            if whole.len() <= 2 * half {
                prop_assert_eq!(text, whole);
            } else {
                let cut = whole.len() - 2 * half;
                let expected = format!("{}\n[… {cut} bytes cut out here …]\n{}", &whole[..half], &whole[whole.len() - half..]);
                prop_assert_eq!(text, expected);
            }
        }
    }
}
