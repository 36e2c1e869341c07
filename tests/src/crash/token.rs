//! Tokens: every message contains one, and every answer names the tokens of the messages that it answers.

use std::fmt;

/// `K-<label>-<n>`: the n-th message of the chat with this label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The chat's label: letters and digits.
    pub label: String,
    /// Counted from 1.
    pub n: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "K-{}-{}", self.label, self.n)
    }
}

/// Returns every token of a text, in order.
pub fn tokens(text: &str) -> Vec<Token> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words
        .filter_map(|word| {
            let (label, n) = word.strip_prefix("K-")?.split_once('-')?;
            Some(Token { label: label.to_owned(), n: n.parse().ok()? })
        })
        .collect()
}

/// The beginning of an answer.
pub const ANSWER: &str = "answer:";
/// The beginning of the second part of a long answer.
pub const REST: &str = "rest of the answer:";
/// The beginning of an interim message.
pub const INTERIM: &str = "working on:";

/// Returns a line such as `answer: K-a-1 K-a-2`.
pub fn naming(word: &str, tokens: &[Token]) -> String {
    let named: Vec<String> = tokens.iter().map(ToString::to_string).collect();
    format!("{word} {}", named.join(" "))
}
