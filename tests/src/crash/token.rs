//! Tokens: every message holds one, and every answer names those of the messages that it answers.

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

/// Every token of a text, in order.
pub fn tokens(text: &str) -> Vec<Token> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words
        .filter_map(|word| {
            let (label, n) = word.strip_prefix("K-")?.split_once('-')?;
            Some(Token { label: label.to_owned(), n: n.parse().ok()? })
        })
        .collect()
}

/// What an answer begins with; an interim message does not.
pub const ANSWER: &str = "answer:";
/// What the second part of a long answer begins with.
pub const REST: &str = "rest of the answer:";
/// What an interim message begins with.
pub const INTERIM: &str = "working on:";

/// `answer: K-a-1 K-a-2`
pub fn naming(word: &str, tokens: &[Token]) -> String {
    let named: Vec<String> = tokens.iter().map(ToString::to_string).collect();
    format!("{word} {}", named.join(" "))
}
