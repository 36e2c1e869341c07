//! What is wrong in the settings, one [`Mistake`] each. Each one has its place and says what to do.

use std::fmt;

use serde::Serialize;

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file, or the name of an environment variable.
    pub file: String,
    /// Line and column, counted from 1. A value that is in no file has none.
    pub at: Option<(usize, usize)>,
    pub what: String,
    /// What the person can do.
    pub hint: Option<String>,
    pub code: &'static str,
}

impl Mistake {
    /// In a file or variable as a whole.
    pub(super) fn of(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self { file: file.into(), ..Self::from(what.into()) }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn coded(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }
}

/// A mistake whose place `Source` adds.
impl From<String> for Mistake {
    fn from(what: String) -> Self {
        Self { file: String::new(), at: None, what, hint: None, code: "config.value" }
    }
}

impl From<&str> for Mistake {
    fn from(what: &str) -> Self {
        what.to_owned().into()
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

/// The mistakes of one or more settings files, at least one. `Display` writes one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Vec<Mistake>);

impl ConfigError {
    /// `Ok` if there is no mistake.
    pub(super) fn unless_empty(mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }

    pub fn mistakes(&self) -> &[Mistake] {
        &self.0
    }

    /// The error code of the first mistake.
    pub fn code(&self) -> &'static str {
        self.0.first().map_or("config.value", |first| first.code)
    }

    /// One line for a chat: the first mistake, and how many more there are.
    pub fn in_brief(&self) -> String {
        let first = self.0.first().map(Mistake::to_string).unwrap_or_default();
        match self.0.len() {
            0 | 1 => first,
            n => format!("{first} (and {} more; `lazaret config check` lists them)", n - 1),
        }
    }
}

impl From<Mistake> for ConfigError {
    fn from(one: Mistake) -> Self {
        Self(vec![one])
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.0.iter().enumerate() {
            write!(f, "{}{mistake}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
