//! The environment over the file, and every setting with its source.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use toml::{Table, Value};

use super::schema::InstallFile;
use super::setting_list::{self, Setting};
use super::{ConfigError, line_and_column, nearest, parse};
use crate::domain::group_settings::ModelChoice;

/// Variables that begin like an override and are something else.
const NOT_SETTINGS: [&str; 3] = ["LAZARET_ROOT", "LAZARET_LOG", "LAZARET_RUNNER"];
/// Those of the crash program, in a build for it.
#[cfg(feature = "failpoints")]
const OF_TESTS: [&str; 2] = [::failpoint::RULES, ::failpoint::TRACE];
#[cfg(not(feature = "failpoints"))]
const OF_TESTS: [&str; 0] = [];

/// One setting as `lazaret config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// `limits.turn`
    pub name: String,
    /// Its value, as it would stand in the file.
    pub value: String,
    /// `default`, the file's path, or the variable's name.
    pub source: String,
}

/// Reads `lazaret.toml`, puts `LAZARET_…` variables over it and tells where each value comes from.
///
/// # Errors
/// The first setting that cannot be used, with its place in the file, or its variable.
pub(super) fn with_overrides(
    path: &Path,
    text: &str,
    env: &BTreeMap<String, String>,
) -> Result<(InstallFile, Vec<Shown>), ConfigError> {
    // First as the type, so that an error has its place in the file.
    let mut settings: InstallFile = parse(path, text)?;
    let in_file: Table = parse(path, text)?;
    let mut table = in_file.clone();
    let known = setting_list::settings::<InstallFile>();
    let mut overrides = BTreeMap::new();
    for (variable, value) in env.iter().filter(|(v, _)| is_override(v)) {
        let setting = known.iter().find(|setting| setting.variable() == **variable);
        let setting = setting.ok_or_else(|| unknown_variable(variable, &known))?;
        setting.set(&mut table, typed(value));
        settings = table
            .clone()
            .try_into()
            .map_err(|e: toml::de::Error| ConfigError::new(variable.as_str(), e.message().to_owned()))?;
        overrides.insert(setting.name(), variable.clone());
    }
    for setting in &known {
        let Some(value) = setting.in_table(&table) else { continue };
        setting.check(value).map_err(|why| {
            let keys: Vec<&str> = setting.path.iter().map(String::as_str).collect();
            let place = overrides.get(&setting.name()).cloned();
            ConfigError::new(place.unwrap_or_else(|| line_and_column::of(path, text, &keys)), why)
        })?;
    }
    let effective = Table::try_from(&settings)
        .map_err(|e| ConfigError::new(path.display().to_string(), format!("cannot be shown: {e}")))?;
    let show = |setting: &Setting| {
        let name = setting.name();
        let source = match overrides.get(&name) {
            Some(variable) => variable.clone(),
            None if setting.in_table(&in_file).is_some() => path.display().to_string(),
            None => "default".to_owned(),
        };
        Some(Shown { value: setting.in_table(&effective)?.to_string(), name, source })
    };
    let mut shown: Vec<Shown> = known.iter().filter_map(show).collect();
    let providers = effective.get("providers").and_then(Value::as_table);
    for (provider, value) in providers.into_iter().flatten() {
        for (key, value) in value.as_table().into_iter().flatten() {
            let (name, source) = (format!("providers.{provider}.{key}"), path.display().to_string());
            shown.push(Shown { name, value: value.to_string(), source });
        }
    }
    Ok((settings, shown))
}

fn unknown_variable(variable: &str, known: &[Setting]) -> ConfigError {
    let names: Vec<String> = known.iter().map(Setting::variable).collect();
    let error = ConfigError::new(variable, "overrides no setting").coded("config.unknown_key");
    match nearest(variable, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint("`lazaret config show` lists every setting"),
    }
}

/// Adds what was chosen because nobody set it: the provider by what the environment offers, the model by its kind.
pub(super) fn with_choice(mut shown: Vec<Shown>, model: &ModelChoice) -> Vec<Shown> {
    for (name, value) in [("model.name", &model.model), ("model.provider", &model.provider)] {
        if !shown.iter().any(|s| s.name == name) {
            let source = "chosen by the providers there are".to_owned();
            shown.push(Shown { name: name.to_owned(), value: format!("{value:?}"), source });
        }
    }
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    shown
}

fn is_override(variable: &str) -> bool {
    variable.starts_with("LAZARET_") && !NOT_SETTINGS.contains(&variable) && !OF_TESTS.contains(&variable)
}

/// A variable's text as a value of TOML: a number, a boolean, a list; otherwise the text itself.
fn typed(text: &str) -> Value {
    let line = format!("x = {text}");
    toml::from_str::<Table>(&line)
        .ok()
        .and_then(|mut table| table.remove("x"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}
