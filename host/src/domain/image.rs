//! Image names, and the pin of the image that a group's runs use.

use super::WallMs;

/// The image of groups that name none. It is built by us, and the only one that a rebuild changes by itself.
pub const DEFAULT_IMAGE: &str = "lazaret-agent";

/// A name and the image it meant when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As the settings name it.
    pub name: String,
    /// The engine's id: `sha256:…`
    pub id: String,
}

impl Named {
    /// `python:3.12 (0123456789ab)`, or the name alone where nobody knows the id.
    pub fn shown(&self) -> String {
        if self.id.is_empty() {
            return self.name.clone();
        }
        format!("{} ({})", self.name, short(&self.id))
    }
}

/// An id as people read it: twelve digits.
pub fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

/// What a group's runs use, whatever its name means by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub now: Named,
    pub at: WallMs,
    /// What they used before it.
    pub before: Option<Named>,
    /// An image that was rolled back from: a rebuild does not bring it back by itself.
    pub passed_over: Option<String>,
    /// What was to take its place and was not taken.
    pub refused: Option<NotTaken>,
}

/// An image that was named and not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    /// Its name in the settings.
    pub name: String,
    /// Its id; absent where the engine has none under that name.
    pub id: Option<String>,
    /// Why, for a person.
    pub why: String,
    /// When that was found.
    pub at: WallMs,
}
