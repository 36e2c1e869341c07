//! The table of attacks: the type of a case, and the list of all cases.

use std::future::Future;
use std::pin::Pin;

use super::expectation_kinds::Expectation;
use super::harness::{Harness, TestGroup};
use super::{
    box_ends, filesystem, gvisor_expectations, kernel, letter_files, letter_floods, letters,
    messages_and_replies, network_and_gateway, resources,
};

/// The box that a case uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxUse {
    /// A box that many cases use one after the other.
    Shared,
    /// A box of its own, which the host closes after the turn.
    Own,
    /// A box of its own in a group with these settings.
    With(&'static str),
}

/// A scenario in code. The error says which promise was broken.
pub type Scenario =
    for<'a> fn(&'a Harness, &'a TestGroup) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// The action of a case.
#[derive(Clone, Copy)]
pub enum Action {
    /// The evil agent performs the attack of the case's name. These words are its arguments: `{canary}` is a file of
    /// the host that nobody else may read, `{port}` one of the host's servers.
    Attack(&'static str),
    /// Code performs the case.
    Scenario(Scenario),
}

pub struct Case {
    /// Its name: a letter for the target (a: letters and files, b: what a group's box keeps, c: the box and its
    /// gateway, d: chats, g: availability and persistence, n: what an operator sees), the attack's number, and words.
    /// Unit tests use these names too.
    pub name: &'static str,
    /// What the case does, in words.
    pub what: &'static str,
    pub box_use: BoxUse,
    pub action: Action,
    /// Its requirements, besides those of every case.
    pub expectations: Vec<Expectation>,
    /// Requirements that replace them under another runtime.
    pub variants: Vec<RuntimeVariant>,
}

/// A case's requirements under another runtime.
pub struct RuntimeVariant {
    /// The beginning of the runtime's name in a group's settings.
    pub runtime: &'static str,
    /// The posture line whose gap explains these requirements: they count only if `status` names that gap for the
    /// case's group.
    pub loss: Option<&'static str>,
    /// The requirements.
    pub expectations: Vec<Expectation>,
}

/// The requirements that apply to a case in this run.
pub struct Terms<'a> {
    /// The requirements besides those of every case.
    pub expectations: &'a [Expectation],
    /// The posture gap that lowers the requirements.
    pub loss: Option<&'static str>,
}

impl Case {
    /// A case with an attack in a box of its own.
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

    /// A case with an attack in a shared box.
    pub fn shared(name: &'static str, what: &'static str, expectations: Vec<Expectation>) -> Self {
        Self { box_use: BoxUse::Shared, ..Self::own(name, what, expectations) }
    }

    /// Gives the group these settings.
    pub fn with(self, settings: &'static str) -> Self {
        Self { box_use: BoxUse::With(settings), ..self }
    }

    /// Gives the attack these arguments.
    pub fn words(self, words: &'static str) -> Self {
        Self { action: Action::Attack(words), ..self }
    }

    /// Replaces the requirements under a runtime that answers differently and as safely.
    pub fn under(mut self, runtime: &'static str, expectations: Vec<Expectation>) -> Self {
        self.variants.push(RuntimeVariant { runtime, loss: None, expectations });
        self
    }

    /// Replaces the requirements under a runtime that may lack a posture line, if `status` names that gap.
    pub fn by_loss(
        mut self,
        runtime: &'static str,
        line: &'static str,
        expectations: Vec<Expectation>,
    ) -> Self {
        self.variants.push(RuntimeVariant { runtime, loss: Some(line), expectations });
        self
    }

    /// Returns whether the case has other requirements under this runtime.
    pub fn differs(&self, runtime: Option<&str>) -> bool {
        self.of(runtime).next().is_some()
    }

    /// Returns the requirements under this runtime (`None` for the engine's default) if `status` names these gaps.
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
    /// Returns the requirements in a few words.
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

pub fn cases() -> Vec<Case> {
    let mut all = letter_files::cases();
    all.extend(letters::cases());
    all.extend(letter_floods::cases());
    all.extend(filesystem::cases());
    all.extend(resources::cases());
    all.extend(network_and_gateway::cases());
    all.extend(box_ends::cases());
    all.extend(kernel::cases());
    all.extend(messages_and_replies::cases());
    all.into_iter().map(gvisor_expectations::answers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_that_a_test_can_bear() {
        let mut seen = std::collections::HashSet::new();
        for case in cases() {
            assert!(seen.insert(case.name), "{} is in the table twice", case.name);
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
