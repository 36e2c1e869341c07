//! The environment over the file, every setting with its source, and the schemas.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::schema::{GroupFile, InstallFile};
use super::{ConfigError, dotted_keys, nearest, parse};
use crate::domain::group::ModelChoice;

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

/// The JSON Schema of `lazaret.toml`.
pub fn schema_of_install() -> schemars::Schema {
    schemars::schema_for!(InstallFile)
}

/// The JSON Schema of `group.toml`.
pub fn schema_of_group() -> schemars::Schema {
    schemars::schema_for!(GroupFile)
}

/// Reads a file, puts `LAZARET_…` variables over it and tells where each value comes from. `filled` puts defaults where
/// a table of the file names only some of its settings.
pub(super) fn with_overrides<T>(
    path: &Path,
    text: &str,
    env: &BTreeMap<String, String>,
    filled: impl Fn(T) -> T,
) -> Result<(T, Vec<Shown>), ConfigError>
where
    T: DeserializeOwned + Serialize + JsonSchema,
{
    // Once as the type, so that an error has its place in the file.
    let as_written: T = parse(path, text)?;
    let mut table: Table = parse(path, text)?;
    let from_file = dotted_keys::leaves(&table);
    let known = dotted_keys::of_schema(schemars::schema_for!(T).as_value());
    let mut overrides = BTreeMap::new();
    for (variable, value) in env.iter().filter(|(v, _)| is_override(v)) {
        let setting = known.iter().find(|path| dotted_keys::variable(path) == **variable);
        let Some(setting) = setting else {
            let names: Vec<String> = known.iter().map(|p| dotted_keys::variable(p)).collect();
            let error =
                ConfigError::new(variable.as_str(), "overrides no setting").coded("config.unknown_key");
            return Err(match nearest(variable, names.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint("`lazaret config show` lists every setting"),
            });
        };
        dotted_keys::set(&mut table, setting, typed(value));
        let now: Result<T, _> = table.clone().try_into();
        now.map_err(|e| ConfigError::new(variable.as_str(), e.message().to_owned()))?;
        overrides.insert(setting.join("."), variable.clone());
    }
    let settings: T = if overrides.is_empty() {
        as_written
    } else {
        table
            .try_into()
            .map_err(|e: toml::de::Error| ConfigError::new("environment", e.message().to_owned()))?
    };
    let settings = filled(settings);
    let effective = Table::try_from(&settings)
        .map_err(|e| ConfigError::new(path.display().to_string(), format!("cannot be shown: {e}")))?;
    let shown = dotted_keys::leaves(&effective)
        .into_iter()
        .map(|(name, value)| {
            let source = match overrides.get(&name) {
                Some(variable) => variable.clone(),
                None if from_file.contains_key(&name) => path.display().to_string(),
                None => "default".to_owned(),
            };
            Shown { name, value: value.to_string(), source }
        })
        .collect();
    Ok((settings, shown))
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
