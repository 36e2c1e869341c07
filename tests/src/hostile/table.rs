//! What a case is, and all of them.

use std::future::Future;
use std::pin::Pin;

use super::expectations::Expectation;
use super::harness::{Harness, TestGroup};
use super::{boxes, chats, files, floods, gvisor, kernel, letters};

/// Where a case is acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxUse {
    /// In a box that many cases use one after the other.
    Shared,
    /// In a group of its own, whose box is closed after the turn.
    Own,
    /// In a group of its own, with these settings; its box listens after the turn.
    With(&'static str),
}

/// A scenario that is not one attack: what it says, or why the promise was broken.
pub type Scenario =
    for<'a> fn(&'a Harness, &'a TestGroup) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// What is done.
#[derive(Clone, Copy)]
pub enum Action {
    /// The evil agent is told to; these words stand behind the case's name. `{canary}` is a file of the host's that
    /// nobody else may read, `{port}` one of its own servers.
    Attack(&'static str),
    /// Something else.
    Scenario(Scenario),
}

/// One case.
pub struct Case {
    /// Its name: a letter for what is attacked (a: letters and files, b: what a group's box writes for good, c: the
    /// box and its gateway, d: chats, n: what an operator sees), a number for the attack, and what it is. Unit tests
    /// bear them too.
    pub name: &'static str,
    /// What is done, in words.
    pub what: &'static str,
    /// Where.
    pub box_use: BoxUse,
    /// How.
    pub action: Action,
    /// What is required, beside what is always required.
    pub expectations: Vec<Expectation>,
    /// What is required in its place where another runtime has another answer.
    pub variants: Vec<RuntimeVariant>,
}

/// What a case requires under another runtime than the engine's own.
pub struct RuntimeVariant {
    /// What the runtime's name begins with, as a group's settings have it.
    pub runtime: &'static str,
    /// The line of the posture without which this is all that can be required: it counts only where `status` names the
    /// loss of that line for the case's group.
    pub loss: Option<&'static str>,
    /// What is required.
    pub expectations: Vec<Expectation>,
}

/// What is required of a case as it was acted.
pub struct Terms<'a> {
    /// Beside what is always required.
    pub expectations: &'a [Expectation],
    /// The line of the posture whose loss is the reason that no more is.
    pub loss: Option<&'static str>,
}

impl Case {
    /// An attack in a box of its own.
    pub fn own(name: &'static str, what: &'static str, expectations: Vec<Expectation>) -> Self {
        Self {
            name,
            what,
            box_use: BoxUse::Own,
            action: Action::Attack(""),
            expectations,
            variants: Vec::new(),
        }
    }

    /// One in the shared box.
    pub fn shared(name: &'static str, what: &'static str, expectations: Vec<Expectation>) -> Self {
        Self { box_use: BoxUse::Shared, ..Self::own(name, what, expectations) }
    }

    /// The same in a group with these settings.
    pub fn with(self, settings: &'static str) -> Self {
        Self { box_use: BoxUse::With(settings), ..self }
    }

    /// The same with these words behind its name.
    pub fn words(self, words: &'static str) -> Self {
        Self { action: Action::Attack(words), ..self }
    }

    /// The same where this runtime's answer is another, and as safe: these are required there.
    pub fn under(mut self, runtime: &'static str, expectations: Vec<Expectation>) -> Self {
        self.variants.push(RuntimeVariant { runtime, loss: None, expectations });
        self
    }

    /// The same where this runtime may lack a line of the posture: where `status` names that loss, these are required.
    pub fn by_loss(
        mut self,
        runtime: &'static str,
        line: &'static str,
        expectations: Vec<Expectation>,
    ) -> Self {
        self.variants.push(RuntimeVariant { runtime, loss: Some(line), expectations });
        self
    }

    /// Whether anything but the case's own requirement can count under this runtime.
    pub fn differs(&self, runtime: Option<&str>) -> bool {
        self.of(runtime).next().is_some()
    }

    /// What is required under this runtime (none: the engine's own), where `status` names these lines as lost.
    pub fn terms(&self, runtime: Option<&str>, lost: &[String]) -> Terms<'_> {
        let named = |e: &&RuntimeVariant| e.loss.is_some_and(|line| lost.iter().any(|l| l == line));
        let found = self.of(runtime).find(named).or_else(|| self.of(runtime).find(|e| e.loss.is_none()));
        found.map_or(Terms { expectations: &self.expectations, loss: None }, |e| Terms {
            expectations: &e.expectations,
            loss: e.loss,
        })
    }

    fn of<'a, 'n>(
        &'a self,
        runtime: Option<&'n str>,
    ) -> impl Iterator<Item = &'a RuntimeVariant> + use<'a, 'n> {
        self.variants.iter().filter(move |e| runtime.is_some_and(|name| name.starts_with(e.runtime)))
    }
}

impl Terms<'_> {
    /// They in a word.
    pub fn word(&self) -> String {
        let mut words: Vec<String> =
            self.expectations.iter().map(Expectation::word).filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            words.push("goes on".to_owned());
        }
        words.extend(self.loss.map(|line| format!("the loss of {line} is named")));
        words.join(", ")
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
    all.into_iter().map(gvisor::answers).collect()
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

    #[test]
    fn another_runtime_has_terms_of_its_own_and_the_engines_own_keeps_the_cases() {
        let case = Case::own("c0_case", "what it does", vec![Expectation::Gone, Expectation::Code("c.zero")])
            .by_loss("runsc", "memory-limit", vec![])
            .under("runsc", vec![Expectation::Quiet]);
        let lost = ["memory-limit".to_owned()];
        for runtime in [None, Some("runc"), Some("kata")] {
            let terms = case.terms(runtime, &lost);
            assert_eq!((terms.expectations.len(), terms.loss, terms.word().as_str()), (2, None, "c.zero"));
            assert!(!case.differs(runtime));
        }
        let terms = case.terms(Some("runsc"), &["pids-limit".to_owned()]);
        assert!(matches!(terms.expectations, [Expectation::Quiet]) && terms.loss.is_none());
        let terms = case.terms(Some("runsc-uncounted"), &lost);
        assert_eq!((terms.expectations.len(), terms.loss), (0, Some("memory-limit")));
        assert_eq!(terms.word(), "goes on, the loss of memory-limit is named");
    }
}
