//! The settings that a running host was started with, in a file beside its socket. Commands compare them with the files
//! and the environment of now, and say what waits for a restart.

use std::fmt;

use super::{Install, Shown};
use crate::host_files;

/// A setting with another value than the running host has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// `limits.turn`
    pub name: String,
    /// `None`: the host does not have it.
    pub running: Option<Shown>,
    pub now: Option<Shown>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |one: &Option<Shown>| match one {
            Some(one) => format!("{} ({})", one.value, one.source),
            None => "nothing".to_owned(),
        };
        write!(
            f,
            "{} is {} in the running host and {} here",
            self.name,
            shown(&self.running),
            shown(&self.now)
        )
    }
}

/// Writes down what this host was started with.
///
/// # Errors
/// The filesystem's error.
pub fn write(install: &Install) -> std::io::Result<()> {
    let text = serde_json::to_vec(install.shown())?;
    host_files::put(&install.root.running_settings(), &text, 0o600, None)
}

/// The settings that the host of this install was started with and that are different now.
pub fn differences(install: &Install) -> Vec<Difference> {
    let text = host_files::read_text(&install.root.running_settings()).unwrap_or_default();
    let Ok(running) = serde_json::from_str::<Vec<Shown>>(&text) else { return Vec::new() };
    compare(&running, install.shown())
}

fn compare(running: &[Shown], now: &[Shown]) -> Vec<Difference> {
    let find = |all: &[Shown], name: &str| all.iter().find(|one| one.name == name).cloned();
    let gone = running.iter().filter(|one| find(now, &one.name).is_none());
    let both = now.iter().chain(gone).map(|one| Difference {
        name: one.name.clone(),
        running: find(running, &one.name),
        now: find(now, &one.name),
    });
    let value = |one: &Option<Shown>| one.as_ref().map(|one| one.value.clone());
    both.filter(|one| value(&one.running) != value(&one.now)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_restart_is_told_with_both_values() {
        let one = |name: &str, value: &str, source: &str| Shown {
            name: name.into(),
            value: value.into(),
            source: source.into(),
        };
        let running =
            [one("zone", "\"UTC\"", "default"), one("limits.turn", "\"5m\"", "LAZARET_LIMITS_TURN")];
        let now = [
            one("zone", "\"UTC\"", "lazaret.toml"),
            one("limits.turn", "\"15m\"", "default"),
            one("model.name", "\"m\"", "lazaret.toml"),
        ];
        let told: Vec<String> = compare(&running, &now).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "limits.turn is \"5m\" (LAZARET_LIMITS_TURN) in the running host and \"15m\" (default) here",
                "model.name is nothing in the running host and \"m\" (lazaret.toml) here",
            ]
        );
        assert_eq!(compare(&running, &running), []);
    }
}
