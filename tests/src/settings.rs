//! `NAME=VALUE` arguments of the programs, over the environment's.

use std::collections::HashMap;

/// What a program was told.
#[derive(Debug)]
pub struct Settings(HashMap<String, String>);

impl Settings {
    /// The program's arguments: settings, and the other words in their order.
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

    /// One of them; an empty one is none.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty())
    }

    /// A number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| format!("{name}={text} is no number"))
    }
}
