//! Counts what one turn has written and requested, and decides when that is too much. The run calls it for each
//! letter.
//!
//! The budget of the letter directory limits what it contains at one time. This limits the total of a turn. Without it
//! a box that writes as fast as the host reads could fill the store and the archive of letters for as long as its turn
//! lasts.

use crate::domain::Ending;
use crate::domain::limits::RunLimits;
use crate::text;

/// The host ends a box at this multiple of the request limit, because even a refusal costs a row and a file.
pub const ASKING_ON: u32 = 2;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    letters: u64,
    bytes: u64,
    requests: u32,
}

impl Tally {
    /// Counts a letter, or an invalid file, of `bytes` bytes.
    pub fn wrote(&mut self, bytes: u64) {
        self.letters = self.letters.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub fn asked(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// How the box must end, if the turn exceeded a limit.
    pub fn over(&self, limits: &RunLimits) -> Option<Ending> {
        let requests = limits.requests.saturating_mul(ASKING_ON);
        let (code, what) = match self {
            t if t.bytes > limits.turn_bytes() => {
                let (wrote, most) = (text::size(t.bytes), text::size(limits.turn_bytes()));
                ("ipc.flood", format!("wrote {wrote} of letters in one turn, and may write {most}"))
            }
            t if t.letters > limits.turn_letters => {
                let (wrote, most) = (t.letters, limits.turn_letters);
                ("ipc.flood", format!("wrote {wrote} letters in one turn, and may write {most}"))
            }
            t if t.requests > requests => {
                let (asked, most) = (t.requests, limits.requests);
                ("ipc.rate", format!("asked the host {asked} times in one turn, and may ask {most} times"))
            }
            _ => return None,
        };
        Some(Ending::OverLimit { code, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tally: &Tally) -> Option<(&'static str, String)> {
        tally.over(&RunLimits::default()).map(|ending| match ending {
            Ending::OverLimit { code, what } => (code, what),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a19_what_passes_through_is_bounded_like_what_lies_there() {
        let mut tally = Tally::default();
        (0..256).for_each(|_| tally.wrote(256 << 10));
        assert_eq!(told(&tally), None, "64 MiB are allowed");
        tally.wrote(1 << 20);
        let (code, what) = told(&tally).unwrap();
        assert_eq!(
            (code, what.as_str()),
            ("ipc.flood", "wrote 65 MiB of letters in one turn, and may write 64 MiB")
        );
    }

    #[test]
    fn letters_without_a_byte_are_counted_too() {
        let mut tally = Tally::default();
        (0..10_000).for_each(|_| tally.wrote(0));
        assert_eq!(told(&tally), None);
        tally.wrote(0);
        assert_eq!(told(&tally).unwrap().1, "wrote 10001 letters in one turn, and may write 10000");
    }

    #[test]
    fn who_asks_on_after_being_refused_is_not_answered_for_ever() {
        let mut tally = Tally::default();
        (0..400).for_each(|_| tally.asked());
        assert_eq!(told(&tally), None);
        tally.asked();
        assert_eq!(told(&tally).unwrap().0, "ipc.rate");
    }
}
