//! What a case is, and all of them.

use std::future::Future;
use std::pin::Pin;

use super::harbour::{Harbour, Quay};
use super::judge::Need;
use super::{boxes, chats, files, floods, kernel, letters};

/// Where a case is acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In a box that many cases use one after the other.
    Shared,
    /// In a group of its own, whose box is closed after the turn.
    Own,
    /// In a group of its own, with these settings; its box listens after the turn.
    With(&'static str),
}

/// A story that is not one attack: what it says, or why the promise was broken.
pub type Story =
    for<'a> fn(&'a Harbour, &'a Quay) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// What is done.
#[derive(Clone, Copy)]
pub enum Deed {
    /// The evil agent is told to; these words stand behind the case's name. `{canary}` is a file of the host's that
    /// nobody else may read, `{port}` one of its own servers.
    Attack(&'static str),
    /// Something else.
    Story(Story),
}

/// One case.
pub struct Case {
    /// Its name: a letter for what is attacked (a: letters and files, b: what a group's box writes for good, c: the box and
    /// its gateway, d: chats, n: what an operator sees), a number for the attack, and what it is. Unit tests bear them too.
    pub name: &'static str,
    /// What is done, in words.
    pub what: &'static str,
    /// Where.
    pub home: Home,
    /// How.
    pub deed: Deed,
    /// What is required, beside what is always required.
    pub needs: Vec<Need>,
}

impl Case {
    /// An attack in a box of its own.
    pub fn own(name: &'static str, what: &'static str, needs: Vec<Need>) -> Self {
        Self { name, what, home: Home::Own, deed: Deed::Attack(""), needs }
    }

    /// One in the shared box.
    pub fn shared(name: &'static str, what: &'static str, needs: Vec<Need>) -> Self {
        Self { home: Home::Shared, ..Self::own(name, what, needs) }
    }

    /// The same in a group with these settings.
    pub fn with(self, settings: &'static str) -> Self {
        Self { home: Home::With(settings), ..self }
    }

    /// The same with these words behind its name.
    pub fn words(self, words: &'static str) -> Self {
        Self { deed: Deed::Attack(words), ..self }
    }

    /// What is required, in a word.
    pub fn required(&self) -> String {
        let words: Vec<String> = self.needs.iter().map(Need::word).filter(|word| !word.is_empty()).collect();
        if words.is_empty() { "goes on".to_owned() } else { words.join(", ") }
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut all = files::cases();
    all.extend(letters::cases());
    all.extend(floods::cases());
    all.extend(boxes::cases());
    all.extend(kernel::cases());
    all.extend(chats::cases());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_that_a_test_can_bear() {
        let mut seen = std::collections::HashSet::new();
        for case in cases() {
            assert!(seen.insert(case.name), "{} stands twice", case.name);
            assert!(case.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert!(!case.what.is_empty());
        }
        assert!(seen.len() >= 80, "only {} cases", seen.len());
    }
}
