//! How much a turn takes in. A model reads a bounded conversation, so a burst of messages is read in several turns.

/// A turn's messages take at most this part of the model's context window. The rest is for instructions, the
/// conversation before and the work on them.
const SHARE: usize = 3;
/// What a message costs besides its words: who wrote it, when, and its id.
const FRAME: usize = 20;

/// The tokens of messages that a turn takes in, for a model with this context window. One message is always read.
pub fn tokens_of_window(window: u32) -> usize {
    usize::try_from(window).unwrap_or(usize::MAX) / SHARE
}

/// About how many tokens a message has: a letter of a-z is a quarter of one, and any other character one.
pub fn tokens_of_message<'a>(texts: impl IntoIterator<Item = &'a str>) -> usize {
    let quarters = |text: &str| -> usize { text.chars().map(|c| if c.is_ascii() { 1 } else { 4 }).sum() };
    texts.into_iter().map(quarters).sum::<usize>() / 4 + FRAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_in_a_few_turns_and_a_day_of_talk_in_one() {
        let turns = |messages: usize, chars: usize| {
            let text = "a".repeat(chars);
            let of_turn = tokens_of_window(200_000) / tokens_of_message([text.as_str()]);
            messages.div_ceil(of_turn)
        };
        assert_eq!((turns(3_000, 1_024), turns(12, 65_000), turns(500, 200)), (13, 3, 1));
    }

    #[test]
    fn what_is_no_ascii_counts_whole() {
        assert_eq!(tokens_of_message(["abcd", "你好"]), 1 + 2 + FRAME);
    }
}
