//! What a request repeats of earlier answers, in the form that every provider takes. `anthropic` and `openai` write
//! requests with it.
//!
//! A transcript holds what models and servers said: ids of another provider, empty names, arguments that are no object.
//! Sent back as they are, one of them makes a provider refuse every later request of the session. Each rule is one
//! function here, for every wire. The same transcript gives the same bytes, so a provider's prompt cache holds.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::strict_json::{LEVELS_MAX, Passed};

/// The ids of a request's tool calls, in the order in which it is written.
#[derive(Default)]
pub(super) struct CallIds {
    used: HashSet<String>,
    /// The calls of the newest answer that have no result yet: the transcript's id, and the id in the request.
    open: Vec<(String, String)>,
    made: usize,
}

impl CallIds {
    /// Begins an answer: results that follow are results of its calls.
    pub fn begin_answer(&mut self) {
        self.open.clear();
    }

    /// The id of a call for the Messages wire: its own if the wire takes it and no earlier call has it.
    pub fn kept(&mut self, id: &str) -> String {
        let fits = (1..=64).contains(&id.len()) && id.bytes().all(is_plain) && !self.used.contains(id);
        let new = if fits { id.to_owned() } else { self.fresh() };
        self.given(id, new)
    }

    /// The id of a call for chat completions: nine letters and digits, as Mistral wants it. Every other server of that
    /// wire takes them too.
    pub fn replaced(&mut self, id: &str) -> String {
        let new = self.fresh();
        self.given(id, new)
    }

    /// The id that a result names. Two calls of one answer may have had one id: then the results come in the order of
    /// the calls.
    pub fn of_result(&mut self, id: &str) -> String {
        match self.open.iter().position(|(old, _)| old == id) {
            Some(at) => self.open.remove(at).1,
            None => self.fresh(),
        }
    }

    fn given(&mut self, old: &str, new: String) -> String {
        self.used.insert(new.clone());
        self.open.push((old.to_owned(), new.clone()));
        new
    }

    fn fresh(&mut self) -> String {
        loop {
            self.made += 1;
            let id = format!("call{:05}", self.made);
            if !self.used.contains(&id) {
                return id;
            }
        }
    }
}

/// A tool's name as every wire takes it: 1 to 64 characters of `A-Za-z0-9_-`.
pub(super) fn tool_name(name: &str) -> Cow<'_, str> {
    if (1..=64).contains(&name.len()) && name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let plain = |c: char| if c.is_ascii() && is_plain(c as u8) { c } else { '_' };
    let name: String = name.chars().take(64).map(plain).collect();
    Cow::Owned(if name.is_empty() { "unnamed".to_owned() } else { name })
}

/// A call's arguments: an object as it stands, and `{}` for everything else.
#[derive(Debug, Clone, Copy)]
pub struct Arguments<'a>(Option<&'a RawValue>);

impl<'a> Arguments<'a> {
    pub fn of(input: Option<&'a RawValue>) -> Self {
        let passed = Passed { levels: LEVELS_MAX, schema: false };
        Self(input.filter(|raw| raw.get().starts_with('{') && passed.check(raw).is_ok()))
    }

    pub fn json(self) -> &'a str {
        self.0.map_or("{}", RawValue::get)
    }
}

impl Serialize for Arguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(raw) => raw.serialize(serializer),
            None => serializer.collect_map(std::iter::empty::<((), ())>()),
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_if_the_wire_takes_it_and_results_follow_their_calls() {
        let mut ids = CallIds::default();
        ids.begin_answer();
        let calls = ["toolu_1", "functions.run:0", "", "toolu_1", "call00001"].map(|id| ids.kept(id));
        assert_eq!(calls, ["toolu_1", "call00001", "call00002", "call00003", "call00004"]);
        let results = ["toolu_1", "", "toolu_1", "call00001", "functions.run:0"].map(|id| ids.of_result(id));
        assert_eq!(results, ["toolu_1", "call00002", "call00003", "call00004", "call00001"]);
        ids.begin_answer();
        assert_eq!(ids.kept("toolu_1"), "call00005", "another call of the same session has it");
    }

    #[test]
    fn ids_of_chat_completions_have_nine_letters_and_digits() {
        let mut ids = CallIds::default();
        ids.begin_answer();
        let made: Vec<_> = (0..12).map(|n| ids.replaced(&format!("call_{n}"))).collect();
        assert!(made.iter().all(|id| id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric())));
        assert_eq!(ids.of_result("call_11"), made[11]);
    }

    #[test]
    fn a_name_has_the_characters_that_every_wire_takes() {
        for (name, expected) in
            [("run_command", "run_command"), ("", "unnamed"), ("a.b c", "a_b_c"), ("größe", "gr__e")]
        {
            assert_eq!(tool_name(name), expected);
        }
        assert_eq!(tool_name(&"x".repeat(99)).len(), 64);
    }

    #[test]
    fn arguments_are_an_object() {
        let read = |json: &str| {
            let raw = RawValue::from_string(json.to_owned()).unwrap();
            let arguments = Arguments::of(Some(&raw));
            assert_eq!(serde_json::to_string(&arguments).unwrap(), arguments.json());
            arguments.json().to_owned()
        };
        assert_eq!(read(r#"{"a":1.50}"#), r#"{"a":1.50}"#);
        let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        for other in ["null", "\"\"", "[1]", "7", &deep] {
            assert_eq!(read(other), "{}");
        }
        assert_eq!(Arguments::of(None).json(), "{}");
    }
}
