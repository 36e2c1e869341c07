//! A secret value that is never printed.

use std::fmt;

/// A key or token. Its `Debug` and `Display` hide it, and it has no `Serialize`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret; surrounding white space (a file's last newline) is not part of it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret, for a header or a URL of an outgoing request only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Where a setting says that a secret lies. A file goes before the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretSource<'a> {
    /// A file of mode 0600, below the root.
    pub file: Option<&'a str>,
    pub variable: &'static str,
}
