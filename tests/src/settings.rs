//! The `NAME=VALUE` arguments of the test programs. They override environment variables.

use std::collections::HashMap;
use std::str::FromStr;

#[derive(Debug)]
pub struct Settings(HashMap<String, String>);

impl Settings {
    /// Returns the settings among the program's arguments, and the other arguments in their order.
    pub fn of_arguments() -> (Self, Vec<String>) {
        let (mut settings, mut words) = (HashMap::new(), Vec::new());
        for argument in std::env::args().skip(1) {
            match argument.split_once('=') {
                Some((name, value)) => drop(settings.insert(name.to_owned(), value.to_owned())),
                None => words.push(argument),
            }
        }
        (Self(settings), words)
    }

    /// Returns the value of a setting. An empty value counts as unset.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty())
    }

    /// Returns the value of a setting as a number.
    pub fn number<N: FromStr>(&self, name: &str, default: N) -> Result<N, String> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| format!("{name}={text} is no number"))
    }
}
